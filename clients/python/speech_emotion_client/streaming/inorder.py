"""The bytes of a file as a stream needs them: of an MP4 the index first, wherever it was.

Rewrites no file and knows no codec; in the index only the places of the audio change.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

PIECE = 2**16
"""Bytes that are read from a file at once."""

PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
"""The boxes around the tables of places (ISO/IEC 14496-12, 8.7.5)."""

TABLES = {b"stco": 4, b"co64": 8}
"""With the bytes of a place; four do up to 4 GiB, and writers see to that."""

Box = tuple[bytes, int, int]
"""Its type, its start and its end."""


def pieces(path: Path) -> Iterator[bytes]:
    """Raises OSError for a file that cannot be read."""
    with path.open("rb") as file:
        late = _late_index(file) if file.seekable() else None
        if late is not None:
            audio, start, end = late
            file.seek(start)
            index = moved(file.read(end - start), audio)
            file.seek(0)
            yield file.read(audio)
            yield index
            while (left := start - file.tell()) > 0:
                yield file.read(min(PIECE, left))
            file.seek(end)
        # A pipe gives what it has; `read` would wait until all of PIECE has come.
        while data := file.read1(PIECE):
            yield data


def _late_index(file: BinaryIO) -> tuple[int, int, int] | None:
    """Where the audio begins, and where the index behind it begins and ends; None without one."""
    size, audio, late = file.seek(0, os.SEEK_END), 0, None
    for kind, start, end in _boxes(file, 0, size):
        if start == 0 and kind != b"ftyp":
            break
        if kind == b"mdat":
            audio = audio or start
        elif kind == b"moov":
            late = (audio, start, end) if audio and end <= size else None
            break
    file.seek(0)
    return late


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[Box]:
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        size = size if size >= 8 else end - at  # it says that it is the last one
        yield head[4:8], at, at + size
        at += size


def moved(index: bytes, audio: int) -> bytes:
    """The same index, for a file in which it stands at `audio`, and all behind that after it."""
    tables = bytearray(index)
    for kind, start in list(_tables(io.BytesIO(index), 0, len(index))):
        width = TABLES[kind]
        count = int.from_bytes(index[start + 12 : start + 16], "big")
        count = max(0, min(count, (len(index) - start - 16) // width))  # it may be cut short
        places = np.frombuffer(tables, f">u{width}", count, start + 16)
        places[places >= audio] += len(index)
    return bytes(tables)


def _tables(index: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Type and start of each."""
    for kind, start, stop in _boxes(index, at, end):
        if kind in PATH:
            yield from _tables(index, start + 8, min(stop, end))
        elif kind in TABLES:
            yield kind, start
