"""Samples that last longer than a server's sessions may: one stream, several sessions."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from speech_emotion_client import (
    AsyncClient,
    ClientMarks,
    FixedWindow,
    Segment,
    SessionStarted,
    SpeechEmotionError,
    StreamAborted,
    Summary,
)
from speech_emotion_client.streaming import stream as stream_module
from speech_emotion_client.testing import FakeServer, Refusal
from speech_emotion_client.v1 import emotion_service_pb2 as pb
from streams import Server
from test_client_stream_server import RATE, as_flac, finals, noise

ONE = 19 * RATE  # samples of a session that may last twenty seconds


async def heard(client: AsyncClient, audio: Any, **options: Any) -> list[Any]:
    options = {"sample_rate": RATE, "pacing": "bulk"} | options
    async with client.stream(audio, **options) as stream:
        return [event async for event in stream]


async def test_sessions_follow_each_other_as_one_stream() -> None:
    audio, windows = noise(50), FixedWindow(5, 5)
    async with Server(max_stream_seconds=20) as server, AsyncClient(server.address) as client:
        events = await heard(client, audio, segmentation=windows)
        parts = [
            await heard(client, audio[first : first + ONE], segmentation=windows)
            for first in range(0, len(audio), ONE)
        ]

    assert len(parts) == sum(isinstance(one, SessionStarted) for one in events) == 3
    scores = [each[-1] for part in parts for each in finals(part)]
    assert [each[-1] for each in finals(events)] == scores
    assert [each[0] for each in finals(events)] == list(range(len(scores)))
    assert [each[1] for each in finals(events)] == pytest.approx(
        [0, 5, 10, 15, 19, 24, 29, 34, 38, 43, 48], abs=0.002
    )
    assert events[-1].cursors.accepted == len(audio)
    assert sum(isinstance(one, Summary) for one in events) == 1
    whole, ends = events[-1], [part[-1] for part in parts]
    assert whole.segment_count == len(scores)
    assert whole.duration == pytest.approx(50, abs=0.005)
    assert [one.emotion for one in whole.timeline] == [
        one.emotion for end in ends for one in end.timeline
    ]
    assert whole.timeline[-1].end == pytest.approx(50, abs=0.005)
    assert sum(whole.scores.values()) == pytest.approx(1, abs=1e-5)
    assert sum(whole.speech_share.values()) == pytest.approx(1, abs=1e-5)


async def test_a_stream_that_is_fed_by_hand_goes_on_in_another_session() -> None:
    audio = noise(30)
    async with (
        Server(max_stream_seconds=20) as server,
        AsyncClient(server.address) as client,
        client.stream(sample_rate=RATE, segmentation=ClientMarks(), pacing="bulk") as stream,
    ):
        reading = asyncio.ensure_future(read(stream))
        for first in range(0, len(audio), RATE // 2):
            await stream.send(audio[first : first + RATE // 2])
        await stream.end_segment()
        await stream.finish()
        events = await reading

    ends = [(one.end, one.trigger) for one in events if isinstance(one, Segment)]
    assert ends == [(pytest.approx(19.0), "finish"), (pytest.approx(30.0), "client_mark")]


async def read(stream: Any) -> list[Any]:
    return [event async for event in stream]


class Clock:
    """The client's, `ahead` seconds of which nobody had to wait for."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


async def test_a_stream_that_was_silent_for_long_goes_on_in_another_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(stream_module, "time", clock)
    async with (
        Server() as server,
        AsyncClient(server.address) as client,
        client.stream(sample_rate=RATE, segmentation=ClientMarks()) as stream,
    ):
        reading = asyncio.ensure_future(read(stream))
        await stream.send(noise(0.2))
        clock.ahead = 4 * 3600
        await stream.send(noise(0.2))
        await stream.finish()
        events = await reading

    assert sum(isinstance(one, SessionStarted) for one in events) == 2
    assert events[-1].duration == pytest.approx(0.4, abs=0.005)


async def test_a_container_ends_where_its_session_does() -> None:
    async with Server(max_stream_seconds=2) as server, AsyncClient(server.address) as client:
        with pytest.raises(StreamAborted) as ended:
            await heard(client, as_flac(noise(5)), sample_rate=None)

    assert ended.value.reason == "STREAM_MAX_DURATION"


async def test_who_feeds_a_stream_is_told_why_its_next_session_did_not_open() -> None:
    limits = pb.StreamLimits(max_session_ms=1_000, max_chunk_bytes=2**16)
    with FakeServer() as server:
        server.streams.limits = limits
        async with (
            AsyncClient(server.target, retries=0) as client,
            client.stream(sample_rate=RATE, segmentation=ClientMarks()) as stream,
        ):
            server.streams.refusals.append(Refusal(grpc.StatusCode.NOT_FOUND, "Go away."))
            reading = asyncio.ensure_future(read(stream))

            with pytest.raises(SpeechEmotionError, match="Go away"):
                await stream.send(noise(2))
            with pytest.raises(SpeechEmotionError, match="Go away"):
                await reading
