"""Chunks at the speed at which they would be heard, and until somebody has had enough."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click

from speech_emotion_client.audio import RawFormat
from speech_emotion_client.streaming.chunks import frame_bytes

T = TypeVar("T")
STEP = 0.1
"""Seconds of a chunk."""


@dataclass(frozen=True, slots=True)
class Tape:
    """The chunks of a file, STEP seconds each; `described` is None for those of a container."""

    described: RawFormat | None
    chunks: Iterator[bytes]
    bytes_per_second: float


def tape(path: Path, raw: RawFormat | None) -> Tape:
    """Raises click.ClickException for a file whose length nobody here can tell, and OSError."""
    if raw is not None:
        second = raw.sample_rate * frame_bytes(raw)
        return Tape(raw, _cut(path, int(STEP * raw.sample_rate) * frame_bytes(raw)), second)
    if find_spec("soundfile") is None:
        install = "pip install 'speech-emotion-client[realtime]'"
        raise click.ClickException(
            f"--realtime needs soundfile to tell how long {path} is: {install}"
        )
    soundfile: Any = import_module("soundfile")
    try:
        about = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise click.ClickException(f"--realtime cannot decode {path}: {error}") from error
    if about.subtype.startswith("PCM_"):
        described = RawFormat(about.samplerate, "s16le", about.channels)
        blocks = soundfile.blocks(path, int(STEP * about.samplerate), dtype="int16")
        chunks = (block.astype("<i2").tobytes() for block in blocks)
        return Tape(described, chunks, about.samplerate * frame_bytes(described))
    # Reading such a file in blocks makes libsndfile seek, and a codec does not land on a sample.
    second = path.stat().st_size / max(about.duration, STEP)
    return Tape(None, _cut(path, max(1, round(STEP * second))), second)


def _cut(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk


async def paced(recorded: Tape) -> AsyncIterator[bytes]:
    """Each chunk when its last sample would have been heard; of a container about then."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while (chunk := await asyncio.to_thread(next, recorded.chunks, None)) is not None:
        due += len(chunk) / recorded.bytes_per_second
        await asyncio.sleep(due - loop.time())
        yield chunk


async def until(chunks: AsyncIterator[T], stopped: asyncio.Event) -> AsyncIterator[T]:
    """The same chunks, up to the moment when it is `stopped`."""
    stop = asyncio.ensure_future(stopped.wait())
    try:
        while True:
            following = asyncio.ensure_future(anext(chunks, None))
            await asyncio.wait({following, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                return
            if (chunk := following.result()) is None:
                return
            yield chunk
    finally:
        stop.cancel()
