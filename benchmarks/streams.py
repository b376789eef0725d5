"""How many live streams one core carries, what lost clients cost, what voice activity saves.

    python -m benchmarks.streams live --streams 200 400 600 --seconds 20
    python -m benchmarks.streams churn --streams 10000
    python -m benchmarks.streams voice FOLDER      # clips of one speaker each, such as LibriSpeech
    python -m benchmarks.streams listen --streams 20 40 60 --seconds 30
    python -m benchmarks.streams answer --seconds 120

The server runs with the fake engine, as this is about what surrounds the model, but for `listen`
and `answer`: live streams with voice activity and the demo model, and how long after the end of
speech one of them has its result.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import soundfile
import uvloop
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from benchmarks import voices
from server.app import serving
from server.config import Settings
from server.engine.fake import FakeEngine
from server.speech import SAMPLE_RATE
from server.streaming.decisions import Segment
from server.streaming.plan import Speech, segmenter_for
from server.streaming.silero import Silero
from server.streaming.voice import VoiceRule

PCM = AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=SAMPLE_RATE)
CHUNK_MS = 100
WINDOW_MS, HOP_MS = 2000, 1000
STREAMS_PER_CHANNEL = 50


def config(**more) -> pb.AnalyzeStreamRequest:
    window = pb.FixedWindow(window_ms=WINDOW_MS, hop_ms=HOP_MS)
    return pb.AnalyzeStreamRequest(
        config=pb.StreamConfig(audio_format=PCM, fixed_window=window, **more)
    )


def chunk_message() -> pb.AnalyzeStreamRequest:
    noise = np.random.default_rng(1).normal(0, 3_000, SAMPLE_RATE * CHUNK_MS // 1000)
    return pb.AnalyzeStreamRequest(audio=pb.AudioChunk(data=noise.astype("<i2").tobytes()))


# live


async def start_server(
    core: int | None, engine: str = "fake", *flags: str
) -> tuple[asyncio.subprocess.Process, str]:
    """A server process of its own; its log is on stderr."""
    pin = [] if core is None else ["taskset", "-c", str(core)]
    process = await asyncio.create_subprocess_exec(
        *(*pin, sys.executable, "-m", "server", "--engine", engine, "--port", "0"),
        *("--log-format", "json", "--max-stream-sessions", "100000", *flags),
        env={**os.environ, "SPEECHEMOTION_METRICS_PORT": "0"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    while line := await process.stderr.readline():
        event = json.loads(line)
        if event["event"] == "serving":
            return process, event["address"]
    raise RuntimeError("the server did not start")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def one_live(client, start: float, seconds: float, lags: list[float], late: list[float]):
    """Sends 100 ms chunks on time; a lag is from the last chunk of a window to its result."""
    call = client.AnalyzeStream()
    await call.write(config())
    chunk, sent_at = chunk_message(), {}
    started = await call.read()
    assert started.WhichOneof("event") == "session_started"

    async def read() -> None:
        while (event := await call.read()) is not grpc.aio.EOF:
            if event.WhichOneof("event") == "segment" and event.segment.end_ms in sent_at:
                lags.append(time.monotonic() - sent_at[event.segment.end_ms])

    reading = asyncio.create_task(read())
    for number in range(round(1000 * seconds / CHUNK_MS)):
        due = start + number * CHUNK_MS / 1000
        await asyncio.sleep(max(0, due - time.monotonic()))
        late.append(time.monotonic() - due)
        end_ms = (number + 1) * CHUNK_MS
        if end_ms % HOP_MS == 0:
            sent_at[end_ms] = time.monotonic()
        await call.write(chunk)
    await call.write(pb.AnalyzeStreamRequest(control=pb.StreamControl(finish=pb.Finish())))
    await reading


async def live(streams: int, seconds: float, core: int | None, flags: list[str]) -> None:
    process, address = await start_server(core, "fake", *flags)
    channels = [
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-streams // STREAMS_PER_CHANNEL))
    ]
    clients = [EmotionServiceStub(one) for one in channels]
    lags: list[float] = []
    late: list[float] = []
    begin = time.monotonic() + 2 + streams / 500
    rng = random.Random(1)
    work = [
        one_live(clients[n % len(clients)], begin + rng.uniform(0, 1), seconds, lags, late)
        for n in range(streams)
    ]
    everything = asyncio.gather(*work)
    await asyncio.sleep(begin + 1 - time.monotonic())
    before, at = cpu_seconds(process.pid), time.monotonic()
    await asyncio.sleep(seconds - 2)
    used = (cpu_seconds(process.pid) - before) / (time.monotonic() - at)
    await everything
    for channel in channels:
        await channel.close()
    process.terminate()
    await process.communicate()
    p50, p99 = np.percentile(lags, [50, 99]) * 1000
    own_p99 = np.percentile(late, 99) * 1000
    print(
        f"{streams:5d} streams: lag p50 {p50:6.1f} p99 {p99:6.1f} ms, {len(lags)} results,"
        f" server {used:.2f} cores, generator late p99 {own_p99:.1f} ms",
        flush=True,
    )


# listen, answer


async def listen(
    streams: int, seconds: float, chunk_ms: int, folder: Path | None, flags: list[str]
) -> None:
    """Lags are from the chunk that completes a window to its result, as its client sees it."""
    process, address = await start_server(None, "native", *flags)
    rng, heard = random.Random(1), voices.Heard()
    spoken = [voices.speech(folder, seconds, rng) for _ in range(streams)]
    channels = [grpc.aio.insecure_channel(address) for _ in range(-(-streams // 50))]
    begin = time.monotonic() + 2
    before, at = cpu_seconds(process.pid), time.monotonic()
    await asyncio.gather(
        *(
            voices.speak(
                EmotionServiceStub(channels[n % len(channels)]),
                audio, chunk_ms, begin + rng.uniform(0, 5), heard,
            )
            for n, audio in enumerate(spoken)
        )
    )  # fmt: skip
    used = (cpu_seconds(process.pid) - before) / (time.monotonic() - at)
    for channel in channels:
        await channel.close()
    process.terminate()
    await process.communicate()
    print(
        f"{streams:4d} streams: {of(heard.lags, 'end of window to result')},"
        f" {of(heard.ends, 'end of speech to result')}, server {used:.2f} cores,"
        f" generator late p99 {1000 * np.percentile(heard.late, 99):.1f} ms,"
        f" load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def of(values: list[float], name: str) -> str:
    p50, p95, p99 = np.percentile(values, [50, 95, 99]) * 1000
    return f"{name} p50 {p50:.1f} p95 {p95:.1f} p99 {p99:.1f} ms of {len(values)}"


# churn


async def abandon(address_client, channel_of, rng: random.Random) -> None:
    """Leaves at a random point, in a random way."""
    way = rng.choice(["cancel", "drop", "deadline"])
    channel = channel_of() if way == "drop" else None
    client = EmotionServiceStub(channel) if channel else address_client
    call = client.AnalyzeStream(timeout=rng.uniform(0.005, 0.3) if way == "deadline" else None)
    chunk = chunk_message()
    try:
        await call.write(config(pacing=pb.StreamConfig.PACING_BULK))
        for _ in range(rng.randrange(60)):
            await call.write(chunk)
        if rng.random() < 0.5:
            await call.read()
        await asyncio.sleep(rng.uniform(0, 0.1))
        if way == "deadline":
            while await call.read() is not grpc.aio.EOF:
                pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
        pass
    call.cancel()
    if channel:
        await channel.close()


def rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def churn(streams: int) -> None:
    engine = FakeEngine(delay_s_per_batch=0.002)
    settings = Settings(port=0, metrics_port=0, stream_resume_seconds=1, log_level="error")
    async with serving(settings, lambda: engine, lambda _: None) as server:
        address = f"localhost:{server.port}"
        rng, gate = random.Random(1), asyncio.Semaphore(64)
        async with grpc.aio.insecure_channel(address) as channel:
            client = EmotionServiceStub(channel)

            async def one() -> None:
                async with gate:
                    local = [("grpc.use_local_subchannel_pool", 1)]
                    await abandon(client, lambda: grpc.aio.insecure_channel(address, local), rng)

            async def settle() -> int:
                while "open=0" not in repr(server.streams):  # noqa: ASYNC110  # it has no event
                    await asyncio.sleep(0.01)
                seen = sum(engine.batches)
                await asyncio.sleep(3)
                gc.collect()
                return sum(engine.batches) - seen

            tasks = len(asyncio.all_tasks())
            for part in range(10):
                await asyncio.gather(*(one() for _ in range(streams // 10)))
                after = await settle()
                print(
                    f"{(part + 1) * streams // 10:6d} streams: {sum(engine.batches)} windows,"
                    f" {after} after the last had gone, {len(asyncio.all_tasks()) - tasks} tasks"
                    f" left, {server.streams}, RSS {rss_mib():.1f} MiB",
                    flush=True,
                )


# voice


def voice(folder: Path, clips: int) -> None:
    """Clips with 3 s of faint noise between them; speech is what is 12 dB above a clip's noise."""
    rng = np.random.default_rng(1)
    pieces, truth = [], []
    for path in sorted(folder.rglob("*.flac"))[:clips]:
        wave, rate = soundfile.read(path, dtype="float32")
        assert rate == SAMPLE_RATE, path
        gap = rng.normal(0, 3e-4, 3 * SAMPLE_RATE).astype(np.float32)
        loud = np.sqrt((wave[: len(wave) // 320 * 320].reshape(-1, 320) ** 2).mean(1))
        active = np.zeros(len(wave), np.int8)
        active[: len(loud) * 320] = np.repeat(loud > 4 * np.percentile(loud, 10), 320)
        pieces += [wave, gap]
        truth += [active, np.full(len(gap), -1, np.int8)]
    audio, label = np.concatenate(pieces), np.concatenate(truth)
    rule = VoiceRule(threshold=0.5, min_speech=4_000, end_silence=8_000)
    segmenter = segmenter_for(Speech(rule, 15 * SAMPLE_RATE), 0, Silero)
    began = time.perf_counter()
    decided = segmenter.push(audio) + segmenter.finish()
    took = time.perf_counter() - began
    kept = np.zeros(len(audio), bool)
    for one in decided:
        if isinstance(one, Segment):
            kept[one.start : one.end] = True
    print(
        f"{len(audio) / SAMPLE_RATE:.0f} s: speech kept {kept[label == 1].mean():.4f},"
        f" silence between clips skipped {1 - kept[label == -1].mean():.4f},"
        f" audio sent to the engine {kept.mean():.3f},"
        f" {1000 * took / (len(audio) / SAMPLE_RATE):.1f} ms for a second of audio"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    alive = commands.add_parser("live")
    alive.add_argument("--streams", type=int, nargs="+", default=[200, 400, 600])
    alive.add_argument("--seconds", type=float, default=20)
    alive.add_argument("--core", type=int, help="pins the server; the generator gets the others")
    churned = commands.add_parser("churn")
    churned.add_argument("--streams", type=int, default=10_000)
    heard = commands.add_parser("voice")
    heard.add_argument("folder", type=Path)
    heard.add_argument("--clips", type=int, default=40)
    listened = commands.add_parser("listen")
    listened.add_argument("--streams", type=int, nargs="+", default=[20, 40, 60])
    answered = commands.add_parser("answer")
    for one, seconds, chunk_ms in ((listened, 30.0, CHUNK_MS), (answered, 120.0, 20)):
        one.add_argument("--seconds", type=float, default=seconds)
        one.add_argument("--chunk-ms", type=int, default=chunk_ms)
        one.add_argument("--folder", type=Path, help="of FLAC clips; else the client's samples")
    for one in (alive, listened, answered):
        one.add_argument("--flags", default="", help="of the server, such as --redis-url=...")
    given = parser.parse_args()
    if given.command in ("listen", "answer"):
        for streams in given.streams if given.command == "listen" else [1]:
            flags = given.flags.split()
            uvloop.run(listen(streams, given.seconds, given.chunk_ms, given.folder, flags))
    elif given.command == "voice":
        voice(given.folder, given.clips)
    elif given.command == "churn":
        uvloop.run(churn(given.streams))
    else:
        if given.core is not None:
            os.sched_setaffinity(0, os.sched_getaffinity(0) - {given.core})
        for streams in given.streams:
            uvloop.run(live(streams, given.seconds, given.core, given.flags.split()))


if __name__ == "__main__":
    main()
