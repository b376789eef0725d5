"""One segment as it grows: its number, and where its interim results are due."""

from server.speech import WINDOW
from server.streaming.decisions import Decision, Segment, TooShort, Trigger
from server.streaming.tape import Tape


class Growth:
    """The segment that will be final next. Interims are due every `interval` samples; 0: never."""

    def __init__(self, tape: Tape, interval: int) -> None:
        self._tape = tape
        self._interval = interval
        self._index = 0
        self._revision = 0
        self.start = 0
        self._interims = 0  # how many intervals have passed since `start`

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """All that it knows, for `go_on`."""
        return self._index, self._revision, self.start, self._interims

    def go_on(self, index: int, revision: int, start: int, interims: int) -> None:
        """Continues where another was."""
        self._index, self._revision, self.start, self._interims = index, revision, start, interims

    def begin(self, start: int, after: int = 0) -> None:
        """The next segment starts there; its interims lie beyond `after`."""
        self.start = start
        self._revision = 0
        self._interims = max(0, after - start) // self._interval if self._interval else 0

    def next_interim(self) -> int | None:
        """Where the next interim ends."""
        return self.start + (self._interims + 1) * self._interval if self._interval else None

    def interim(self) -> list[Decision]:
        """The interim that is due, and the next one after it."""
        end = self.start + (self._interims + 1) * self._interval
        self._interims += 1
        return self._segment(end, Trigger.INTERVAL)

    def skip_interim(self) -> None:
        """Nothing has changed since the last one."""
        self._interims += 1

    def end(self, end: int, trigger: Trigger) -> list[Decision]:
        """The final segment, or that it is too short to be one."""
        if end - self.start < WINDOW:
            return [TooShort(self.start, end)] if end > self.start else []
        decided = self._segment(end, trigger)
        self._index += 1
        return decided

    def _segment(self, end: int, trigger: Trigger) -> list[Decision]:
        segment = Segment(
            index=self._index,
            revision=self._revision,
            final=trigger is not Trigger.INTERVAL,
            trigger=trigger,
            start=self.start,
            end=end,
            waveform=self._tape.take(self.start, end),
        )
        self._revision += 1
        return [segment]
