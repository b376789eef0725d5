"""Finds the samples of the WAV files that most callers send, without a library; knows no other.

Anything irregular is nobody's concern here: libsndfile knows what to make of it.
"""

import struct

from server.speech import SAMPLE_RATE

FORMAT = struct.Struct("<HHIIHH")
"""Microsoft's WAVEFORMAT and the bits of a sample; RIFF MCI, "New Multimedia Data Types", 1994."""

MOST_CHUNKS = 8
"""Looked at: the format, the samples, and notes of what wrote the file."""

PLAIN = (1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
"""PCM, one channel, Hz, bytes/s, bytes of a frame, bits."""


def plain_samples(data: bytes | memoryview) -> memoryview | None:
    """The bytes of 16-bit mono samples at the model's rate; None if the file has anything else.

    Or if it is not whole, or does not say how long it is.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE" or not 36 <= _size(data, 4) <= len(data) - 8:
        return None
    at, is_plain = 12, False
    for _ in range(MOST_CHUNKS):
        name, size, start = data[at : at + 4], _size(data, at + 4), at + 8
        if name == b"fmt ":
            is_plain = size == FORMAT.size and FORMAT.unpack_from(data, start) == PLAIN
        elif name == b"data":
            whole = 0 < size <= len(data) - start and not size % 2
            return memoryview(data)[start : start + size] if is_plain and whole else None
        at = start + size + size % 2
        if at + 8 + FORMAT.size > len(data):
            break
    return None


def _size(data: bytes | memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
