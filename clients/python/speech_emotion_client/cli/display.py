"""Outcomes for people: one file in full, many as rows. Decides how things look, prints nothing."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from speech_emotion_client.errors import SpeechEmotionError
from speech_emotion_client.outcome import ItemError
from speech_emotion_client.result import Analysis, Frames, Notice, Span

from .palette import colour, short

BAR = 36
"""Characters of a bar that stands for 100 %."""


def reason(error: ItemError) -> str:
    """One line on why there is no answer."""
    if not isinstance(error, SpeechEmotionError):
        return error.strerror or str(error)
    text = str(error).rstrip(".")
    if error.reason:
        text += f" ({error.reason})"
    if error.retry_after is not None:
        text += f", try again in {error.retry_after:g} s"
    return f"{text} [id {error.request_id}]" if error.request_id else text


def bar(label: str, score: float, width: int) -> ProgressBar:
    return ProgressBar(
        1, score, width=width, complete_style=colour(label), finished_style=colour(label)
    )


def full(name: str, analysis: Analysis) -> RenderableType:
    """Everything about one file."""
    title = Padding(_title(name, analysis), (0, 2))
    scores = Padding(bars(analysis.emotion, analysis.scores), (0, 2))
    parts: list[RenderableType] = ["", title, "", scores, ""]
    if analysis.timeline:
        strip = span_strip(analysis.timeline, 0, analysis.audio.duration)
        parts += [Padding(strip, (0, 2)), ""]
    elif analysis.frames:
        parts += [Padding(timeline(analysis.frames), (0, 2)), ""]
    parts += [Padding(notice(each), (0, 2)) for each in analysis.warnings]
    return Group(*parts, _origin(analysis), "")


def _title(name: str, analysis: Analysis) -> Text:
    audio = analysis.audio
    channels = {1: "mono", 2: "stereo"}.get(audio.channels, f"{audio.channels} channels")
    facts = f"{audio.duration:.1f} s · {audio.container} · {audio.sample_rate / 1000:g} kHz"
    return Text.assemble((name, "bold"), "\n", (f"{facts} · {channels}", "dim"))


def bars(emotion: str, scores: Mapping[str, float]) -> Table:
    """A row for each label, in the order of `scores`."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    for label, score in scores.items():
        weight = "bold " if label == emotion else ""
        grid.add_row(
            Text(short(label), weight + colour(label)),
            bar(label, score, BAR),
            Text(f"{score:.1%}", weight or "dim"),
        )
    return grid


def _origin(analysis: Analysis) -> Padding:
    provenance, timing = analysis.provenance, analysis.timing
    how = " ".join(filter(None, (provenance.runtime, provenance.precision)))
    facts = [provenance.model, how]
    if analysis.segmentation:
        return Padding(Text(_in_segments(facts, analysis.segmentation), "dim"), (0, 2))
    facts += [f"batch of {provenance.batch_size}"]
    facts += [f"cache {provenance.cache}"] if provenance.cache else []
    stages = (
        f"queue {timing.queue_ms:.1f} · decode {timing.decode_ms:.1f} · "
        f"preprocess {timing.preprocess_ms:.1f} · inference {timing.inference_ms:.1f}"
    )
    lines = Text(style="dim")
    lines.append(" · ".join(filter(None, facts)) + "\n")
    lines.append(f"{timing.total_ms:.1f} ms in the server: {stages}")
    return Padding(lines, (0, 2))


def _in_segments(facts: Sequence[str], segmentation: str) -> str:
    text = f"Analysed in {segmentation}, not as a whole: scores are their mean."
    return " · ".join(filter(None, facts)) + "\n" + text


def notice(warning: Notice, times: int = 1) -> Text:
    count = f" ({times} files)" if times > 1 else ""
    return Text(f"! {warning.message}{count}", "yellow")


def timeline(frames: Frames, width: int = 60) -> Group:
    """The leading emotion of each slice of time, as its first letter on its colour."""
    strip = Text("")
    for rows in np.array_split(frames.scores, min(width, len(frames))):
        label = frames.labels[int(rows.mean(axis=0).argmax())]
        strip.append(short(label)[:1].upper(), f"bold #101418 on {colour(label)}")
    end = f"{frames.times[-1]:.1f} s"
    axis = "0 s" + end.rjust(max(len(strip) - 3, len(end) + 1))
    return Group(strip, Text(axis, "dim"))


