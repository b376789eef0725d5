"""The events of a stream as text: a line each for people, a JSON object each for machines."""

import dataclasses
import re
from typing import Any

import click
import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from speech_emotion_client.streaming.events import (
    Draining,
    Event,
    Segment,
    SessionStarted,
    StreamWarning,
    Summary,
)
from speech_emotion_client.streaming.options import describe

from .display import bars, notice, span_strip
from .palette import short
from .records import dumps


class EventRecords:
    """NDJSON on stdout; `event` names the kind in snake_case, times are in seconds."""

    def show(self, event: Event) -> None:
        click.echo(dumps(record(event)))


class EventLines:
    """A line for each final segment on stdout, what else is to be known on stderr."""

    def show(self, event: Event) -> None:
        match event:
            case Segment(is_final=True):
                times = f"{event.start:8.2f} {event.end:8.2f}"
                click.echo(f"{times}  {short(event.emotion):<10} {event.confidence:.1%}")
            case SessionStarted(resumed=True):
                click.echo("The connection broke and was resumed.", err=True)
            case StreamWarning():
                click.echo(f"! {event.notice.message}", err=True)
            case Draining():
                click.echo("The server stops; the stream moves on.", err=True)


def record(event: Event) -> dict[str, Any]:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    body = {each.name: _plain(getattr(event, each.name)) for each in dataclasses.fields(event)}
    if isinstance(event, SessionStarted):
        body["segmentation"] = describe(event.segmentation)
    return {"event": name} | body


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value if value is None or isinstance(value, (str, int)) else str(value)


def ending(last: Event | None) -> RenderableType:
    """The summary as a page."""
    if not isinstance(last, Summary):
        return Text("")
    times = f"{last.duration:.1f} s heard, {last.speech_duration:.1f} s analysed"
    facts = Text(f"{times} in {last.segment_count} segments; scores are their mean", "dim")
    parts: list[RenderableType] = [Text("Summary", "bold"), facts, ""]
    if last.scores:
        strip = span_strip(last.timeline, 0, max(last.duration, 0.1))
        parts += [bars(last.emotion, last.scores), "", strip]
    parts += map(notice, last.warnings)
    return Padding(Group(*parts), (1, 2))
