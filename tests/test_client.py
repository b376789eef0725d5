"""The Python client against a real gRPC server on an ephemeral port; blocking and asyncio alike."""

import asyncio
import pickle
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from speech_emotion_client import (
    Analysis,
    AnalyzeOptions,
    AsyncClient,
    CacheMiss,
    Client,
    DeadlineExceeded,
    InvalidAudio,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    RawFormat,
    ServerError,
    SpeechEmotionError,
    Unauthenticated,
    Unavailable,
)
from speech_emotion_client.errors import from_rpc_error, from_status
from speech_emotion_client.request import Call
from speech_emotion_client.testing import FRAMES, MODEL, SCORES, FakeServer, Refusal, happy
from speech_emotion_client.v1 import audio_pb2, emotion_service_pb2

Code = grpc.StatusCode
Format = audio_pb2.AudioFormat


class Blocking:
    """An AsyncClient that can be called like a Client, so that both face the same tests."""

    def __init__(self, target: str, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._open(target, settings))

    async def _open(self, target: str, settings: dict[str, Any]) -> AsyncClient:
        return AsyncClient(target, **settings)

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *exc: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self._runner.run(
            getattr(self._client, name)(*args, **options)
        )

    def analyze_many(self, items: Any, **options: Any) -> Any:
        async def gather() -> list[Any]:
            return [outcome async for outcome in self._client.analyze_many(items, **options)]

        return self._runner.run(gather())


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(params=[Client, Blocking], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(kind: Any, server: FakeServer) -> Iterator[Any]:
    with kind(server.target) as client:
        yield client


def test_an_answer_becomes_an_analysis(client: Any, server: FakeServer) -> None:
    analysis = client.analyze(b"speech", granularity="frame", embedding=True, request_id="mine")

    assert isinstance(analysis, Analysis)
    assert (analysis.emotion, analysis.confidence) == ("happy", SCORES["happy"])
    assert list(analysis.scores) == ["happy", "neutral", "angry", "sad"]
    assert analysis.scores == SCORES
    assert analysis.frames.scores.shape == (FRAMES, len(SCORES))
    assert analysis.frames.times.tolist() == pytest.approx([0.0125, 0.0325, 0.0525, 0.0725, 0.0925])
    assert analysis.frames.emotions == ["happy"] * FRAMES
    assert analysis.embedding.tolist() == [0, 1, 2, 3]
    assert (analysis.request_id, analysis.provenance.model) == ("mine", MODEL)
    assert (analysis.provenance.cache, analysis.audio.duration) == ("miss", 1.5)
    assert server.requests[0].audio_data == b"speech"


def test_nothing_is_returned_that_was_not_asked_for(client: Any) -> None:
    analysis = client.analyze(b"speech")

    assert analysis.frames is None
    assert analysis.embedding is None
    assert str(analysis) == "happy (62.5%)"


def test_half_precision_embeddings_arrive_as_float32(client: Any, server: FakeServer) -> None:
    def halves(request: emotion_service_pb2.AnalyzeRequest) -> emotion_service_pb2.AnalyzeResponse:
        response = happy(request)
        response.embedding.data_type = request.options.embedding_data_type
        response.embedding.shape[:] = [2, 2]
        response.embedding.data = np.array([0.5, 1, 2, 4], "<f2").tobytes()
        return response

    server.answer = halves

    analysis = client.analyze(b"speech", embedding=True, embedding_type="float16")

    assert analysis.embedding.dtype == np.float32
    assert analysis.embedding.tolist() == [[0.5, 1], [2, 4]]


def test_every_option_reaches_the_server(client: Any, server: FakeServer) -> None:
    client.analyze(
        b"speech", model="models/m", channel=2, priority="bulk", cache="refresh", frame_stride=5
    )

    sent = server.requests[0]
    assert (sent.model, sent.audio_format.channel_index) == ("models/m", 2)
    assert sent.options.priority == emotion_service_pb2.AnalyzeOptions.PRIORITY_BULK
    assert sent.options.cache_mode == emotion_service_pb2.AnalyzeOptions.CACHE_MODE_REFRESH
    assert sent.options.frame_stride == 5


def test_the_documented_options_are_the_ones_that_work() -> None:
    assert set(AnalyzeOptions.__annotations__) == set(Call.__slots__)


@pytest.mark.parametrize(
    ("samples", "encoding", "channels"),
    [
        (np.array([0, -1, 2], np.int16), Format.ENCODING_PCM_S16LE, 1),
        (np.array([0, -1, 2], ">i2"), Format.ENCODING_PCM_S16LE, 1),
        (np.array([0.5, -0.5], np.float32), Format.ENCODING_PCM_F32LE, 1),
        (np.array([0.5, -0.5], np.float64), Format.ENCODING_PCM_F32LE, 1),
        (np.array([[1, 2], [3, 4], [5, 6]], np.int16), Format.ENCODING_PCM_S16LE, 2),
        (np.array([[1, 3, 5], [2, 4, 6]], np.int16).T, Format.ENCODING_PCM_S16LE, 2),
    ],
)
def test_arrays_travel_as_interleaved_little_endian_samples(
    server: FakeServer, samples: Any, encoding: int, channels: int
) -> None:
    with Client(server.target) as client:
        client.analyze(samples, sample_rate=8000)

    sent = server.requests[0]
    kind = "<i2" if encoding == Format.ENCODING_PCM_S16LE else "<f4"
    assert np.frombuffer(sent.audio_data, kind).tolist() == samples.ravel().tolist()
    assert sent.audio_format.encoding == encoding
    assert (sent.audio_format.sample_rate_hz, sent.audio_format.channel_count) == (8000, channels)


@pytest.mark.parametrize(
    ("samples", "rate", "text"),
    [
        (np.zeros(9, np.float32), None, "sample_rate"),
        (np.zeros((2, 9), np.float32), 16_000, "transpose"),
        (np.zeros((2, 2, 2), np.float32), 16_000, "samples, channels"),
        (np.zeros(9, np.int64), 16_000, "int64"),
    ],
)
def test_an_array_that_cannot_be_audio_is_refused_before_it_is_sent(
    client: Any, server: FakeServer, samples: Any, rate: int | None, text: str
) -> None:
    with pytest.raises(InvalidAudio, match=text):
        client.analyze(samples, sample_rate=rate)

    assert not server.requests


def test_paths_and_open_files_send_what_they_hold(
    client: Any, server: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "speech.raw"
    path.write_bytes(b"samples")

    client.analyze(path)
    client.analyze(str(path), format=RawFormat(8000, "mulaw", 2))
    with path.open("rb") as file:
        client.analyze(file)

    assert [each.audio_data for each in server.requests] == [b"samples"] * 3
    assert not server.requests[0].HasField("audio_format")
    described = server.requests[1].audio_format
    assert (described.encoding, described.channel_count) == (Format.ENCODING_MULAW, 2)


def test_an_unknown_choice_is_refused_at_once(server: FakeServer) -> None:
    with Client(server.target) as client, pytest.raises(InvalidRequest, match="utterance, frame"):
        client.analyze_many([b"speech"], granularity="word")  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.CANCELLED])
