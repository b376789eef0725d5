"""Streams of the Python client against a scripted server whose connections break."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from speech_emotion_client import (
    AsyncClient,
    Client,
    ClientMarks,
    Draining,
    FixedWindow,
    InvalidAudio,
    InvalidRequest,
    Overloaded,
    RawFormat,
    Segment,
    ServerError,
    SessionStarted,
    SpeechEmotionError,
    StreamAborted,
    StreamLost,
    Summary,
    Unavailable,
    VoiceActivity,
)
from speech_emotion_client.streaming import resuming
from speech_emotion_client.streaming.chunks import to_bytes
from speech_emotion_client.streaming.options import describe
from speech_emotion_client.streaming.tail import AHEAD, KEPT, Finish, Mark, Piece, Tail
from speech_emotion_client.testing import FakeServer, Refusal
from speech_emotion_client.testing.streams import LIMITS
from speech_emotion_client.v1 import audio_pb2
from speech_emotion_client.v1 import emotion_service_pb2 as pb

Code = grpc.StatusCode
PCM = {"sample_rate": 16_000, "segmentation": FixedWindow(0.5, 0.5)}


def noise(seconds: float, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 255, int(32_000 * seconds), np.uint8).tobytes()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target, retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts."""
    monkeypatch.setattr(resuming, "FIRST", 0.001)


async def collect(client: AsyncClient, audio: Any, **options: Any) -> list[Any]:
    async with client.stream(audio, **options) as events:
        return [event async for event in events]


def finals(events: list[Any]) -> list[tuple[Any, ...]]:
    segments = [each for each in events if isinstance(each, Segment) and each.is_final]
    return [(each.index, each.start, each.end, each.scores) for each in segments]


