"""What the boxes of an ISO media file say before it is decoded; pure.

FFmpeg builds its index from the counts of samples before it reads one, so that a few hundred bytes
could otherwise ask for gigabytes; and without the index it finds nothing in the audio.
"""

import re
import sys
from collections.abc import Iterator

_COMPRESSED_INDEX = b"cmov"  # could hide any count
_TABLES = re.compile(rb"stsz|stz2|trun")
# ISO/IEC 14496-12, 8.7.3 and 8.8.8: version and flags, for stsz and stz2 a size, the count.
_BEFORE_COUNT = {b"stsz": 8, b"stz2": 8, b"trun": 4}
_LONGEST = 16  # bytes from the type to the end of the count
_INDEX, _AUDIO = b"moov", b"mdat"
_PAYLOAD = frozenset({_AUDIO, b"free", b"skip"})
_LONG_SIZE = b"\0\0\0\1"  # the size follows, in eight bytes (4.2)


class Boxes:
    """The top-level boxes of a file that comes in pieces; how it is cut makes no difference."""

    def __init__(self) -> None:
        self.index_first: bool | None = None  # rather than the audio; None until one has come
        self.samples = 0  # that all tracks and fragments claim
        self.compressed = False  # the index: nobody knows what it claims
        self._head = b""  # of a box, until it is whole
        self._left = 0  # bytes of the box that are still to come
        self._may_claim = False  # the audio may contain anything by chance
        self._tail = b""  # of what has come of the box; a count may be cut in two

    def push(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if not self._left:
                rest = self._begin(rest)
                continue
            part, rest = rest[: self._left], rest[self._left :]
            self._left -= len(part)
            if self._may_claim:
                self._scan(bytes(part))

    def _begin(self, data: memoryview) -> memoryview:
        """Takes no more than the head of a box; returns the rest."""
        wanted = _head_bytes(self._head) - len(self._head)
        self._head += data[:wanted]
        if len(self._head) == _head_bytes(self._head):
            head, self._head, self._tail = self._head, b"", b""
            kind, size = head[4:8], int.from_bytes(head[8:] or head[:4], "big")
            self._left = max(0, size - len(head)) if size >= 8 else sys.maxsize
            if self.index_first is None and kind in (_INDEX, _AUDIO):
                self.index_first = kind == _INDEX
            self._may_claim = kind not in _PAYLOAD
            self._scan(head)
        return data[wanted:]

    def _scan(self, data: bytes) -> None:
        text, known = self._tail + data, len(self._tail)
        self.compressed |= self._may_claim and _COMPRESSED_INDEX in text
        self.samples += sum(_claims(text, known))
        self._tail = text[1 - _LONGEST :]


def _head_bytes(head: bytes) -> int:
    return 16 if head[:4] == _LONG_SIZE else 8


def _claims(text: bytes, known: int) -> Iterator[int]:
    """The counts that end behind the first `known` bytes."""
    for table in _TABLES.finditer(text):
        at = table.end() + _BEFORE_COUNT[table[0]]
        if known < at + 4 <= len(text):
            yield int.from_bytes(text[at : at + 4], "big")
