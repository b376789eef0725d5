"""What another replica needs to go on with a session, as bytes and back. Pure; holds no audio."""

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.streaming.decisions import Bookmark

VERSION = 1
"""Of the bytes; a replica that knows only another version does not know the session."""

_ENDS = struct.Struct("<QQ")


class Unreadable(Exception):
    """These bytes were not written by `to_bytes` of this version."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A session between two of its decisions; what was decided before was delivered."""

    identity: str
    tenant: str
    config: str  # SHA-256 of what the client ordered
    model: str  # digest of the weights: the results must be of the same
    started_at: float  # UNIX seconds, so that all replicas understand it
    finals: int  # final results delivered before
    processed: int  # samples at 16 kHz that the model has seen
    final: int  # and that final results cover
    frame: int  # of the client's audio: it sends again from here
    sample: int  # at 16 kHz, that is made of that frame
    bookmark: Bookmark

    def to_bytes(self) -> bytes:
        mark = self.bookmark
        ear = b"" if mark.ear is None else mark.ear.astype("<f4").tobytes()
        values = {name: getattr(self, name) for name in _NAMES}
        values |= {"needs": mark.needs, "numbers": mark.numbers}
        values |= {"version": VERSION, "ear": base64.b64encode(ear).decode()}
        return json.dumps(values).encode()


_NAMES = [name for name in Checkpoint.__dataclass_fields__ if name != "bookmark"]


def read_checkpoint(data: bytes) -> Checkpoint:
    """Raises Unreadable."""
    try:
        values = json.loads(data)
        if values["version"] != VERSION:
            raise Unreadable(values["version"])
        ear = np.frombuffer(base64.b64decode(values["ear"]), "<f4").astype(np.float32)
        numbers = tuple(int(one) for one in values["numbers"])
        bookmark = Bookmark(values["needs"], numbers, ear if len(ear) else None)
        return Checkpoint(bookmark=bookmark, **{name: values[name] for name in _NAMES})
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(str(error)) from None


@dataclass(frozen=True, slots=True)
class Final:
    """A final result: what the summary needs of it, and the answer while it may be replayed."""

    start: int  # samples at 16 kHz
    end: int
    scores: tuple[float, ...]  # of float32 precision
    answer: bytes = b""  # as it was sent

    def to_bytes(self) -> bytes:
        scores = np.asarray(self.scores, "<f4").tobytes()
        return _ENDS.pack(self.start, self.end) + scores + self.answer


def read_final(data: bytes, labels: int) -> Final:
    """Raises Unreadable."""
    if len(data) < _ENDS.size + 4 * labels:
        raise Unreadable("a final result is cut short")
    start, end = _ENDS.unpack_from(data)
    scores: Sequence[float] = np.frombuffer(data, "<f4", labels, _ENDS.size).tolist()
    return Final(start, end, tuple(scores), data[_ENDS.size + 4 * labels :])
