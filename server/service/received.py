"""An AnalyzeRequest as it came, its audio left where it lies; knows nothing of its meaning.

Parsing a message copies its audio, and so does every look at it. Both together cost more than to
decode it.
"""

from typing import NamedTuple

from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest

AUDIO_TAG = AnalyzeRequest.AUDIO_DATA_FIELD_NUMBER << 3 | 2
"""Of the field that holds the audio, and of bytes: protobuf.dev, "Encoding"."""

SMALL = 2048
"""Bytes that are copied sooner than parted."""

VARINT_BYTES = 5
"""Of a length, which has 32 bits at most."""


class Received(NamedTuple):
    """`audio` may be a part of the bytes that came: then it is not in `request`."""

    request: AnalyzeRequest
    audio: bytes | memoryview


def receive(data: bytes) -> Received:
    """What `AnalyzeRequest.FromString` gives, with the audio beside it. Raises DecodeError.

    The audio is parted if it comes first, which is where every writer of fields in their order
    has it, and comes once: protobuf would let the last one win.
    """
    if len(data) > SMALL and data[0] == AUDIO_TAG:
        start, end = _field(data)
        if start < end <= len(data):
            rest = AnalyzeRequest.FromString(data[end:])
            if not rest.audio_data:
                return Received(rest, memoryview(data)[start:end])
    request = AnalyzeRequest.FromString(data)
    return Received(request, request.audio_data)


def _field(data: bytes) -> tuple[int, int]:
    """Where the first field's bytes start and end, by the varint between; (0, 0) if it is none."""
    length = 0
    for at in range(1, 1 + VARINT_BYTES):
        length |= (data[at] & 0x7F) << 7 * (at - 1)
        if data[at] < 0x80:
            return at + 1, at + 1 + length
    return 0, 0
