"""Turns concurrent single requests into batches. The only module that waits.

Each running batch is one task, at most `slots_per_device` a device; what to run is decided by
the scheduler, in `_dispatch`.
"""

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from math import inf
from typing import Generic, Self, TypeVar

from batcher.admission import Admission
from batcher.alarm import Alarm
from batcher.cost import CostModel
from batcher.device import Device, Devices, RunBatch
from batcher.errors import BatcherError, Closed, DeviceLost
from batcher.lane import Pending
from batcher.ledger import Ledger, ignore
from batcher.policy import BatchPolicy, Priority
from batcher.reports import BatchReport, Departure, Outcome, Served, Statistics
from batcher.runner import Call, Runner
from batcher.scheduler import Scheduler

Item = TypeVar("Item")
Result = TypeVar("Result")

FRESH = 10.0
"""Seconds for which the cost model may refuse a request on an idle device without new evidence."""

LAST_WAIT = 1.0
"""Seconds that a RunBatch has to react to its cancellation once the time to drain is over."""


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
        self._runner: Runner[Item, Result] = Runner(self._ledger)
        self._numbers = count()
        self._tasks: dict[asyncio.Task[None], list[Call[Item, Result]]] = {}
        self._open = False
        self._measured_at = -inf  # when the cost model was last refreshed or put to the test
        self._dispatching = False  # a _dispatch is on its way
        self._alarm = Alarm(self._dispatch)
        self._slot_at = -inf  # when the next batch may be formed, at the earliest
        self._free_at = -inf  # when a device is predicted to be free
        self._quiet = asyncio.Event()  # nothing waits or runs
        self._broken = asyncio.Event()
        self._broken_by: BaseException | None = None

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
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = self._due(now, deadline)
        call: Call[Item, Result] = Call(
            next(self._numbers), length, now, deadline, due, tenant, priority, item,
            loop.create_future(),
        )  # fmt: skip
        # A busy device will soon refresh the model.
        trusted = self._slot_at > -inf or now - self._measured_at < FRESH
        self._refuse(call, now, trusted=trusted)
        if not trusted:
            self._measured_at = now
        self._ledger.accept(tenant)
        self._scheduler.add(call)
        if self._slot_at <= now:
            self._dispatch_soon()
        else:
            self._alarm.set(min(self._slot_at, deadline))
        try:
            return await call.future
        except asyncio.CancelledError:
            self._abandon(call)
            raise

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
        due = self._due(now, deadline)
        asked = Pending(next(self._numbers), 0.0, now, deadline, due, tenant, priority)
        self._refuse(asked, now, trusted=False, ahead=ahead, ahead_length=ahead_length)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._started_at = self._measured_at = self._loop.time()
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    async def drain(self, deadline: float = inf) -> None:
        """Accepts nothing more and serves what was accepted, until `deadline` (loop.time()).

        What then remains fails with Closed.
        """
        self._open = False
        self._quiet.clear()
        self._dispatch_soon()
        try:
            async with asyncio.timeout_at(deadline if deadline < inf else None):
                await self._quiet.wait()
        except TimeoutError:
            await self._abort()
        except asyncio.CancelledError:
            await self._abort()
            raise

    async def wait_broken(self) -> None:
        """Waits until the batcher cannot serve any more, and raises what broke it."""
        await self._broken.wait()
        assert self._broken_by
        raise self._broken_by

    def estimated_drain_time(self) -> float:
        """Seconds until all that waits and runs now is done, by the cost model."""
        busy_time = max(self._free_at - self._loop.time(), 0.0)
        return busy_time + self._scheduler.work()

    def statistics(self) -> Statistics:
        waiting = {priority: self._scheduler.waiting_in(priority) for priority in Priority}
        elapsed = self._loop.time() - self._started_at
        return self._ledger.statistics(waiting, self._devices.by_name, elapsed)

    def __repr__(self) -> str:
        state = "open" if self._open else "broken" if self._broken_by else "closed"
        waiting = len(self._scheduler)
        running = self._ledger.accepted - waiting
        devices = ", ".join(self._devices.by_name) or "none"
        return f"<Batcher {state} waiting={waiting} running={running} devices={devices}>"

    def _due(self, now: float, deadline: float) -> float:
        return min(deadline, now + self._policy.max_drain_time)

    def _refuse(
        self,
        asked: Pending,
        now: float,
        *,
        trusted: bool,
        ahead: int = 0,
        ahead_length: float = 0.0,
    ) -> None:
        """Raises, and notes, the reason not to let a request in."""
        refusal: BatcherError | None = Closed("nothing is accepted any more")
        if self._open:
            refusal = self._admission.refusal(
                asked, in_flight=self._ledger.in_flight[asked.tenant],
                busy_time=max(self._free_at - now, 0.0), trusted=trusted,
                ahead=ahead, ahead_length=ahead_length,
            )  # fmt: skip
        if refusal:
            self._ledger.depart(asked, Outcome.REFUSED, type(refusal), now)
            raise refusal

    def _abandon(self, call: Call[Item, Result]) -> None:
        """Its caller has left. One that runs is settled when its batch ends."""
        if call.waits:
            self._scheduler.discard(call)
            self._runner.drop(call, self._loop.time())

    def _dispatch_soon(self) -> None:
        # Not at once: whatever else is ready in this turn of the loop joins the batch.
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Starts every batch that is due, and sees to it that the next is."""
        self._dispatching = False
        now = self._loop.time()
        try:
            for late in self._scheduler.take_expired(now):
                self._runner.expire(late, now)
            due_at, device = self._next_start(now)
            while device and due_at <= now:
                self._start(device, now)
                due_at, device = self._next_start(now)
            self._alarm.set(min(due_at, self._scheduler.next_deadline()))
        except Exception as bug:
            self._break(bug)
        self._note_slots()
        if not self._tasks and not self._scheduler:
            self._quiet.set()

    def _note_slots(self) -> None:
        self._slot_at, self._free_at = self._devices.slot_at(), self._devices.free_at()

    def _next_start(self, now: float) -> tuple[float, Device[Item, Result] | None]:
        """When the next batch of what waits is to be formed, and for which device."""
        if not self._scheduler:
            return inf, None
        device, at = self._devices.next(now, *self._scheduler.load())
        if device and at == -inf:
            since = device.idle_since if self._open else inf
            at = self._scheduler.due_at(since, device.policy.max_batch_size)
        return at, device

    def _start(self, device: Device[Item, Result], now: float) -> None:
        batch = self._scheduler.take_batch(now, device.room())
        predicted = device.model.predict(len(batch) * max(call.length for call in batch))
        device.start(now, predicted)
        task = self._loop.create_task(self._serve(device, batch, predicted), name="batch")
        self._tasks[task] = batch
        task.add_done_callback(self._ended)

    async def _serve(
        self, device: Device[Item, Result], batch: list[Call[Item, Result]], predicted: float
    ) -> None:
        try:
            await self._runner.serve(device, batch)
        except DeviceLost as lost:
            self._devices.lose(device)
            for call in reversed(self._runner.rescue(batch, lost, devices=len(self._devices))):
                self._scheduler.put_back(call, self._loop.time())
            batch.clear()  # whoever waits again may run elsewhere before this task has ended
            if not self._devices:
                self._break(lost)
        finally:
            device.finish(self._loop.time(), predicted)
            self._note_slots()  # before those who have their answers submit again

    def _ended(self, task: asyncio.Task[None]) -> None:
        batch = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        self._runner.close(batch)
        if error:
            self._break(error)
        self._measured_at = self._loop.time()
        self._dispatch()

    def _break(self, error: BaseException) -> None:
        """Serves nothing any more; the first reason is the one that is told."""
        self._open = False
        self._broken_by = self._broken_by or error
        self._broken.set()
        self._close_waiting()

    def _close_waiting(self) -> None:
        waiting = list(self._scheduler)
        for call in waiting:
            self._scheduler.discard(call)
        self._runner.close(waiting)

    async def _abort(self) -> None:
        """Ends all that waits and runs, with Closed."""
        self._close_waiting()
        for task, batch in list(self._tasks.items()):
            self._runner.close(batch)
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WAIT)
