"""Whether a new stream is let in, what it goes without under load, and what is counted of it."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import grpc
import numpy as np
import soundfile
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from prometheus_client.parser import text_string_to_metric_families
from speechemotion.v1 import emotion_service_pb2 as pb
from stores import store
from streams import PCM, WINDOWS, HeldEngine, Server, Talk, cut, pcm
from test_segmentation import SAMPLE
from test_stream_resume import resumed

__all__ = ["store"]  # a fixture

BULK = pb.AnalyzeOptions(priority=pb.AnalyzeOptions.PRIORITY_BULK)


def slow(**settings) -> Server:
    """Needs 0.2 s for each utterance."""
    return Server(HeldEngine(delay_s_per_batch=0.2), max_batch_size=1, **settings)


@asynccontextmanager
async def busy(server: Server, calls: int, options: pb.AnalyzeOptions | None = None):
    """With so many calls that wait for one it has begun."""
    request = pb.AnalyzeRequest(audio_data=pcm(0.5), audio_format=PCM, options=options)
    await server.client.Analyze(request)  # it learns how long that takes
    server.engine.hold()
    waiting = [asyncio.ensure_future(server.client.Analyze(request)) for _ in range(calls)]
    await server.until_waiting(calls - 1)
    yield
    server.engine.release()
    for call in waiting:
        call.cancel()
    await asyncio.wait(waiting)


async def refusal(talk: Talk) -> tuple[grpc.StatusCode, str, float]:
    """Status, reason and when to try again, of a stream that was not let in."""
    await talk.call.write(pb.AnalyzeStreamRequest(config=talk.config))
    await talk.rest()
    assert talk.events == []
    [packed] = [
        value for key, value in await talk.call.trailing_metadata()
        if key == "grpc-status-details-bin"
    ]  # fmt: skip
    info, retry = ErrorInfo(), RetryInfo()
    for detail in Status.FromString(packed).details:
        _ = detail.Unpack(info) or detail.Unpack(retry)
    return await talk.call.code(), info.reason, retry.retry_delay.ToMilliseconds() / 1000


async def test_a_live_stream_is_refused_while_its_windows_would_come_late():
    async with slow() as server, busy(server, 12):
        code, reason, wait = await refusal(Talk(server.client, fixed_window=WINDOWS))

    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert wait > 0


async def test_bulk_work_that_waits_keeps_no_live_stream_out():
    async with slow() as server, busy(server, 12, BULK):
        talk = Talk(server.client, fixed_window=WINDOWS)

        await talk.open()

        talk.call.cancel()


async def test_a_bulk_stream_is_refused_when_bulk_is():
    async with slow(refuse_bulk_after_seconds=0.5) as server, busy(server, 6):
        talk = Talk(server.client, fixed_window=WINDOWS, pacing=pb.StreamConfig.PACING_BULK)

        code, reason, _ = await refusal(talk)

    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")


async def test_a_stream_that_was_let_in_is_let_in_again():
    async with slow() as server:
        talk = Talk(server.client, fixed_window=WINDOWS)
        await talk.open()
        async with busy(server, 12):
            talk.call.cancel()

            again = await resumed(server.client, talk)
            await again.open()

            again.call.cancel()


async def test_interims_are_what_streams_go_without_while_the_server_is_strained():
    async with slow(degrade_bulk_after_seconds=0.1) as server, busy(server, 8, BULK):
        talk = Talk(server.client, fixed_window=WINDOWS, interim_interval_ms=100)
        await talk.open()
        await talk.audio(pcm(0.5))
        await talk.until("warning")
        server.engine.release()
        await talk.until("segment")
        talk.call.cancel()

    assert [one.code for one in talk.of("warning")] == ["INTERIMS_SKIPPED"]
    assert [one.is_final for one in talk.of("segment")] == [True]


async def scrape(server: Server) -> dict:
    """(name, labels as sorted pairs) -> value, of what is said about streams."""
    async with aiohttp.ClientSession() as session, session.get(server.metrics) as answer:
        families = text_string_to_metric_families(await answer.text())
    return {
        (sample.name.removeprefix("emotion_api_"), *sorted(sample.labels.items())): sample.value
        for family in families
        if family.name.startswith("emotion_api_stream")
        for sample in family.samples
    }


def labels(**pairs: str) -> list[tuple[str, str]]:
    return sorted(pairs.items())


async def test_streams_windows_and_silence_are_counted():
    speech, _ = soundfile.read(SAMPLE, dtype="int16")
    silence = np.zeros(24_000, np.int16)
    async with Server() as server:
        talk = Talk(server.client, voice_activity=pb.VoiceActivity(), interim_interval_ms=500)
        await talk.open()
        open_ = await scrape(server)
        await talk.audio(*cut(np.concatenate([silence, speech, silence]).tobytes(), 3_200))
        await talk.control("finish")
        await talk.until("summary")
        await talk.rest()
        closed = await scrape(server)

    kind = labels(pacing="realtime", segmentation="voice_activity")
    assert (open_["streams", *kind], closed["streams", *kind]) == (1, 0)
    ends = labels(outcome="sent", pacing="realtime", trigger="speech_end")
    assert closed["stream_windows_total", *ends] == len(talk.finals())
    interims = labels(outcome="sent", pacing="realtime", trigger="interval")
    sent = len(talk.of("segment"))
    assert closed["stream_windows_total", *interims] == sent - len(talk.finals())
    assert closed["stream_lag_seconds_count", ("pacing", "realtime")] == sent
    assert 1 < closed["stream_silence_seconds_total",] < 1.6


async def test_streams_that_go_on_are_counted_here_and_elsewhere(store):
    async with Server(redis_url=store.url) as first, Server(redis_url=store.url) as second:
        talk = Talk(first.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(1))
        await talk.until("segment", 3)
        await store.until(finals=len(talk.finals()))

        here = await resumed(first.client, talk)
        await here.open()
        there = await resumed(second.client, talk)
        await there.open()
        counted = [await scrape(server) for server in (first, second)]
        await there.control("finish")
        await there.until("summary")

    resumes = "streams_resumed_total"
    assert counted[0][resumes, ("event", "resumed")] == 1
    assert counted[1][resumes, ("event", "taken_over")] == 1
    assert [one["stream_store_up",] for one in counted] == [1, 1]


async def test_windows_of_a_lost_connection_and_a_lost_store_are_counted(store):
    engine = HeldEngine()
    async with Server(engine, redis_url=store.url) as server:
        store.kill()
        talk = Talk(server.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(0.5))
        await talk.until("segment")
        engine.hold()
        await talk.audio(pcm(1))
        await engine.until_begun(2)
        talk.call.cancel()
        await server.until("open=0 sessions=1")
        engine.release()
        while (counted := await scrape(server)).get(("stream_store_up",)) != 0:
            await asyncio.sleep(0.01)

    gone = labels(outcome="abandoned", pacing="realtime", trigger="window")
    assert counted["stream_windows_total", *gone] == 4
