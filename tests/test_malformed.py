"""Bytes that are no message, names without end, samples without measure: refused in our words."""

import asyncio
import math

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.model_service_pb2 import GetModelRequest, ListModelsRequest
from streams import Talk

from server.engine.fake import FakeEngine
from server.errors import ModelNotFound, failure_of
from server.speech import Prediction

EMOTIONS = "/speechemotion.v1.EmotionService/"
MODELS = "/speechemotion.v1.ModelService/"
UNARY = [
    EMOTIONS + "Analyze",
    EMOTIONS + "BatchAnalyze",
    MODELS + "ListModels",
    MODELS + "GetModel",
    MODELS + "GetServerInfo",
]
NO_MESSAGE = b"\xff\xff\xff"
FLOATS = AudioFormat(encoding=AudioFormat.ENCODING_PCM_F32LE, sample_rate_hz=16_000)
TRAILERS = 8 * 1024  # bytes, what gRPC's clients take by default


class SometimesNoNumbers(FakeEngine):
    """Answers with NaN for what is loud."""

    def infer(self, batch):
        return [
            Prediction(logits=one.logits * math.nan, embedding=one.embedding)
            if np.abs(clip.waveform).max() > 0.8
            else one
            for clip, one in zip(batch, super().infer(batch), strict=True)
        ]


def floats(scale: float) -> bytes:
    wave = np.sin(np.arange(16_000) / 20) * scale
    return wave.astype("<f4").tobytes()


