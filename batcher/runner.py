"""Runs one batch to the end: each of its callers hears, however badly the engine behaves."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from batcher.device import Device
from batcher.errors import (
    BatcherError,
    BatchFailed,
    Closed,
    DeadlineExpired,
    DeviceLost,
    OutOfMemory,
)
from batcher.lane import Pending
from batcher.ledger import Ledger
from batcher.reports import BatchReport, Outcome, Served

Item = TypeVar("Item")
Result = TypeVar("Result")


MAX_LOSSES = 2
"""A request that ran on so many devices when they were lost is not given another."""


@dataclass(slots=True, eq=False)
class Call(Pending, Generic[Item, Result]):
    """A request with the caller who waits for it."""

    item: Item
    future: asyncio.Future[Served[Result]]
    losses: int = 0  # devices that were lost while they ran it
    settled: bool = False


class Runner(Generic[Item, Result]):
    """Settles each call once: with its answer, an error, or nothing if its caller has left."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def serve(
        self, device: Device[Item, Result], batch: Sequence[Call[Item, Result]]
    ) -> None:
        """Runs a batch, in parts if it fails, until all is settled.

        Raises DeviceLost, and whatever is no Exception, with calls unsettled.
        """
        parts = [list(batch)]
        while parts:
            part = self._wanted(parts.pop())
            if part:
                parts += await self._attempt(device, part)

    def answer(self, call: Call[Item, Result], served: Served[Result], now: float) -> None:
        call.future.set_result(served)
        self._settle(call, Outcome.SERVED, None, now)

    def fail(
        self, call: Call[Item, Result], outcome: Outcome, error: BatcherError, now: float
    ) -> None:
        """Settles with an error, unless the caller has left."""
        if call.future.done():
            self.drop(call, now)
        else:
            call.future.set_exception(error)
            self._settle(call, outcome, type(error), now)

    def drop(self, call: Call[Item, Result], now: float) -> None:
        """Settles the call of a caller who has left."""
        self._settle(call, Outcome.ABANDONED, None, now)

    def expire(self, call: Call[Item, Result], now: float) -> None:
        error = DeadlineExpired(f"waited {now - call.enqueued_at:.3f} s")
        self.fail(call, Outcome.EXPIRED, error, now)

    def close(self, calls: Iterable[Call[Item, Result]]) -> None:
        """Nobody is left hanging: what is neither settled nor waiting is told so."""
        now = asyncio.get_running_loop().time()
        for call in calls:
            if not call.settled and not call.waits:
                closed = Closed("the batcher stopped before the answer")
                self.fail(call, Outcome.CLOSED, closed, now)

    def rescue(
        self, batch: Sequence[Call[Item, Result]], lost: DeviceLost, *, devices: int
    ) -> list[Call[Item, Result]]:
        """Those of a lost device's batch that another of `devices` may run; the rest fails."""
        now = asyncio.get_running_loop().time()
        rescued = []
        for call in batch:
            call.losses += 1
            if call.settled:
                continue
            if devices and call.losses < MAX_LOSSES and not call.future.done():
                rescued.append(call)
            else:
                failure = BatchFailed("the device was lost")
                failure.__cause__ = lost
                self.fail(call, Outcome.FAILED, failure, now)
        return rescued

    def _settle(self, call: Call[Item, Result], outcome: Outcome, error: Any, now: float) -> None:
        if call.settled:
            return
        call.settled = True
        del call.item  # lazily kept queue entries must not hold the payload
        self._ledger.leave(call, outcome, error, now)

    def _wanted(self, part: list[Call[Item, Result]]) -> list[Call[Item, Result]]:
        """Those of a part whose callers still wait and whose deadlines have not passed."""
        now = asyncio.get_running_loop().time()
        wanted = []
        for call in part:
            if call.future.done():
                self.drop(call, now)
            elif call.deadline <= now:
                self.expire(call, now)
            elif not call.settled:
                wanted.append(call)
        return wanted

    async def _attempt(
        self, device: Device[Item, Result], part: list[Call[Item, Result]]
    ) -> list[list[Call[Item, Result]]]:
        """Runs a part once and returns the smaller parts to be run instead, if it failed."""
        loop = asyncio.get_running_loop()
        lengths = [call.length for call in part]
        cost = len(part) * max(lengths)
        predicted = device.model.predict(cost)
        started_at = loop.time()
        results, error = await _results(device, [call.item for call in part])
        now = loop.time()
        waiting_since = min([call.enqueued_at for call in part])
        run_time, held = device.account(started_at, now, waiting_since)
        report = BatchReport(
            device=device.name,
            size=len(part),
            cost=cost,
            padding=1 - sum(lengths) / cost if cost else 0.0,
            queue_time=started_at - waiting_since,
            run_time=run_time,
            predicted_time=predicted,
            abandoned=sum([call.future.done() for call in part]),
            error=type(error) if error else None,
        )
        self._ledger.ran(report)
        if error:
            return self._divide(device, part, cost, error)
        device.went_well()
        device.model.observe(cost, held)
        for call, result in zip(part, results, strict=True):
            if call.future.done():
                self.drop(call, now)
            else:
                waited = started_at - call.enqueued_at
                served = Served(result, waited, run_time, len(part), device.name)
                self.answer(call, served, now)
        return []

    def _divide(
        self,
        device: Device[Item, Result],
        part: list[Call[Item, Result]],
        cost: float,
        error: BaseException,
    ) -> list[list[Call[Item, Result]]]:
        """Halves a part that failed; one that stands alone is guilty."""
        device.failures += 1
        if isinstance(error, DeviceLost):
            raise error
        if isinstance(error, OutOfMemory):
            device.narrow(len(part), cost)
        if len(part) > 1:
            half = len(part) // 2
            return [part[half:], part[:half]]
        failure = BatchFailed("the engine failed on this request")
        failure.__cause__ = error
        self.fail(part[0], Outcome.FAILED, failure, asyncio.get_running_loop().time())
        return []


async def _results(
    device: Device[Item, Result], items: list[Item]
) -> tuple[Sequence[Result], BaseException | None]:
    """What the RunBatch returned or raised; raises only what must stop the process or the task.

    Knows no calls: their futures get the error, whose traceback has this frame.
    """
    try:
        results = await device.run(items)
        if len(results) != len(items):
            raise ValueError(f"{len(results)} results for a batch of {len(items)}")
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        return (), error  # the engine cancelled something of its own
    except Exception as error:
        return (), error
    return results, None
