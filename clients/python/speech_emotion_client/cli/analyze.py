"""The command `analyze`: names in, outcomes out, in the form that was asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from speech_emotion_client.audio import ENCODINGS, Encoding, RawFormat
from speech_emotion_client.outcome import Outcome
from speech_emotion_client.request import AnalyzeOptions
from speech_emotion_client.streaming.options import FixedWindow

from . import inputs, plot, printers, recordings, timeline
from .connect import connect, no_server, nobody_answers, server_options
from .cutting import chosen, cutting_options
from .output import Output
from .seconds import POSITIVE

EXAMPLES = """
\b
Examples:
  speech-emotion analyze --sample
  speech-emotion analyze speech.wav
  speech-emotion analyze recordings/ 'calls/*.mp3' --csv > emotions.csv
  speech-emotion analyze speech.wav --granularity frame --json
  speech-emotion analyze speech.wav --plot timeline.png
  speech-emotion analyze speech.wav --embedding out.npy
  speech-emotion analyze lecture.mp3 --timeline lecture.vtt
  ffmpeg -i film.mkv -t 20 -f wav - | speech-emotion analyze -
  speech-emotion analyze call.raw --raw-rate 8000 --raw-encoding mulaw
"""

FILE = click.Path(path_type=Path)
Form = Literal["json", "csv"]


@click.command(epilog=EXAMPLES)
@click.argument("files", nargs=-1, metavar="[FILE|FOLDER|PATTERN|-]...")
@click.option("--sample", is_flag=True, help="Analyse the clips that come with the client.")
@click.option(
    "--granularity",
    type=click.Choice(["utterance", "frame"]),
    default="utterance",
    show_default=True,
    help="frame adds scores every 20 ms.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file, on stdout.")
@click.option("--csv", "as_csv", is_flag=True, help="One row a file, or a frame, on stdout.")
@click.option("--plot", "image", type=FILE, help="Draw the frames; a folder for several files.")
@click.option(
    "--timeline",
    "track",
    type=FILE,
    help="Save as .json, .csv, .vtt or .rttm, analysed in segments; a folder for several files.",
)
@cutting_options
@click.option("--embedding", type=FILE, help="Save as .npy; a folder for several files.")
@click.option("--raw-rate", type=click.IntRange(1), help="Hz, of samples without a header.")
@click.option(
    "--raw-encoding", type=click.Choice(list(ENCODINGS)), default="s16le", show_default=True
)
@click.option("--raw-channels", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--channel", type=click.IntRange(1), help="Analyse this one, from 1; otherwise their mean."
)
@click.option("--model", default="", help="models/NAME[@VERSION]; otherwise the server's default.")
@click.option(
    "--timeout",
    type=POSITIVE,
    default=30.0,
    show_default=True,
    help="Seconds a file, retries included.",
)
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True)
@server_options
def analyze(
    files: tuple[str, ...],
    sample: bool,
    granularity: Literal["utterance", "frame"],
    as_json: bool,
    as_csv: bool,
    image: Path | None,
    track: Path | None,
    window: float | None,
    hop: float | None,
    vad: bool,
    embedding: Path | None,
    raw_rate: int | None,
    raw_encoding: Encoding,
    raw_channels: int,
    channel: int | None,
    model: str,
    timeout: float,
    concurrency: int,
    **access: Any,
) -> None:
    """Say which emotions are in speech.

    Folders are searched for audio files. Recordings that are too long for one call, and all if
    --timeline, --window or --vad is given, are streamed and analysed in segments; frames are then
    segments. Exit code 1 if any file failed, 2 if the command is wrong.
    """
    if as_json and as_csv:
        raise click.UsageError("Either --json or --csv.")
    form: Form | None = "json" if as_json else "csv" if as_csv else None
    check_image(image)
    found = inputs.expand(files, bundled=sample)
    images = inputs.outputs(image, found, ".png")
    arrays = inputs.outputs(embedding, found, ".npy")
    tracks = inputs.outputs(track, found, track_suffix(track))
    segmentation = chosen(window, hop, vad) or (FixedWindow() if track else None)
    options: AnalyzeOptions = {
        "granularity": "frame" if image else granularity,
        "embedding": embedding is not None,
        "format": RawFormat(raw_rate, raw_encoding, raw_channels) if raw_rate else None,
        "channel": channel or 0,
        "model": model,
    }
    out = Output(highlight=False)
    printer = printers.choose(form, found, out)
    bar = bar_console(out, form, len(found))
    with connect(timeout=timeout, **access) as client:
        outcomes = recordings.analyse_all(
            client,
            found,
            options,
            segmentation,
            concurrency=concurrency,
            console=bar_console(out, form, 2) if len(found) == 1 else None,
        )
        for outcome in with_progress(outcomes, len(found), bar):
            if nobody_answers(outcome.error) and not printer.answered:
                raise no_server(access["server"])
            name, place = found[outcome.index].name, outcome.index
            places = Files(arrays[place], images[place], tracks[place])
            printer.show(name, outcome, save(name, outcome, places))
    printer.close()
    raise SystemExit(1 if printer.failed else 0)


def check_image(image: Path | None) -> None:
    """Raises click.ClickException without matplotlib, click.UsageError for another format."""
    if image is None:
        return
    if not plot.available():
        raise click.ClickException(f"--plot needs matplotlib: {plot.INSTALL}")
    if image.suffix and not image.is_dir() and image.suffix.lower() not in plot.suffixes():
        raise click.UsageError(f"--plot is one of {', '.join(plot.suffixes())}.")


@dataclass(frozen=True, slots=True)
class Files:
    """Where to save what belongs to one input."""

    array: Path | None
    image: Path | None
    track: Path | None


def track_suffix(track: Path | None) -> str:
    """Of a timeline; JSON in a folder. Raises click.UsageError for another format."""
    suffix = (track.suffix if track else "") or ".json"
    if suffix.lower() not in timeline.FORMATS:
        raise click.UsageError(f"--timeline is one of {', '.join(timeline.FORMATS)}.")
    return suffix


def save(name: str, outcome: Outcome, files: Files) -> Mapping[str, Path]:
    """Writes what was asked for; returns what was written where."""
    analysis, saved = outcome.analysis, dict[str, Path]()
    if analysis is None:
        return saved
    array, image = files.array, files.image
    if array is not None and analysis.embedding is not None:
        # An open file, because numpy would append .npy to a name without it.
        with array.open("wb") as file:
            np.save(file, analysis.embedding)
        saved["embedding_file"] = array
    # Audio may be too short to have a frame.
    if image is not None and analysis.frames:
        plot.save(image, name, analysis, analysis.frames)
        saved["plot_file"] = image
    if files.track is not None:
        timeline.save(files.track, name, analysis)
        saved["timeline_file"] = files.track
    return saved


def bar_console(out: Console, form: str | None, total: int) -> Console | None:
    """Where a progress bar may be drawn without harm to what is printed; None if nowhere.

    Rows and bar that share a terminal must share a console; JSON and CSV on a terminal have none.
    """
    if total < 2 or (out.is_terminal and form is not None):
        return None
    console = out if out.is_terminal else Console(stderr=True)
    return console if console.is_terminal else None


def with_progress(
    outcomes: Iterator[Outcome], total: int, console: Console | None
) -> Iterator[Outcome]:
    """The same outcomes, with a bar below what is printed."""
    if console is None:
        yield from outcomes
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield from progress.track(outcomes, total=total)
