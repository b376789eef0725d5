"""Every limit has its own error, and nothing is done for a client that is gone."""

import asyncio

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2 import AnalyzeOptions, AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub
from streams import MARKS, WINDOWS, HeldEngine, Server, Talk, cut, pcm

from batcher import Priority
from server.engine.fake import FakeEngine

INVALID = grpc.StatusCode.INVALID_ARGUMENT
BULK = pb.StreamConfig.PACING_BULK


async def field_of(call) -> str:
    """The field that a stream was refused for, trailers-only."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        assert await call.read() is grpc.aio.EOF
    assert error.value.code() is INVALID
    bad = BadRequest()
    [packed] = [one for one in rpc_status.from_call(error.value).details if one.Is(bad.DESCRIPTOR)]
    packed.Unpack(bad)
    return bad.field_violations[0].field


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("config.fixed_window.window_ms", {"fixed_window": pb.FixedWindow(window_ms=10)}),
        ("config.fixed_window.window_ms", {"fixed_window": pb.FixedWindow(window_ms=10_001)}),
        ("config.fixed_window.hop_ms", {"fixed_window": pb.FixedWindow(hop_ms=2_001)}),
        ("config.voice_activity.threshold", {"voice_activity": pb.VoiceActivity(threshold=2)}),
        ("config.voice_activity.min_speech_ms", {"voice_activity": {"min_speech_ms": 9_999}}),
        ("config.interim_interval_ms", {"interim_interval_ms": 99}),
        ("config.request_id", {"request_id": 129 * "x"}),
        ("config.pacing", {"pacing": 7}),
        ("config.granularity", {"granularity": 7}),
        ("config.options.frame_stride", {"options": AnalyzeOptions(frame_stride=10**6)}),
        ("config.audio_format.sample_rate_hz", {"audio_format": AudioFormat(encoding=1)}),
    ],
)
async def test_a_config_that_makes_no_sense_is_refused_by_its_field(client, field, config):
    talk = Talk(client, **config)

    await talk.call.write(pb.AnalyzeStreamRequest(config=talk.config))

    assert await field_of(talk.call) == field


async def test_the_first_message_is_the_config(client):
    talk = Talk(client)

    await talk.audio(b"1234")

    assert await field_of(talk.call) == "config"


async def test_a_stream_that_closes_without_a_word_is_refused(client):
    talk = Talk(client)

    await talk.call.done_writing()

    assert await field_of(talk.call) == "config"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.AnalyzeStreamRequest(config=pb.StreamConfig()), "CONFIG_REPEATED"),
        (pb.AnalyzeStreamRequest(), "FIELD_INVALID"),
        (pb.AnalyzeStreamRequest(control=pb.StreamControl()), "FIELD_INVALID"),
        (
            pb.AnalyzeStreamRequest(control=pb.StreamControl(end_segment=pb.EndSegment())),
            "FIELD_INVALID",
        ),
        (pb.AnalyzeStreamRequest(audio=pb.AudioChunk(data=bytes(2**18 + 1))), "CHUNK_TOO_LARGE"),
    ],
)
async def test_a_wrong_message_ends_the_stream_with_its_reason(client, message, reason):
    talk = Talk(client, fixed_window=WINDOWS)
    await talk.open()

    await talk.call.write(message)

    assert await talk.reason() == (INVALID, reason)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"model": "models/nobody"}, grpc.StatusCode.NOT_FOUND),
        (
            {"options": AnalyzeOptions(cache_mode=AnalyzeOptions.CACHE_MODE_ONLY)},
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
    ],
)
async def test_what_cannot_be_had_is_refused_before_anything_is_sent(client, config, code):
    talk = Talk(client, **config)

    await talk.call.write(pb.AnalyzeStreamRequest(config=talk.config))
    await talk.rest()

    assert (talk.events, await talk.call.code()) == ([], code)


async def test_frame_embeddings_that_fit_no_message_are_refused(client):
    talk = Talk(
        client,
        fixed_window=pb.FixedWindow(window_ms=9_000),
        granularity=AnalyzeRequest.GRANULARITY_FRAME,
        extract_embedding=True,
    )
    async with Server(max_frame_embedding_seconds=5) as server:
        talk.call = server.client.AnalyzeStream()

        await talk.call.write(pb.AnalyzeStreamRequest(config=talk.config))

        assert await field_of(talk.call) == "config.fixed_window.window_ms"


async def test_a_silent_client_loses_its_stream_and_may_resume_it():
    async with Server(stream_idle_seconds=0.5) as server:
        talk = Talk(server.client)
        await talk.open()

        assert await talk.reason() == (grpc.StatusCode.ABORTED, "STREAM_IDLE")
        assert server.streams == "<Streams open=0 sessions=1>"


async def test_a_client_that_never_says_its_config_is_not_waited_for():
    async with Server(stream_idle_seconds=0.05) as server:
        talk = Talk(server.client)
        await talk.call.wait_for_connection()
        await talk.rest()

        assert await talk.call.code() is grpc.StatusCode.ABORTED


async def test_a_stream_ends_at_its_longest():
    async with Server(max_stream_seconds=0.5) as server:
        talk = Talk(server.client, pacing=BULK)
        await talk.open()

        await talk.audio(pcm(0.6))

        assert await talk.reason() == (grpc.StatusCode.ABORTED, "STREAM_MAX_DURATION")
        await server.until("open=0 sessions=0")


async def test_a_stream_ends_when_its_time_is_over_though_it_sends_nothing():
    async with Server(max_stream_seconds=0.05) as server:
        talk = Talk(server.client)
        await talk.open()

        assert await talk.reason() == (grpc.StatusCode.ABORTED, "STREAM_MAX_DURATION")


async def test_a_quiet_stream_says_that_it_lives():
    async with Server(stream_heartbeat_seconds=0.02) as server:
        talk = Talk(server.client)
        await talk.open()

        assert (await talk.until("heartbeat", 2)).heartbeat.lag_ms == 0


async def test_a_heartbeat_says_how_long_a_result_is_due():
    engine = FakeEngine(delay_s_per_batch=0.3)
    async with Server(engine, stream_heartbeat_seconds=0.05) as server:
        talk = Talk(server.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(0.5))

        await talk.until("segment")

        lags = [one.lag_ms for one in talk.of("heartbeat")]
        assert lags == sorted(lags)
        assert lags[-1] > 0


async def test_one_stream_too_many_is_shed_and_one_that_waits_gives_way():
    async with Server(max_stream_sessions=1) as server:
        first, second, third = (Talk(server.client) for _ in range(3))
        await first.open()
        await second.call.write(pb.AnalyzeStreamRequest(config=second.config))
        await second.rest()
        assert await second.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await second.call.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"

        first.call.cancel()
        await server.until("open=0 sessions=1")

        await third.open()


async def test_one_container_too_many_is_shed():
    async with Server(max_stream_decoders=1) as server:
        first, second = (Talk(server.client, audio_format=None) for _ in range(2))
        await first.open()

        await second.call.write(pb.AnalyzeStreamRequest(config=second.config))
        await second.rest()

        assert await second.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_live_stream_is_read_no_faster_than_allowed_and_told_so():
    async with Server(max_stream_speed=100) as server:
        talk = Talk(server.client, client_marks=MARKS)
        await talk.open()

        await talk.audio(*cut(pcm(8), 32_000))
        await talk.control("finish")
        await talk.until("summary")

        assert [one.code for one in talk.of("warning")] == ["SPEED_LIMITED"]


async def test_a_slow_engine_slows_the_sender_and_not_one_result_is_lost():
    engine = FakeEngine(delay_s_per_batch=0.005)
    async with Server(engine, max_stream_pending=2, max_queue_size=32) as server:
        talk = Talk(server.client, fixed_window=WINDOWS, pacing=BULK)

        summary = await talk.whole(*cut(pcm(20), 32_000))

        assert [one.segment_index for one in talk.finals()] == list(range(79))
        assert summary.segment_count == 79
        assert max(engine.batches) <= 2


async def test_a_client_that_reads_nothing_is_read_no_further():
    async with Server(max_stream_pending=2, stream_idle_seconds=0.6) as server:
        frames = {"granularity": AnalyzeRequest.GRANULARITY_FRAME, "extract_embedding": True}
        narrow = [("grpc.http2.bdp_probe", 0)]  # or the client's library takes in megabytes
        async with grpc.aio.insecure_channel(server.address, narrow) as channel:
            client = EmotionServiceStub(channel)
            talk = Talk(client, fixed_window=WINDOWS, pacing=BULK, **frames)
            await talk.open()
            sending = asyncio.create_task(talk.audio(*cut(pcm(120), 8_000)))

            before = -1
            while sum(server.engine.batches) > before:
                before = sum(server.engine.batches)
                await asyncio.sleep(0.2)

            assert before < 200  # of 479 windows
            sending.cancel()
            await server.until("open=0 sessions=1")  # it counts as gone, and may come back


async def test_a_late_live_stream_skips_interims_first_and_says_so():
    engine = FakeEngine(delay_s_per_batch=0.05)
    async with Server(engine, max_stream_lag_ms=1) as server:
        talk = Talk(server.client, client_marks=MARKS, interim_interval_ms=100)
        await talk.open()

        await talk.audio(*cut(pcm(3), 3200))
        await talk.control("finish")
        await talk.until("summary")

        assert "INTERIMS_SKIPPED" in [one.code for one in talk.of("warning")]
        assert len(talk.of("segment")) < 30
        assert [one.end_ms for one in talk.finals()] == [3000]


async def test_a_full_queue_costs_a_stream_time_and_no_result():
    engine = FakeEngine(delay_s_per_batch=0.02)
    async with Server(engine, max_queue_size=1, max_batch_size=1) as server:
        config = {"fixed_window": WINDOWS, "interim_interval_ms": 100}
        talks = [Talk(server.client, **config) for _ in range(4)]
        await asyncio.gather(*(talk.open() for talk in talks))  # later they would be refused

        summaries = await asyncio.gather(*(talk.whole(pcm(1)) for talk in talks))

        assert [one.segment_count for one in summaries] == [3] * 4


async def test_an_engine_that_fails_ends_the_stream_with_an_id_and_not_with_its_text():
    engine = FakeEngine(fail_when=lambda _: ValueError("secret"))
    async with Server(engine) as server:
        talk = Talk(server.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(0.5))

        assert await talk.reason() == (grpc.StatusCode.INTERNAL, "INTERNAL")
        [error] = talk.of("error")
        assert error.message == await talk.call.details()
        assert "secret" not in str(error)


async def test_windows_of_many_streams_and_unary_calls_share_batches(tone):
    engine = HeldEngine()
    async with Server(engine) as server:
        talks = [Talk(server.client, fixed_window=WINDOWS) for _ in range(6)]
        engine.hold()
        unary = [server.client.Analyze(AnalyzeRequest(audio_data=tone(0.5))) for _ in range(4)]
        answered = asyncio.gather(*(talk.whole(pcm(1)) for talk in talks), *unary)
        await server.until_waiting(10)

        engine.release()
        await answered

        assert sum(engine.batches) == 6 * 3 + 4
        assert max(engine.batches) >= 5


async def test_a_live_stream_goes_before_a_bulk_one():
    engine = HeldEngine()
    async with Server(engine, max_batch_size=1, max_stream_pending=50) as server:
        bulk = Talk(server.client, fixed_window=WINDOWS, pacing=BULK)
        live = Talk(server.client, fixed_window=pb.FixedWindow(window_ms=400, hop_ms=400))
        engine.hold()
        await bulk.open()
        await bulk.audio(pcm(5))
        await server.until_waiting(16)

        await live.open()
        await live.audio(pcm(0.4))
        await server.until_waiting_of(Priority.STREAM)
        engine.release()
        await live.until("segment")
        bulk.call.cancel()

        assert engine.samples.index(6_400) < 4  # of 19 that the other stream had waiting


async def test_nothing_is_computed_for_a_client_that_is_gone():
    engine = FakeEngine(delay_s_per_batch=0.1)
    async with Server(engine, max_batch_size=1) as server:
        talk = Talk(server.client, fixed_window=WINDOWS)
        await talk.open()
        await talk.audio(pcm(2))
        while not engine.batches:
            await asyncio.sleep(0.005)

        talk.call.cancel()
        await server.until("open=0 sessions=1")
        computed = len(engine.batches)
        await asyncio.sleep(0.25)

        assert len(engine.batches) <= computed + 1  # the one the device had already been given


@pytest.mark.parametrize("end", ["cancel", "drop", "deadline"])
async def test_a_lost_client_is_not_taken_for_one_that_has_finished(end):
    async with Server() as server:
        channel = grpc.aio.insecure_channel(server.address)
        talk = Talk(EmotionServiceStub(channel), client_marks=MARKS)
        if end == "deadline":
            talk.call = EmotionServiceStub(channel).AnalyzeStream(timeout=2)
        await talk.open()
        await talk.audio(pcm(1))

        if end == "cancel":
            talk.call.cancel()
        elif end == "drop":
            await channel.close()
        await server.until("open=0 sessions=1")
        await asyncio.sleep(0.1)

        assert server.engine.batches == []
        await channel.close()


async def test_streams_that_end_anywhere_leave_no_task_and_no_thread_behind():
    async with Server(stream_resume_seconds=0.1) as server:
        before = len(asyncio.all_tasks())

        await asyncio.gather(*(_abandon(server.client, number) for number in range(200)))
        await server.until("open=0 sessions=0")

        # gRPC's own tasks end a moment later; a task of ours that stays ends in pytest's timeout.
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.01)


async def _abandon(client, number: int) -> None:
    """Leaves after `number` % 7 chunks."""
    config = [{"fixed_window": WINDOWS}, {"client_marks": MARKS}, {"audio_format": None}]
    talk = Talk(client, **config[number % 3])
    if number % 7:
        await talk.open()
        await talk.audio(*cut(pcm(0.1 * (number % 7)), 3200)[: number % 7])
    talk.call.cancel()


async def test_a_stopping_server_tells_its_streams_and_then_ends_them():
    async with Server(drain_grace_seconds=1) as server:
        talk = Talk(server.client, client_marks=MARKS)
        token = (await talk.open()).resume_token
        stopping = asyncio.create_task(server.stop())

        draining = (await talk.until("draining")).draining

        assert draining.resume_token == token
        assert 0 < draining.grace_ms <= 1000
        assert await talk.reason() == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await stopping


async def test_a_stream_that_begins_while_the_server_stops_is_sent_elsewhere():
    async with Server(drain_grace_seconds=1) as server:
        late, other = Talk(server.client), Talk(server.client)
        await late.call.wait_for_connection()
        await other.open()
        stopping = asyncio.create_task(server.stop())
        await other.until("draining")

        await late.call.write(pb.AnalyzeStreamRequest(config=late.config))
        await late.rest()

        assert (late.events, await late.call.code()) == ([], grpc.StatusCode.UNAVAILABLE)
        await stopping


async def test_a_stream_may_finish_while_the_server_stops():
    async with Server() as server:
        talk = Talk(server.client, client_marks=MARKS)
        await talk.open()
        stopping = asyncio.create_task(server.stop())
        await talk.until("draining")

        await talk.audio(pcm(0.5))
        await talk.control("finish")

        assert (await talk.until("summary")).summary.segment_count == 1
        await stopping
