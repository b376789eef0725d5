"""One session of a stream: audio in and events out, over as many connections as it takes."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Self
from uuid import uuid4

from speech_emotion_client.errors import InvalidRequest, SpeechEmotionError
from speech_emotion_client.v1 import emotion_service_pb2 as pb

from . import resuming
from .chunks import frame_bytes
from .events import Event, SessionStarted, Summary, to_event
from .given import Given
from .options import StreamCall, to_config
from .tail import Tail
from .wire import Wire

OPENING = 30.0
"""Seconds to open a session again, for one attempt."""

MARGIN = 10.0
"""Seconds of silence beyond the server's idle timeout, then the connection counts as broken."""


class Session:
    """An async iterator of events, the last of which is a Summary; `open` it, and `aclose` it.

    A broken connection is resumed while the iterator is read: no sample is lost, and no final
    result comes twice.
    """

    def __init__(
        self, open_call: Callable[[str], Any], call: StreamCall, *, seconds: float
    ) -> None:
        """`open_call` gets a name, the same for every connection of this session."""
        self._open_call = partial(open_call, uuid4().hex)
        self._config = to_config(call)
        self._seconds = seconds
        self._frame = frame_bytes(call.described)
        self._tail = Tail(self._frame)
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._wire: Wire | None = None
        self._started: SessionStarted | None = None
        self._waiting: deque[Event] = deque()  # SessionStarted, until it is asked for
        self._given = Given()
        self._failure: Exception | None = None
        self._over = False
        self._broken_at = inf  # time.monotonic()
        self._attempt = 0

    async def open(self) -> None:
        """Raises a SpeechEmotionError if there is no session to be had."""
        try:
            await self._open(self._seconds)
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Raises a SpeechEmotionError when the stream cannot go on; StreamLost after a break."""
        if self._over:
            raise StopAsyncIteration
        try:
            event = await self._next()
        except Exception as error:
            self._end(error)
            raise
        if isinstance(event, Summary):
            self._end(None)
        return event

    @property
    def started(self) -> SessionStarted:
        """What the server made of the options; set once the stream is entered."""
        assert self._started is not None
        return self._started

    async def send(self, data: bytes) -> None:
        """The next audio, waiting for room. Raises what the stream ended with."""
        while self._tail.is_full and not self._over:
            self._room.clear()
            await self._room.wait()
        self._check_open()
        self._tail.append(data)
        self._news.set()

    async def end_segment(self) -> None:
        """The segment ends here (ClientMarks)."""
        self._check_open()
        self._tail.mark()
        self._news.set()

    async def finish(self) -> None:
        """There is no more audio; the last results and the Summary follow."""
        if not self._over:
            self._tail.finish()
            self._news.set()

    async def aclose(self) -> None:
        """Ends the stream without its summary, unless it has come."""
        self._end(None)
        if self._wire is not None:
            await self._wire.close()

    async def _next(self) -> Event:
        while True:
            if self._waiting:
                return self._waiting.popleft()
            if self._failure is not None:
                raise self._failure
            try:
                message = await self._connected().read(self._patience)
            except SpeechEmotionError as error:
                await self._recover(error)
                continue
            self._tail.accept(message.cursors.accepted_sample, message.cursors.accepted_byte)
            self._room.set()
            event = to_event(message, resumed=False)
            if event is not None and self._given.is_new(event):
                self._broken_at, self._attempt = inf, 0
                return event

    @property
    def _patience(self) -> float:
        """Seconds; a server whose client is idle says so before."""
        return self.started.limits.idle_timeout_ms / 1000 + MARGIN

    def _connected(self) -> Wire:
        assert self._wire is not None
        return self._wire

    async def _recover(self, error: SpeechEmotionError) -> None:
        if self._failure is not None:  # the feed failed, and ended the call
            raise self._failure
        if not resuming.is_broken(error, owes=self._tail.owes):
            raise error
        window = self.started.limits.resume_window_ms / 1000
        # A connection that breaks again before it has brought anything is the same failure.
        self._broken_at = min(self._broken_at, time.monotonic())
        while (wait := resuming.delay(self._attempt, error)) <= (left := self._left(window)):
            await asyncio.sleep(wait)
            self._attempt += 1
            try:
                return await self._open(min(OPENING, max(left - wait, 0.1)))
            except SpeechEmotionError as again:
                if again.reason == "SESSION_NOT_FOUND":
                    raise resuming.lost(str(again), again) from error
                if not resuming.try_again(again):
                    raise
                error = again
        raise resuming.lost(f"not within {window:g} s. {error}", error) from error

    def _left(self, window: float) -> float:
        return self._broken_at + window - time.monotonic()

    async def _open(self, seconds: float) -> None:
        """A new connection, for a new session or for the one there is."""
        message = await self._greet(seconds)
        event = to_event(message, resumed=self._started is not None)
        if not isinstance(event, SessionStarted):
            text = "The server did not begin with session_started."
            raise SpeechEmotionError(text, code="FAILED_PRECONDITION")
        self._go_on(message.session_started)
        self._started = event
        self._waiting.append(event)
        self._connected().start_sending(
            self._tail, event.limits.max_chunk_bytes, self._news, self._room
        )

    async def _greet(self, seconds: float) -> pb.AnalyzeStreamResponse:
        """The first event; asked for again if an answer was not heard: the key may be wrong."""
        *hasty, patient = resuming.LISTENINGS
        for pause in hasty:
            try:
                return await self._connect(seconds, pause)
            except SpeechEmotionError as error:
                if not resuming.is_unheard(error):
                    raise
        return await self._connect(seconds, patient)

    async def _connect(self, seconds: float, pause: float) -> pb.AnalyzeStreamResponse:
        if self._wire is not None:
            await self._wire.close()
        self._wire = Wire(self._open_call, raw_frame=self._frame)
        return await self._wire.greet(self._config, seconds, pause)

    def _go_on(self, started: pb.SessionStarted) -> None:
        self._config.resume_token = started.resume_token
        position = started.next_sample * self._frame if self._frame else started.next_byte
        if not self._tail.rewind(position):
            text = f"the server wants byte {position}, which is not held any more."
            raise resuming.lost(text, SpeechEmotionError(text, reason="SAMPLES_MISSING"))

    def fail(self, error: Exception) -> None:
        """Whoever reads is told, unless the session is over."""
        if not self._over:
            self._failure = error
            self._connected().cancel()

    def _end(self, error: Exception | None) -> None:
        self._over = True
        self._failure = self._failure or error
        self._room.set()

    def _check_open(self) -> None:
        if self._tail.finished or self._over:
            raise self._failure or InvalidRequest("The stream is finished.")
