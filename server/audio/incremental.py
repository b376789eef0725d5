"""A stream of bytes becomes a stream of samples; the cuts between the bytes leave no trace.

Knows no segments and no sessions. Nothing here is safe to call from two threads at once.
"""

from threading import Thread
from typing import Protocol

import numpy as np

from server.audio.containers import undecodable
from server.audio.limits import AudioLimits, check_channel_index, check_channels, check_rate
from server.audio.pipe import Decoded, Pipe, decode_pipe
from server.audio.raw import _STORED, Encoding, RawFormat, _as_float32
from server.audio.resample import Resampler, mix
from server.audio.sniff import recognise
from server.audio.source import Block
from server.speech import InvalidInput, Waveform

_PIECE = 16_000  # frames; bounds what one call of `take` costs
_SNIFF_BYTES = 64 * 1024  # a container that does not show itself in these is none
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


def open_intake(described: RawFormat | None, limits: AudioLimits) -> Intake:
    """For samples as described, or for a container that says itself what it is.

    Raises InvalidInput: SAMPLE_RATE_OUT_OF_RANGE, CHANNEL_OUT_OF_RANGE.
    """
    if described is not None and described.encoding is not None:
        return RawIntake(described, described.encoding, limits)
    return ContainerIntake(described.channel_index if described else 0, limits)


class _Channel:
    """One of the channels, or their mean, at 16 kHz."""

    def __init__(self, rate_hz: int, index: int) -> None:
        self._rate_hz = rate_hz
        self._index = index
        self._resampler = Resampler(rate_hz)

    def push(self, block: Block) -> Waveform:
        heard = block[:, self._index - 1 : self._index] if self._index else block
        samples = mix(heard)
        if not np.isfinite(samples).all():
            raise InvalidInput("AUDIO_NOT_FINITE", "expected finite samples, got NaN or infinity")
        return self._resampler.push(samples)

    def cut(self) -> Waveform:
        rest = self._resampler.finish()
        self._resampler = Resampler(self._rate_hz)
        return rest


class RawIntake:
    """Samples without a header. Cheap enough for an event loop: 10 us for 100 ms of speech."""

    container = "raw"

    def __init__(self, described: RawFormat, encoding: Encoding, limits: AudioLimits) -> None:
        self.rate_hz = described.sample_rate_hz
        self.channels = described.channel_count or 1
        check_rate(self.rate_hz, "audio_format.sample_rate_hz", limits)
        check_channels(self.channels, "audio_format.channel_count", limits)
        check_channel_index(described.channel_index, self.channels)
        self._encoding = encoding
        self._stored = _STORED[encoding]
        self._frame_bytes = self._stored.itemsize * self.channels
        self._channel = _Channel(self.rate_hz, described.channel_index)
        self._waiting = b""
        self.size = 0

    @property
    def frames(self) -> int:
        return self.size // self._frame_bytes

    def offer(self, data: bytes) -> None:
        self._waiting = self._waiting + data if self._waiting else data
        self.size += len(data)

    def rewind(self, unit: str, first: int) -> int:
        return _overlap(first * self._frame_bytes if unit == "sample" else first, self.size)

    def take(self) -> Waveform | None:
        size = min(len(self._waiting) // self._frame_bytes, _PIECE) * self._frame_bytes
        if not size:
            return None
        samples = np.frombuffer(self._waiting, self._stored, size // self._stored.itemsize)
        self._waiting = self._waiting[size:]
        return self._channel.push(_as_float32(samples.reshape(-1, self.channels), self._encoding))

    def cut(self) -> Waveform:
        return self._channel.cut()

    def finish(self) -> None:
        """A frame that is not whole is left out."""

    def close(self) -> None:
        self._waiting = b""


class ContainerIntake:
    """A file in pieces. FFmpeg pulls, so it has a thread, which waits while there are no bytes.

    `take` and `cut` wait for that thread: milliseconds, not for an event loop.
    """

    container = ""
    rate_hz = 0
    channels = 0

    def __init__(self, channel_index: int, limits: AudioLimits) -> None:
        self._channel_index = channel_index
        self._limits = limits
        self._head = b""  # until the container is recognised
        self._pipe = Pipe()
        self._channel: _Channel | None = None
        self._ended = False
        self.size = 0
        self.frames = 0

    def offer(self, data: bytes) -> None:
        self.size += len(data)
        if self.container:
            self._pipe.write(data)
            return
        self._head += data
        self._recognise()

    def rewind(self, unit: str, first: int) -> int:
        if unit == "sample":
            text = "a container is counted in bytes: send first_byte"
            raise InvalidInput("FIELD_INVALID", text, field="audio.first_sample")
        return _overlap(first, self.size)

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
        self._ended = True
        self._pipe.end()

    def close(self) -> None:
        self._ended = True
        self._pipe.close()

    def _recognise(self) -> None:
        container = recognise(self._head)
        if container is None:
            if len(self._head) > _SNIFF_BYTES:
                raise _format_required()
            return
        self.container = container
        self._pipe.write(self._head)
        self._head = b""
        Thread(target=decode_pipe, args=(container, self._pipe), name="stream", daemon=True).start()

    def _push(self, block: Decoded) -> Waveform:
        if self._channel is None:
            check_rate(block.rate_hz, "audio", self._limits)
            check_channels(block.samples.shape[1], "audio", self._limits)
            check_channel_index(self._channel_index, block.samples.shape[1])
            self.rate_hz, self.channels = block.rate_hz, block.samples.shape[1]
            self._channel = _Channel(self.rate_hz, self._channel_index)
        self.frames += len(block.samples)
        return self._channel.push(block.samples)

    def _refusal(self, error: Exception | None) -> InvalidInput:
        return error if isinstance(error, InvalidInput) else undecodable(self.container)


def _overlap(first: int, accepted: int) -> int:
    if first > accepted:
        text = f"expected audio from byte {accepted} on, got some from byte {first} on"
        raise InvalidInput("SAMPLES_MISSING", text, field="audio", limit=accepted, actual=first)
    return accepted - first


def _format_required() -> InvalidInput:
    return InvalidInput(
        "FORMAT_REQUIRED",
        "expected a known container or the encoding of headerless samples, got neither",
        field="audio_format.encoding",
    )
