"""A stream whose replica is lost goes on at another one, through the Redis that they share."""

import asyncio
import time
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import soundfile
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat
from stores import Store, store
from streams import MARKS, WINDOWS, Server, Talk, cut, pcm
from test_segmentation import SAMPLE
from test_stream_resume import refusal, resumed, told

from server.service import stream_sharing
from server.service.stream import MOVING

__all__ = ["store"]  # a fixture

VOICE = pb.VoiceActivity(end_silence_ms=200, min_speech_ms=100)


def spoken() -> bytes:
    """Speech with pauses; 16 kHz, 16 bits."""
    speech, _ = soundfile.read(SAMPLE, dtype="int16")
    pause = np.zeros(12_000, np.int16)
    return np.concatenate([speech[:24_000], pause, speech[8_000:], pause]).astype("<i2").tobytes()


async def halves(store: Store, data: bytes, frame: int, broken_at: int, **config):
    """A stream on one replica that breaks there, in bytes, and goes on at another one."""
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, **config)
        await talk.open()
        await talk.audio(*cut(data[:broken_at], 3_200))
        await talk.until("segment", 2)
        await store.until(finals=len(talk.finals()))
        talk.call.cancel()

        again = await resumed(second.client, talk)
        next_sample = (await again.open()).next_sample
        await again.audio(*cut(data[frame * next_sample :], 3_200))
        await again.control("finish")
        summary = (await again.until("summary")).summary
    return talk, again, summary, next_sample


FAST = AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=44_100, channel_count=2)


@pytest.mark.parametrize(
    ("data", "frame", "config"),
    [
        (pcm(6), 2, {"fixed_window": WINDOWS, "interim_interval_ms": 200}),
        (spoken(), 2, {"voice_activity": VOICE, "interim_interval_ms": 300}),
        (pcm(6, rate=88_200), 4, {"fixed_window": WINDOWS, "audio_format": FAST}),
        (pcm(6), 2, {"fixed_window": WINDOWS, "granularity": 2, "extract_embedding": True}),
    ],
    ids=["windows", "speech", "resampled", "frames"],
)
async def test_a_stream_that_goes_on_elsewhere_has_the_results_of_one_that_never_broke(
    client, store, data, frame, config
):
    unbroken = Talk(client, **config)
    expected = await unbroken.whole(*cut(data, 3_200))

    talk, again, summary, next_sample = await halves(
        store, data, frame, len(data) // 2 // frame * frame, **config
    )

    assert 0 < next_sample * frame < len(data) // 2
    finals = {one.segment_index for one in again.finals()}
    assert {one.segment_index for one in talk.finals()} | finals == set(told(unbroken))
    if "audio_format" in config:  # a resampler that starts later rounds otherwise
        expected_scores = scores(unbroken)
        got = scores(talk, again)
        assert all(got[key] == pytest.approx(expected_scores[key], abs=1e-5) for key in got)
    else:
        assert told(talk, again) == told(unbroken)
    assert spans(summary) == spans(expected)
    assert (summary.segment_count, summary.audio_ms) == (expected.segment_count, expected.audio_ms)
    assert not [one for one in again.finals()[-1:] if one.replayed]


def spans(summary: pb.SessionSummary) -> list[tuple[int, int, str]]:
    return [(one.start_ms, one.end_ms, one.emotion) for one in summary.timeline]


def scores(*talks: Talk) -> dict[int, dict[str, float]]:
    return {one.segment_index: dict(one.result.scores) for t in talks for one in t.finals()}


async def test_a_mark_that_was_kept_is_not_made_again(store):
    data = pcm(3)
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, client_marks=MARKS)
        await talk.open()
        await talk.audio(data[:32_000])
        await talk.control("end_segment")
        await talk.until("segment")
        await store.until(finals=len(talk.finals()))

        again = await resumed(second.client, talk)
        next_sample = (await again.open()).next_sample
        await again.control("end_segment")
        await again.audio(data[2 * next_sample :])
        await again.control("finish")
        summary = (await again.until("summary")).summary

    assert next_sample == 16_000
    assert [one.end_ms for one in again.finals()] == [1_000, 3_000]
    assert [one.replayed for one in again.finals()] == [True, False]
    assert summary.segment_count == 2


async def test_a_live_client_catches_up_at_once_with_what_it_has_to_send_again(store, monkeypatch):
    later = SimpleNamespace(time=lambda: time.time() + 20)
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, client_marks=MARKS)
        await talk.open()
        await talk.audio(pcm(0.5))
        await talk.control("end_segment")
        await talk.until("segment")
        await store.until(finals=len(talk.finals()))
        monkeypatch.setattr(stream_sharing, "time", later)

        again = await resumed(second.client, talk)
        await again.open()
        await again.audio(*cut(pcm(15), 200_000))
        await again.control("finish")
        await again.until("summary")

    assert again.of("warning") == []  # such as SPEED_LIMITED


async def test_the_replica_that_lost_a_session_says_so_and_finds_it_again(store):
    data = pcm(3)
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(data[:32_000])
        await talk.until("segment", 2)
        await store.until(finals=len(talk.finals()))
        again = await resumed(second.client, talk)
        at = (await again.open()).next_sample

        await talk.audio(data[32_000:64_000])  # it has not heard yet
        lost = await talk.reason()
        await again.audio(data[2 * at : 80_000])
        await again.until("segment", 5)
        await store.until(finals=1 + again.finals()[-1].segment_index)
        back = await resumed(first.client, talk)
        at = (await back.open()).next_sample
        await back.audio(data[2 * at :])
        await back.control("finish")
        summary = (await back.until("summary")).summary

    assert lost == (grpc.StatusCode.ABORTED, "SESSION_TAKEN_OVER")
    assert (summary.audio_ms, summary.segment_count) == (3_000, 11)
    assert sorted(told(talk, again, back)) == list(range(11))


