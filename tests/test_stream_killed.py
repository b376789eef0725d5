"""kill -9 of the replica in the middle of a session: the client goes on at another one."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import soundfile
from speech_emotion_client import (
    AsyncClient,
    FixedWindow,
    SpeechEnded,
    SpeechStarted,
    VoiceActivity,
)
from stores import Store, store
from test_client_stream_server import RATE, Cable, finals, noise
from test_segmentation import SAMPLE

__all__ = ["store"]  # a fixture


async def replica(store: Store) -> tuple[asyncio.subprocess.Process, int]:
    """A process with a server, and its port."""
    flags = ("--engine=fake", "--port=0", "--log-format=json", f"--redis-url={store.url}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", *flags), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if line.startswith(b"{") and (said := json.loads(line))["event"] == "serving":
            return process, int(said["address"].rpartition(":")[2])
    raise EOFError("the server did not start")


@pytest.fixture
async def replicas(store: Store) -> AsyncIterator[list[tuple[asyncio.subprocess.Process, int]]]:
    started = await asyncio.gather(*(replica(store) for _ in range(3)))
    yield started
    for process, _ in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


def talk(seconds: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Somebody says the same again and again, with pauses."""
    speech, _ = soundfile.read(SAMPLE, dtype="int16")
    turn = np.concatenate([speech, np.zeros(RATE, np.int16)])
    return np.tile(turn, seconds * RATE // len(turn) + 1)[: seconds * RATE]


@pytest.mark.parametrize(
    ("audio", "options"),
    [
        (noise(90), {"segmentation": FixedWindow(0.5, 0.25), "interim": 0.2}),
        (talk(90), {"segmentation": VoiceActivity(end_silence=0.3), "interim": 0.5}),
    ],
    ids=["windows", "speech"],
)
async def test_a_session_survives_the_death_of_two_replicas(
    replicas: list[tuple[asyncio.subprocess.Process, int]], audio: Any, options: dict[str, Any]
) -> None:
    options |= {"sample_rate": RATE, "pacing": "bulk"}
    (first, _), (second, _), _ = replicas
    ports, doomed = [port for _, port in replicas], [first, second]
    async with AsyncClient(f"127.0.0.1:{ports[2]}") as client:
        unbroken = await whole(client, audio, options)
    third = len(finals(unbroken)) // 3

    heard: list[Any] = []
    async with (
        Cable(ports.pop(0)) as cable,
        AsyncClient(cable.target) as client,
        client.stream(audio, **options) as stream,
    ):
        async for event in stream:
            heard.append(event)
            if doomed and len(finals(heard)) == third * (3 - len(doomed)):
                doomed.pop(0).kill()
                cable.plug_into(ports.pop(0))

    assert doomed == []
    assert finals(heard) == finals(unbroken)
    assert [one[0] for one in finals(heard)] == list(range(len(finals(unbroken))))
    assert speech(heard) == speech(unbroken)
    assert heard[-1].timeline == unbroken[-1].timeline
    assert heard[-1].scores == unbroken[-1].scores


async def whole(client: AsyncClient, audio: Any, options: dict[str, Any]) -> list[Any]:
    async with client.stream(audio, **options) as stream:
        return [event async for event in stream]


def speech(events: list[Any]) -> list[tuple[str, float]]:
    kinds = (SpeechStarted, SpeechEnded)
    return [(type(one).__name__, one.time) for one in events if isinstance(one, kinds)]
