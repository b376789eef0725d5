"""Segments of a fixed length, and segments that the client ends itself. Pure."""

from server.speech import Waveform
from server.streaming.decisions import Bookmark, Decision, Trigger
from server.streaming.growth import Growth
from server.streaming.tape import Tape


class FixedWindows:
    """Segment i covers [i * hop, i * hop + window); the last one ends with the audio.

    All arguments in samples, hop <= window. An interim shows the oldest window that still grows,
    and only where it reaches beyond the window before it.
    """

    def __init__(self, window: int, hop: int, interval: int) -> None:
        self._window = window
        self._hop = hop
        self._tape = Tape()
        self._growth = Growth(self._tape, interval)

    def push(self, samples: Waveform) -> list[Decision]:
        self._tape.append(samples)
        decided: list[Decision] = []
        while True:
            full = self._growth.start + self._window
            interim = self._growth.next_interim()
            if interim is not None and interim < full and interim <= self._tape.end:
                decided += self._growth.interim()
            elif full <= self._tape.end:
                decided += self._next_window(full)
            else:
                return decided

    def mark(self) -> list[Decision]:
        return []

    def finish(self) -> list[Decision]:
        """What no window has covered yet, as one that is shorter."""
        covered = self._growth.start - self._hop + self._window if self._growth.start else 0
        if self._tape.end <= covered:
            return []
        return self._growth.end(self._tape.end, Trigger.FINISH)

    def bookmark(self) -> Bookmark:
        return Bookmark(self._tape.start, self._growth.numbers)

    def go_on(self, bookmark: Bookmark) -> None:
        self._tape.begin(bookmark.needs)
        self._growth.go_on(*bookmark.numbers)

    def _next_window(self, full: int) -> list[Decision]:
        decided = self._growth.end(full, Trigger.WINDOW)
        start = self._growth.start + self._hop
        self._growth.begin(start, after=full)
        self._tape.forget(start)
        return decided


class ClientMarks:
    """Segments from one mark to the next; cut at `longest` samples if no mark comes."""

    def __init__(self, longest: int, interval: int) -> None:
        self._longest = longest
        self._tape = Tape()
        self._growth = Growth(self._tape, interval)

    def push(self, samples: Waveform) -> list[Decision]:
        self._tape.append(samples)
        decided: list[Decision] = []
        while True:
            full = self._growth.start + self._longest
            interim = self._growth.next_interim()
            if interim is not None and interim < full and interim <= self._tape.end:
                decided += self._growth.interim()
            elif full <= self._tape.end:
                decided += self._end(full, Trigger.MAX_LENGTH)
            else:
                return decided

    def mark(self) -> list[Decision]:
        return self._end(self._tape.end, Trigger.CLIENT_MARK)

    def finish(self) -> list[Decision]:
        return self._end(self._tape.end, Trigger.FINISH)

    def bookmark(self) -> Bookmark:
        return Bookmark(self._tape.start, self._growth.numbers)

    def go_on(self, bookmark: Bookmark) -> None:
        self._tape.begin(bookmark.needs)
        self._growth.go_on(*bookmark.numbers)

    def _end(self, at: int, trigger: Trigger) -> list[Decision]:
        decided = self._growth.end(at, trigger)
        self._growth.begin(at)
        self._tape.forget(at)
        return decided
