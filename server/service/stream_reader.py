"""Reads one stream's messages and lets its session decide; runs in a task of its own.

A handler that is cancelled while it reads leaks in grpc.aio, and a lost client first looks like
one that has half-closed; so nobody cancels this task: it ends when the call does.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, TypeVar

import grpc
from speechemotion.v1 import emotion_service_pb2 as pb

from server.errors import StreamAborted
from server.service.calls import Context
from server.service.stream_config import Order
from server.service.stream_messages import Result
from server.service.stream_outbox import Outbox, Workshop
from server.speech import InvalidInput, Notice
from server.streaming.decisions import Decision, Segment
from server.streaming.pace import Pace
from server.streaming.plan import Speech
from server.streaming.session import Session

Value = TypeVar("Value")

PROGRESS = 1.0
"""Seconds after which a session is kept again although nothing was decided."""

QUICK = 16 * 1024
"""Bytes that are listened to on the loop (half a second, 1 ms); more goes to a thread."""

HALF_CLOSE = 0.05
"""Seconds that a bare half-close has to last before it counts as Finish."""


class Reader:
    """Messages in, decisions out, until the outbox is closed."""

    def __init__(
        self,
        shop: Workshop,
        session: Session[Result],
        order: Order,
        outbox: Outbox,
        context: Context,
    ) -> None:
        self.listening_since = inf  # loop time; inf while it does something else
        self._limits = shop.limits
        self._decoders = shop.decoders
        self._session = session
        self._order = order
        self._outbox = outbox
        self._context = context
        self._decodes = session.source.container != "raw"  # a step takes milliseconds
        self._listens = isinstance(order.segmentation, Speech)
        self._off_loop = self._decodes
        self._loop = asyncio.get_running_loop()
        self._pace = self._make_pace() if order.live else None
        self._slowed = False
        self._progress_at = self._loop.time()
        self._step: asyncio.Future[Any] | None = None

    def _make_pace(self) -> Pace:
        behind, self._session.behind = self._session.behind, 0.0
        return Pace(self._limits.max_speed, self._loop.time(), behind)

    async def read_all(self) -> None:
        """Until Finish, a failure, or the end of the connection."""
        try:
            await self._use_up()  # what an earlier connection accepted
            while not (self._outbox.closed or self._outbox.complete):
                self.listening_since = self._loop.time()
                message = await self._context.read()
                self.listening_since = inf
                if not self._outbox.closed:
                    await self._take(message)
        except Exception as error:
            self._outbox.fail(error)

    async def quiet(self) -> None:
        """Returns when the session is not being worked on; the outbox is closed already."""
        if self._step is not None:
            await asyncio.wait({self._step})

    async def _take(self, message: Any) -> None:
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
            await self._half_closed()
            return
        match message.WhichOneof("payload"):
            case "audio":
                await self._take_audio(message.audio)
            case "control":
                await self._obey(message.control)
            case "config":
                text = "config comes first, and only once."
                raise InvalidInput("CONFIG_REPEATED", text, field="config")
            case _:
                raise InvalidInput("FIELD_INVALID", "A message is empty.", field="payload")

    async def _half_closed(self) -> None:
        await self._outbox.pause(HALF_CLOSE)
        if not (self._outbox.closed or self._context.cancelled()):
            await self._finish()

    async def _take_audio(self, chunk: pb.AudioChunk) -> None:
        data = self._missing(chunk, chunk.data)
        before = self._session.seconds()
        await self._use_up(data)
        seconds = self._session.seconds()
        if seconds > self._limits.max_session:
            raise too_long(self._limits.max_session)
        await self._slow_down(seconds - before)

    def _missing(self, chunk: pb.AudioChunk, data: bytes) -> bytes:
        """What the session has not got yet."""
        limit = self._limits.max_chunk_bytes
        if len(data) > limit:
            text = f"A chunk has at most {limit} bytes, not {len(data)}."
            raise InvalidInput(
                "CHUNK_TOO_LARGE", text, field="audio.data", limit=limit, actual=len(data)
            )
        if chunk.HasField("first_sample"):
            return self._session.missing(data, "sample", chunk.first_sample)
        if chunk.HasField("first_byte"):
            return self._session.missing(data, "byte", chunk.first_byte)
        return data

    async def _obey(self, control: pb.StreamControl) -> None:
        match control.WhichOneof("action"):
            case "end_segment":
                if not self._order.effective.HasField("client_marks"):
                    text = "end_segment needs client_marks."
                    raise InvalidInput("FIELD_INVALID", text, field="control.end_segment")
                await self._admit(await self._do(self._session.mark))
                if not self._outbox.closed:
                    self._make_progress(final=True)
            case "finish":
                await self._finish()
            case _:
                raise InvalidInput("FIELD_INVALID", "A control is empty.", field="control")

    async def _finish(self) -> None:
        await self._do(self._session.end)
        if not self._outbox.closed:
            await self._use_up()
        if self._outbox.closed:
            return
        await self._admit(await self._do(self._session.finish))
        self._outbox.end()

    async def _use_up(self, data: bytes = b"") -> None:
        """Decides about everything that was accepted, piece by piece."""
        self._off_loop = self._decodes or (self._listens and len(data) > QUICK)
        decided, final = await self._do(self._session.step, data), False
        while decided is not None:
            if decided:
                final = await self._admit(decided) or final
            if self._outbox.closed:
                return
            decided = await self._do(self._session.step)
        self._make_progress(final)

    async def _admit(self, decided: list[Decision]) -> bool:
        """Whether there was a final segment among them."""
        self._session.put_back(await self._outbox.admit(decided))
        return any(isinstance(one, Segment) and one.final for one in decided)

    def _make_progress(self, final: bool) -> None:
        now = self._loop.time()
        if final or now >= self._progress_at + PROGRESS:
            self._progress_at = now
            self._outbox.pass_milestone()

    async def _do(self, function: Callable[..., Value], *arguments: Any) -> Value:
        """A step of the session, in a thread if it would hold up the others."""
        if not self._off_loop:
            return function(*arguments)
        step = self._loop.run_in_executor(self._decoders, function, *arguments)
        self._step = step
        try:
            return await step
        finally:
            self._step = None

    async def _slow_down(self, seconds: float) -> None:
        wait = self._pace.spend(seconds, self._loop.time()) if self._pace else 0.0
        if not wait:
            return
        if not self._slowed:
            self._slowed = True
            text = f"A live stream is read at {self._limits.max_speed:g} times its speed at most."
            self._outbox.append(Notice("SPEED_LIMITED", text))
        await self._outbox.pause(wait)


def too_long(seconds: float) -> StreamAborted:
    text = f"A stream lasts {seconds:g} s at most; open a new one."
    return StreamAborted("STREAM_MAX_DURATION", text)
