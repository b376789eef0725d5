"""Chunks from a microphone; the only user of sounddevice, the extra `microphone`."""

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import click

from speech_emotion_client.audio import RawFormat

INSTALL = "pip install 'speech-emotion-client[microphone]'"
FORMAT = RawFormat(16_000)
BLOCK = 1_600
"""Samples: 100 ms."""

WAITING = 900
"""Blocks, 90 s, that may wait while a broken connection is resumed; later ones are left out."""


def load() -> Any:
    """The module sounddevice; raises click.ClickException that says what is missing."""
    try:
        return import_module("sounddevice")
    except ImportError:
        raise click.ClickException(f"--microphone needs sounddevice: {INSTALL}") from None
    except OSError as error:  # it is there, its library is not
        text = f"--microphone needs the PortAudio library (libportaudio2): {error}"
        raise click.ClickException(text) from error


async def listen(sounddevice: Any) -> AsyncIterator[bytes]:
    """What the default microphone hears, in FORMAT, for ever.

    Raises click.ClickException if there is no microphone.
    """
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes] = asyncio.Queue()

    def put(block: bytes) -> None:
        if blocks.qsize() < WAITING:
            blocks.put_nowait(block)

    def heard(data: Any, *_: Any) -> None:  # called by a thread of PortAudio
        loop.call_soon_threadsafe(put, bytes(data))

    try:
        recorder = sounddevice.RawInputStream(
            samplerate=FORMAT.sample_rate,
            channels=FORMAT.channels,
            dtype="int16",
            blocksize=BLOCK,
            callback=heard,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise click.ClickException(f"No microphone can be opened: {error}") from error
    with recorder:
        while True:
            yield await blocks.get()