async def test_a_stream_begins_with_its_terms_and_ends_with_a_summary(client: AsyncClient) -> None:
    first, *segments, last = await collect(client, cut(noise(2.2), 3200), **PCM)

    assert isinstance(first, SessionStarted)
    assert (first.segmentation, first.resumed) == (FixedWindow(0.5, 0.5), False)
    assert first.limits.resume_window_ms == 60_000
    assert [(each.start, each.end) for each in segments][-2:] == [(1.5, 2.0), (2.0, 2.2)]
    assert [each.trigger for each in segments] == ["window"] * 4 + ["finish"]
    assert isinstance(last, Summary)
    assert (last.duration, last.segment_count) == (2.2, 5)
    assert sum(last.speech_share.values()) == pytest.approx(1)
    assert list(last.scores.values()) == sorted(last.scores.values(), reverse=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("options", [PCM, {"segmentation": FixedWindow(0.5, 0.5)}])
async def test_broken_connections_cost_no_final_and_repeat_none(
    client: AsyncClient, server: FakeServer, seed: int, options: dict[str, Any]
) -> None:
    limits = pb.StreamLimits()
    limits.CopyFrom(LIMITS)
    limits.max_chunk_bytes = 8192
    server.streams.limits = limits
    data, chance = noise(12), random.Random(seed)
    unbroken = await collect(client, cut(data, 3200), **options)
    server.streams.breaks.extend(chance.randrange(3) for _ in range(20))

    broken = await collect(client, cut(data, 3200), **options)

    assert finals(broken) == finals(unbroken)
    assert broken[-1].timeline == unbroken[-1].timeline
    resumed = [each.resumed for each in broken if isinstance(each, SessionStarted)]
    assert resumed == [False] + [True] * 20
    assert bytes(server.streams.sessions["session-1"].audio) == data


async def test_a_session_keeps_its_name_over_its_connections_and_shares_it_with_no_other(
    server: FakeServer,
) -> None:
    server.streams.breaks.extend([1, 1])

    async with AsyncClient(server.target, api_key="secret", retries=0) as client:
        await collect(client, cut(noise(2), 3200), **PCM)
        await collect(client, cut(noise(2), 3200), **PCM)

    names = [each["x-session-id"] for each in server.streams.metadata]
    assert len(names) == 4
    assert len(set(names[:3])) == 1
    assert names[3] not in names[:3]
    assert {each["x-api-key"] for each in server.streams.metadata} == {"secret"}


async def test_marks_that_were_lost_are_made_again_and_only_those(
    client: AsyncClient, server: FakeServer
) -> None:
    server.streams.breaks.extend([1, 1, 2, 1])
    marks = {"sample_rate": 16_000, "segmentation": ClientMarks()}

    async with client.stream(**marks) as stream:
        for seconds in (0.25, 0.5, 0.75):
            await stream.send(noise(seconds))
            await stream.end_segment()
        await stream.finish()
        events = [event async for event in stream]

    assert [(start, end) for _, start, end, _ in finals(events)] == [
        (0, 0.25),
        (0.25, 0.75),
        (0.75, 1.5),
    ]
    assert len(server.streams.configs) == 5


async def test_a_draining_server_is_left_for_another(
    client: AsyncClient, server: FakeServer
) -> None:
    server.streams.breaks.append(1)
    server.streams.draining.add(0)

    events = await collect(client, cut(noise(1), 3200), **PCM)

    kinds = [type(each) for each in events]
    assert kinds.index(Draining) < kinds.index(SessionStarted, 1)
    assert len(finals(events)) == 2
    assert server.streams.configs[1].resume_token == "session-0"


async def test_an_attempt_to_resume_may_fail_and_is_made_again(
    client: AsyncClient, server: FakeServer
) -> None:
    server.streams.breaks.append(1)
    async with client.stream(**PCM) as stream:
        server.streams.refusals += [
            Refusal(Code.UNAVAILABLE, "Starting.", reason="DRAINING", retry_after=0.001),
            Refusal(Code.RESOURCE_EXHAUSTED, "Full.", reason="QUEUE_FULL", retry_after=0.001),
        ]
        for chunk in cut(noise(1), 3200):
            await stream.send(chunk)
        await stream.finish()
        events = [event async for event in stream]

    assert len(finals(events)) == 2
    assert len(server.streams.configs) == 4


async def test_a_session_that_the_server_forgot_is_lost_and_says_so(
    client: AsyncClient, server: FakeServer
) -> None:
    server.streams.breaks.append(1)
    async with client.stream(cut(noise(1), 3200), **PCM) as stream:
        server.streams.sessions.clear()

        with pytest.raises(StreamLost) as lost:
            async for _ in stream:
                pass

        assert lost.value.reason == "SESSION_NOT_FOUND"
        with pytest.raises(StreamLost):
            await stream.send(b"")


async def test_after_the_resume_window_the_stream_is_given_up(
    client: AsyncClient, server: FakeServer
) -> None:
    limits = pb.StreamLimits()
    limits.CopyFrom(LIMITS)
    limits.resume_window_ms = 50
    server.streams.limits = limits
    server.streams.breaks.append(1)
    async with client.stream(cut(noise(1), 3200), **PCM) as stream:
        server.streams.refusals += [Refusal(Code.UNAVAILABLE, "Away.")] * 1000

        with pytest.raises(StreamLost, match="could not be resumed"):
            async for _ in stream:
                pass


async def test_connections_that_bring_nothing_new_count_as_one_failure(
    client: AsyncClient, server: FakeServer
) -> None:
    limits = pb.StreamLimits()
    limits.CopyFrom(LIMITS)
    limits.resume_window_ms = 50
    server.streams.limits = limits
    server.streams.breaks.extend([1] + [0] * 1000)

    with pytest.raises(StreamLost, match="could not be resumed"):
        await collect(client, cut(noise(1), 3200), **PCM)


async def test_a_stream_that_is_refused_raises_when_it_is_entered(
    client: AsyncClient, server: FakeServer
) -> None:
    server.streams.refusals.append(
        Refusal(Code.RESOURCE_EXHAUSTED, "Full.", reason="TOO_MANY_STREAMS", retry_after=1.0)
    )

    with pytest.raises(Overloaded) as full:
        await collect(client, [b""], **PCM)

    assert full.value.reason == "TOO_MANY_STREAMS"


async def test_who_feeds_a_stream_that_nobody_reads_has_to_wait(client: AsyncClient) -> None:
    fed = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal fed
        while True:
            fed += 2**16
            yield bytes(2**16)

    async with client.stream(endless(), sample_rate=16_000, segmentation=ClientMarks()):
        before = -1
        while before != fed:
            before = fed
            await asyncio.sleep(0.3)

    assert fed <= KEPT + 2 * AHEAD


async def test_a_file_that_cannot_be_read_ends_the_stream_with_its_error(
    client: AsyncClient, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await collect(client, tmp_path / "missing.mp3")


async def test_who_stops_waiting_for_an_event_loses_nothing(client: AsyncClient) -> None:
    async with client.stream(**PCM) as stream:
        await anext(stream)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(stream)
        await stream.send(noise(1))
        await stream.finish()
        events = [event async for event in stream]

    assert len(finals(events)) == 2


async def test_a_finished_stream_takes_no_more_audio(client: AsyncClient) -> None:
    async with client.stream(**PCM) as stream:
        await stream.finish()

        with pytest.raises(InvalidRequest):
            await stream.send(b"late")


async def test_leaving_early_leaves_nothing_behind(client: AsyncClient) -> None:
    async with client.stream([noise(1)] * 100, **PCM) as stream:
        async for event in stream:
            if isinstance(event, Segment):
                break

    # gRPC's own tasks end a moment later; a task of ours that stays ends in pytest's timeout.
    while asyncio.all_tasks() != {asyncio.current_task()}:
        await asyncio.sleep(0.01)


def test_the_blocking_client_yields_the_same_events(server: FakeServer, tmp_path: Path) -> None:
    data = noise(1.2)
    (tmp_path / "a.raw").write_bytes(data)
    samples = np.frombuffer(data, "<i2")
    server.streams.breaks.extend([1, 2])
    with Client(server.target, retries=0) as client:
        ways = [
            list(client.stream(audio, **PCM)) for audio in (tmp_path / "a.raw", samples, [data])
        ]

    assert isinstance(ways[0][-1], Summary)
    assert len(finals(ways[0])) == 3
    assert finals(ways[0]) == finals(ways[1]) == finals(ways[2])


def test_a_blocking_stream_may_be_left_early(server: FakeServer) -> None:
    with Client(server.target) as client:
        events = client.stream([noise(1)] * 100, **PCM)
        first = next(events)
        events.close()

    assert isinstance(first, SessionStarted)


def test_wrong_options_are_refused_before_anything_is_sent(server: FakeServer) -> None:
    with Client(server.target) as client, pytest.raises(InvalidRequest) as wrong:
        client.stream([b""], pacing="fast")  # type: ignore[arg-type]

    assert wrong.value.field == "pacing"
    assert not server.streams.configs


async def test_options_travel_in_the_config(client: AsyncClient, server: FakeServer) -> None:
    voice = VoiceActivity(min_speech=0.2, end_silence=0.4, max_segment=9, threshold=0.25)
    await collect(
        client, [b""], format=RawFormat(8000, "mulaw", 2), channel=2, segmentation=voice,
        interim=0.5, pacing="bulk", granularity="frame", embedding=True, request_id="mine",
    )  # fmt: skip

    sent = server.streams.configs[0]
    assert sent.audio_format == audio_pb2.AudioFormat(
        encoding=audio_pb2.AudioFormat.ENCODING_MULAW,
        sample_rate_hz=8000,
        channel_count=2,
        channel_index=2,
    )
    assert sent.voice_activity == pb.VoiceActivity(
        min_speech_ms=200, end_silence_ms=400, max_segment_ms=9000, threshold=0.25
    )
    assert (sent.interim_interval_ms, sent.pacing) == (500, pb.StreamConfig.PACING_BULK)
    assert (sent.extract_embedding, sent.request_id) == (True, "mine")


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (FixedWindow(2, 0.5), "windows of 2 s, one every 0.5 s"),
        (
            VoiceActivity(end_silence=0.5, max_segment=15),
            "stretches of speech, ended by 0.5 s of silence or after 15 s",
        ),
        (ClientMarks(), "segments that the client marks"),
    ],
)
def test_a_segmentation_can_be_said_in_words(segmentation: Any, words: str) -> None:
    assert describe(segmentation) == words


