"""A stream of headerless samples. Can go on in the middle of one that another began."""

from dataclasses import dataclass
from math import gcd

import numpy as np

from server.audio.limits import AudioLimits, check_channel_index, check_channels, check_rate
from server.audio.raw import _STORED, Encoding, RawFormat, _as_float32
from server.audio.resample import Channel
from server.speech import SAMPLE_RATE, InvalidInput, Waveform

_PIECE = 16_000  # frames; bounds what one call of `take` costs
_RUN_UP = 4096  # frames until a resampler that starts late agrees with others; 600 at 96 kHz


@dataclass(frozen=True, slots=True)
class Place:
    """Two ends of the same thread: a frame of the source, and the sample at 16 kHz made of it."""

    frame: int
    sample: int


class RawIntake:
    """Samples without a header. Cheap enough for an event loop: 10 us for 100 ms of speech."""

    container = "raw"
    damaged = False

    def __init__(self, described: RawFormat, encoding: Encoding, limits: AudioLimits) -> None:
        self.rate_hz = described.sample_rate_hz
        self.channels = described.channel_count or 1
        check_rate(self.rate_hz, "audio_format.sample_rate_hz", limits)
        check_channels(self.channels, "audio_format.channel_count", limits)
        check_channel_index(described.channel_index, self.channels)
        self._encoding = encoding
        self._stored = _STORED[encoding]
        self.frame_bytes = self._stored.itemsize * self.channels
        self._channel = Channel(self.rate_hz, described.channel_index)
        self._waiting = b""
        self._fresh = Place(0, 0)  # where the resampler began
        self._made = self._wanted = 0  # samples that came out; those before `_wanted` are dropped
        self.size = 0

    @property
    def frames(self) -> int:
        return self.size // self.frame_bytes

    def place(self, sample: int) -> Place:
        """Where to `go_on` in order to get the samples from `sample` on once more."""
        unit = self.rate_hz // gcd(self.rate_hz, SAMPLE_RATE)  # frames that make whole samples
        run_up = 0 if self.rate_hz == SAMPLE_RATE else _RUN_UP
        frames = (sample - self._fresh.sample) * self.rate_hz // SAMPLE_RATE - run_up
        units = max(0, frames // unit)
        made = units * unit * SAMPLE_RATE // self.rate_hz
        return Place(self._fresh.frame + units * unit, self._fresh.sample + made)

    def go_on(self, place: Place, sample: int) -> None:
        """The next byte is that of `place`, but what comes out begins at `sample`."""
        self.size = place.frame * self.frame_bytes
        self._fresh, self._made, self._wanted = place, place.sample, sample

    def offer(self, data: bytes) -> None:
        self._waiting = self._waiting + data if self._waiting else data
        self.size += len(data)

    def rewind(self, unit: str, first: int) -> int:
        if unit == "byte":
            return overlap(first, self.size)
        return overlap(first, self.frames, unit) * self.frame_bytes + self.size % self.frame_bytes

    def take(self) -> Waveform | None:
        size = min(len(self._waiting) // self.frame_bytes, _PIECE) * self.frame_bytes
        if not size:
            return None
        samples = np.frombuffer(self._waiting, self._stored, size // self._stored.itemsize)
        self._waiting = self._waiting[size:]
        block = _as_float32(samples.reshape(-1, self.channels), self._encoding)
        return self._counted(self._channel.push(block))

    def cut(self) -> Waveform:
        rest = self._counted(self._channel.cut())
        self._fresh = Place(self.frames, self._made)
        return rest

    def _counted(self, samples: Waveform) -> Waveform:
        unwanted = min(len(samples), max(0, self._wanted - self._made))
        self._made += len(samples)
        return samples[unwanted:]

    def finish(self) -> None:
        """A frame that is not whole is left out."""

    def close(self) -> None:
        self._waiting = b""


def overlap(first: int, accepted: int, unit: str = "byte") -> int:
    """Units of a chunk from `first` on that are here. Raises InvalidInput SAMPLES_MISSING."""
    if first > accepted:
        text = f"expected audio from {unit} {accepted} on, got some from {unit} {first} on"
        raise InvalidInput("SAMPLES_MISSING", text, field="audio", limit=accepted, actual=first)
    return accepted - first
