"""Starts each batch when it is due, and sees it to its end. The only module that waits.

Each running batch is one task, at most `slots_per_device` a device; what to run is decided by
the scheduler, where and when by the devices, in `_dispatch`.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from batcher.device import Device, Devices
from batcher.errors import DeviceLost
from batcher.runner import Call, Runner
from batcher.scheduler import Scheduler

Item = TypeVar("Item")
Result = TypeVar("Result")

LAST_WAIT = 1.0
"""Seconds that a RunBatch has to react to its cancellation once the time to drain is over."""


class Alarm:
    """Rings at the earliest time it was set to since it last rang."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        """`when` is in loop.time() seconds; inf is never."""
        if when < self._at:
            if self._timer:
                self._timer.cancel()
            self._at = when
            self._timer = asyncio.get_running_loop().call_at(when, self._fire)

    def _fire(self) -> None:
        self._at = inf
        self._ring()


class Dispatcher(Generic[Item, Result]):
    """Brings what waits to the devices."""

    def __init__(
        self,
        scheduler: Scheduler[Call[Item, Result]],
        devices: Devices[Item, Result],
        runner: Runner[Item, Result],
    ) -> None:
        self._scheduler = scheduler
        self._devices = devices
        self._runner = runner
        self._tasks: dict[asyncio.Task[None], list[Call[Item, Result]]] = {}
        self._dispatching = False  # a _dispatch is on its way
        self._alarm = Alarm(self._dispatch)
        self._quiet = asyncio.Event()  # nothing waits or runs
        self._broken = asyncio.Event()
        self._broken_by: BaseException | None = None
        self.is_open = False

    @property
    def state(self) -> str:
        return "open" if self.is_open else "broken" if self._broken_by else "closed"

    def open(self) -> None:
        """To be called in the loop that it is to run in."""
        self._loop = asyncio.get_running_loop()
        self.is_open = True

    def expect(self, now: float, deadline: float) -> None:
        """A request has been added, which expires at `deadline`."""
        if self._devices.slot_at <= now:
            self._dispatch_soon()
        else:
            self._alarm.set(min(self._devices.slot_at, deadline))

    def abandon(self, call: Call[Item, Result]) -> None:
        """Its caller has left. One that runs is settled when its batch ends."""
        if call.waits:
            self._scheduler.discard(call)
            self._runner.drop(call, self._loop.time())

    async def drain(self, deadline: float) -> None:
        """Serves what waits, at once, until `deadline`; what then remains fails with Closed."""
        self.is_open = False
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
        """Waits until nothing can be served any more, and raises what broke it."""
        await self._broken.wait()
        assert self._broken_by
        raise self._broken_by

    def _dispatch_soon(self) -> None:
        # Not at once: whatever else is ready in this turn of the loop joins the batch.
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Starts every batch that is due, and sees to it that the next is."""
        self._dispatching = False
        if self._scheduler:
            try:
                self._start_due(self._loop.time())
            except Exception as bug:
                self._break(bug)
        if not self._tasks and not self._scheduler:
            self._quiet.set()

    def _start_due(self, now: float) -> None:
        for late in self._scheduler.take_expired(now):
            self._runner.expire(late, now)
        due_at, device = self._next_start(now)
        while device and due_at <= now:
            self._start(device, now)
            due_at, device = self._next_start(now)
        self._alarm.set(min(due_at, self._scheduler.next_deadline()))

    def _next_start(self, now: float) -> tuple[float, Device[Item, Result] | None]:
        """When the next batch of what waits is to be formed, and for which device."""
        if not self._scheduler:
            return inf, None
        device, at = self._devices.next(now, *self._scheduler.load())
        if device and at == -inf:
            since = device.idle_since if self.is_open else inf
            at = self._scheduler.due_at(since, device.policy.max_batch_size)
        return at, device

    def _start(self, device: Device[Item, Result], now: float) -> None:
        batch = self._scheduler.take_batch(now, device)
        predicted = device.model.predict(len(batch) * max([call.length for call in batch]))
        self._devices.start(device, now, predicted)
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
            self._devices.finish(device, self._loop.time(), predicted)

    def _ended(self, task: asyncio.Task[None]) -> None:
        batch = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        self._runner.close(batch)
        if error:
            self._break(error)
        self._dispatch()

    def _break(self, error: BaseException) -> None:
        """Serves nothing any more; the first reason is the one that is told."""
        self.is_open = False
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