async def failure(call) -> tuple[grpc.StatusCode, ErrorInfo]:
    """What the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    info = ErrorInfo()
    rpc_status.from_call(error.value).details[0].Unpack(info)
    return error.value.code(), info


async def opening(client, **config) -> None:
    """Waits for the first answer of a stream."""
    talk = Talk(client, **config)
    await talk.call.write(pb.AnalyzeStreamRequest(config=talk.config))
    await talk.call.read()


@pytest.mark.parametrize("method", UNARY)
async def test_bytes_that_are_no_message_are_the_callers_mistake(channel, reports, method):
    code, info = await failure(channel.unary_unary(method)(NO_MESSAGE))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED")
    assert [(one.method, one.reason) for one in reports] == [(method[1:], "REQUEST_MALFORMED")]


@pytest.mark.parametrize("method", UNARY)
async def test_a_call_that_ends_before_its_message_is_refused_and_not_left_waiting(
    channel, reports, method
):
    code, info = await failure(channel.stream_unary(method)(iter([])))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED")
    assert [(one.method, one.reason) for one in reports] == [(method[1:], "REQUEST_MALFORMED")]


async def test_who_goes_away_before_his_message_is_not_accused_of_it(channel, reports):
    silent = [channel.stream_unary(EMOTIONS + "Analyze")() for _ in range(20)]
    for call in silent:
        await call.wait_for_connection()

    await asyncio.sleep(0.05)  # until the server knows of them
    for call in silent:
        call.cancel()
    await failure(channel.stream_unary(MODELS + "GetModel")(iter([])))

    assert [one.method for one in reports] == [MODELS[1:] + "GetModel"]


async def test_so_they_are_in_an_upload(channel, reports):
    upload = channel.stream_unary(EMOTIONS + "AnalyzeUpload")

    code, info = await failure(upload(iter([NO_MESSAGE])))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED")
    assert reports[0].reason == "REQUEST_MALFORMED"


async def test_and_as_the_first_message_of_a_stream(channel):
    call = channel.stream_stream(EMOTIONS + "AnalyzeStream")()

    code, info = await failure(written(call, NO_MESSAGE))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED")


async def written(call, message: bytes) -> None:
    await call.write(message)
    await call.read()


async def test_and_in_a_stream(channel):
    config = pb.AnalyzeStreamRequest(config=pb.StreamConfig(audio_format=FLOATS))
    call = channel.stream_stream(EMOTIONS + "AnalyzeStream")()

    await call.write(config.SerializeToString())
    await call.read()
    await call.write(NO_MESSAGE)
    await call.read()  # the same, in band
    code, info = await failure(call.read())

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED")


@effort(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=128) | st.integers(1, 100_000).map(lambda count: "\U000e0001" * count))
def test_whatever_a_caller_names_the_trailers_stay_small(name):
    found = failure_of(ModelNotFound(name))

    details = len(dict(found.trailers)["grpc-status-details-bin"]) * 4 / 3
    text = sum(1 if 32 <= byte < 127 else 3 for byte in found.text.encode())
    assert details + text < TRAILERS - 512  # for the rest of them


@pytest.mark.parametrize("name", ["x" * 129, "x" * 100_000, "\U0001f600" * 30_000])
async def test_a_name_without_end_is_refused_and_not_repeated(client, catalogue, name):
    calls = (
        client.Analyze(pb.AnalyzeRequest(model=name)),
        client.AnalyzeUpload(iter([pb.AnalyzeUploadRequest(model=name)])),
        catalogue.GetModel(GetModelRequest(name=name)),
        opening(client, model=name),
    )

    failures = await asyncio.gather(*(failure(call) for call in calls))

    assert {(code, info.reason) for code, info in failures} == {
        (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    }
    assert all(info.metadata["actual"] == str(len(name)) for _, info in failures)


@pytest.mark.parametrize("name", ["\U000e0001" * 128, "\x01" * 128, "é" * 128])
async def test_a_name_of_lawful_length_reaches_its_caller_whole(client, catalogue, name):
    asked = await failure(catalogue.GetModel(GetModelRequest(name=name)))
    analyzed = await failure(client.Analyze(pb.AnalyzeRequest(model=name)))

    for code, info in (asked, analyzed):
        assert (code, info.metadata["model"]) == (grpc.StatusCode.NOT_FOUND, name)


async def test_other_texts_of_a_caller_are_not_repeated(client, catalogue):
    text = "x" * 100_000
    calls = (
        client.Analyze(pb.AnalyzeRequest(request_id=text)),
        catalogue.ListModels(ListModelsRequest(page_token=text)),
        opening(client, request_id=text),
    )

    failures = await asyncio.gather(*(failure(call) for call in calls))

    assert {info.reason for _, info in failures} == {"FIELD_INVALID"}


@pytest.mark.parametrize("scale", [1e19, 1e25, 3e38])
async def test_samples_without_measure_are_refused_on_every_way_in(client, scale):
    request = pb.AnalyzeRequest(audio_data=floats(scale), audio_format=FLOATS)
    upload = pb.AnalyzeUploadRequest(audio_format=FLOATS)
    upload.audio.data = request.audio_data
    talk = Talk(client, audio_format=FLOATS)
    await talk.open()

    await talk.audio(request.audio_data)
    batch = await client.BatchAnalyze(pb.BatchAnalyzeRequest(requests=[request]))
    item = ErrorInfo()
    batch.items[0].error.details[0].Unpack(item)
    unary = await failure(client.Analyze(request))
    uploaded = await failure(client.AnalyzeUpload(iter([upload])))
    streamed = await talk.reason()

    reasons = [item.reason, unary[1].reason, uploaded[1].reason, streamed[1]]
    assert reasons == 4 * ["AUDIO_OUT_OF_RANGE"]
    assert uploaded[1].metadata["field"] == "audio.data"


class TestAnEngineThatAnswersNoNumbers:
    @pytest.fixture
    def engine(self):
        return SometimesNoNumbers()

    async def test_fails_the_one_and_not_its_neighbours(self, client, tone):
        both = [pb.AnalyzeRequest(audio_data=tone(level=level)) for level in (0.5, 0.9, 0.6)]

        batch = await client.BatchAnalyze(pb.BatchAnalyzeRequest(requests=both))

        assert [one.error.code for one in batch.items] == [0, 13, 0]
        assert batch.items[2].response.emotion
        assert not batch.items[1].HasField("response")

    async def test_fails_a_stream_rather_than_say_so(self, client):
        talk = Talk(client, audio_format=FLOATS)
        await talk.open()

        await talk.audio(*(floats(1.0) for _ in range(4)))

        assert await talk.reason() == (grpc.StatusCode.INTERNAL, "INTERNAL")
