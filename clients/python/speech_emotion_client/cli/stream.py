"""The command `stream`: audio in as it comes, emotions out while somebody speaks."""

import asyncio
import errno
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
from rich.live import Live

from speech_emotion_client.audio import ENCODINGS, Encoding, RawFormat
from speech_emotion_client.errors import SpeechEmotionError
from speech_emotion_client.streaming.chunks import Chunk, chunks_of
from speech_emotion_client.streaming.events import Event
from speech_emotion_client.streaming.options import FixedWindow, StreamOptions

from . import microphone, pace
from .connect import connect_async, failure, server_options
from .cutting import chosen, cutting_options
from .inputs import STDIN
from .live import LiveView
from .output import Output
from .seconds import POSITIVE
from .spoken import EventLines, EventRecords, ending

EXAMPLES = """
\b
Examples:
  speech-emotion stream --microphone --vad --interim 0.5
  speech-emotion stream speech.wav --realtime
  speech-emotion stream lecture.mp3 --window 4 --hop 2 --json > events.ndjson
  ffmpeg -i rtsp://camera/stream -vn -f ogg - | speech-emotion stream - --vad
  arecord -f S16_LE -r 16000 -t raw | speech-emotion stream - --raw-rate 16000
"""


@dataclass(frozen=True, slots=True)
class Feed:
    """What is streamed: its name, its chunks, and how they are to be read."""

    name: str
    chunks: AsyncIterator[Chunk]
    described: RawFormat | None
    pacing: Literal["realtime", "bulk"]


@click.command(epilog=EXAMPLES)
@click.argument("source", required=False, metavar="[FILE|-]")
@click.option("--microphone", "listens", is_flag=True, help="Listen; needs the extra `microphone`.")
@click.option("--realtime", is_flag=True, help="Send a file no faster than it would be heard.")
@cutting_options
@click.option("--interim", type=POSITIVE, help="Seconds between results of unfinished segments.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an event, on stdout.")
@click.option("--raw-rate", type=click.IntRange(1), help="Hz, of samples without a header.")
@click.option(
    "--raw-encoding", type=click.Choice(list(ENCODINGS)), default="s16le", show_default=True
)
@click.option("--raw-channels", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--channel", type=click.IntRange(1), help="Analyse this one, from 1; otherwise their mean."
)
@click.option("--model", default="", help="models/NAME[@VERSION]; otherwise the server's default.")
@server_options
def stream(
    source: str | None,
    listens: bool,
    realtime: bool,
    window: float | None,
    hop: float | None,
    vad: bool,
    interim: float | None,
    as_json: bool,
    raw_rate: int | None,
    raw_encoding: Encoding,
    raw_channels: int,
    channel: int | None,
    model: str,
    **access: Any,
) -> None:
    """Say which emotions are in speech while it is heard.

    A connection that breaks is resumed. Ctrl-C ends the stream with its summary.
    """
    segmentation = chosen(window, hop, vad) or FixedWindow()
    raw = RawFormat(raw_rate, raw_encoding, raw_channels) if raw_rate else None
    feed = open_feed(source, raw, listens=listens, realtime=realtime)
    options: StreamOptions = {
        "segmentation": segmentation,
        "interim": interim or 0.0,
        "format": feed.described,
        "pacing": feed.pacing,
        "channel": channel or 0,
        "model": model,
    }
    show, frame = _output(feed.name, as_json)
    try:
        with frame:
            last = asyncio.run(_run(access, feed.chunks, options, show))
    except SpeechEmotionError as error:
        raise failure(access["server"], error) from error
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.ENOSPC):
            raise  # not of the source: of stdout
        raise click.ClickException(f"{feed.name}: {error.strerror or error}") from error
    if not as_json:
        Output(highlight=False).print(ending(last))


def open_feed(source: str | None, raw: RawFormat | None, *, listens: bool, realtime: bool) -> Feed:
    """Raises click.UsageError unless exactly one source is named, and click.ClickException."""
    if listens == (source is not None):
        raise click.UsageError("Name a FILE or -, or use --microphone.")
    if source is None:
        heard = microphone.listen(microphone.load())
        return Feed("microphone", heard, microphone.FORMAT, "realtime")
    if source == STDIN:
        return Feed("stdin", chunks_of(sys.stdin.buffer), raw, "realtime")
    if not realtime:
        return Feed(source, chunks_of(source), raw, "bulk")
    tape = pace.tape(Path(source), raw)
    return Feed(source, pace.paced(tape), tape.described, "realtime")


def _output(
    name: str, as_json: bool
) -> tuple[Callable[[Event], None], AbstractContextManager[object]]:
    """Who shows the events, and what has to be entered for that."""
    console = Output(highlight=False)
    if as_json:
        return EventRecords().show, nullcontext()
    if not console.is_terminal:
        return EventLines().show, nullcontext()
    view = LiveView(name)
    return view.update, Live(view, console=console, refresh_per_second=10, transient=True)


async def _run(
    access: dict[str, Any],
    chunks: AsyncIterator[Chunk],
    options: StreamOptions,
    show: Callable[[Event], None],
) -> Event | None:
    """The last event."""
    stopped, last = asyncio.Event(), None
    with suppress(NotImplementedError):  # on Windows Ctrl-C ends the program
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    async with (
        connect_async(**access) as client,
        client.stream(pace.until(chunks, stopped), **options) as events,
    ):
        async for event in events:
            show(event)
            last = event
    return last
