"""Turns concurrent single requests into batches: what callers see. Knows not when a batch runs."""

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from math import inf
from typing import Generic, Self, TypeVar

from batcher.admission import Admission
from batcher.cost import CostModel
from batcher.device import Devices, RunBatch
from batcher.dispatcher import Dispatcher
from batcher.errors import Closed
from batcher.lane import Pending
from batcher.ledger import Ledger, ignore
from batcher.policy import BatchPolicy, Priority
from batcher.reports import BatchReport, Departure, Outcome, Served, Statistics
from batcher.runner import Call, Runner
from batcher.scheduler import Scheduler

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Groups concurrent calls of `submit` into calls of a RunBatch, one for each device.

    Nothing is wasted (who left or is late never reaches a device), nothing is lost (each call
    gets its answer or a BatcherError), nobody starves (see scheduler.py). Leaving the context
    drains: what was accepted is still served.
    """

    def __init__(
        self,
        devices: Mapping[str, RunBatch[Item, Result]],
        policy: BatchPolicy,
        *,
        cost_model: CostModel | None = None,
        own: Mapping[str, tuple[BatchPolicy, CostModel]] | None = None,
        on_batch: Callable[[BatchReport], None] = ignore,
        on_departure: Callable[[Departure], None] = ignore,
    ) -> None:
        if not devices:
            raise ValueError("a batcher needs a device")
        self._policy = policy
        self._devices = Devices(devices, policy, cost_model or CostModel(), own or {})
        self._scheduler: Scheduler[Call[Item, Result]] = Scheduler(
            policy, self._devices.seconds_for
        )
        self._admission = Admission(self._scheduler, policy, self._devices.seconds_alone)
        self._ledger = Ledger(on_batch, on_departure)
        self._dispatcher = Dispatcher(self._scheduler, self._devices, Runner(self._ledger))
        self._numbers = count()

    async def submit(
        self,
        item: Item,
        *,
        length: float = 0.0,
        deadline: float = inf,
        priority: Priority = Priority.INTERACTIVE,
        tenant: str = "",
    ) -> Served[Result]:
        """Returns the answer for `item`, or raises a BatcherError.

        `deadline` is in loop.time() seconds, `length` in the units of `max_batch_cost`.
        """
        if not 0 <= length < inf:
            raise ValueError(f"length must be finite and not negative, got {length}")
        loop = self._loop
        now = loop.time()
        due = min(deadline, now + self._policy.max_drain_time)
        call: Call[Item, Result] = Call(
            next(self._numbers), length, now, deadline, due, tenant, priority, item,
            loop.create_future(),
        )  # fmt: skip
        trusted = self._devices.trusted(now)
        self._refuse(call, trusted)
        if not trusted:
            self._devices.tried_at = now
        self._ledger.accept(tenant)
        self._scheduler.add(call)
        self._dispatcher.expect(now, deadline)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._dispatcher.abandon(call)
            raise
        finally:
            del call  # its future has the error, whose traceback has this frame

    def check(
        self,
        *,
        deadline: float = inf,
        priority: Priority = Priority.INTERACTIVE,
        tenant: str = "",
        ahead: int = 0,
        ahead_length: float = 0.0,
    ) -> None:
        """Raises what `submit` would raise now for a request whose length is not known yet.

        For callers who must work before they can submit. `ahead` requests of `ahead_length`
        together are in that work already and will be submitted first.
        """
        now = self._loop.time()
        due = min(deadline, now + self._policy.max_drain_time)
        asked = Pending(next(self._numbers), 0.0, now, deadline, due, tenant, priority)
        self._refuse(asked, False, ahead, ahead_length)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._started_at = self._devices.tried_at = self._loop.time()
        self._dispatcher.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    async def drain(self, deadline: float = inf) -> None:
        """Accepts nothing more and serves what was accepted, until `deadline` (loop.time()).

        What then remains fails with Closed.
        """
        await self._dispatcher.drain(deadline)

    async def wait_broken(self) -> None:
        """Waits until the batcher cannot serve any more, and raises what broke it."""
        await self._dispatcher.wait_broken()

    def estimated_drain_time(self) -> float:
        """Seconds until all that waits and runs now is done, by the cost model."""
        busy_time = max(self._devices.free_at - self._loop.time(), 0.0)
        return busy_time + self._scheduler.work()

    def statistics(self) -> Statistics:
        waiting = {priority: self._scheduler.waiting_in(priority) for priority in Priority}
        elapsed = self._loop.time() - self._started_at
        return self._ledger.statistics(waiting, self._devices.by_name, elapsed)

    def __repr__(self) -> str:
        waiting = len(self._scheduler)
        running = self._ledger.accepted - waiting
        devices = ", ".join(self._devices.by_name) or "none"
        state = self._dispatcher.state
        return f"<Batcher {state} waiting={waiting} running={running} devices={devices}>"

    def _refuse(
        self, asked: Pending, trusted: bool, ahead: int = 0, ahead_length: float = 0.0
    ) -> None:
        """Raises, and notes, the reason not to let a request in."""
        now = asked.enqueued_at
        refusal = (
            self._admission.refusal(
                asked, self._ledger.in_flight.get(asked.tenant, 0),
                max(self._devices.free_at - now, 0.0), trusted, ahead, ahead_length,
            )
            if self._dispatcher.is_open
            else Closed("nothing is accepted any more")
        )  # fmt: skip
        if refusal:
            self._ledger.depart(asked, Outcome.REFUSED, type(refusal), now)
            raise refusal
