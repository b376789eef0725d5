"""The Python client's streams against the real server, through a cable that can be cut."""

import asyncio
import io
import json
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from speech_emotion_client import (
    AsyncClient,
    Client,
    ClientMarks,
    FixedWindow,
    InvalidAudio,
    Segment,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    Summary,
    VoiceActivity,
    samples,
)

RATE = 16_000


class Cable:
    """Carries bytes between a client and a server until it is cut; then it is plugged in anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Cable":
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def plug_into(self, port: int) -> None:
        """Leads to another server from the next connection on."""
        self._port = port

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(2**14):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()


@pytest.fixture(scope="module")
def port() -> Any:
    """Of a server in a process of its own."""

    async def start() -> tuple[asyncio.subprocess.Process, int]:
        flags = ("--engine", "fake", "--port", "0", "--log-format", "json")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", *flags), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        while line := await process.stderr.readline():
            if line.startswith(b"{") and (said := json.loads(line))["event"] == "serving":
                return process, int(said["address"].rpartition(":")[2])
        raise EOFError("the server did not start")

    with asyncio.Runner() as runner:
        process, number = runner.run(start())
        yield number
        process.kill()
        runner.run(process.wait())


@pytest.fixture
async def cable(port: int) -> AsyncIterator[Cable]:
    async with Cable(port) as cable:
        yield cable


@pytest.fixture
async def client(cable: Cable) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(cable.target) as client:
        yield client


def noise(seconds: float) -> np.ndarray[Any, np.dtype[np.int16]]:
    count = round(RATE * seconds)
    level = 6_000 + 5_000 * np.sin(np.arange(count) / RATE * 3)
    return (level * np.random.default_rng(1).uniform(-1, 1, count)).astype("<i2")


def as_flac(wave: np.ndarray[Any, Any]) -> list[bytes]:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="FLAC")
    data = file.getvalue()
    return [data[start : start + 4096] for start in range(0, len(data), 4096)]


def finals(events: list[Any]) -> list[tuple[Any, ...]]:
    segments = [each for each in events if isinstance(each, Segment) and each.is_final]
    return [(each.index, each.start, each.end, each.trigger, each.scores) for each in segments]


@pytest.mark.parametrize("container", [False, True], ids=["raw", "flac"])
async def test_twenty_cuts_at_random_leave_the_same_finals_sample_for_sample(
    client: AsyncClient, cable: Cable, container: bool
) -> None:
    wave, chance = noise(120), random.Random(3)
    source: Any = as_flac(wave) if container else wave
    options: Any = {"pacing": "bulk", "segmentation": FixedWindow(0.5, 0.25)}
    options |= {} if container else {"sample_rate": RATE}
    async with client.stream(source, **options) as stream:
        unbroken = [event async for event in stream]
    heard: list[Any] = []

    cuts = 0
    async with client.stream(source, **options) as stream:
        async for event in stream:
            heard.append(event)
            if cuts < 20 and chance.random() < 0.1:
                cuts += 1
                cable.cut()

    assert cuts == 20
    assert sum(isinstance(each, SessionStarted) for each in heard) > 10  # some cuts fall together
    assert finals(heard) == finals(unbroken)
    assert heard[-1].timeline == unbroken[-1].timeline
    assert heard[-1].scores == unbroken[-1].scores


async def test_marks_end_segments_while_interims_come(client: AsyncClient) -> None:
    wave = noise(2)
    marks: Any = {"sample_rate": RATE, "segmentation": ClientMarks(), "interim": 0.4}

    async with client.stream(**marks) as stream:
        await stream.send(wave[:RATE])
        await stream.end_segment()
        await stream.send(wave[RATE:])
        await stream.finish()
        events = [event async for event in stream]

    assert [each[1:4] for each in finals(events)] == [(0, 1, "client_mark"), (1, 2, "finish")]
    interims = [each for each in events if isinstance(each, Segment) and not each.is_final]
    assert {each.index for each in interims} == {0, 1}
    assert {each.trigger for each in interims} == {"interval"}


async def test_stretches_of_speech_begin_and_end(client: AsyncClient) -> None:
    speech, rate = soundfile.read(samples()[0], dtype="int16")
    silence = np.zeros(rate, np.int16)
    audio = np.concatenate([silence, speech, silence, speech, silence])

    async with client.stream(
        audio, sample_rate=rate, segmentation=VoiceActivity(), pacing="bulk"
    ) as stream:
        events = [event async for event in stream]

    kinds = [type(event) for event in events]
    assert kinds.count(SpeechStarted) == kinds.count(SpeechEnded) >= 2
    summary = events[-1]
    assert isinstance(summary, Summary)
    assert 0 < summary.speech_duration < summary.duration == pytest.approx(len(audio) / rate, 0.01)


def test_a_stream_of_one_segment_is_what_analyze_says(port: int) -> None:
    wave = noise(3)
    with Client(f"127.0.0.1:{port}") as client:
        whole = client.analyze(wave, sample_rate=RATE)
        *_, segment, summary = client.stream(
            wave, sample_rate=RATE, segmentation=ClientMarks(), granularity="frame"
        )

    assert isinstance(segment, Segment)
    assert segment.scores == pytest.approx(whole.scores, abs=1e-6)
    assert isinstance(summary, Summary)
    assert summary.provenance.model == whole.provenance.model
    assert segment.frames is not None


async def test_interims_that_are_out_of_date_do_not_come_after_their_final(
    client: AsyncClient, cable: Cable
) -> None:
    options: Any = {"sample_rate": RATE, "pacing": "bulk", "interim": 0.1}
    seen: list[tuple[int, bool]] = []

    async with client.stream(noise(20), segmentation=FixedWindow(1, 0.5), **options) as stream:
        async for event in stream:
            if isinstance(event, Segment):
                seen.append((event.index, event.is_final))
                if len(seen) in (20, 40, 60):
                    cable.cut()

    over: set[int] = set()
    for index, is_final in seen:
        assert index not in over
        over |= {index} if is_final else set()
    assert len(over) == 39


async def test_an_mp4_is_streamed_wherever_its_index_is(
    client: AsyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "speech.m4a"
    with av.open(path, "w", format="mp4") as out:  # which puts it behind the audio
        track: Any = out.add_stream("aac", rate=RATE, layout="mono")
        wave = np.sin(np.arange(5 * RATE) / 20).astype(np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
        frame.sample_rate = RATE
        out.mux(track.encode(frame))
        out.mux(track.encode(None))

    async with client.stream(path, pacing="bulk") as events:
        *_, last = [event async for event in events]
    async with client.stream(io.BytesIO(path.read_bytes())) as events:
        with pytest.raises(InvalidAudio, match="faststart"):
            _ = [event async for event in events]

    assert isinstance(last, Summary)
    assert last.audio.container == "m4a"
    assert last.duration == pytest.approx(5, abs=0.2)