def test_a_passing_failure_is_not_seen_by_the_caller(
    client: Any, server: FakeServer, code: grpc.StatusCode
) -> None:
    server.refusals.extend([Refusal(code, "later", pushback_ms=1)] * 3)

    assert client.analyze(b"speech").emotion == "happy"
    assert len(server.requests) == 4


def test_also_a_large_request_is_retried(client: Any, server: FakeServer) -> None:
    server.refusals.append(Refusal(Code.UNAVAILABLE, "later", pushback_ms=1))

    client.analyze(bytes(2**20))

    assert len(server.requests) == 2


def test_the_fourth_refusal_is_the_answer(client: Any, server: FakeServer) -> None:
    server.refusals.extend([Refusal(Code.RESOURCE_EXHAUSTED, "full", pushback_ms=1)] * 9)

    with pytest.raises(Overloaded):
        client.analyze(b"speech")

    assert len(server.requests) == 4


def test_a_negative_pushback_forbids_retries(client: Any, server: FakeServer) -> None:
    server.refusals.append(Refusal(Code.RESOURCE_EXHAUSTED, "quota", pushback_ms=-1))

    with pytest.raises(Overloaded) as caught:
        client.analyze(b"speech")

    assert len(server.requests) == 1
    assert caught.value.retry_after is None


