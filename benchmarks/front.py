"""What the server adds to a call: processor time of ours against a bare grpc.aio server.

Both have the null model and are up all the time; they are asked in turns of some seconds, so that
what else the machine does meets both. Medians count, of the ratio that of neighbours in time.

    python -m benchmarks.front [--seconds S] [--rounds N] [--sizes BYTES ...]
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from statistics import median

from benchmarks.results import bars, publish
from benchmarks.servers import analyze, free_port, ours, process
from benchmarks.traffic import Load, Outcome, drive

Row = list[object]


def in_turns(size: int, load: Load, rounds: int) -> dict[str, list[Outcome]]:
    """The outcomes of each server, round by round; of ours with WAV files, too."""
    bare, our = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.peers.bare", str(bare)]
    with (
        process("bare", command, bare, quiet=True) as bare_pid,
        process("ours", ours(our, "--queue-delay-ms=5"), our, quiet=True) as our_pid,
    ):
        asked = {
            "bare": (analyze(bare, size), bare_pid),
            "ours": (analyze(our, size), our_pid),
            "ours, in a WAV file": (analyze(our, size, wav=True), our_pid),
        }
        seen: dict[str, list[Outcome]] = {name: [] for name in asked}
        for number in range(rounds):
            for name in sorted(asked, reverse=bool(number % 2)):
                target, pid = asked[name]
                seen[name].append(drive(target, load, server=pid))
    return seen


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


def row(name: str, size: int, outcomes: Sequence[Outcome], base: Sequence[Outcome]) -> Row:
    ratio = median(one.cpu_ms / two.cpu_ms for one, two in zip(outcomes, base, strict=True))
    p50, p99 = (median(one.quantile(q) for one in outcomes) for q in (50, 99))
    return [
        name,
        size,
        f"{median(one.cpu_ms for one in outcomes):.3f}",
        f"{ratio:.2f}",
        f"{median(one.rate for one in outcomes):.0f}",
        f"{p50:.0f}",
        f"{p99:.0f}",
        sum(sum(one.outcomes.values()) - one.served for one in outcomes),
    ]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="*", default=[160_000, 1_000])
    chosen = parser.parse_args()
    rows: list[Row] = []
    for size in chosen.sizes:
        seen = in_turns(size, Load(chosen.seconds, warm_up=0.3), chosen.rounds)
        rows += [row(name, size, outcomes, seen["bare"]) for name, outcomes in seen.items()]
        best = median(one.rate for one in seen["ours"])
        rate, p50, p99, spread, outcomes = latency(0.7, 8, best, size)
        name = f"ours, open loop at 70 %, p99/p50 = {spread}"
        rows.append([name, size, "", "", rate, p50, p99, outcomes])
    head = ["server", "bytes", "CPU ms a call", "ratio", "calls/s", "p50 ms", "p99 ms", "failed"]
    publish("The front: processor time of a call", head, rows)
    closed = [one for one in rows if one[2]]
    labels = [f"{one[0]}, {one[1]} bytes" for one in closed]
    bars("front", labels, [float(str(one[2])) for one in closed], "CPU ms a call")


if __name__ == "__main__":
    main()