def span_strip(spans: Iterable[Span], start: float, end: float, width: int = 60) -> Group:
    """The emotion of each slice of the time from `start` to `end`; a dot where there is none."""
    strip, step = Text(""), (end - start) / width
    waiting = iter(spans)
    span = next(waiting, None)
    for slot in range(width):
        at = start + (slot + 0.5) * step
        while span is not None and span.end <= at:
            span = next(waiting, None)
        if span is None or at < span.start:
            strip.append("·", "dim")
        else:
            letter = short(span.emotion)[:1].upper()
            strip.append(letter, f"bold #101418 on {colour(span.emotion)}")
    first, last = f"{start:.0f} s", f"{end:.1f} s"
    return Group(strip, Text(first + last.rjust(width - len(first)), "dim"))


COLUMNS = ("Emotion", 9), ("Confidence", 15), ("Runner-up", 13), ("Audio", 6), ("Took", 7)
"""Beside the file's name: title and width of each, in characters."""

GAP = 2
SHORT_BAR = 8


def brief(names: Sequence[str]) -> list[str]:
    """The same names without the folder that all of them are in."""
    if len(names) < 2 or any(
        Path(name).is_absolute() != Path(names[0]).is_absolute() for name in names
    ):
        return list(names)
    shared = os.path.commonpath([os.path.dirname(name) for name in names])
    return [os.path.relpath(name, shared) if shared else name for name in names]


class Rows:
    """A table whose rows can be printed one by one, because its widths are known beforehand."""

    def __init__(self, names: Sequence[str], width: int) -> None:
        # What remains of a narrow terminal; names are folded, never cut.
        left = width - sum(GAP + each for _, each in COLUMNS)
        self._name_width = max(12, min(max(map(len, names)), left))

    def head(self) -> RenderableType:
        titles, rule = self._grid(), self._grid()
        titles.add_row(*(Text(title, "bold") for title, _ in (("File", 0), *COLUMNS)))
        widths = (self._name_width, *(width for _, width in COLUMNS))
        rule.add_row(*(Text("─" * width, "dim") for width in widths))
        return Group("", titles, rule)

    def answer(self, name: str, analysis: Analysis) -> RenderableType:
        (label, score), *others = analysis.scores.items()
        confidence = Table.grid(padding=(0, 1))
        confidence.add_column(width=SHORT_BAR)
        confidence.add_column(width=6, justify="right", no_wrap=True)
        confidence.add_row(bar(label, score, SHORT_BAR), f"{score:.1%}")
        row = self._grid()
        row.add_row(
            Text(name, overflow="fold"),
            Text(short(label), f"bold {colour(label)}"),
            confidence,
            _runner_up(others),
            f"{analysis.audio.duration:.1f} s",
            f"{analysis.timing.total_ms:.0f} ms",
        )
        return row

    def failure(self, name: str, error: ItemError) -> RenderableType:
        row = Table.grid(padding=(0, 2))
        row.add_column(width=self._name_width, overflow="fold")
        row.add_column(overflow="fold")
        row.add_row(Text(name, "red"), Text(f"failed: {reason(error)}", "red"))
        return row

    def _grid(self) -> Table:
        grid = Table.grid(padding=(0, GAP))
        grid.add_column(width=self._name_width, overflow="fold")
        for title, width in COLUMNS:
            right = title in ("Audio", "Took")
            grid.add_column(width=width, no_wrap=True, justify="right" if right else "left")
        return grid


def _runner_up(others: Sequence[tuple[str, float]]) -> Text:
    if not others:
        return Text("")
    label, score = others[0]
    return Text(f"{short(label)} {score:.0%}", "dim")


class Summary:
    """How many of what, and each warning once; holds no analysis."""

    def __init__(self) -> None:
        self._emotions = Counter[str]()
        self._warnings = Counter[Notice]()

    def add(self, analysis: Analysis) -> None:
        self._emotions[short(analysis.emotion)] += 1
        self._warnings.update(analysis.warnings)

    def text(self, failed: int) -> Group:
        parts = [f"{self._emotions.total()} analysed"] + ([f"{failed} failed"] if failed else [])
        counts = " · ".join(f"{label} {count}" for label, count in self._emotions.most_common())
        line = Text(", ".join(parts) + (f":  {counts}" if counts else ""), "dim")
        return Group("", line, *(notice(each, times) for each, times in self._warnings.items()))
