"""A stream of any length: one session, or several where one is not allowed to be so long."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Self

from numpy.typing import NDArray

from .chain import Chain
from .chunks import frame_bytes, to_bytes
from .events import Event, SessionStarted, Summary
from .options import StreamCall
from .session import Session

SHARE = 0.95
"""Of the longest session that a server allows; then the next one begins."""


class EmotionStream:
    """An async context manager and an async iterator of events, the last of which is a Summary.

    Feed it from one task (`send`, `end_segment`, `finish`) and iterate over it in another: who
    feeds waits for room, and events are fetched only as they are asked for, so that neither side
    grows memory. A broken connection is resumed while the iterator is read: no sample is lost, and
    no final result comes twice. Samples that last longer than a session may go on in another one,
    with times and numbers that count on; a segment then ends where the session does.
    """

    def __init__(
        self,
        open_call: Callable[[str], Any],
        call: StreamCall,
        *,
        seconds: float,
        feed: Callable[["EmotionStream"], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._make = partial(Session, open_call, call, seconds=seconds)
        self._described = call.described
        self._frame = frame_bytes(self._described)
        self._feed = feed
        self._feeding: asyncio.Task[None] | None = None
        self._session = self._make()
        self._chain = Chain()
        self._sent = 0  # bytes of this session
        self._ends_at = 0.0  # time.monotonic()
        self._changing = False  # this session ends, and another follows
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        """Opens the session; raises a SpeechEmotionError if there is none to be had."""
        await self._open(self._session)
        if self._feed is not None:
            self._feeding = asyncio.create_task(self._feed(self))
            self._feeding.add_done_callback(self._fed)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Raises a SpeechEmotionError when the stream cannot go on; StreamLost after a break."""
        try:
            event = await anext(self._session)
            if isinstance(event, Summary) and self._changing:
                await self._go_on(event)
                event = await anext(self._session)
        except BaseException as error:
            self._failure = error
            self._changed.set()
            raise
        return self._chain.place(event)

    @property
    def started(self) -> SessionStarted:
        """What the server made of the options; set once the stream is entered."""
        return self._session.started

    async def send(self, chunk: bytes | bytearray | memoryview | NDArray[Any]) -> None:
        """The next audio, waiting for room; 20 to 100 ms at a time are best.

        Arrays are (samples,) or (samples, channels), int16 or floats in [-1, 1]. Raises
        InvalidAudio, or what the stream ended with.
        """
        data = to_bytes(chunk, self._described)
        while True:
            room = self._room(len(data))
            part, data = data[:room], data[room:]
            await self._session.send(part)
            self._sent += len(part)
            if not data:
                return
            await self._change()

    async def end_segment(self) -> None:
        """The segment ends here (ClientMarks)."""
        await self._session.end_segment()

    async def finish(self) -> None:
        """There is no more audio; the last results and the Summary follow."""
        await self._session.finish()

    async def aclose(self) -> None:
        """Ends the stream without its summary, unless it has come."""
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.wait([self._feeding])
        self._changed.set()
        await self._session.aclose()

    async def _go_on(self, summary: Summary) -> None:
        """The next session, now that this one has ended."""
        self._chain.add(summary, self._sent // self._frame)
        await self._session.aclose()
        await self._open(self._make())

    async def _open(self, session: Session) -> None:
        await session.open()
        self._session = session
        self._sent = 0
        self._ends_at = time.monotonic() + self._longest()
        self._changing = False
        self._changed.set()

    def _longest(self) -> float:
        return SHARE * self.started.limits.max_session_ms / 1000

    def _room(self, wanted: int) -> int:
        """Bytes, whole samples, until this session is long enough; a container cannot be cut."""
        if self._described is None:
            return wanted
        if self._sent and time.monotonic() >= self._ends_at:
            return -self._sent % self._frame
        samples = round(self._longest() * self._described.sample_rate)
        return samples * self._frame - self._sent

    async def _change(self) -> None:
        """This session ends; returns when the next one is open, or when there will be none."""
        self._changing = True
        self._changed.clear()
        await self._session.finish()
        await self._changed.wait()
        if self._changing and isinstance(self._failure, Exception):
            raise self._failure

    def _fed(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._session.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))
