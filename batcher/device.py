"""What is known of the devices: pace, slots, budgets, how long they will be busy. Runs nothing."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Generic, TypeVar

from batcher.cost import TINY, CostModel
from batcher.policy import BatchPolicy
from batcher.room import Room

Item = TypeVar("Item")
Result = TypeVar("Result")

RunBatch = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]
"""Runs a batch and returns a result for each item, in order.

It may be called while an earlier call still runs (`slots_per_device`): it prepares, and keeps the
device itself to one batch at a time. It may raise OutOfMemory or DeviceLost.
"""

RECOVERY = 1.01
"""By how much a good batch widens a budget that OutOfMemory has narrowed: 70 batches double it."""


DISTRUST = 2.0
"""How much slower a device is taken to be for each run in a row that failed, up to MAX_DISTRUST:
one that fails at once would otherwise be free at once, and draw all the work to itself."""
MAX_DISTRUST = 1024.0


class Device(Generic[Item, Result]):
    """Times are in loop.time() seconds. `policy` and `model` are its own."""

    def __init__(
        self, name: str, run: RunBatch[Item, Result], policy: BatchPolicy, model: CostModel
    ) -> None:
        self.name = name
        self.run = run
        self.policy = policy
        self.model = model
        self.failures = 0  # runs in a row
        self.budget = 1.0
        self.running = 0  # batches
        self.batches = 0
        self.busy_time = 0.0
        self.idle_since = -inf
        self.busy_until = -inf  # predicted
        self._freed_at = -inf
        self._promised = 0.0  # seconds, for all that runs

    def slot_at(self) -> float:
        """When the next batch should be formed: now if idle, late if one runs, never if full."""
        if not self.running:
            return -inf
        if self.running >= self.policy.slots_per_device:
            return inf
        return self.busy_until - self.policy.prepare_time

    def room(self) -> Room:
        """What its next batch may hold."""
        size, cost = self.policy.max_batch_size, self.policy.max_batch_cost
        sizes = self.policy.preferred_sizes
        return Room(max(1, int(size * self.budget)), cost * self.budget, sizes, self.model)

    def seconds_for(self, length: float, count: int) -> float:
        """To compute `count` requests of `length` together, in full batches."""
        batches = max(count / self.policy.max_batch_size, length / self.policy.max_batch_cost)
        return self.model.predict(length, batches)

    def seconds_for_all(self, now: float, length: float, count: int) -> float:
        """Until it would have done what it runs and, alone, all that waits.

        What is late by now is taken to need as long again.
        """
        busy = abs(self.busy_until - now) if self.running else 0.0
        return busy + self._distrust() * self.seconds_for(length, count)

    def seconds_for_batch(self, length: float, count: int) -> float:
        """To compute one batch of the `count` requests of `length` together that wait."""
        policy = self.policy
        share = min(policy.max_batch_size / count, policy.max_batch_cost / max(length, TINY), 1.0)
        return self._distrust() * self.model.predict(length * share)

    def _distrust(self) -> float:
        return min(DISTRUST**self.failures, MAX_DISTRUST)

    def start(self, now: float, predicted: float) -> None:
        """A batch has been handed to it."""
        self.running += 1
        self._promised += predicted
        self.busy_until = max(self.busy_until, now) + predicted

    def finish(self, now: float, predicted: float) -> None:
        """That batch is done with, well or badly."""
        self.running -= 1
        self._promised = self._promised - predicted if self.running else 0.0
        self.busy_until = now + self._promised
        self.idle_since = now

    def account(self, started_at: float, now: float, waiting_since: float) -> tuple[float, float]:
        """The seconds a run took of the device, without its wait for the run before it.

        And those until the device was free for the next: if the run had been waited for, the
        gap before it is included, since every run of a full queue has one.
        """
        run_time = now - max(started_at, self._freed_at)
        held = now - self._freed_at if waiting_since <= self._freed_at else run_time
        self._freed_at = now
        self.batches += 1
        self.busy_time += run_time
        return run_time, held

    def narrow(self, size: int, cost: float) -> None:
        """A batch did not fit: half of it is the most from now on."""
        tried = max(size / self.policy.max_batch_size, cost / self.policy.max_batch_cost)
        self.budget = min(self.budget, tried) / 2

    def went_well(self) -> None:
        """A batch was served: it did fit."""
        self.failures = 0
        self.budget = min(1.0, self.budget * RECOVERY)


class Devices(Generic[Item, Result]):
    """Those that are left, by name."""

    def __init__(
        self,
        runs: Mapping[str, RunBatch[Item, Result]],
        policy: BatchPolicy,
        model: CostModel,
        own: Mapping[str, tuple[BatchPolicy, CostModel]],
    ) -> None:
        """Those that are not in `own` share `policy` and `model`."""
        self.by_name = {
            name: Device(name, run, *own.get(name, (policy, model))) for name, run in runs.items()
        }

    def __len__(self) -> int:
        return len(self.by_name)

    def lose(self, device: Device[Item, Result]) -> None:
        self.by_name.pop(device.name, None)

    def free_at(self) -> float:
        """When the first of them has nothing more to do, as predicted."""
        return min((device.busy_until for device in self.by_name.values()), default=inf)

    def slot_at(self) -> float:
        """When the next batch should be formed, see Device.slot_at."""
        return min((device.slot_at() for device in self.by_name.values()), default=inf)

    def seconds_alone(self, length: float) -> float:
        """To compute one request on the fastest of them."""
        return min((one.model.predict(length) for one in self.by_name.values()), default=0.0)

    def seconds_for(self, length: float, count: int) -> float:
        """To compute `count` requests of `length` together on all, each at its own pace."""
        pace = 0.0  # of the whole, a second
        for device in self.by_name.values() if count else ():
            seconds = device.seconds_for(length, count)
            if not seconds:
                return 0.0
            pace += 1 / seconds
        return 1 / pace if pace else 0.0

    def next(
        self, now: float, length: float, count: int
    ) -> tuple[Device[Item, Result] | None, float]:
        """Which takes the next batch of `count` requests of `length` together, and when at last.

        The fastest that is idle, at once; else the first to have a slot. An idle one waits,
        though, as long as another would be done with everything before it with one batch: a slow
        device takes work from a fast one only where there is too much of it.
        """
        devices = self.by_name.values()
        slots = [(one.slot_at(), one) for one in devices if one.running]
        at, busy = min(slots, key=lambda slot: slot[0], default=(inf, None))
        idle = [(one.seconds_for_batch(length, count), one) for one in devices if not one.running]
        if not idle:
            return busy, at
        seconds, best = min(idle, key=lambda pair: (pair[0], -pair[1].idle_since))
        others = (one.seconds_for_all(now, length, count) for one in devices if one.running)
        if seconds <= min(others, default=inf):
            return best, -inf
        return (busy, at) if at < now + seconds else (best, now + seconds)