async def test_a_session_that_ended_is_found_nowhere(store):
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(1))
        await talk.until("segment", 2)
        await store.until(finals=2)  # before that it is empty, too
        await talk.whole(pcm(1))
        await store.until_empty()

        assert await refusal(await resumed(second.client, talk)) == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("shared", [True, False])
async def test_a_server_that_stops_holds_the_streams_that_can_go_on_nowhere_else(store, shared):
    settings = {"redis_url": store.url} if shared else {}
    async with Server(drain_grace_seconds=30, **settings) as first:
        talk = Talk(first.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(1))
        await talk.until("segment", 2)
        if shared:
            await store.until(finals=len(talk.finals()))
        stopping = asyncio.create_task(first.stop())
        grace_ms = (await talk.until("draining")).draining.grace_ms
        await talk.control("finish")
        await stopping

    assert (grace_ms <= 1_000 * MOVING) is shared


async def test_another_config_does_not_resume_a_session_of_another_replica(store):
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(2))
        await talk.until("segment", 2)
        await store.until(finals=len(talk.finals()))

        again = await resumed(second.client, talk, extract_embedding=True)

        assert await refusal(again) == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_store_that_is_gone_costs_a_stream_nothing(store):
    async with Server(redis_url=store.url) as server:
        talk = Talk(server.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(1))
        await talk.until("segment", 2)
        store.kill()

        summary = await talk.whole(pcm(2))
        unknown = Talk(server.client, resume_token="guess")

        assert summary.segment_count == 11
        assert await refusal(unknown) == grpc.StatusCode.UNAVAILABLE  # nobody can say


async def test_a_store_that_hangs_costs_a_stream_nothing(store):
    async with Server(redis_url=store.url) as server:
        store.freeze()
        talk = Talk(server.client, fixed_window=WINDOWS)

        summary = await talk.whole(pcm(3))

        assert summary.segment_count == 11


async def test_a_store_that_lost_its_memory_is_told_everything_again(store):
    data = pcm(4)
    settings = {"redis_url": store.url, "stream_heartbeat_seconds": 0.03}
    async with Server(**settings) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(data[:32_000])
        await talk.until("segment", 3)
        store.kill()
        store.start()
        sent = 32_000
        while talk.events[-1].cursors.accepted_sample < 20_000:  # it is asked again after a pause
            await talk.audio(data[sent : sent + 800])
            sent += 800
            await talk.until("heartbeat")

        again = await resumed(second.client, talk)
        at = (await again.open()).next_sample
        await again.audio(data[2 * at :])
        await again.control("finish")
        summary = (await again.until("summary")).summary

    assert at > 16_000
    assert (summary.audio_ms, summary.segment_count) == (4_000, 15)


async def test_a_stream_gives_up_being_kept_before_its_client_runs_out_of_memory(store):
    async with Server(redis_url=store.url) as server:
        store.kill()
        talk = Talk(server.client, fixed_window=pb.FixedWindow(window_ms=2_000, hop_ms=2_000),
                    pacing=pb.StreamConfig.PACING_BULK)  # fmt: skip
        await talk.open()
        reading = asyncio.create_task(talk.until("summary"))
        await talk.audio(*cut(pcm(150), 200_000))
        await talk.control("finish")
        cursors = (await reading).cursors

    assert cursors.accepted_sample == 150 * 16_000


async def test_a_container_is_resumed_on_its_own_replica_only(store, tone):
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, audio_format=None, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(tone(4.0)[:80_000])
        await talk.until("segment", 3)

        assert await refusal(await resumed(second.client, talk)) == grpc.StatusCode.NOT_FOUND
        again = await resumed(first.client, talk)
        await again.open()


async def test_a_stream_that_is_drained_goes_on_elsewhere(store):
    data, second = pcm(3), Server(redis_url=store.url)
    async with second, Server(redis_url=store.url, drain_grace_seconds=0.3) as first:
        talk = Talk(first.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(data[:48_000])
        await talk.until("segment", 4)
        await store.until(finals=len(talk.finals()))
        stopping = asyncio.create_task(first.stop())
        await talk.rest()
        await stopping

        again = await resumed(second.client, talk)
        at = (await again.open()).next_sample
        await again.audio(data[2 * at :])
        await again.control("finish")
        summary = (await again.until("summary")).summary

    assert "draining" in talk.kinds()
    assert (summary.audio_ms, summary.segment_count) == (3_000, 11)


async def test_a_result_that_is_large_is_not_kept(store):
    config = {"client_marks": MARKS, "granularity": 2, "extract_embedding": True}
    bulk = pb.StreamConfig.PACING_BULK
    limits = {"max_audio_seconds": 100, "max_frame_embedding_seconds": 100}
    async with Server(redis_url=store.url, **limits) as server:
        talk = Talk(server.client, pacing=bulk, **config)
        await talk.open()
        await talk.audio(*cut(pcm(90), 200_000))
        await talk.control("end_segment")
        await talk.until("segment")

        await talk.audio(pcm(1))
        await talk.control("finish")
        await talk.until("summary")

    assert talk.events[-1].cursors.accepted_sample == 91 * 16_000
