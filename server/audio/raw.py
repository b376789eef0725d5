"""Samples without a header: PCM and G.711 as the caller described them."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.audio.limits import AudioLimits, check_channels, check_rate
from server.audio.sniff import MAGIC_BYTES, has_magic
from server.audio.source import Block, Source
from server.speech import InvalidInput, scaled

RAW_FRAMES = 1 << 17
"""Of a block: nothing can be damaged, and few large blocks cost less than many small ones."""


class Encoding(enum.Enum):
    """How one sample is stored."""

    PCM_S16LE = enum.auto()
    PCM_F32LE = enum.auto()  # in [-1, 1]
    MULAW = enum.auto()
    ALAW = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFormat:
    """How the caller described the bytes.

    With a container only `channel_index` counts: the header knows its own rate and channels.
    """

    encoding: Encoding | None  # None: a container, recognised from its first bytes
    sample_rate_hz: int = 0  # required with an encoding
    channel_count: int = 1  # interleaved; 0 means 1
    channel_index: int = 0  # 1-based channel to analyse, 0 is the mean of all; for containers too


def _mulaw_values() -> NDArray[np.float32]:
    """ITU-T G.711 table 2a: 14 bits, scaled to 16 as libsndfile does, then to [-1, 1]."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = ((code & 15).astype(np.int32) * 2 + 33 << (code >> 4 & 7)) - 33
    return (np.where(code & 128, -magnitude, magnitude) / 8192).astype(np.float32)


def _alaw_values() -> NDArray[np.float32]:
    """ITU-T G.711 table 1a: 13 bits, scaled to 16 as libsndfile does, then to [-1, 1]."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment = (code >> 4 & 7).astype(np.int32)
    step = (code & 15).astype(np.int32) * 2 + 1
    magnitude = np.where(segment, step + 32 << np.maximum(segment - 1, 0), step)
    return (np.where(code & 128, magnitude, -magnitude) / 4096).astype(np.float32)


_MULAW, _ALAW = _mulaw_values(), _alaw_values()
_STORED: Mapping[Encoding, np.dtype[Any]] = {
    Encoding.PCM_S16LE: np.dtype("<i2"),
    Encoding.PCM_F32LE: np.dtype("<f4"),
    Encoding.MULAW: np.dtype("u1"),
    Encoding.ALAW: np.dtype("u1"),
}


def open_raw(data: bytes, described: RawFormat, encoding: Encoding, limits: AudioLimits) -> Source:
    """Reads `data` as `described` says.

    Raises InvalidInput: FIELD_INVALID for a container that was described as raw samples,
    SAMPLE_RATE_OUT_OF_RANGE, CHANNEL_OUT_OF_RANGE, AUDIO_UNDECODABLE for an incomplete frame.
    """
    samples = stored_samples(data, described, encoding, limits)
    return Source(
        container="raw",
        rate_hz=described.sample_rate_hz,
        channels=samples.shape[1],
        blocks=_blocks(samples, encoding),
    )


def stored_samples(
    data: bytes | memoryview, described: RawFormat, encoding: Encoding, limits: AudioLimits
) -> NDArray[Any]:
    """`data` as it is stored, shape (frames, channels). Raises what `open_raw` raises."""
    _refuse_container(bytes(data[:MAGIC_BYTES]), encoding)
    channels = described.channel_count or 1
    check_rate(described.sample_rate_hz, "audio_format.sample_rate_hz", limits)
    check_channels(channels, "audio_format.channel_count", limits)
    stored = _STORED[encoding]
    _check_frame_size(len(data), stored.itemsize * channels)
    return np.frombuffer(data, stored).reshape(-1, channels)


def _refuse_container(head: bytes, encoding: Encoding) -> None:
    container = has_magic(head)
    if container is not None:
        raise InvalidInput(
            "FIELD_INVALID",
            f"expected headerless {encoding.name} samples, got bytes that begin like {container};"
            " leave the encoding out to have the container recognised",
            field="audio_format.encoding",
            encoding=encoding.name,
            actual=container,
        )


def _check_frame_size(count: int, frame_bytes: int) -> None:
    if count % frame_bytes:
        text = f"expected whole frames of {frame_bytes} bytes, got {count} bytes"
        raise InvalidInput("AUDIO_UNDECODABLE", text, limit=frame_bytes, actual=count)


def _blocks(samples: NDArray[Any], encoding: Encoding) -> Iterator[Block]:
    for start in range(0, len(samples), RAW_FRAMES):
        yield _as_float32(samples[start : start + RAW_FRAMES], encoding)


def _as_float32(samples: NDArray[Any], encoding: Encoding) -> Block:
    if encoding is Encoding.MULAW:
        return np.take(_MULAW, samples)
    if encoding is Encoding.ALAW:
        return np.take(_ALAW, samples)
    if encoding is Encoding.PCM_S16LE:
        return scaled(samples)
    return np.asarray(samples, np.float32)
