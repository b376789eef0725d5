"""What a stream has given out, so that nothing comes twice after its connection broke. Pure.

A server that goes on where another was lost repeats what that one said last.
"""

from .events import Event, Segment, SpeechEnded, SpeechStarted


class Given:
    """How far the events have come; results by their index, interims by their revision."""

    def __init__(self) -> None:
        self._finals = 0  # all before this index
        self._revision = -1  # of the segment that is final next
        self._speech = (-1.0, False)  # where it began or ended last, and whether it began

    def is_new(self, event: Event) -> bool:
        """Takes note of it."""
        match event:
            case Segment(is_final=True):
                return self._is_next(event)
            case Segment():
                return self._is_better(event)
            case SpeechStarted() | SpeechEnded():
                place = (event.time, isinstance(event, SpeechStarted))
                known, self._speech = place <= self._speech, max(place, self._speech)
                return not known
            case _:
                return True

    def _is_next(self, final: Segment) -> bool:
        if final.index < self._finals:
            return False
        self._finals, self._revision = final.index + 1, -1
        return True

    def _is_better(self, interim: Segment) -> bool:
        if interim.index < self._finals or interim.revision <= self._revision:
            return False
        self._revision = interim.revision
        return True
