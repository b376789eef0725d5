"""The part of a stream that is still needed; forgets what lies before it."""

import numpy as np

from server.speech import Waveform

_ROOM = 16_000  # samples; what a new tape holds before it has to grow


class Tape:
    """Samples from `start` to `end`, positions counted from the start of the stream."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self._buffer: Waveform = np.empty(_ROOM, np.float32)
        self._offset = 0  # of `start` in the buffer

    def begin(self, at: int) -> None:
        """An empty tape whose next sample is `at`."""
        self.start = self.end = at
        self._offset = 0

    def append(self, samples: Waveform) -> None:
        kept = self.end - self.start
        if self._offset + kept + len(samples) > len(self._buffer):
            self._make_room(kept, len(samples))
        position = self._offset + kept
        self._buffer[position : position + len(samples)] = samples
        self.end += len(samples)

    def take(self, start: int, end: int) -> Waveform:
        """A copy of what lies between two positions, neither of them forgotten."""
        first = self._offset + start - self.start
        return self._buffer[first : first + end - start].copy()

    def forget(self, before: int) -> None:
        """Gives up what lies before that position."""
        before = min(max(before, self.start), self.end)
        self._offset += before - self.start
        self.start = before

    def _make_room(self, kept: int, more: int) -> None:
        """Twice what is needed, so that the cost of moving is constant for each sample."""
        needed = max(_ROOM, 2 * (kept + more))
        buffer = self._buffer if needed == len(self._buffer) else np.empty(needed, np.float32)
        buffer[:kept] = self._buffer[self._offset : self._offset + kept].copy()
        self._buffer, self._offset = buffer, 0
