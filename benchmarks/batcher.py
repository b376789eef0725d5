"""What batching costs and what it saves, on simulated devices.

    python -m benchmarks.batcher [--lengths MANIFEST.tsv ...] [--calls N]

Only the first rows measure this machine; the others run on virtual time and repeat exactly.
"""

import asyncio
import csv
import gc
import os
import random
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Coroutine, Sequence
from math import inf
from pathlib import Path
from time import perf_counter, process_time
from types import FrameType
from typing import Any

import looptime

from batcher import Batcher, BatcherError, BatchPolicy, BatchReport, CostModel, OutOfMemory
from benchmarks.results import bars, publish

# Seconds per padded audio second, and per batch: about a large model on a data-centre GPU.
PER_COST, PER_BATCH, PREPARE = 0.0005, 0.004, 0.001

Row = tuple[str, str, str]


class Machine:
    """One batch at a time; preparing the next (PREPARE) may overlap. Remembers its use."""

    def __init__(self, pace: float = 1.0) -> None:
        self.model = CostModel(PER_COST / pace, PER_BATCH / pace)
        self.lock = asyncio.Lock()
        self.busy = 0.0
        self.wasted = 0.0
        self.first = self.last = -1.0
        self.gone: set[int] = set()

    async def __call__(self, batch: Sequence[tuple[int, float]]) -> Sequence[int]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(PREPARE)
        async with self.lock:
            if self.first < 0:
                self.first = loop.time()
            run_time = self.model.predict(len(batch) * max(length for _, length in batch))
            gone = sum(number in self.gone for number, _ in batch) / len(batch)
            await asyncio.sleep(run_time)
            self.busy += run_time
            self.wasted += run_time * gone
            self.last = loop.time()
        return [number for number, _ in batch]


def on_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(main)


def log_normal(rng: random.Random) -> float:
    """1 to 10 s, median 3 s: utterances."""
    return min(max(rng.lognormvariate(1.1, 0.5), 1.0), 10.0)


def from_manifest(path: Path) -> Callable[[random.Random], float]:
    with path.open() as file:
        lengths = [float(row["duration_s"]) for row in csv.DictReader(file, delimiter="\t")]
    return lambda rng: rng.choice(lengths)


