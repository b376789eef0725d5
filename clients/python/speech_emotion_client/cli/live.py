"""What the terminal shows of a stream while it runs. Decides how it looks, fetches nothing."""

from collections import deque

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from speech_emotion_client.result import Span
from speech_emotion_client.streaming.events import (
    Draining,
    Event,
    Heartbeat,
    Segment,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    StreamWarning,
    Summary,
)
from speech_emotion_client.streaming.options import VoiceActivity, describe

from .display import bars, span_strip
from .palette import colour, short

SHOWN = 60.0
"""Seconds of the timeline."""


class LiveView:
    """Label, a bar for each emotion, the last minute, and how late the results are."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._segmentation = ""
        self._state = "connecting"
        self._segment: Segment | None = None
        self._spans: deque[Span] = deque()
        self._now = self._lag = 0.0
        self._count = self._resumed = 0
        self._notice = ""

    def update(self, event: Event) -> None:
        match event:
            case SessionStarted():
                self._segmentation = describe(event.segmentation)
                waits = isinstance(event.segmentation, VoiceActivity)
                self._state = "waiting for speech" if waits else "listening"
                self._resumed += event.resumed
            case SpeechStarted(time=time):
                self._state, self._now = "speech", max(self._now, time)
            case SpeechEnded(time=time):
                self._state, self._now = "silence", max(self._now, time)
            case Segment():
                self._take(event)
            case Heartbeat(lag=lag):
                self._lag = lag
            case StreamWarning(notice=notice):
                self._notice = notice.message
            case Draining():
                self._state = "the server stops; moving"
            case Summary():
                self._state = "finished"

    def _take(self, segment: Segment) -> None:
        self._segment = segment
        self._now = max(self._now, segment.end)
        self._lag = segment.timing.total_ms / 1000
        if not segment.is_final:
            return
        self._count += 1
        if (
            self._spans and self._spans[-1].end > segment.start
        ):  # where two overlap the later counts
            last = self._spans.pop()
            self._spans.append(Span(last.start, segment.start, last.emotion, last.confidence))
        self._spans.append(Span(segment.start, segment.end, segment.emotion, segment.confidence))
        while self._spans[0].end < self._now - SHOWN:
            self._spans.popleft()

    def __rich__(self) -> RenderableType:
        head = Text.assemble((self._name, "bold"), ("  " + self._state, "dim"))
        parts: list[RenderableType] = ["", head, Text(self._segmentation, "dim"), ""]
        if self._segment is not None:
            parts += [
                _title(self._segment),
                "",
                bars(self._segment.emotion, _steady(self._segment)),
            ]
        first = max(0.0, self._now - SHOWN)
        parts += ["", span_strip(self._spans, first, max(self._now, 1.0)), "", self._foot()]
        return Padding(Group(*parts), (0, 2))

    def _foot(self) -> Text:
        facts = [f"{self._now:.1f} s", f"{self._count} segments", f"lag {1000 * self._lag:.0f} ms"]
        if self._resumed:
            facts.append(f"resumed {self._resumed} times")
        foot = Text(" · ".join(facts), "dim")
        if self._notice:
            foot.append(f"\n! {self._notice}", "yellow")
        return foot


def _title(segment: Segment) -> Text:
    when = f"{segment.start:.1f} to {segment.end:.1f} s"
    kind = "" if segment.is_final else ", still growing"
    name = (short(segment.emotion).upper(), f"bold {colour(segment.emotion)}")
    return Text.assemble(name, f"  {segment.confidence:.0%}  ", (when + kind, "dim"))


def _steady(segment: Segment) -> dict[str, float]:
    """By name: rows that changed places all the time could not be read."""
    return {label: segment.scores[label] for label in sorted(segment.scores, key=short)}
