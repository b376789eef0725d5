"""Speakers for `benchmarks.streams`: speech with pauses, sent in real time, and its results."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import soundfile
from numpy.typing import NDArray
from speech_emotion_client import samples
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat

from server.speech import SAMPLE_RATE
from server.streaming.voice import FRAME, PADDING

PCM = AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=SAMPLE_RATE)
END_SILENCE_MS = 500
HANG_OVER = -(-END_SILENCE_MS * SAMPLE_RATE // 1000 // FRAME) * FRAME
"""Samples of silence after which the end of speech is known: whole frames."""


def speech(folder: Path | None, seconds: float, rng: random.Random) -> NDArray[np.int16]:
    """Clips in random order with pauses of 0.7 to 2 s; without a folder the client's samples."""
    files = sorted(folder.rglob("*.flac")) if folder else list(samples())
    pieces: list[NDArray[np.int16]] = []
    total, needed = 0, round(seconds * SAMPLE_RATE)
    while total < needed:
        clip, rate = soundfile.read(rng.choice(files), dtype="int16")
        assert rate == SAMPLE_RATE
        pause = np.zeros(round(rng.uniform(0.7, 2) * SAMPLE_RATE), np.int16)
        pieces += [clip, pause]
        total += len(clip) + len(pause)
    return np.concatenate(pieces)[:needed]


@dataclass(slots=True)
class Heard:
    """What came back; all times in seconds."""

    lags: list[float] = field(default_factory=list)  # from the end of a window to its result
    ends: list[float] = field(default_factory=list)  # from the end of speech to its result
    late: list[float] = field(default_factory=list)  # the speaker himself


class Clock:
    """When each sample was sent."""

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk
        self._sent: list[float] = []

    def tick(self) -> None:
        self._sent.append(time.monotonic())

    def since(self, sample: int) -> float | None:
        """Seconds since the chunk with that sample was sent; None if it was not."""
        chunk = max(0, sample - 1) // self._chunk
        return time.monotonic() - self._sent[chunk] if chunk < len(self._sent) else None


async def speak(
    client, audio: NDArray[np.int16], chunk_ms: int, start: float, heard: Heard
) -> None:
    """One live stream with voice activity."""
    chunk = chunk_ms * SAMPLE_RATE // 1000
    clock, call = Clock(chunk), client.AnalyzeStream()
    voice = pb.VoiceActivity(end_silence_ms=END_SILENCE_MS)
    config = pb.StreamConfig(audio_format=PCM, voice_activity=voice)
    await call.write(pb.AnalyzeStreamRequest(config=config))
    started = await call.read()
    assert started.WhichOneof("event") == "session_started", started
    reading = asyncio.create_task(_listen(call, clock, heard))
    async for data in _paced(audio, chunk, start, heard):
        clock.tick()
        await call.write(pb.AnalyzeStreamRequest(audio=pb.AudioChunk(data=data)))
    await call.write(pb.AnalyzeStreamRequest(control=pb.StreamControl(finish=pb.Finish())))
    await reading


async def _paced(
    audio: NDArray[np.int16], chunk: int, start: float, heard: Heard
) -> AsyncIterator[bytes]:
    for number, first in enumerate(range(0, len(audio), chunk)):
        due = start + number * chunk / SAMPLE_RATE
        await asyncio.sleep(max(0, due - time.monotonic()))
        heard.late.append(time.monotonic() - due)
        yield audio[first : first + chunk].tobytes()


async def _listen(call, clock: Clock, heard: Heard) -> None:
    while (event := await call.read()) is not grpc.aio.EOF:
        assert event.WhichOneof("event") != "error", event
        segment = event.segment
        if segment.trigger == pb.SegmentResult.TRIGGER_SPEECH_END:
            last = segment.end_ms * SAMPLE_RATE // 1000 - PADDING  # the last frame of speech
            _note(heard.ends, clock.since(last))
            _note(heard.lags, clock.since(last + HANG_OVER))
        elif segment.trigger == pb.SegmentResult.TRIGGER_MAX_LENGTH:
            _note(heard.lags, clock.since(segment.end_ms * SAMPLE_RATE // 1000))


def _note(values: list[float], value: float | None) -> None:
    if value is not None:
        values.append(value)
