"""Offered several times what the server can do: who is served, who is late, how fast is a refusal.

The engine only waits (BATCH_MS for up to 8 utterances), so that it and not the processor is the
limit. Capacity is what a closed loop reaches; then Poisson arrivals, each with a deadline.

    python -m benchmarks.overload [--seconds S] [--deadline S] [--times 2 5]
"""

from argparse import ArgumentParser

from benchmarks.results import bars, publish
from benchmarks.servers import analyze, free_port, ours, process
from benchmarks.traffic import Load, Outcome, drive

SIZE = 16_000  # bytes, half a second
FLAGS = ("--max-batch-size=8", "--log-level=error")


def run(load: Load, batch_ms: int) -> Outcome:
    port = free_port()
    environment = {"BATCH_MS": str(batch_ms)}
    with process("overload", ours(port, *FLAGS), port, environment=environment) as pid:
        target = analyze(port, SIZE)
        drive(target, Load(1.5, callers=16, warm_up=0.5))  # the server learns its rate
        return drive(target, load, server=pid)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--deadline", type=float, default=1.0, help="of every call, in seconds")
    parser.add_argument("--times", type=float, nargs="*", default=[0.7, 2, 5])
    parser.add_argument("--batch-ms", type=int, default=100)
    chosen = parser.parse_args()
    capacity = run(Load(chosen.seconds / 2, callers=32), chosen.batch_ms).rate
    rows, shares = [], []
    for times in chosen.times:
        load = Load(chosen.seconds, rate=times * capacity, timeout=chosen.deadline)
        outcome = run(load, chosen.batch_ms)
        counts = outcome.outcomes
        refused = "RESOURCE_EXHAUSTED"
        late = counts["DEADLINE_EXCEEDED"]
        others = sum(counts.values()) - outcome.served - counts[refused] - late
        shares.append(outcome.rate / capacity)
        rows.append(
            [
                f"{times:g} x {capacity:.0f}/s",
                f"{shares[-1]:.3f}",
                f"{outcome.quantile(50):.0f}",
                f"{outcome.quantile(99):.0f}",
                f"{late} of {sum(counts.values())}",
                f"{outcome.quantile(50, refused):.1f}",
                f"{outcome.quantile(99, refused):.1f}",
                others,
            ]
        )
    head = [
        *("offered", "goodput / capacity", "p50 of the served, ms", "p99", "late"),
        *("p50 to refuse, ms", "p99 to refuse, ms", "other failures"),
    ]
    publish(f"Overload, every call with a deadline of {chosen.deadline:g} s", head, rows)
    bars("overload", [f"{times:g} x" for times in chosen.times], shares, "goodput / capacity")


if __name__ == "__main__":
    main()