def test_pushback_is_waited_for_and_the_deadline_covers_it(client: Any, server: FakeServer) -> None:
    # The policy alone would try again after at most 0.12 s.
    server.refusals.extend([Refusal(Code.RESOURCE_EXHAUSTED, "full", pushback_ms=60_000)] * 9)

    with pytest.raises(SpeechEmotionError):
        client.analyze(b"speech", timeout=1.5)

    assert len(server.requests) == 1


def test_retries_can_be_switched_off(kind: Any, server: FakeServer) -> None:
    server.refusals.append(Refusal(Code.UNAVAILABLE, "draining", reason="DRAINING"))

    with kind(server.target, retries=0) as client, pytest.raises(Unavailable) as caught:
        client.analyze(b"speech")

    assert caught.value.reason == "DRAINING"
    assert len(server.requests) == 1


def test_more_retries_than_grpc_makes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        Client(retries=5)


def test_a_slow_answer_is_given_up_at_the_deadline(client: Any, server: FakeServer) -> None:
    given_up = threading.Event()

    def wait(request: emotion_service_pb2.AnalyzeRequest) -> emotion_service_pb2.AnalyzeResponse:
        given_up.wait(30)
        return happy(request)

    server.answer = wait

    with pytest.raises(DeadlineExceeded):
        client.analyze(b"speech", timeout=0.1)
    given_up.set()


def test_an_error_tells_all_that_the_server_said(client: Any, server: FakeServer) -> None:
    server.refusals.append(
        Refusal(
            Code.INVALID_ARGUMENT,
            "61 s is longer than 60 s.",
            reason="AUDIO_TOO_LONG",
            field="audio_data",
            metadata={"limit_ms": "60000"},
        )
    )

    with pytest.raises(InvalidAudio, match=r"longer than 60 s") as caught:
        client.analyze(b"speech")

    error = caught.value
    assert (error.code, error.reason, error.field) == (
        "INVALID_ARGUMENT",
        "AUDIO_TOO_LONG",
        "audio_data",
    )
    assert error.metadata == {"limit_ms": "60000"}
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, grpc.RpcError)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


@pytest.mark.parametrize(
    ("refusal", "kind_of_error"),
    [
        (Refusal(Code.INVALID_ARGUMENT, reason="FIELD_INVALID", field="model"), InvalidRequest),
        (Refusal(Code.INVALID_ARGUMENT, reason="FORMAT_UNSUPPORTED"), InvalidAudio),
        (Refusal(Code.FAILED_PRECONDITION, reason="CACHE_MISS"), CacheMiss),
        (Refusal(Code.NOT_FOUND), NotFound),
        (Refusal(Code.UNAUTHENTICATED), Unauthenticated),
        (Refusal(Code.PERMISSION_DENIED), PermissionDenied),
        (Refusal(Code.INTERNAL), ServerError),
        (Refusal(Code.DATA_LOSS), ServerError),
        (Refusal(Code.DEADLINE_EXCEEDED, reason="DEADLINE_UNMEETABLE"), DeadlineExceeded),
    ],
    ids=lambda value: value.status.code if isinstance(value, Refusal) else value.__name__,
)
def test_each_status_has_its_class(
    client: Any, server: FakeServer, refusal: Refusal, kind_of_error: type[SpeechEmotionError]
) -> None:
    server.refusals.append(refusal)

    with pytest.raises(SpeechEmotionError) as caught:
        client.analyze(b"speech")

    assert type(caught.value) is kind_of_error
    assert len(server.requests) == 1


