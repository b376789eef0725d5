"""A broken connection costs no sample, no result, and no result twice without saying so."""

import asyncio
import threading

import grpc
import pytest
from speechemotion.v1 import emotion_service_pb2 as pb
from streams import MARKS, WINDOWS, HeldEngine, Server, Talk, cut, pcm

from server.streaming.session import Session


async def resumed(client, talk: Talk, **changes) -> Talk:
    """A second connection to the session of `talk`; its `offset` is where to go on, in bytes."""
    token = talk.of("session_started")[0].resume_token
    config = pb.StreamConfig()
    config.CopyFrom(talk.config)
    again = Talk(client)
    again.config = config
    again.config.resume_token = token
    for name, value in changes.items():
        setattr(again.config, name, value)
    return again


def told(*talks: Talk) -> dict[int, str]:
    """Index -> scores of every final that any of the connections got."""
    return {one.segment_index: str(one.result) for talk in talks for one in talk.finals()}


@pytest.mark.parametrize("size", [3200, 4567])
async def test_a_resumed_stream_has_the_results_of_one_that_never_broke(client, size):
    data = pcm(3)
    unbroken = Talk(client, fixed_window=WINDOWS)
    expected = await unbroken.whole(data)
    talk = Talk(client, fixed_window=WINDOWS)
    await talk.open()
    await talk.audio(*cut(data[:50_001], size))
    await talk.until("segment", 2)

    talk.call.cancel()
    again = await resumed(client, talk)
    next_sample = (await again.open()).next_sample
    await again.audio(data[2 * next_sample :], first_sample=next_sample)
    await again.control("finish")
    summary = (await again.until("summary")).summary

    assert 0 < next_sample <= 25_000
    assert told(talk, again) == told(unbroken)
    assert summary.timeline == expected.timeline
    assert summary.overall == expected.overall


async def test_samples_that_are_sent_again_are_not_counted_twice(client):
    data = pcm(1)
    talk = Talk(client, client_marks=MARKS)
    await talk.open()

    await talk.audio(data[:10_000], first_sample=0)
    await talk.audio(data[6_000:], first_sample=3_000)
    await talk.control("finish")
    summary = (await talk.until("summary")).summary

    assert summary.audio_ms == 1000
    whole = Talk(client, client_marks=MARKS)
    await whole.whole(data)
    assert told(talk) == told(whole)


