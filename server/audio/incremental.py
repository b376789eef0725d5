"""A stream of bytes becomes a stream of samples; the cuts between the bytes leave no trace.

Knows no segments and no sessions. Nothing here is safe to call from two threads at once.
"""

from threading import Thread
from typing import Protocol

import numpy as np

from server.audio.containers import undecodable
from server.audio.ffmpeg import check_index
from server.audio.isomedia import Boxes
from server.audio.limits import AudioLimits, check_channel_index, check_channels, check_rate
from server.audio.pipe import Decoded, Pipe, decode_pipe
from server.audio.raw import RawFormat
from server.audio.raw_intake import RawIntake, overlap
from server.audio.resample import Channel
from server.audio.sniff import recognise
from server.audio.spool import Spool
from server.speech import InvalidInput, Waveform

_SNIFF_BYTES = 64 * 1024  # a container, or an index, that does not show itself in these is none
_NOTHING = np.empty(0, np.float32)


class Intake(Protocol):
    """Where the bytes of one stream go in, and its samples come out."""

    @property
    def container(self) -> str: ...

    @property
    def rate_hz(self) -> int:
        """0 until it is known."""
        ...

    @property
    def channels(self) -> int: ...

    @property
    def frames(self) -> int:
        """Frames of the source that were accepted; of a container, that were decoded."""
        ...

    @property
    def size(self) -> int:
        """Bytes accepted."""
        ...

    @property
    def damaged(self) -> bool:
        """Whether the decoder gave up before the end."""
        ...

    def offer(self, data: bytes) -> None:
        """Accepts the next bytes. Call `take` until it has nothing more."""
        ...

    def rewind(self, unit: str, first: int) -> int:
        """How many bytes of a chunk that begins at `first` are here already.

        `unit` is "sample" or "byte". Raises InvalidInput SAMPLES_MISSING if there is a gap.
        """
        ...

    def take(self) -> Waveform | None:
        """The next samples, mono at 16 kHz; None if that needs more bytes. Raises InvalidInput."""
        ...

    def cut(self) -> Waveform:
        """What the resampler holds back; what comes next starts afresh, as another file would."""
        ...

    def finish(self) -> None:
        """There are no more bytes: `take` and then `cut` return the rest."""
        ...

    def close(self) -> None:
        """Gives up at once, whatever is left. May be called from any thread, and twice."""
        ...


def open_intake(
    described: RawFormat | None, limits: AudioLimits, *, may_wait: bool = False
) -> Intake:
    """For samples as described, or for a container that says itself what it is.

    `may_wait`: for the end of a file that cannot be decoded before, on the disk; otherwise such a
    file is refused.

    Raises InvalidInput: SAMPLE_RATE_OUT_OF_RANGE, CHANNEL_OUT_OF_RANGE.
    """
    if described is not None and described.encoding is not None:
        return RawIntake(described, described.encoding, limits)
    channel_index = described.channel_index if described else 0
    return ContainerIntake(channel_index, limits, may_wait=may_wait)


class ContainerIntake:
    """A file in pieces. FFmpeg pulls, so it has a thread, which waits while there are no bytes.

    `take` and `cut` wait for that thread: milliseconds, not for an event loop.
    """

    container = ""
    rate_hz = 0
    channels = 0

    def __init__(self, channel_index: int, limits: AudioLimits, *, may_wait: bool) -> None:
        self._channel_index = channel_index
        self._limits = limits
        self._may_wait = may_wait
        self._head = b""  # until it is known how to decode the container
        self._boxes: Boxes | None = None  # of ISO media files
        self._pipe = Pipe()
        self._channel: Channel | None = None
        self._ended = False
        self.size = 0
        self.frames = 0

    @property
    def damaged(self) -> bool:
        return self._pipe.error is not None

    def offer(self, data: bytes) -> None:
        """Raises InvalidInput FORMAT_REQUIRED, AUDIO_NOT_STREAMABLE, AUDIO_UNDECODABLE; OSError
        from the disk."""
        self.size += len(data)
        if self._boxes is not None:
            self._boxes.push(data)
            check_index(self._boxes)
        if self.container:
            self._pipe.write(data)
            return
        self._head += data
        self._recognise()

    def rewind(self, unit: str, first: int) -> int:
        if unit == "sample":
            text = "a container is counted in bytes: send first_byte"
            raise InvalidInput("FIELD_INVALID", text, field="audio.first_sample")
        return overlap(first, self.size)

    def take(self) -> Waveform | None:
        if not self.container:
            if self._ended and self._head:
                raise _format_required()
            return None
        block = self._pipe.next_block()
        if block is not None:
            return self._push(block)
        if self._pipe.error is not None and not self._ended:
            raise self._refusal(self._pipe.error)
        if self._ended and not self.frames:
            raise self._refusal(self._pipe.error)
        return None

    def cut(self) -> Waveform:
        return _NOTHING if self._channel is None else self._channel.cut()

    def finish(self) -> None:
        if not self.container and (container := recognise(self._head)):
            self._start(container)
        self._ended = True
        self._pipe.end()

    def close(self) -> None:
        self._ended = True
        self._pipe.close()

    def _recognise(self) -> None:
        container = recognise(self._head)
        enough = len(self._head) > _SNIFF_BYTES
        if container is None:
            if enough:
                raise _format_required()
            return
        if container == "m4a":
            index_first = self._index_first()
            if index_first is None and not enough:
                return
            if not index_first:
                self._wait_for_end(container)
        self._start(container)

    def _index_first(self) -> bool | None:
        if self._boxes is None:
            self._boxes = Boxes()
            self._boxes.push(self._head)
            check_index(self._boxes)
        return self._boxes.index_first

    def _wait_for_end(self, container: str) -> None:
        if not self._may_wait:
            raise _not_streamable(container)
        self._pipe = Spool()
        if self._ended:  # another thread closed the one before
            self._pipe.close()

    def _start(self, container: str) -> None:
        self.container = container
        # The thread first: it cleans up after a write that fails.
        Thread(target=decode_pipe, args=(container, self._pipe), name="stream", daemon=True).start()
        self._pipe.write(self._head)
        self._head = b""

    def _push(self, block: Decoded) -> Waveform:
        if self._channel is None:
            check_rate(block.rate_hz, "audio", self._limits)
            check_channels(block.samples.shape[1], "audio", self._limits)
            check_channel_index(self._channel_index, block.samples.shape[1])
            self.rate_hz, self.channels = block.rate_hz, block.samples.shape[1]
            self._channel = Channel(self.rate_hz, self._channel_index)
        self.frames += len(block.samples)
        return self._channel.push(block.samples)

    def _refusal(self, error: Exception | None) -> InvalidInput:
        return error if isinstance(error, InvalidInput) else undecodable(self.container)


def _not_streamable(container: str) -> InvalidInput:
    text = (
        f"expected {container} with its index (moov) before its audio (mdat), got it behind, where"
        " it comes too late for a stream: send the file to AnalyzeUpload, or rewrite it, with"
        " ffmpeg -i FILE -c copy -movflags +faststart"
    )
    return InvalidInput("AUDIO_NOT_STREAMABLE", text, container=container)


def _format_required() -> InvalidInput:
    return InvalidInput(
        "FORMAT_REQUIRED",
        "expected a known container or the encoding of headerless samples, got neither",
        field="audio_format.encoding",
    )
