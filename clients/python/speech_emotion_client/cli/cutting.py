"""The options that say how a stream is cut into segments, the same for `analyze` and `stream`."""

from collections.abc import Callable
from typing import Any

import click

from speech_emotion_client.streaming.options import FixedWindow, Segmentation, VoiceActivity

from .seconds import POSITIVE


def cutting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --window, --hop and --vad to a command."""
    for option in (
        click.option("--vad", is_flag=True, help="Segments are stretches of speech."),
        click.option("--hop", type=POSITIVE, help="Seconds from window to window."),
        click.option("--window", type=POSITIVE, help="Seconds of a window; 2 unless configured."),
    ):
        command = option(command)
    return command


def chosen(window: float | None, hop: float | None, vad: bool) -> Segmentation | None:
    """None if nothing was said; raises click.UsageError for what excludes each other."""
    if vad:
        if window or hop:
            raise click.UsageError("--vad has no --window and no --hop.")
        return VoiceActivity()
    return FixedWindow(window or 0.0, hop or 0.0) if window or hop else None