async def test_a_gap_in_the_samples_is_an_error_and_never_silence(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.open()

    await talk.audio(pcm(0.5), first_sample=99_999)

    assert await talk.reason() == (grpc.StatusCode.INVALID_ARGUMENT, "SAMPLES_MISSING")
    assert "sample 99999" in talk.of("error")[0].message


async def test_finals_that_were_sent_are_replayed_as_such_and_never_changed(client):
    talk = Talk(client, fixed_window=WINDOWS)
    await talk.open()
    await talk.audio(pcm(1))
    await talk.until("segment", 3)

    talk.call.cancel()
    again = await resumed(client, talk)
    await again.open()
    await again.until("segment", 3)

    replays = again.finals()
    assert [one.replayed for one in replays] == [True] * 3
    for before, after in zip(talk.finals(), replays, strict=True):
        after.replayed = False
        assert after == before


async def test_a_second_stream_takes_the_session_from_the_first(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.open()
    await talk.audio(pcm(0.5))

    again = await resumed(client, talk)
    await again.open()

    assert await talk.reason() == (grpc.StatusCode.ABORTED, "SESSION_TAKEN_OVER")
    await again.control("finish")
    await again.until("summary")


async def test_of_many_that_resume_a_session_at_once_one_has_it(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.open()
    await talk.audio(pcm(0.5))
    rivals = [await resumed(client, talk) for _ in range(5)]

    await asyncio.gather(*(rival.open() for rival in rivals))
    ends = [asyncio.create_task(rival.rest()) for rival in rivals]
    going = set(ends)
    while len(going) > 1:
        _, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
    [last] = going

    winner = rivals[ends.index(last)]
    await winner.control("finish")
    await last
    assert winner.of("summary")[0].audio_ms == 500


async def test_results_that_were_still_computed_are_computed_again():
    engine = HeldEngine()
    async with Server(engine) as server:
        talk = Talk(server.client, fixed_window=WINDOWS)
        await talk.open()
        engine.hold()
        await talk.audio(pcm(0.6))
        await engine.until_begun(1)
        talk.call.cancel()
        again = await resumed(server.client, talk)
        await again.open()
        engine.release()
        await again.control("finish")

        await again.until("summary")

    assert [one.segment_index for one in again.finals()] == [0, 1]
    assert not any(one.replayed for one in again.finals())


async def test_a_stream_that_broke_after_its_finish_gets_its_last_results_and_summary():
    engine = HeldEngine()
    async with Server(engine) as server:
        talk = Talk(server.client, client_marks=MARKS)
        await talk.open()
        engine.hold()
        await talk.audio(pcm(1))
        await talk.control("finish")
        await engine.until_begun(1)

        talk.call.cancel()
        again = await resumed(server.client, talk)
        await again.open()
        engine.release()
        summary = (await again.until("summary")).summary

        assert (summary.audio_ms, len(again.finals())) == (1000, 1)


async def test_a_container_goes_on_at_the_byte_where_it_broke_off(client, tone):
    data = tone(4.0)
    whole = Talk(client, audio_format=None, fixed_window=WINDOWS)
    await whole.whole(data)
    talk = Talk(client, audio_format=None, fixed_window=WINDOWS)
    await talk.open()
    await talk.audio(data[:80_000])  # FFmpeg looks at 64 KiB of a WAV first
    await talk.until("segment")

    talk.call.cancel()
    again = await resumed(client, talk)
    next_byte = (await again.open()).next_byte
    await again.audio(data[next_byte - 100 :], first_byte=next_byte - 100)
    await again.control("finish")
    await again.until("summary")

    assert next_byte == 80_000
    assert talk.events[-1].cursors.accepted_byte == 80_000
    assert again.events[-1].cursors.accepted_byte == len(data)
    assert told(talk, again) == told(whole)


async def test_what_is_still_being_decided_when_a_connection_breaks_is_not_lost(
    client, tone, monkeypatch
):
    data, go_on, busy = tone(4.0), threading.Event(), threading.Event()
    whole = Talk(client, audio_format=None, fixed_window=WINDOWS)
    await whole.whole(data)
    talk = Talk(client, audio_format=None, fixed_window=WINDOWS)
    await talk.open()
    decide = Session.step

    def slowly(session, chunk=b""):
        decided = decide(session, chunk)
        if decided:
            busy.set()
            go_on.wait()
        return decided

    monkeypatch.setattr(Session, "step", slowly)
    await talk.audio(data[:80_000])
    await asyncio.to_thread(busy.wait)
    talk.call.cancel()
    again = await resumed(client, talk)
    opening = asyncio.create_task(again.open())
    await asyncio.wait({opening}, timeout=0.2)  # it comes while the other connection's work runs
    go_on.set()
    next_byte = (await opening).next_byte
    await again.audio(data[next_byte:], first_byte=next_byte)
    await again.control("finish")
    await again.until("summary")

    assert told(talk, again) == told(whole)


async def test_a_container_is_not_counted_in_samples(client, tone):
    talk = Talk(client, audio_format=None)
    await talk.open()

    await talk.audio(tone(0.1), first_sample=0)

    assert await talk.reason() == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_another_config_does_not_resume_a_session(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.open()

    again = await resumed(client, talk, extract_embedding=True)

    assert await refusal(again) == grpc.StatusCode.INVALID_ARGUMENT
    await talk.control("finish")  # the first stream does not notice
    await talk.until("summary")


async def test_a_token_that_nobody_gave_out_opens_nothing(client):
    assert await refusal(Talk(client, resume_token="guess")) == grpc.StatusCode.NOT_FOUND


async def test_a_session_is_forgotten_when_its_time_is_over():
    async with Server(stream_resume_seconds=0.05) as server:
        talk = Talk(server.client, client_marks=MARKS)
        await talk.open()
        talk.call.cancel()
        await server.until("open=0 sessions=0")

        again = await resumed(server.client, talk)

        assert await refusal(again) == grpc.StatusCode.NOT_FOUND


async def test_a_session_that_ended_well_cannot_be_resumed(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.whole(pcm(0.5))

    assert await refusal(await resumed(client, talk)) == grpc.StatusCode.NOT_FOUND


async def refusal(talk: Talk) -> grpc.StatusCode:
    """The status of a stream that never began: trailers-only, so that it can be retried."""
    await talk.call.write(pb.AnalyzeStreamRequest(config=talk.config))
    await talk.rest()
    assert talk.events == []
    return await talk.call.code()
