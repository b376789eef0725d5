"""What is known of the devices: slots, budgets, how long they will be busy. Runs nothing."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Generic, TypeVar

from batcher.policy import BatchPolicy

Item = TypeVar("Item")
Result = TypeVar("Result")

RunBatch = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]
"""Runs a batch and returns a result for each item, in order.

It may be called while an earlier call still runs (`slots_per_device`): it prepares, and keeps the
device itself to one batch at a time. It may raise OutOfMemory or DeviceLost.
"""

RECOVERY = 1.01
"""By how much a good batch widens a budget that OutOfMemory has narrowed: 70 batches double it."""


class Device(Generic[Item, Result]):
    """Times are in loop.time() seconds."""

    def __init__(self, name: str, run: RunBatch[Item, Result], policy: BatchPolicy) -> None:
        self.name = name
        self.run = run
        self.budget = 1.0
        self.running = 0  # batches
        self.batches = 0
        self.busy_time = 0.0
        self.idle_since = -inf
        self.busy_until = -inf  # predicted
        self._policy = policy
        self._freed_at = -inf
        self._promised = 0.0  # seconds, for all that runs

    def slot_at(self) -> float:
        """When the next batch should be formed: now if idle, late if one runs, never if full."""
        if not self.running:
            return -inf
        if self.running >= self._policy.slots_per_device:
            return inf
        return self.busy_until - self._policy.prepare_time

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
        tried = max(size / self._policy.max_batch_size, cost / self._policy.max_batch_cost)
        self.budget = min(self.budget, tried) / 2

    def widen(self) -> None:
        """A batch did fit."""
        self.budget = min(1.0, self.budget * RECOVERY)


class Devices(Generic[Item, Result]):
    """Those that are left, by name."""

    def __init__(self, runs: Mapping[str, RunBatch[Item, Result]], policy: BatchPolicy) -> None:
        self.by_name = {name: Device(name, run, policy) for name, run in runs.items()}

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

    def next(self) -> Device[Item, Result] | None:
        """Which takes the next batch: the last to fall idle, else the first to have a slot."""
        idle = [device for device in self.by_name.values() if not device.running]
        if idle:
            return max(idle, key=lambda device: device.idle_since)
        slots = [(device.slot_at(), device) for device in self.by_name.values()]
        return min(slots, key=lambda slot: slot[0])[1] if slots else None
