"""What the server adds to a call: processor time of ours against a bare grpc.aio server.

Both have the null model; the runs alternate, and the medians count.

    python -m benchmarks.front [--seconds S] [--rounds N] [--sizes BYTES ...]
"""

import sys
from argparse import ArgumentParser
from statistics import median

from benchmarks.results import bars, publish
from benchmarks.servers import analyze, free_port, ours, process
from benchmarks.traffic import Load, Outcome, drive


def measure(name: str, size: int, load: Load) -> Outcome:
    port = free_port()
    bare = [sys.executable, "-m", "benchmarks.peers.bare", str(port)]
    command = bare if name == "bare" else ours(port, "--queue-delay-ms=5")
    with process(name, command, port, quiet=True) as pid:
        return drive(analyze(port, size), load, server=pid)


def latency(share: float, seconds: float, rate: float, size: int) -> tuple[str, ...]:
    """Open loop at a share of what a closed loop reached."""
    port = free_port()
    with process("open", ours(port, "--queue-delay-ms=5"), port, quiet=True) as pid:
        load = Load(seconds, rate=share * rate)
        outcome = drive(analyze(port, size), load, server=pid)
    p50, p99 = outcome.quantile(50), outcome.quantile(99)
    return (
        f"{load.rate:.0f}/s",
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{p99 / p50:.2f}",
        str(outcome.outcomes),
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[160_000, 1_000])
    chosen = parser.parse_args()
    rows = []
    labels, values = [], []
    for size in chosen.sizes:
        load = Load(chosen.seconds)
        seen: dict[str, list[Outcome]] = {"bare": [], "ours": []}
        for _ in range(chosen.rounds):
            for name, outcomes in seen.items():
                outcomes.append(measure(name, size, load))
        base = median(one.cpu_ms for one in seen["bare"])
        for name, outcomes in seen.items():
            cpu = median(one.cpu_ms for one in outcomes)
            rate = median(one.rate for one in outcomes)
            failed = sum(sum(one.outcomes.values()) - one.served for one in outcomes)
            p50, p99 = (median(one.quantile(q) for one in outcomes) for q in (50, 99))
            rows.append(
                [
                    name,
                    size,
                    f"{cpu:.3f}",
                    f"{cpu / base:.2f}",
                    f"{rate:.0f}",
                    f"{p50:.0f}",
                    f"{p99:.0f}",
                    failed,
                ]
            )
            labels.append(f"{name}, {size} bytes")
            values.append(cpu)
        best = median(one.rate for one in seen["ours"])
        at = latency(0.7, 2 * chosen.seconds, best, size)
        rows.append(
            [
                f"ours, open loop at 70 %, p99/p50 = {at[3]}",
                size,
                "",
                "",
                at[0],
                at[1],
                at[2],
                at[4],
            ]
        )
    head = ["server", "bytes", "CPU ms a call", "ratio", "calls/s", "p50 ms", "p99 ms", "failed"]
    publish("The front: processor time of a call", head, rows)
    bars("front", labels, values, "CPU ms a call")


if __name__ == "__main__":
    main()
