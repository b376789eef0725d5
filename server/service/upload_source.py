"""Where a long upload comes from: its messages, and the windows that are cut from their bytes."""

import asyncio
import hashlib
import time
from collections.abc import Iterable
from typing import Any

import grpc
from speechemotion.v1.emotion_service_pb2 import AnalyzeUploadRequest

from server.audio import AudioLimits, RawFormat
from server.audio.incremental import open_intake
from server.errors import NoRoom, StreamAborted
from server.service.calls import Context
from server.service.upload_answer import Received
from server.speech import SAMPLE_RATE, InvalidInput
from server.streaming.decisions import Decision, Segment
from server.streaming.plan import StreamLimits, Windows
from server.streaming.windows import FixedWindows


class Inbox:
    """The messages of one upload, counted. Raises InvalidInput for what is too large."""

    def __init__(self, context: Context, max_bytes: int, idle_timeout: float) -> None:
        self.size = 0
        self.ended = False
        self._context = context
        self._max_bytes = max_bytes
        self._idle_timeout = idle_timeout

    async def first(self) -> AnalyzeUploadRequest:
        """Raises InvalidInput AUDIO_EMPTY if there is none."""
        message: AnalyzeUploadRequest | None = await self._read()
        if message is None:
            raise InvalidInput("AUDIO_EMPTY", "expected audio, got 0 bytes", limit=1, actual=0)
        self._count(len(message.audio.data))
        return message

    async def next(self) -> bytes | None:
        """The next piece; None after the last."""
        message = await self._read()
        if message is None:
            return None
        piece: bytes = message.audio.data
        self._count(len(piece))
        return piece

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self._max_bytes:
            raise InvalidInput(
                "AUDIO_TOO_LARGE",
                f"expected at most {self._max_bytes} bytes of audio, got at least {self.size}",
                limit=self._max_bytes,
                actual=self.size,
            )

    async def _read(self) -> Any:
        if self.ended:
            return None
        # A task of its own, which nobody cancels: a cancelled read leaks in grpc.aio.
        read = asyncio.ensure_future(self._context.read())
        read.add_done_callback(_ignore)
        await asyncio.wait({read}, timeout=self._idle_timeout)
        if not read.done():
            raise StreamAborted("STREAM_IDLE", f"Nothing came for {self._idle_timeout:g} s.")
        message = read.result()
        self.ended = message is grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
        return None if self.ended else message


def _ignore(read: "asyncio.Future[Any]") -> None:
    if not read.cancelled():
        read.exception()  # the call was over before the message came


class Cutter:
    """Bytes in, windows out; blocks for milliseconds, and is called by one thread at a time."""

    def __init__(
        self,
        described: RawFormat | None,
        audio: AudioLimits,
        windows: Windows,
        streams: StreamLimits,
        *,
        digest: bool,
    ) -> None:
        """`digest`: whether to make one of the bytes."""
        self._intake = open_intake(described, audio, may_wait=True)
        self._segmenter = FixedWindows(windows.window, windows.hop, 0)
        self._digest = hashlib.sha256() if digest else None
        self._at_once = streams.max_pending
        self._max_samples = round(streams.max_session * SAMPLE_RATE)
        self._samples = 0
        self._seconds = 0.0

    def feed(self, data: bytes) -> None:
        """Raises InvalidInput, NoRoom."""
        if self._digest:
            self._digest.update(data)
        try:
            self._intake.offer(data)
        except OSError as error:
            raise NoRoom from error

    def end(self) -> None:
        """There are no more bytes: `more` and then `finish` return the rest."""
        self._intake.finish()

    def more(self) -> list[Segment] | None:
        """Some windows, or none yet; None if more bytes are needed first. Raises InvalidInput."""
        started = time.perf_counter()
        found: list[Segment] = []
        while len(found) < self._at_once:
            samples = self._intake.take()
            if samples is None:
                break
            self._count(len(samples))
            found += _segments(self._segmenter.push(samples))
        self._seconds += time.perf_counter() - started
        return found or None

    def finish(self) -> list[Segment]:
        samples = self._intake.cut()
        self._samples += len(samples)
        return _segments([*self._segmenter.push(samples), *self._segmenter.finish()])

    def received(self, request_id: str, total: float) -> Received:
        """What came; `total` is in seconds since the call began."""
        intake = self._intake
        return Received(
            request_id=request_id,
            sha256=self._digest.hexdigest() if self._digest else "",
            samples=self._samples,
            container=intake.container,
            rate_hz=intake.rate_hz,
            channels=intake.channels,
            damaged=intake.damaged,
            decode=self._seconds,
            total=total,
            computed_at=time.time(),
        )

    def close(self) -> None:
        self._intake.close()

    def _count(self, samples: int) -> None:
        self._samples += samples
        if self._samples > self._max_samples:
            limit = f"{self._max_samples / SAMPLE_RATE:g}"
            text = f"expected at most {limit} s of audio, got more"
            raise InvalidInput("AUDIO_TOO_LONG", text, limit=limit)


def _segments(decided: Iterable[Decision]) -> list[Segment]:
    """Without the remark that the end was too short for a window of its own."""
    return [one for one in decided if isinstance(one, Segment)]
