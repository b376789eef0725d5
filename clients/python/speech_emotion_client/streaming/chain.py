"""Sessions, one after the other, as one: times, numbers and the summary of the whole. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from speech_emotion_client.result import Notice, Span

from .events import Cursors, Event, Segment, SpeechEnded, SpeechStarted, Summary


class Chain:
    """What the sessions before have been; each begins where the one before it ended."""

    def __init__(self) -> None:
        self._before: list[Summary] = []
        self._seconds = 0.0
        self._samples = 0
        self._finals = 0
        # Label -> sum of its scores, each times the seconds of its segment.
        self._weights: defaultdict[str, float] = defaultdict(float)

    def add(self, summary: Summary, samples: int) -> None:
        """A session of so many samples has ended, and another follows."""
        self._before.append(summary)
        self._seconds += summary.duration
        self._samples += samples
        self._finals += summary.segment_count

    def place(self, event: Event) -> Event:
        """As an event of the whole."""
        if isinstance(event, Segment) and event.is_final:
            self._weigh(event)
        if not self._before:
            return event
        event = replace(event, cursors=self._moved(event.cursors))
        match event:
            case Segment():
                start, end = event.start + self._seconds, event.end + self._seconds
                return replace(event, index=event.index + self._finals, start=start, end=end)
            case SpeechStarted() | SpeechEnded():
                return replace(event, time=event.time + self._seconds)
            case Summary():
                return self._whole(event)
            case _:
                return event

    def _moved(self, cursors: Cursors) -> Cursors:
        return Cursors(
            cursors.accepted + self._samples,
            cursors.processed + self._samples,
            cursors.final + self._samples,
        )

    def _weigh(self, final: Segment) -> None:
        for label, score in final.scores.items():
            self._weights[label] += score * (final.end - final.start)

    def _whole(self, last: Summary) -> Summary:
        parts = [*self._before, last]
        scores = _shares(self._weights)
        speech: defaultdict[str, float] = defaultdict(float)
        for part in parts:
            for label, share in part.speech_share.items():
                speech[label] += share * part.speech_duration
        duration = sum(part.duration for part in parts)
        return replace(
            last,
            emotion=next(iter(scores), ""),
            confidence=next(iter(scores.values()), 0.0),
            scores=scores,
            timeline=_timeline(parts),
            speech_share=_shares(speech),
            segment_count=sum(part.segment_count for part in parts),
            duration=duration,
            speech_duration=sum(part.speech_duration for part in parts),
            audio=replace(last.audio, duration=duration),
            warnings=_once(notice for part in parts for notice in part.warnings),
        )


def _timeline(parts: Iterable[Summary]) -> tuple[Span, ...]:
    spans: list[Span] = []
    begun = 0.0
    for part in parts:
        spans += (_later(one, begun) for one in part.timeline)
        begun += part.duration
    return tuple(spans)


def _later(span: Span, seconds: float) -> Span:
    return replace(span, start=span.start + seconds, end=span.end + seconds)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    """They sum to 1, the highest first."""
    total = sum(weights.values())
    ranked = sorted(weights.items(), key=lambda item: -item[1])
    return {label: weight / total for label, weight in ranked} if total else {}


def _once(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    return tuple({notice.code: notice for notice in notices}.values())