@pytest.mark.parametrize("encoding", ["s16le", "f32le"])
def test_arrays_become_the_encoding_that_was_declared(encoding: Any) -> None:
    described = RawFormat(16_000, encoding)
    kind, full = ("<i2", 32768) if encoding == "s16le" else ("<f4", 1)

    floats = np.frombuffer(to_bytes(np.array([-1, 0, 0.5]), described), kind)
    integers = np.frombuffer(to_bytes(np.array([-32768, 0, 16384], "<i2"), described), kind)

    assert (floats / full).tolist() == (integers / full).tolist() == [-1, 0, 0.5]
    assert np.frombuffer(to_bytes(np.array([2.0]), RawFormat(8000)), "<i2").tolist() == [32767]


@pytest.mark.parametrize(
    ("array", "described"),
    [
        (np.zeros(4), None),
        (np.zeros(4), RawFormat(8000, "mulaw")),
        (np.zeros((4, 2)), RawFormat(8000)),
        (np.zeros(4, np.int32), RawFormat(8000)),
    ],
)
def test_arrays_that_do_not_fit_the_format_are_refused(array: Any, described: Any) -> None:
    with pytest.raises(InvalidAudio):
        to_bytes(array, described)


@pytest.mark.parametrize(
    ("error", "owes", "broken"),
    [
        (Unavailable("", reason="DRAINING"), False, True),
        (StreamAborted("", code="ABORTED", reason="STREAM_IDLE"), True, True),
        (StreamAborted("", code="ABORTED", reason="STREAM_IDLE"), False, False),
        (StreamAborted("", code="ABORTED", reason="SESSION_TAKEN_OVER"), True, False),
        (SpeechEmotionError("", code="CANCELLED"), False, True),
        (ServerError("", code="INTERNAL", reason="INTERNAL"), True, False),
        (InvalidAudio("", code="INVALID_ARGUMENT"), True, False),
    ],
)
def test_only_what_broke_is_resumed_and_no_stream_that_nobody_feeds(
    error: SpeechEmotionError, owes: bool, broken: bool
) -> None:
    assert resuming.is_broken(error, owes=owes) is broken


