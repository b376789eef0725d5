"""Recordings that are too long for one call: which they are, and how they are streamed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from speech_emotion_client.audio import RawFormat
from speech_emotion_client.client import Client
from speech_emotion_client.errors import SpeechEmotionError
from speech_emotion_client.outcome import Outcome
from speech_emotion_client.request import AnalyzeOptions
from speech_emotion_client.result import Analysis
from speech_emotion_client.server import Limits
from speech_emotion_client.streaming.chunks import frame_bytes
from speech_emotion_client.streaming.events import Segment, SessionStarted, Summary
from speech_emotion_client.streaming.inorder import PIECE, pieces
from speech_emotion_client.streaming.options import FixedWindow, Segmentation, describe
from speech_emotion_client.streaming.recording import Recording

from .inputs import Input

WORTH_A_LOOK = 2**16
"""Bytes; smaller files are sent whole, and streamed if the server finds them too long."""

TOO_LONG = ("AUDIO_TOO_LONG", "AUDIO_TOO_LARGE", "PAYLOAD_TOO_LARGE")


def analyse_all(
    client: Client,
    found: list[Input],
    options: AnalyzeOptions,
    segmentation: Segmentation | None,
    *,
    concurrency: int,
    console: Console | None,
) -> Iterator[Outcome]:
    """The outcomes of calls in order, then those of streams; all are streams if it is said how
    to cut them. `console` is where a single recording draws its progress."""
    streamed = list(range(len(found))) if segmentation else _long_ones(client, found, options)
    whole = [place for place in range(len(found)) if place not in set(streamed)]
    sources = (found[place].source for place in whole)
    for outcome in client.analyze_many(sources, concurrency=concurrency, **options):
        place = whole[outcome.index]
        if _was_too_long(outcome) and isinstance(found[place].source, Path):
            streamed.append(place)
        else:
            yield replace(outcome, index=place)
    for place in streamed:
        yield _outcome(client, place, found[place], options, segmentation, console)


def _long_ones(client: Client, found: list[Input], options: AnalyzeOptions) -> list[int]:
    paths = {i: each.source for i, each in enumerate(found) if isinstance(each.source, Path)}
    large = {i: path for i, path in paths.items() if _size(path) > WORTH_A_LOOK}
    if not large:
        return []
    try:
        limits = client.server_info().limits
    except SpeechEmotionError:
        return []  # the calls will say what is wrong
    return [i for i, path in large.items() if _is_long(path, options.get("format"), limits)]


def _is_long(path: Path, raw: RawFormat | None, limits: Limits) -> bool:
    too_large = 0 < limits.max_audio_bytes < _size(path)
    return too_large or 0 < limits.max_audio_ms < 1000 * duration(path, raw)


def duration(path: Path, raw: RawFormat | None) -> float:
    """Seconds; 0 if that is not known without decoding. Of containers soundfile knows, if any."""
    if raw is not None:
        return _size(path) / frame_bytes(raw) / raw.sample_rate
    if find_spec("soundfile") is None:
        return 0.0
    soundfile: Any = import_module("soundfile")
    try:
        return float(soundfile.info(path).duration)
    except (soundfile.LibsndfileError, OSError):
        return 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _was_too_long(outcome: Outcome) -> bool:
    return isinstance(outcome.error, SpeechEmotionError) and outcome.error.reason in TOO_LONG


def _outcome(
    client: Client,
    index: int,
    item: Input,
    options: AnalyzeOptions,
    segmentation: Segmentation | None,
    console: Console | None,
) -> Outcome:
    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.fields[at]}"), TimeElapsedColumn())
    size = _size(item.source) if isinstance(item.source, Path) else 0
    with Progress(*columns, console=console, transient=True, disable=console is None) as progress:
        task = progress.add_task("", total=size or None, at="")

        def say(sent: int | None = None, at: float | None = None) -> None:
            fields = {} if at is None else {"at": f"at {at:.0f} s"}
            progress.update(task, completed=sent, **fields)  # type: ignore[arg-type]  # fields

        try:
            analysis = _analyse(client, item, options, segmentation or FixedWindow(), say)
            return Outcome(index, item.source, analysis=analysis)
        except (SpeechEmotionError, OSError) as error:
            return Outcome(index, item.source, error=error)


def _analyse(
    client: Client,
    item: Input,
    options: AnalyzeOptions,
    segmentation: Segmentation,
    say: Callable[..., None],
) -> Analysis:
    recording: Recording | None = None
    with_frames = options.get("granularity") == "frame"
    events = client.stream(
        _pieces(item.source, say),
        segmentation=segmentation,
        pacing="bulk",
        embedding=options.get("embedding", False),
        format=options.get("format"),
        channel=options.get("channel", 0),
        model=options.get("model", ""),
    )
    for event in events:
        if isinstance(event, SessionStarted) and recording is None:
            recording = Recording(describe(event.segmentation), frames=with_frames)
        elif isinstance(event, Segment) and recording is not None:
            recording.add(event)
            say(at=event.end)
        elif isinstance(event, Summary) and recording is not None:
            return recording.analysis(event)
    raise AssertionError("unreachable: a stream ends with a summary or an error")


def _pieces(source: Any, say: Callable[..., None]) -> Iterator[bytes]:
    """The bytes of a file or of stdin, counted as they are taken."""
    sent = 0
    whole = isinstance(source, Path)
    for piece in pieces(source) if whole else iter(partial(source.read, PIECE), b""):
        yield piece
        sent += len(piece)
        say(sent)
