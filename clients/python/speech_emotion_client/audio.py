"""Whatever a caller holds as audio -> bytes for the wire. Decodes nothing: the server does that."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidAudio, InvalidRequest, check_count
from .v1 import audio_pb2

AudioSource = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | NDArray[Any]
"""A whole file as bytes, its path, an open binary file, or samples as an array."""

Encoding = Literal["s16le", "f32le", "mulaw", "alaw"]

ENCODINGS: Mapping[str, "audio_pb2.AudioFormat.Encoding"] = {
    "s16le": audio_pb2.AudioFormat.ENCODING_PCM_S16LE,
    "f32le": audio_pb2.AudioFormat.ENCODING_PCM_F32LE,
    "mulaw": audio_pb2.AudioFormat.ENCODING_MULAW,
    "alaw": audio_pb2.AudioFormat.ENCODING_ALAW,
}


@dataclass(frozen=True, slots=True)
class RawFormat:
    """Describes samples without a header: interleaved, little-endian; `sample_rate` in Hz.

    Raises InvalidRequest for another encoding, and for numbers that no message holds.
    """

    sample_rate: int
    encoding: Encoding = "s16le"
    channels: int = 1

    def __post_init__(self) -> None:
        check_count("sample_rate", self.sample_rate)
        check_count("channels", self.channels)
        if self.encoding not in ENCODINGS:
            text = f"encoding is {self.encoding!r}, not one of {', '.join(ENCODINGS)}."
            raise InvalidRequest(text, field="encoding")


def read(
    source: AudioSource, raw: RawFormat | None, sample_rate: int | None
) -> tuple[bytes, RawFormat | None]:
    """The bytes to send, and their description if they have no header.

    Raises InvalidAudio for what cannot be audio, OSError for a file that cannot be read.
    """
    if isinstance(source, np.ndarray):
        return from_array(source, sample_rate)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), raw
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes(), raw
    if not hasattr(source, "read"):
        kind = type(source).__name__
        raise InvalidAudio(f"Expected bytes, a path, an open file or an array, got {kind}.")
    if not isinstance(data := source.read(), bytes):
        raise InvalidAudio("Expected a file that is open for binary reading.")
    return data, raw


def from_array(samples: NDArray[Any], sample_rate: int | None) -> tuple[bytes, RawFormat]:
    """Samples of shape (samples,) or (samples, channels); int16 stays so, floats become float32.

    Floats are in [-1, 1]. Raises InvalidAudio for another shape or type, or without a rate.
    """
    if not sample_rate:
        raise InvalidAudio("An array needs sample_rate=..., in Hz.", field="sample_rate")
    if samples.ndim not in (1, 2):
        raise InvalidAudio(f"Expected (samples,) or (samples, channels), got {samples.shape}.")
    channels = samples.shape[1] if samples.ndim == 2 else 1
    if channels > len(samples) > 0:
        raise InvalidAudio(f"{samples.shape} looks like (channels, samples): pass its transpose.")
    if samples.dtype.newbyteorder("=") == np.int16:
        return samples.astype("<i2").tobytes(), RawFormat(sample_rate, "s16le", channels)
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype("<f4").tobytes(), RawFormat(sample_rate, "f32le", channels)
    raise InvalidAudio(f"Expected int16 or floating samples, got {samples.dtype}.")


def to_message(raw: RawFormat | None, channel: int) -> audio_pb2.AudioFormat | None:
    """None lets the server recognise the container; `channel` is 1-based, 0 averages all."""
    if raw is None:
        return audio_pb2.AudioFormat(channel_index=channel) if channel else None
    return audio_pb2.AudioFormat(
        encoding=ENCODINGS[raw.encoding],
        sample_rate_hz=raw.sample_rate,
        channel_count=raw.channels,
        channel_index=channel,
    )
