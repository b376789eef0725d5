"""One connection of a session, from SessionStarted to SessionSummary: sends and minds the time."""

import asyncio
from math import inf

from google.protobuf.message import Message
from speechemotion.v1 import emotion_service_pb2 as pb

from batcher import Closed
from server.errors import StreamAborted
from server.service.calls import Call, Context
from server.service.stream_config import Order
from server.service.stream_keeper import Keeper
from server.service.stream_messages import (
    Result,
    to_event,
    to_limits,
    to_ms,
    to_segment,
    to_summary,
    to_warning,
)
from server.service.stream_outbox import Outbox, Slot, Workshop
from server.service.stream_reader import Reader, too_long
from server.speech import Notice
from server.streaming.checkpoint import Final
from server.streaming.decisions import Segment, SpeechEnded, SpeechStarted, TooShort
from server.streaming.session import Session
from server.telemetry import Outcome

LAST_WORD = 1.0
"""Seconds that a client may take to read why its stream ends; then it is cut off."""


class Connection:
    """Lives in the handler of one call. The session outlives it, and may go on with another."""

    def __init__(
        self,
        shop: Workshop,
        session: Session[Result],
        order: Order,
        context: Context,
        call: Call,
        keeper: Keeper | None,
    ) -> None:
        self.session = session
        self.handed_over = False
        self._shop = shop
        self._limits = shop.limits
        self.order = order
        self._context = context
        self._call = call
        self._now = asyncio.get_running_loop().time
        self._outbox = Outbox(shop, order, call.tenant, keeper)
        self._keeper = keeper
        if keeper is not None:
            keeper.on_taken = self._taken
        self._reader = Reader(shop, session, order, self._outbox, context)
        self._sequence = 0
        self._sent_at = self._now()
        self._drain_at = inf
        self._drain_announced = False

    async def run(self) -> None:
        """Raises what the stream ends with, unless all went well."""
        try:
            await self._greet()
            if self.session.finished:
                self._outbox.end()
            else:
                self._shop.apart(self._reader.read_all())
            await self._send_all()
            summary = to_summary(self.session, self._shop.model, self._call.request_id)
            await self._send(summary=summary)
        finally:
            self.detach()

    async def say_last(self, error: Message) -> None:
        """The error as an event; a client that does not read it in time goes without."""
        try:
            async with asyncio.timeout(LAST_WORD):
                await self._send(error=error)
        except (TimeoutError, StreamAborted):
            pass

    def detach(self) -> None:
        """Nothing more is computed or read; what was not sent goes back to the session."""
        if self._outbox.closed:
            return
        self._call.audio_seconds = self.session.seconds()
        self.session.put_back(self._outbox.close())

    async def hand_over(self) -> None:
        """Another connection goes on with the session; returns when this one has let go of it."""
        self.handed_over = True
        self._taken()
        self.detach()
        await self.quiet()

    async def quiet(self) -> None:
        """Returns when nothing of it works on the session any more; it is detached already."""
        await self._reader.quiet()

    def _taken(self) -> None:
        text = "Another stream goes on with this session."
        self._outbox.fail(StreamAborted("SESSION_TAKEN_OVER", text))

    def drain(self, ends_at: float) -> None:
        """The server stops: the client is told, and cut off at `ends_at` (loop time)."""
        self._drain_at = ends_at
        self._outbox.wake()

    async def _greet(self) -> None:
        session = self.session
        raw = session.source.container == "raw"
        started = pb.SessionStarted(
            session_id=session.id,
            resume_token=session.token,
            effective_config=self.order.effective,
            next_sample=session.source.frames if raw else 0,
            next_byte=0 if raw else session.source.size,
            limits=to_limits(self._limits),
        )
        await self._send(session_started=started)
        for result in session.replay():
            again = Result()
            again.CopyFrom(result)
            again.replayed = True
            await self._send(segment=again)
        unsent, session.unsent = session.unsent, []
        for decision in unsent:
            self._outbox.append(decision)

    async def _send_all(self) -> None:
        while True:
            while (slot := self._outbox.take()) is not None:
                await self._send_slot(slot)
            if self._outbox.failed:
                raise self._outbox.take_failure()
            if self._outbox.complete and self._outbox.empty:
                return
            await self._mind_the_time()
            await self._outbox.news(self._next_alarm())

    async def _send_slot(self, slot: Slot) -> None:
        if isinstance(slot.content, Segment):
            await self._send_segment(slot, slot.content)
            return
        self._outbox.delivered(slot)
        match slot.content:
            case SpeechStarted(at):
                await self._send(speech_started=pb.SpeechStarted(offset_ms=to_ms(at)))
            case SpeechEnded(at):
                await self._send(speech_ended=pb.SpeechEnded(offset_ms=to_ms(at)))
            case TooShort(start, end):
                text = f"No result for {to_ms(start)} to {to_ms(end)} ms: too short for the model."
                await self._send(warning=to_warning(Notice("AUDIO_TOO_SHORT", text)))
            case Notice() as notice:
                await self._send(warning=to_warning(notice))

    async def _send_segment(self, slot: Slot, segment: Segment) -> None:
        assert slot.answer is not None  # segments are submitted when they are appended
        answer = slot.answer.result()
        if answer is None:
            self._outbox.delivered(slot)
            self._outbox.skip(segment)
            return
        lag, model = self._now() - slot.since, self._shop.model
        result = to_segment(self.order.query, segment, answer, model, lag)
        gap = max(0, segment.start - self.session.final) if segment.final else 0
        self._outbox.report(Outcome.SENT, segment, lag, gap)
        self.session.answered(segment)
        if segment.final:
            result.replayed = segment.index < self.session.known
            # Before it is sent: if the connection breaks meanwhile it counts as sent, and is
            # replayed as such.
            self._deliver(segment, result)
        self._outbox.delivered(slot)
        await self._send(segment=result)

    def _deliver(self, segment: Segment, result: Result) -> None:
        scores = [result.result.scores[label] for label in self._shop.model.labels]
        keep = self._limits.idle_timeout
        self.session.deliver(segment, scores, result, self._now(), keep=keep)
        if self._keeper is not None:
            answer = result.SerializeToString()
            self._keeper.delivered(Final(segment.start, segment.end, tuple(scores), answer))

    async def _send(self, **event: Message) -> None:
        self._sequence += 1
        self._sent_at = self._now()
        message = to_event(self._sequence, self.session.cursors(), event)
        try:
            async with asyncio.timeout(self._limits.idle_timeout):
                await self._context.write(message)
        except TimeoutError:
            text = f"Nothing was read for {self._limits.idle_timeout:g} s."
            raise StreamAborted("STREAM_IDLE", text, self.session.token) from None

    async def _mind_the_time(self) -> None:
        now, limits, token = self._now(), self._limits, self.session.token
        if now >= self._drain_at:
            raise Closed
        if now >= self.session.started_at + limits.max_session:
            raise too_long(limits.max_session)
        if now >= self._reader.listening_since + limits.idle_timeout:
            raise StreamAborted(
                "STREAM_IDLE", f"Nothing came for {limits.idle_timeout:g} s.", token
            )
        if self._drain_at < inf and not self._drain_announced:
            self._drain_announced = True
            grace = round(1000 * (self._drain_at - now))
            await self._send(draining=pb.Draining(grace_ms=grace, resume_token=token))
        if now >= self._sent_at + limits.heartbeat:
            await self._send(heartbeat=pb.Heartbeat(lag_ms=round(1000 * self._outbox.lag())))

    def _next_alarm(self) -> float:
        listening_since = min(self._reader.listening_since, self._now())
        return min(
            self._drain_at,
            self.session.started_at + self._limits.max_session,
            listening_since + self._limits.idle_timeout,
            self._sent_at + self._limits.heartbeat,
        )