def test_overload_says_when_to_come_back(kind: Any, server: FakeServer) -> None:
    server.refusals.append(Refusal(Code.RESOURCE_EXHAUSTED, retry_after=0.25, pushback_ms=-1))
    server.refusals.append(Refusal(Code.RESOURCE_EXHAUSTED, pushback_ms=1500))

    with kind(server.target, retries=0) as client:
        with pytest.raises(Overloaded) as told:
            client.analyze(b"speech")
        with pytest.raises(Overloaded) as pushed_back:
            client.analyze(b"speech")

    assert (told.value.retry_after, pushed_back.value.retry_after) == (0.25, 1.5)


def test_a_fault_of_the_server_names_its_id() -> None:
    refusal = Refusal(Code.INTERNAL, reason="INTERNAL", metadata={"request_id": "f00"})

    error = from_status(refusal.status)

    assert (type(error), error.request_id) == (ServerError, "f00")


def test_a_message_over_grpcs_own_limit_is_not_called_overload(server: FakeServer) -> None:
    with (
        Client(server.target, max_message_bytes=1000) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.analyze(bytes(2000))

    assert caught.value.reason == "PAYLOAD_TOO_LARGE"
    assert not server.requests


def test_nobody_there_is_unavailable_without_a_reason(kind: Any) -> None:
    with kind("localhost:1", retries=0) as client, pytest.raises(Unavailable) as caught:
        client.analyze(b"speech")

    assert caught.value.reason == ""


def test_a_server_without_tls_is_unavailable_to_a_client_with_it(
    kind: Any, server: FakeServer
) -> None:
    with kind(server.target, tls=True, retries=0) as client, pytest.raises(Unavailable):
        client.analyze(b"speech")

    assert not server.requests


class Garbled(grpc.RpcError):
    """What a broken proxy makes of an error."""

    def code(self) -> grpc.StatusCode:
        return Code.UNAVAILABLE

    def details(self) -> str:
        return "gone"

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", b"\xff\xff"), ("grpc-retry-pushback-ms", "soon"))


def test_garbled_details_do_not_hide_the_error() -> None:
    error = from_rpc_error(Garbled())

    assert (type(error), str(error), error.retry_after) == (Unavailable, "gone", None)


def test_the_api_key_travels_with_each_call(kind: Any, server: FakeServer) -> None:
    with kind(server.target, api_key="secret") as client:
        client.analyze(b"speech")

    assert server.metadata[0]["x-api-key"] == "secret"


def uneven(request: emotion_service_pb2.AnalyzeRequest) -> emotion_service_pb2.AnalyzeResponse:
    """Refuses b"bad"; the text of anything else becomes the emotion."""
    if request.audio_data == b"bad":
        raise Refusal(Code.INVALID_ARGUMENT, "bad", reason="AUDIO_UNDECODABLE")
    response = happy(request)
    response.emotion = request.audio_data.decode()
    return response


def test_many_items_come_in_order_and_a_bad_one_costs_the_others_nothing(
    client: Any, server: FakeServer, tmp_path: Path
) -> None:
    server.answer = uneven
    items = [b"a", b"bad", tmp_path / "missing.wav", *(str(n).encode() for n in range(40))]

    outcomes = list(client.analyze_many(items, concurrency=3, request_id="run"))

    assert [outcome.index for outcome in outcomes] == list(range(43))
    assert [outcome.item for outcome in outcomes] == items
    assert isinstance(outcomes[1].error, InvalidAudio)
    assert isinstance(outcomes[2].error, FileNotFoundError)
    good = [outcome.unwrap() for outcome in outcomes if outcome.error is None]
    assert [each.emotion for each in good] == ["a", *map(str, range(40))]
    assert good[-1].request_id == "run-42"
    with pytest.raises(InvalidAudio):
        outcomes[1].unwrap()


def test_no_more_calls_run_at_once_than_allowed(client: Any, server: FakeServer) -> None:
    all_three = threading.Barrier(3)

    def together(
        request: emotion_service_pb2.AnalyzeRequest,
    ) -> emotion_service_pb2.AnalyzeResponse:
        all_three.wait(30)
        return happy(request)

    server.answer = together

    outcomes = list(client.analyze_many([b"speech"] * 12, concurrency=3))

    assert len(outcomes) == 12
    assert server.most_running == 3


def test_as_they_come_a_slow_item_holds_nobody_up(client: Any, server: FakeServer) -> None:
    others_done = threading.Semaphore(0)

    def last(request: emotion_service_pb2.AnalyzeRequest) -> emotion_service_pb2.AnalyzeResponse:
        if request.audio_data == b"slow":
            for _ in range(9):
                others_done.acquire(timeout=30)
        else:
            others_done.release()
        return happy(request)

    server.answer = last

    outcomes = list(client.analyze_many([b"slow"] + [b"fast"] * 9, concurrency=2, ordered=False))

    assert {outcome.index for outcome in outcomes} == set(range(10))
    assert outcomes[0].index != 0


def test_an_endless_source_is_read_only_as_far_as_it_is_used(server: FakeServer) -> None:
    read: list[bytes] = []

    def source() -> Iterator[bytes]:
        for n in count():
            read.append(str(n).encode())
            yield read[-1]

    with Client(server.target) as client:
        outcomes = client.analyze_many(source(), concurrency=2)
        first = [next(outcomes).index for _ in range(3)]
        outcomes.close()  # type: ignore[attr-defined]

    assert first == [0, 1, 2]
    assert len(read) == 6


async def test_leaving_an_async_iteration_cancels_what_runs(server: FakeServer) -> None:
    cancelled = threading.Event()

    def stuck(request: emotion_service_pb2.AnalyzeRequest) -> emotion_service_pb2.AnalyzeResponse:
        if request.audio_data != b"0":
            cancelled.wait(30)
        return happy(request)

    server.answer = stuck

    async with AsyncClient(server.target) as client:
        outcomes = client.analyze_many((str(n).encode() for n in count()), concurrency=2)
        first = await anext(outcomes)
        await outcomes.aclose()  # type: ignore[attr-defined]
        # gRPC's own tasks end a moment later; one that waited for the server would stay.
        while asyncio.all_tasks() != {asyncio.current_task()}:
            await asyncio.sleep(0.01)
    cancelled.set()

    assert first.index == 0


def test_a_batch_has_an_outcome_for_each_item(
    client: Any, server: FakeServer, tmp_path: Path
) -> None:
    server.answer = uneven

    outcomes = client.batch([b"a", tmp_path / "missing.wav", b"bad", b"c"])

    assert [type(each.error) for each in outcomes] == [
        type(None),
        FileNotFoundError,
        InvalidAudio,
        type(None),
    ]
    assert outcomes[3].unwrap().emotion == "c"
    assert client.batch([]) == []


def test_models_and_limits_can_be_asked_for(client: Any) -> None:
    assert [model.name for model in client.models()] == [MODEL]
    assert client.model("models/fake").state == "ready"
    limits = client.server_info().limits
    assert (limits.max_batch_items, limits.max_upload_bytes) == (32, 100 * 2**20)
    with pytest.raises(NotFound) as caught:
        client.model("models/other")
    assert caught.value.reason == "MODEL_NOT_FOUND"


def test_waiting_ends_when_the_server_serves(client: Any, server: FakeServer) -> None:
    server.serve(False)
    assert client.health() == "NOT_SERVING"
    start = threading.Timer(0.15, server.serve, [True])
    start.start()

    client.wait_ready(timeout=30)

    assert client.health() == "SERVING"


@pytest.mark.parametrize("target", ["localhost:1", None])
def test_waiting_gives_up_in_time(kind: Any, server: FakeServer, target: str | None) -> None:
    server.serve(False)

    with (
        kind(target or server.target, retries=0) as client,
        pytest.raises(DeadlineExceeded, match="not ready within"),
    ):
        client.wait_ready(timeout=0.2)