def test_attempts_become_rarer_unless_the_server_says_when(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    silent, outspoken = Unavailable(""), Unavailable("", retry_after=2.0)

    assert [resuming.delay(n, silent) for n in range(8)] == [0, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert [resuming.delay(n, outspoken) for n in range(2)] == [2, 2]


def test_a_tail_keeps_what_was_not_accepted_and_sends_whole_samples() -> None:
    tail = Tail(frame_bytes=4)
    tail.append(b"0123456789")

    assert tail.next(5) == Piece(0, b"0123")
    assert tail.next(100) == Piece(4, b"4567")
    assert tail.next(100) is None
    tail.accept(1, 0)
    assert not tail.rewind(0)
    assert tail.rewind(4)
    tail.append(b"ab")
    assert tail.next(100) == Piece(4, b"456789ab")


def test_a_tail_repeats_marks_from_where_it_goes_on() -> None:
    tail = Tail(frame_bytes=1)
    for data in (b"ab", b"cd"):
        tail.append(data)
        tail.mark()
    tail.finish()
    first = [tail.next(100) for _ in range(5)]

    assert tail.rewind(2)
    again = [tail.next(100) for _ in range(5)]

    assert [type(item) for item in first] == [Piece, Mark, Piece, Mark, Finish]
    assert [type(item) for item in again] == [Mark, Piece, Mark, Finish, type(None)]


def test_a_tail_of_a_container_keeps_what_was_not_accepted() -> None:
    tail = Tail(frame_bytes=0)
    tail.append(b"0123456789")

    assert tail.next(6) == Piece(0, b"012345")
    tail.accept(0, 4)

    assert not tail.rewind(3)
    assert tail.rewind(4)


def test_a_tail_of_a_container_forgets_the_oldest_that_was_sent() -> None:
    tail = Tail(frame_bytes=0)
    for _ in range(KEPT // AHEAD + 2):
        tail.append(bytes(AHEAD))
        assert tail.is_full
        assert isinstance(tail.next(AHEAD), Piece)

    assert not tail.rewind(0)
    assert tail.rewind(tail.end - KEPT)
    assert not tail.rewind(tail.end + 1)
