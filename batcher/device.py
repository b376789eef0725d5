"""What is known of the devices: pace, slots, budgets, how long they will be busy. Runs nothing."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from batcher.cost import CostModel
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

DISTRUST = 2.0
"""How much slower a device is taken to be for each run in a row that failed, up to MAX_DISTRUST:
one that fails at once would otherwise be free at once, and draw all the work to itself."""
MAX_DISTRUST = 256.0

AND_MORE = 3.0
"""A device that is to do all that waits will have so many times as much to do: more comes
meanwhile, and unlike lengths make smaller batches. Found by simulation, see ADR 0011."""

FRESH = 10.0
"""Seconds for which the cost models may refuse a request on an idle device without new evidence."""


class Offer(NamedTuple):
    """What a device would do with what waits; in seconds from now."""

    batch_done: float  # what it runs, and one batch more
    all_done: float  # what it runs, all that waits, and what comes meanwhile


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

    def limits(self) -> tuple[int, float]:
        """The requests that its next batch may hold, and their length units after padding."""
        policy, budget = self.policy, self.budget
        return max(1, int(policy.max_batch_size * budget)), policy.max_batch_cost * budget

    def seconds_for(self, length: float, count: int) -> float:
        """To compute `count` requests of `length` together, in full batches."""
        return self.model.predict(length, self._batches(length, count))

    def offer(self, now: float, length: float, count: int) -> Offer:
        """What it would do with the `count` requests of `length` together that wait.

        What is late by now is taken to need as long again.
        """
        busy = abs(self.busy_until - now) if self.running else 0.0
        batches = max(self._batches(length, count), 1.0)
        distrust = min(DISTRUST**self.failures, MAX_DISTRUST) if self.failures else 1.0
        seconds = distrust * self.model.predict(length, batches)
        return Offer(busy + seconds / batches, busy + AND_MORE * seconds)

    def _batches(self, length: float, count: int) -> float:
        return max(count / self.policy.max_batch_size, length / self.policy.max_batch_cost)

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
        self.tried_at = -inf  # when an estimate was last put to the test
        self._note()

    def __len__(self) -> int:
        return len(self.by_name)

    def start(self, device: Device[Item, Result], now: float, predicted: float) -> None:
        """A batch has been handed to one of them."""
        device.start(now, predicted)
        self._note()

    def finish(self, device: Device[Item, Result], now: float, predicted: float) -> None:
        """That batch is done with, well or badly."""
        device.finish(now, predicted)
        self.tried_at = now
        self._note()

    def lose(self, device: Device[Item, Result]) -> None:
        self.by_name.pop(device.name, None)
        self._note()

    def trusted(self, now: float) -> bool:
        """Whether estimates have been tried lately, or soon will be since all are busy."""
        return self.slot_at > -inf or now - self.tried_at < FRESH

    def seconds_alone(self, length: float) -> float:
        """To compute one request on the fastest of them."""
        return min([one.model.predict(length) for one in self.by_name.values()], default=0.0)

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

        The one that would be done with it first, of those that have a slot. None takes it, idle
        or busy, as long as another would be done with everything before that: a slow device takes
        work from a fast one only where there is too much of it.
        """
        offers = [(one.offer(now, length, count), one) for one in self.by_name.values()]
        enough = min([offer.all_done for offer, _ in offers], default=inf)
        chosen, at = None, inf
        for offer, one in sorted(offers, key=_earliest):
            opens = one.slot_at()
            if offer.batch_done > enough:
                # Looked at again by then, should the other be late.
                opens = max(opens, now + offer.batch_done)
            if opens <= now:
                return one, opens
            if opens < at:
                chosen, at = one, opens
        return chosen, at

    def _note(self) -> None:
        devices = self.by_name.values()
        # When the next batch should be formed, and when the first of them has nothing more to do.
        self.slot_at = min([one.slot_at() for one in devices], default=inf)
        self.free_at = min([one.busy_until for one in devices], default=inf)


def _earliest(offered: tuple[Offer, Device[Any, Any]]) -> tuple[float, int, float]:
    offer, device = offered
    return offer.batch_done, device.running, -device.idle_since
