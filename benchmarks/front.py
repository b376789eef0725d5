"""What the server adds to a call: processor time and latency of ours and of a bare grpc.aio server.

Both have the null model and are up all the time; they are asked in turns of some seconds, so that
what else the machine does meets both. Medians count, of the ratio that of neighbours in time.

    python -m benchmarks.front [--seconds S] [--rounds N] [--sizes BYTES ...]
"""

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

from benchmarks.results import bars, publish
from benchmarks.servers import analyze, free_port, ours, process
from benchmarks.traffic import Load, Outcome, Target, drive

SHARE = 0.7
OPEN_SECONDS, OPEN_ROUNDS = 4.0, 5

Row = list[object]
Asked = tuple[Target, int]


@contextmanager
def both(size: int) -> Iterator[dict[str, Asked]]:
    """Whom to ask, with whose process; ours with WAV files, too."""
    bare, our = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.peers.bare", str(bare)]
    with (
        process("bare", command, bare, quiet=True) as bare_pid,
        process("ours", ours(our, "--queue-delay-ms=5"), our, quiet=True) as our_pid,
    ):
        yield {
            "bare": (analyze(bare, size), bare_pid),
            "ours": (analyze(our, size), our_pid),
            "ours, in a WAV file": (analyze(our, size, wav=True), our_pid),
        }


def in_turns(asked: Mapping[str, Asked], load: Load, rounds: int) -> dict[str, list[Outcome]]:
    """The outcomes of each, round by round."""
    seen: dict[str, list[Outcome]] = {name: [] for name in asked}
    for number in range(rounds):
        for name in sorted(asked, reverse=bool(number % 2)):
            target, pid = asked[name]
            seen[name].append(drive(target, load, server=pid))
    return seen


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
        failed(outcomes),
    ]


def open_row(name: str, size: int, rate: float, outcomes: Sequence[Outcome]) -> Row:
    quantiles = [(one.quantile(50), one.quantile(99)) for one in outcomes]
    p50, p99 = (median(one) for one in zip(*quantiles, strict=True))
    return [
        name,
        size,
        f"{rate:.0f}",
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{median(one / half for half, one in quantiles):.2f}",
        failed(outcomes),
    ]


def failed(outcomes: Sequence[Outcome]) -> str:
    """How many, and with what."""
    kinds = sum((one.outcomes for one in outcomes), Counter[str]())
    del kinds["OK"]
    return ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "0"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="*", default=[160_000, 1_000])
    chosen = parser.parse_args()
    rows: list[Row] = []
    open_rows: list[Row] = []
    for size in chosen.sizes:
        with both(size) as asked:
            seen = in_turns(asked, Load(chosen.seconds, warm_up=0.3), chosen.rounds)
            rows += [row(name, size, outcomes, seen["bare"]) for name, outcomes in seen.items()]
            rate = SHARE * median(one.rate for one in seen["ours"])
            load = Load(OPEN_SECONDS, rate=rate, warm_up=0.5)
            seen = in_turns({name: asked[name] for name in ("bare", "ours")}, load, OPEN_ROUNDS)
            open_rows += [open_row(name, size, rate, each) for name, each in seen.items()]
    head = ["server", "bytes", "CPU ms a call", "ratio", "calls/s", "p50 ms", "p99 ms", "failed"]
    publish("The front: processor time of a call", head, rows)
    head = ["server", "bytes", "calls/s", "p50 ms", "p99 ms", "p99 / p50", "failed"]
    title = f"The front: open loop at {SHARE:.0%} of what ours answered with 64 callers"
    publish(title, head, open_rows)
    labels = [f"{one[0]}, {one[1]} bytes" for one in rows]
    bars("front", labels, [float(str(one[2])) for one in rows], "CPU ms a call")


if __name__ == "__main__":
    main()
