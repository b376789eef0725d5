"""How many samples the index of an ISO media file claims; pure.

FFmpeg builds its index from these counts before it reads a sample, so that a few hundred bytes
could otherwise ask for gigabytes.
"""

import re
from collections.abc import Iterator

_COMPRESSED_INDEX = b"cmov"  # could hide any count
# ISO/IEC 14496-12, 8.7.3 and 8.8.8: type, version and flags, for stsz and stz2 a size, the count.
_COUNTS = re.compile(rb"(?:st(?:sz|z2)....|trun)....(....)", re.DOTALL)
_PAYLOAD = frozenset({b"mdat", b"free", b"skip"})


def claimed_samples(data: bytes) -> int | None:
    """The sum over all tracks and fragments; None if the index is compressed."""
    total = 0
    for box in _index_boxes(data):
        if _COMPRESSED_INDEX in box:
            return None
        total += sum(int.from_bytes(count, "big") for count in _COUNTS.findall(box))
    return total


def _index_boxes(data: bytes) -> Iterator[bytes]:
    """Every top-level box but the audio itself, which may contain anything by chance (4.2)."""
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        end = at + size if size >= 8 else len(data)
        if kind not in _PAYLOAD:
            yield data[at:end]
        at = end
