"""Reads what libsndfile reads; knows no limits and translates no errors."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

from server.audio.source import BLOCK_FRAMES, Block, Source

_UNKNOWN_FRAMES = 2**62  # libsndfile says its largest count if the header has none


class _Bytes(io.BytesIO):
    """Takes the seeks that a damaged header asks for; an exception has no way out of C."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return super().seek(0)


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read once from its start.

    Otherwise soundfile seeks after every block, and asks the header how many frames are left.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def open_sndfile(container: str, data: bytes) -> Iterator[Source]:
    """A Source over `data`; raises whatever soundfile does."""
    with _Forward(_Bytes(data)) as file:
        yield Source(
            container=container,
            rate_hz=file.samplerate,
            channels=file.channels,
            blocks=_blocks(file),
            announced_frames=file.frames if file.frames < _UNKNOWN_FRAMES else None,
        )


def _blocks(file: _Forward) -> Iterator[Block]:
    buffer = np.empty((BLOCK_FRAMES, file.channels), np.float32)
    while len(block := file.read(BLOCK_FRAMES, out=buffer)):
        yield block