async def overhead(waiting: int, calls: int) -> float:
    """Seconds of CPU per request of `waiting` callers in a closed loop."""

    async def instant(batch: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        return batch

    rng = random.Random(1)
    lengths = [log_normal(rng) for _ in range(1000)]
    left = calls

    async def caller(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await b.submit(number, length=lengths[left % 1000])

    policy = BatchPolicy(max_queue_size=10**6, max_queue_delay=0.0)
    async with Batcher({"cpu": instant}, policy) as b:
        started_at = process_time()
        await asyncio.gather(*(caller(number) for number in range(waiting)))
        return (process_time() - started_at) / calls


def python_calls(waiting: int, calls: int) -> float:
    """How many Python functions a request calls, those of asyncio included."""
    count = 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        asyncio.run(overhead(waiting, calls))
    finally:
        sys.setprofile(None)
    return count / calls


async def bare_loop(waiting: int, calls: int) -> float:
    """The same without a batcher: a future per call, resolved 32 at a time."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[int]] = []
    left = calls

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            futures.append(loop.create_future())
            await futures[-1]

    started_at = process_time()
    tasks = [asyncio.create_task(caller()) for _ in range(waiting)]
    while not all(task.done() for task in tasks[-32:]) or futures:
        await asyncio.sleep(0)
        batch, futures[:] = futures[:32], futures[32:]
        for future in batch:
            future.set_result(0)
    return (process_time() - started_at) / calls


async def saturated(
    length: Callable[[random.Random], float], policy: BatchPolicy, callers: int, calls: int
) -> tuple[float, float, float]:
    """Share of padding, share of idle device time, and mean batch size."""
    rng = random.Random(2)
    machine = Machine()
    sizes: list[int] = []

    def note(report: BatchReport) -> None:
        sizes.append(report.size)

    async def caller(number: int) -> None:
        for _ in range(calls // callers):
            seconds = length(rng)
            await b.submit((number, seconds), length=seconds)

    model = CostModel(PER_COST, PER_BATCH)
    async with Batcher({"gpu": machine}, policy, cost_model=model, on_batch=note) as b:
        await asyncio.gather(*(caller(number) for number in range(callers)))
        idle = 1 - machine.busy / (machine.last - machine.first)
        return b.statistics().padding, idle, sum(sizes) / len(sizes)


async def unlike(paces: Sequence[float], callers: int, calls: int) -> float:
    """Requests a second of devices of these paces together, kept busy by so many callers."""
    rng = random.Random(6)
    policy = BatchPolicy(max_drain_time=1e3)
    machines = {f"gpu:{number}": Machine(pace) for number, pace in enumerate(paces)}

    async def caller(number: int) -> None:
        for _ in range(calls // callers):
            seconds = log_normal(rng)
            await b.submit((number, seconds), length=seconds)

    own = {name: (policy, machine.model) for name, machine in machines.items()}
    async with Batcher(machines, policy, own=own) as b:
        await asyncio.gather(*(caller(number) for number in range(callers)))
    used = [machine for machine in machines.values() if machine.busy]
    return calls / (max(one.last for one in used) - min(one.first for one in used))


async def added(rate: float, policy: BatchPolicy, calls: int) -> tuple[float, float]:
    """What the batcher adds to requests that come at random: median and 99th percentile, s."""
    rng = random.Random(7)
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def null(batch: Sequence[int]) -> Sequence[int]:
        return batch

    async def caller() -> None:
        started_at = loop.time()
        await b.submit(0, length=5.0, deadline=started_at + 10)
        times.append(loop.time() - started_at)

    async with Batcher({"null": null}, policy) as b, asyncio.TaskGroup() as callers:
        for _ in range(calls):
            await asyncio.sleep(rng.expovariate(rate))
            callers.create_task(caller())
    times.sort()
    return times[calls // 2], times[int(0.99 * calls)]


async def half_cancelled(calls: int) -> float:
    """Share of device time on requests whose callers had left before their batch began to run."""
    rng = random.Random(3)
    machine = Machine()

    async def caller(number: int) -> None:
        await asyncio.sleep(rng.random() * calls / 500)
        seconds = log_normal(rng)
        call = asyncio.ensure_future(b.submit((number, seconds), length=seconds))
        if rng.random() < 0.5:
            await asyncio.wait([call], timeout=rng.random() * 0.3)
            if not call.done():
                machine.gone.add(number)
                call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async with Batcher({"gpu": machine}, BatchPolicy()) as b:
        await asyncio.gather(*(caller(number) for number in range(calls)))
    return machine.wasted / machine.busy


async def quiet_tenant(flood: int, policy: BatchPolicy, name: str = "quiet") -> float:
    """The 95th percentile of a quiet tenant's latency in seconds, beside `flood` busy callers."""
    rng = random.Random(4)
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def loud() -> None:
        while len(times) < 1000:
            seconds = log_normal(rng)
            await b.submit((0, seconds), length=seconds, tenant="loud")

    async def quiet() -> None:
        while len(times) < 1000:
            await asyncio.sleep(0.2 * rng.random())
            started_at = loop.time()
            seconds = log_normal(rng)
            await b.submit((0, seconds), length=seconds, tenant=name)
            times.append(loop.time() - started_at)

    async with Batcher({"gpu": Machine()}, policy) as b:
        await asyncio.gather(*(loud() for _ in range(flood)), *(quiet() for _ in range(4)))
    return sorted(times)[int(0.95 * len(times))]


def quiet_rows() -> list[Row]:
    # What runs is not interrupted, so the size of a batch decides what a quiet tenant waits for.
    policies = {
        "default policy": BatchPolicy(),
        "batches for latency": BatchPolicy(max_batch_cost=10.0, slots_per_device=1),
    }
    rows = []
    for label, policy in policies.items():
        alone = on_virtual_time(quiet_tenant(0, policy))
        beside = on_virtual_time(quiet_tenant(500, policy))
        unfair = on_virtual_time(quiet_tenant(500, policy, "loud"))
        text = (
            f"{beside / alone:.1f} x ({1e3 * alone:.1f} ms alone, {1e3 * beside:.1f} ms beside"
            f" 500 callers, {1e3 * unfair:.0f} ms if it were the same tenant)"
        )
        rows.append((f"p95 of a quiet tenant in a flood, {label}", text, "<= 2 x"))
    return rows


async def storm(calls: int) -> tuple[int, dict[str, int]]:
    """Unresolved calls, and how the others ended, with every misfortune at once."""
    rng = random.Random(5)
    loop = asyncio.get_running_loop()
    ends: dict[str, int] = {}
    machine = Machine()

    async def engine(batch: Sequence[tuple[int, float]]) -> Sequence[int]:
        numbers = await machine(batch)
        if rng.random() < 0.01:
            raise OutOfMemory
        if any(number % 97 == 0 for number in numbers):
            raise RuntimeError
        return numbers

    async def caller(number: int) -> None:
        await asyncio.sleep(rng.random() * calls / 400)
        seconds = log_normal(rng)
        deadline = loop.time() + rng.choice([inf, 2 * rng.random()])
        call = asyncio.ensure_future(b.submit((number, seconds), length=seconds, deadline=deadline))
        await asyncio.wait([call], timeout=rng.choice([None, rng.random()]))
        call.cancel()
        try:
            end = "wrong" if (await call).result != number else "served"
        except (BatcherError, asyncio.CancelledError) as error:
            end = type(error).__name__
        ends[end] = ends.get(end, 0) + 1

    async with Batcher({"gpu": engine}, BatchPolicy(max_drain_time=2.0)) as b:
        await asyncio.gather(*(caller(number) for number in range(calls)))
    return calls - sum(ends.values()), ends


def overhead_rows(calls: int) -> list[Row]:
    rows, reals = [], {}
    for waiting in (1, 100, 1_000, 10_000):
        real = 1e6 * asyncio.run(overhead(waiting, calls))
        bare = 1e6 * asyncio.run(bare_loop(waiting, calls))
        virtual = 1e6 * on_virtual_time(overhead(waiting, calls))
        reals[f"{waiting:,} waiting"] = real
        label = f"CPU per request, {waiting:,} waiting"
        functions = python_calls(waiting, 4 * waiting + 1000)
        text = f"{real:.1f} us, {functions:.0f} calls of Python functions"
        rows.append((label, text, "<= 15 us at 1,000"))
        rows.append((f"{label}, virtual time / bare loop", f"{virtual:.1f} / {bare:.1f} us", ""))
    bars("batcher", list(reals), list(reals.values()), "us of processor time a request")
    return rows


def saturated_rows(manifests: Sequence[Path], calls: int) -> list[Row]:
    mixes = {"log-normal 1-10 s": log_normal} | {p.parent.name: from_manifest(p) for p in manifests}
    rows = []
    for name, length in mixes.items():
        for callers, slots in ((1024, 1), (1024, 2), (128, 2)):
            policy = BatchPolicy(slots_per_device=slots, max_drain_time=1e3)
            padding, idle, size = on_virtual_time(saturated(length, policy, callers, calls))
            label = f"{name}, {callers} callers, {slots} slots"
            rows.append((f"padding: {label}", f"{padding:.1%} (mean batch {size:.1f})", "<= 5 %"))
            rows.append((f"idle device: {label}", f"{idle:.1%}", "<= 2 %"))
    return rows


def device_rows(calls: int) -> list[Row]:
    rows = []
    for paces in ((1.0, 2.0, 6.0), (1.0, 1.0, 8.0)):
        alone = sum(on_virtual_time(unlike([pace], 1024, calls)) for pace in paces)
        for callers in (128, 1024):
            share = on_virtual_time(unlike(paces, callers, calls)) / alone
            name = " : ".join(f"{pace:g}" for pace in paces)
            rows.append((f"devices of {name}, {callers} callers", f"{share:.1%} of their sum", ""))
    for delay in (0.0, 0.005):
        median, high = on_virtual_time(added(2000.0, BatchPolicy(max_queue_delay=delay), calls))
        label = f"added to 2,000/s on a null device, queue delay {1e3 * delay:g} ms"
        rows.append((label, f"p50 {1e3 * median:.1f} ms, p99 {1e3 * high:.1f} ms", ""))
    return rows


def promise_rows(calls: int) -> list[Row]:
    wasted = on_virtual_time(half_cancelled(calls))
    for _ in range(2):  # until the process has what so many calls take at once
        on_virtual_time(storm(calls))
    before, started_at = resident(), perf_counter()
    lost, ends = on_virtual_time(storm(calls))
    seconds = perf_counter() - started_at
    grown = resident() - before
    how = ", ".join(f"{end} {number:,}" for end, number in sorted(ends.items()))
    return [
        ("device time on those who had left, half cancelled", f"{wasted:.1%}", "<= 2 %"),
        (f"unresolved of {calls:,} stormy calls", f"{lost} in {seconds:.0f} s ({how})", "0"),
        ("memory after them, beside that before", f"{grown:+.1f} MB", "< 5 MB"),
    ]


def resident() -> float:
    """MB of this process, without garbage."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=Path, nargs="*", default=[], help="column duration_s")
    parser.add_argument("--calls", type=int, default=100_000)
    options = parser.parse_args()
    rows = [
        *overhead_rows(options.calls),
        *saturated_rows(options.lengths, options.calls // 5),
        *quiet_rows(),
        *device_rows(options.calls // 5),
        *promise_rows(options.calls),
    ]
    publish("The batcher", ["measured", "result", "goal"], rows)


if __name__ == "__main__":
    main()
