"""Whatever a caller holds as a stream of audio -> the bytes of its chunks. Sends nothing."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from speech_emotion_client.audio import RawFormat
from speech_emotion_client.errors import InvalidAudio

from .inorder import PIECE, pieces

Chunk = bytes | bytearray | memoryview | NDArray[Any]
StreamSource = (
    str | os.PathLike[str] | BinaryIO | Iterable[Chunk] | AsyncIterable[Chunk] | NDArray[Any]
)
"""A path, an open binary file, samples as an array, or chunks of any of these as they come."""

BYTES = {"s16le": 2, "f32le": 4, "mulaw": 1, "alaw": 1}


def frame_bytes(described: RawFormat | None) -> int:
    """The size of one sample of all channels; 0 for a container."""
    return 0 if described is None else BYTES[described.encoding] * described.channels


def to_bytes(chunk: Chunk, described: RawFormat | None) -> bytes:
    """Raises InvalidAudio for an array that does not fit the description."""
    if not isinstance(chunk, np.ndarray):
        return bytes(chunk)
    if described is None or described.encoding not in ("s16le", "f32le"):
        raise InvalidAudio("Arrays need sample_rate=..., in Hz, or a PCM format.", field="format")
    shape = chunk.shape[1:] or (1,)
    if chunk.ndim not in (1, 2) or shape != (described.channels,):
        text = f"Expected (samples, {described.channels}), got {chunk.shape}."
        raise InvalidAudio(text)
    if described.encoding == "s16le":
        return _as_int16(chunk).tobytes()
    return _as_float32(chunk).tobytes()


def _as_int16(samples: NDArray[Any]) -> NDArray[Any]:
    if np.issubdtype(samples.dtype, np.floating):
        scaled = np.clip(samples, -1, 32767 / 32768) * 32768
        samples = np.rint(scaled).astype(np.int16)
    return _checked(samples).astype("<i2")


def _as_float32(samples: NDArray[Any]) -> NDArray[Any]:
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype("<f4")
    return (_checked(samples) / 32768).astype("<f4")


def _checked(samples: NDArray[Any]) -> NDArray[Any]:
    if samples.dtype.newbyteorder("=") != np.int16:
        raise InvalidAudio(f"Expected int16 or floating samples, got {samples.dtype}.")
    return samples


async def chunks_of(source: StreamSource) -> AsyncIterator[Chunk]:
    """Blocking sources are read in a thread. Raises OSError for a file that cannot be read."""
    if isinstance(source, np.ndarray):
        for start in range(0, len(source), PIECE // 4):
            yield source[start : start + PIECE // 4]
    elif isinstance(source, AsyncIterable):
        async for chunk in source:
            yield chunk
    elif isinstance(source, (str, os.PathLike)):
        parts = pieces(Path(source))
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            yield part
    elif hasattr(source, "read"):
        async for chunk in _pieces(source):
            yield chunk
    else:
        chunks = iter(source)
        while (item := await asyncio.to_thread(next, chunks, None)) is not None:
            yield item


async def _pieces(file: Any) -> AsyncIterator[bytes]:
    # A pipe or microphone gives what it has; `read` would wait until all of PIECE has come.
    read = getattr(file, "read1", file.read)
    while data := await asyncio.to_thread(read, PIECE):
        yield data
