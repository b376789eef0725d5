"""What one stream has to say, in order: events that are ready, and segments that are computed.

Stands between the task that reads and the handler that writes. Bounded: who reads waits for room.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

from batcher import Batcher, Overloaded, Served
from server.service.stream_config import Order
from server.service.stream_keeper import Keeper, Milestone
from server.speech import SAMPLE_RATE, Model, Notice, Prediction, Utterance
from server.streaming.decisions import Decision, Segment
from server.streaming.plan import StreamLimits
from server.telemetry import Outcome, StreamReport, WindowReport

Answer: TypeAlias = Served[Prediction] | None
"""None: an interim for which there was no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What all streams share."""

    batcher: Batcher[Utterance, Prediction]
    model: Model
    limits: StreamLimits
    decoders: Executor
    apart: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]  # a task nobody cancels
    strained: Callable[[], bool]  # interims are what the server goes without now
    report: Callable[[StreamReport | WindowReport], None]


@dataclass(slots=True, eq=False)
class Slot:
    """One event in its place; it is sent when all before it are."""

    content: Decision | Notice
    since: float  # when it was decided
    answer: asyncio.Task[Answer] | None = None  # of a segment
    milestone: Milestone | None = None  # reached when this is delivered

    @property
    def ready(self) -> bool:
        return self.answer is None or self.answer.done()


class Outbox:
    """One connection's events. It is closed once, and then nothing more is computed."""

    def __init__(self, shop: Workshop, order: Order, tenant: str, keeper: Keeper | None) -> None:
        self.closed = False
        self.complete = False  # nothing more will come
        self._failures: list[Exception] = []
        self._shop = shop
        self._order = order
        self._tenant = tenant
        self._keeper = keeper
        self._now = asyncio.get_running_loop().time
        self._slots: deque[Slot] = deque()
        self._news = asyncio.Event()  # for who writes
        self._room = asyncio.Event()  # for who reads; also set when the box is closed
        self._skipping = False

    # For the side that reads

    async def admit(self, decided: list[Decision]) -> list[Decision]:
        """Puts decisions in their places, waiting for room; what the closing left out is returned.

        A live stream that is late gets no interims, so that its finals come in time; nor does
        anybody while the server is strained.
        """
        for position, decision in enumerate(decided):
            if isinstance(decision, Segment) and not decision.final and self._is_strained():
                self.skip(decision)
                continue
            while self._is_full() and not self.closed:
                self._room.clear()
                await self._room.wait()
            if self.closed:
                return decided[position:]
            self.append(decision)
        return []

    def append(self, content: Decision | Notice) -> None:
        slot = Slot(content, self._now())
        if isinstance(content, Segment):
            slot.answer = asyncio.create_task(self._submit(content))
            slot.answer.add_done_callback(lambda _: self._news.set())
        self._slots.append(slot)
        self._news.set()

    def skip(self, interim: Segment) -> None:
        """An interim is left out; the client is told once, until the server has caught up."""
        self.report(Outcome.SKIPPED, interim)
        if self._skipping:
            return
        self._skipping = True
        text = "Results come late: interim ones are left out until the server has caught up."
        self.append(Notice("INTERIMS_SKIPPED", text))

    def pass_milestone(self) -> None:
        """The session is kept as it is now, once all that was decided is delivered."""
        if self._keeper is None or (milestone := self._keeper.milestone()) is None:
            return
        if self._slots:
            self._slots[-1].milestone = milestone
        else:
            self._keeper.reached(milestone)

    def end(self) -> None:
        """All is decided."""
        self.complete = True
        self._news.set()

    def fail(self, error: Exception) -> None:
        """The first failure is the one that counts."""
        self._failures.append(error)
        self._news.set()

    async def pause(self, seconds: float) -> None:
        """Sleeps, but not longer than the box is open."""
        try:
            async with asyncio.timeout(seconds):
                while not self.closed:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            pass

    # For the side that writes

    def take(self) -> Slot | None:
        """The next event, if it is ready."""
        if not (self._slots and self._slots[0].ready):
            return None
        self._room.set()
        return self._slots.popleft()

    def delivered(self, slot: Slot) -> None:
        """Before it is sent: what breaks off after that counts as sent."""
        if self._keeper is not None and slot.milestone is not None:
            self._keeper.reached(slot.milestone)

    @property
    def empty(self) -> bool:
        return not self._slots

    @property
    def failed(self) -> bool:
        return bool(self._failures)

    def take_failure(self) -> Exception:
        """The first; kept no longer, because its traceback will have this box."""
        return self._failures.pop(0)

    def lag(self) -> float:
        """Seconds for which the oldest segment without an answer has waited."""
        waiting = (slot.since for slot in self._slots if not slot.ready)
        return self._now() - next(waiting, self._now())

    async def news(self, until: float) -> None:
        """Waits for something to send or to end with, but not past `until` (loop time)."""
        try:
            async with asyncio.timeout_at(until if until < inf else None):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def report(self, outcome: Outcome, segment: Segment, lag: float = 0, gap: int = 0) -> None:
        """`lag` in seconds, `gap` in samples."""
        self._shop.report(
            WindowReport(
                outcome=outcome,
                pacing=self._order.pacing,
                trigger=segment.trigger.name.lower(),
                lag=lag,
                silence=gap / SAMPLE_RATE,
            )
        )

    def wake(self) -> None:
        self._news.set()

    def close(self) -> list[Decision]:
        """Nothing more is computed; returns what was not sent."""
        self.closed = True
        self._room.set()
        slots, self._slots = list(self._slots), deque()
        for slot in slots:
            if slot.answer is not None:
                slot.answer.cancel()
            if isinstance(slot.content, Segment):
                self.report(Outcome.ABANDONED, slot.content)
        return [slot.content for slot in slots if not isinstance(slot.content, Notice)]

    def _is_full(self) -> bool:
        return len(self._slots) >= self._shop.limits.max_pending

    def _is_strained(self) -> bool:
        """Whether interims would be in the way of finals: of this stream's, or of all."""
        late = self._is_full() or self.lag() > self._shop.limits.max_lag
        strained = (late and self._order.live) or self._shop.strained()
        self._skipping = self._skipping and strained
        return strained

    async def _submit(self, segment: Segment) -> Answer:
        """A final waits for its turn as long as it takes: the sender is held up meanwhile."""
        utterance = Utterance(segment.waveform, frames=self._order.query.frames)
        while True:
            try:
                return await self._shop.batcher.submit(
                    utterance,
                    length=len(segment.waveform) / SAMPLE_RATE,
                    priority=self._order.priority,
                    tenant=self._tenant,
                )
            except Overloaded as full:
                if not segment.final:
                    return None
                await asyncio.sleep(full.retry_after)
