"""Which shapes a GPU engine captures, and which of them each clip of a batch runs in. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.speech import HOP, SAMPLE_RATE, WINDOW

ALIGNMENT = 16
"""Tokens; fused attention reads a bias whose rows are a multiple of it without copying it."""

SHORTEST, LONGEST = 64, 1024
"""Tokens; 1 s and 20 s. What is shorter is padded, what is longer has enough to compute alone."""

FINENESS = 256
"""Tokens, from which a length grows by a 32nd to a 16th of itself. Half as fine would be two thirds
of the graphs, and a clip of 5 s would be a tenth padding instead of a twentieth."""

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)

MOST_SECONDS = 168.0
"""Padded audio in one batch: 32 clips of 5 s, 16 of 10 s, 8 of 20 s. 3.5 TFLOP of the large model,
which fills any GPU of today."""


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """A shape: clips, and model steps of 20 ms that each has room for."""

    size: int
    frames: int

    @property
    def samples(self) -> int:
        """Of a row: one hop more than the frames need, for what does not fill a frame."""
        return WINDOW + HOP * self.frames

    @property
    def numbers(self) -> int:
        """Samples of all rows."""
        return self.size * self.samples

    @property
    def seconds(self) -> float:
        """Of padded audio in all its rows."""
        return self.size * self.frames * HOP / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Piece:
    """Some clips of a batch, as indices, and the shape that they run in."""

    bucket: Bucket
    clips: tuple[int, ...]


class Grid:
    """The shapes that fit `most_seconds`; a frame is a token, and `extra` tokens come with them."""

    def __init__(self, extra: int, most_seconds: float = MOST_SECONDS) -> None:
        self._extra = extra
        self._most_seconds = most_seconds
        self.lengths = [tokens - extra for tokens in _lengths()]

    def buckets(self) -> list[Bucket]:
        """All of them, those that need most memory first."""
        found = [Bucket(size, frames) for frames in self.lengths for size in self.sizes(frames)]
        return sorted(found, key=lambda bucket: (bucket.seconds, bucket.frames), reverse=True)

    def sizes(self, frames: int) -> list[int]:
        """How many clips of a length run together; none if one alone is too long to be captured."""
        return [size for size in SIZES if Bucket(size, frames).seconds <= self._most_seconds]

    def divide(self, frames: Sequence[int]) -> list[Piece]:
        """Every clip in one piece, neighbours in length together, the longest first."""
        order = sorted(range(len(frames)), key=lambda i: frames[i], reverse=True)
        pieces = []
        while order:
            length, most = self._fitting(frames[order[0]])
            clips, order = order[:most], order[most:]
            pieces.append(Piece(Bucket(self._size(length, len(clips)), length), tuple(clips)))
        return pieces

    def _fitting(self, frames: int) -> tuple[int, int]:
        """The length that a clip is padded to, and how many of that length run together."""
        for length in self.lengths:
            sizes = self.sizes(length)
            if frames <= length and sizes:
                return length, sizes[-1]
        tokens = -(-(frames + self._extra) // ALIGNMENT) * ALIGNMENT
        length = tokens - self._extra
        return length, max(1, int(self._most_seconds / Bucket(1, length).seconds))

    def _size(self, length: int, count: int) -> int:
        sizes = self.sizes(length) if length in self.lengths else []
        return next((size for size in sizes if size >= count), count)


def _lengths() -> Iterator[int]:
    tokens = SHORTEST
    while tokens <= LONGEST:
        yield tokens
        tokens += ALIGNMENT * max(1, tokens // FINENESS)


def affordable(free_bytes: int, bytes_per_second: float) -> float:
    """Padded audio for one batch, in seconds: four fifths of what the free memory holds."""
    return min(MOST_SECONDS, 0.8 * free_bytes / bytes_per_second)
