"""What a stream has yet to send, and what it may have to send again. Pure; positions in bytes."""

from collections import deque
from dataclasses import dataclass
from math import inf

AHEAD = 2**18
"""Bytes that may wait to be sent; then whoever feeds the stream waits."""

KEPT = 2**24
"""Bytes that are kept in case the connection breaks: nine minutes of speech at 16 kHz, 16 bits."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes, from `position` on."""

    position: int
    data: bytes


class Mark:
    """The segment ends here."""


class Finish:
    """There is no more."""


Item = Piece | Mark | Finish


class Tail:
    """Audio from the first byte that the server may lack to the last that is known.

    `frame_bytes` is the size of a sample of all channels, and pieces are cut there; 0 is a
    container. What was not accepted is held, and `is_full` at KEPT; of a container, of which old
    servers do not say what they have, no more than the last KEPT bytes.
    """

    def __init__(self, frame_bytes: int) -> None:
        self.sent = 0
        self._frame = frame_bytes
        self._start = 0
        self._held = bytearray()
        self._marks: deque[int] = deque()
        self._marks_sent = 0  # of those in the deque
        self.finished = False
        self._finish_sent = False

    @property
    def end(self) -> int:
        return self._start + len(self._held)

    @property
    def is_full(self) -> bool:
        unsent = self.end - self.sent
        return unsent >= AHEAD or bool(self._frame and len(self._held) >= KEPT)

    @property
    def owes(self) -> bool:
        """Whether the client is not done: audio waits to be sent, or the end was announced."""
        return self.finished or self.end - self.sent >= max(1, self._frame)

    def append(self, data: bytes) -> None:
        self._held += data
        if not self._frame and len(self._held) > KEPT:
            self._forget(min(self.sent, self.end - KEPT))

    def mark(self) -> None:
        """The segment ends here; inside a sample that is before it."""
        self._marks.append(self._whole(self.end))

    def finish(self) -> None:
        self.finished = True

    def next(self, limit: int) -> Item | None:
        """What to send next, at most `limit` bytes of it; None if nothing waits."""
        mark = self._marks[self._marks_sent] if self._marks_sent < len(self._marks) else inf
        if mark <= self.sent:
            self._marks_sent += 1
            return Mark()
        until = self._whole(int(min(mark, self.end, self.sent + max(limit, self._frame))))
        if until > self.sent:
            first, self.sent = self.sent, until
            return Piece(first, bytes(self._held[first - self._start : until - self._start]))
        if self.finished and not self._finish_sent:
            self._finish_sent = True
            return Finish()
        return None

    def accept(self, samples: int, size: int) -> None:
        """The server has so many samples, or bytes of a container."""
        self._forget(min(samples * self._frame if self._frame else size, self.sent))

    def rewind(self, position: int) -> bool:
        """Goes on at `position`; False if it is not held any more."""
        if not self._start <= position <= self.end:
            return False
        self.sent = position
        self._finish_sent = False
        self._marks_sent = sum(mark < position for mark in self._marks)
        return True

    def _forget(self, until: int) -> None:
        if until <= self._start:
            return
        del self._held[: until - self._start]
        self._start = until
        while self._marks_sent and self._marks[0] < until:
            self._marks.popleft()
            self._marks_sent -= 1

    def _whole(self, position: int) -> int:
        return position - position % self._frame if self._frame else position
