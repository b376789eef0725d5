"""Many callers at once on a real model, for minutes: failures, wrong answers, memory.

What a body must be answered is asked first, each alone: batching may not change it.

    python -m benchmarks.soak [--callers N] [--minutes M] [flags of speech-emotion-server]
"""

import asyncio
import random
import threading
import time
from argparse import ArgumentParser
from dataclasses import replace

from benchmarks.results import bars, publish
from benchmarks.servers import analyze, free_port, ours, process
from benchmarks.traffic import Load, Target, drive, tree

SIZES = (16_000, 32_000, 64_000, 96_000)  # bytes: half a second to three


def mixed(port: int) -> Target:
    targets = [analyze(port, size) for size in SIZES]
    bodies = [body for target in targets for body in target.bodies[:8]]
    random.Random(1).shuffle(bodies)
    return replace(targets[0], bodies=bodies, expected=[])


async def answers(target: Target) -> list[list[float]]:
    client = target.connect()
    found = [list(target.read(await client.call(body, 60.0))) for body in target.bodies]
    await client.close()
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=5)
    chosen, flags = parser.parse_known_args()
    port = free_port()
    memory: list[float] = []
    command = ours(
        port, "--max-queue-size=2048", "--max-queue-seconds=120", *flags, module="server"
    )
    with process("soak", command, port, patience=300, settle=2, quiet=True) as pid:
        target = mixed(port)
        target = replace(target, expected=asyncio.run(answers(target)))
        done = threading.Event()

        def sample() -> None:
            while not done.wait(5):
                memory.append(tree(pid)[1])

        sampler = threading.Thread(target=sample)
        sampler.start()
        seconds = 60 * chosen.minutes
        load = Load(seconds, callers=chosen.callers, warm_up=20, timeout=300)
        outcome = drive(target, load, server=pid)
        done.set()
        sampler.join()
        time.sleep(0)
    quarter = max(1, len(memory) // 4)
    early, late = (
        sum(part) / len(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:])
    )
    row = [
        chosen.callers, f"{seconds:.0f}", dict(outcome.outcomes), f"{outcome.rate:.0f}",
        f"{outcome.quantile(50):.0f}", f"{outcome.quantile(99):.0f}",
        f"{early:.1f}", f"{late:.1f}", f"{outcome.cpu_ms:.1f}",
    ]  # fmt: skip
    head = [
        *("callers", "seconds", "outcomes", "calls/s", "p50 ms", "p99 ms"),
        *("MB in the 2nd quarter", "MB in the 4th", "CPU ms a call"),
    ]
    publish("Many callers at once, demo model", head, [row])
    bars("soak", [f"{5 * n} s" for n in range(0, len(memory), 4)], memory[::4], "MB resident")


if __name__ == "__main__":
    main()
