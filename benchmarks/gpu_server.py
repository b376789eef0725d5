"""A server in a process of its own under a closed loop of callers; knows no torch."""

import asyncio
import io
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

import grpc
import numpy as np
import soundfile
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from server.speech import SAMPLE_RATE, Waveform

CALLERS = 64
CHANNELS = 8
CALLS = 6400


async def serve(
    source: str, device: str, waveforms: Sequence[Waveform]
) -> tuple[float, dict[int, float]]:
    """Clips a second, and quantiles of a call's seconds."""
    bodies = [_wav(waveform) for waveform in waveforms]
    async with _server(source, device) as address:
        channels = [
            grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            for _ in range(CHANNELS)
        ]
        stubs = [EmotionServiceStub(channel) for channel in channels]
        await _load(stubs, bodies, CALLERS)
        started_at = perf_counter()
        times = await _load(stubs, bodies, CALLS)
        spent = perf_counter() - started_at
        for channel in channels:
            await channel.close(None)
    return len(times) / spent, {q: float(np.percentile(times, q)) for q in (50, 99)}


async def _load(
    stubs: Sequence[EmotionServiceStub], bodies: Sequence[bytes], calls: int
) -> list[float]:
    numbers, times = iter(range(calls)), []

    async def call() -> None:
        for number in numbers:
            request = AnalyzeRequest(audio_data=bodies[number % len(bodies)])
            started_at = perf_counter()
            await stubs[number % len(stubs)].Analyze(request)
            times.append(perf_counter() - started_at)

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return times


@asynccontextmanager
async def _server(source: str, device: str) -> AsyncIterator[str]:
    port = _free_port()
    flags = {"model": source, "devices": device, "port": port, "metrics-port": 0}
    flags |= {"log-level": "error", "decode-threads": 4, "max-queue-seconds": 60}
    command = [
        sys.executable,
        "-m",
        "server",
        *(f"--{name}={value}" for name, value in flags.items()),
    ]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await _ready(f"127.0.0.1:{port}", process)
        yield f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(address: str, process: Process) -> None:
    """Raises at once if the process ends: time on a lent GPU is short."""
    async with grpc.aio.insecure_channel(address) as channel:
        ready = asyncio.ensure_future(channel.channel_ready())
        ended = asyncio.ensure_future(process.wait())
        either = asyncio.FIRST_COMPLETED
        await asyncio.wait({ready, ended}, timeout=120, return_when=either)
        in_time = ready.done()
        ready.cancel()
        ended.cancel()
    if not in_time:
        raise RuntimeError(f"the server did not start; exit code {process.returncode}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wav(waveform: Waveform) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
