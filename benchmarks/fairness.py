"""One tenant floods: what a quiet one notices of it.

Both come through a trusted proxy that names them. The engine only waits (BATCH_MS for up to 8).

    python -m benchmarks.fairness [--seconds S] [--flood CALLERS]
"""

from argparse import ArgumentParser

from benchmarks.results import bars, publish
from benchmarks.servers import analyze, free_port, ours, process
from benchmarks.traffic import Load, Outcome, drive_all

SIZE = 16_000  # bytes, half a second
FLAGS = ("--max-batch-size=8", "--trust-proxy", "--log-level=error")
BATCH_MS = "50"
RATE = 8.0  # calls a second of the quiet tenant


def run(flood: int, seconds: float, *, same: bool = False) -> list[Outcome]:
    """The quiet tenant's outcome first; `same` has both under one name."""
    port = free_port()
    with process("fairness", ours(port, *FLAGS), port, environment={"BATCH_MS": BATCH_MS}) as pid:
        name = "loud" if same else "quiet"
        quiet = analyze(port, SIZE, headers=(("x-client-id", name),))
        loads = [(quiet, Load(seconds, rate=RATE, warm_up=2))]
        if flood:
            loud = analyze(port, SIZE, headers=(("x-client-id", "loud"),))
            loads.append((loud, Load(seconds, callers=flood, warm_up=2)))
        return drive_all(loads, server=pid)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--flood", type=int, default=200, help="callers without a pause")
    chosen = parser.parse_args()
    alone = run(0, chosen.seconds)[0]
    rows, values = [], []
    runs = {
        "alone": [alone],
        f"beside {chosen.flood} callers": run(chosen.flood, chosen.seconds),
        "the same under one name": run(chosen.flood, chosen.seconds, same=True),
    }
    for label, outcomes in runs.items():
        quiet = outcomes[0]
        p95 = quiet.quantile(95)
        values.append(p95)
        flood = f"{outcomes[1].rate:.0f}" if len(outcomes) > 1 else "-"
        ratio = f"{p95 / alone.quantile(95):.2f}"
        missing = sum(quiet.outcomes.values()) - quiet.served
        rows.append([label, f"{quiet.quantile(50):.0f}", f"{p95:.0f}", ratio, missing, flood])
    head = ["quiet tenant", "p50 ms", "p95 ms", "p95 / alone", "failed", "calls/s of the flood"]
    publish("Fairness between tenants", head, rows)
    bars("fairness", list(runs), values, "p95 of the quiet tenant, ms")


if __name__ == "__main__":
    main()
