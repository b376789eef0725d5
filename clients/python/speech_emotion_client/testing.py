"""A server without a model, for tests of programs that use the client: real sockets, a script.

Example:

    with FakeServer() as server, Client(server.target) as client:
        client.analyze(b"...")
        assert server.requests[0].audio_data == b"..."
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Never, Self

import grpc
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from .channel import MAX_MESSAGE_BYTES
from .errors import PUSHBACK
from .v1 import emotion_service_pb2, emotion_service_pb2_grpc, model_service_pb2, result_pb2
from .v1 import model_service_pb2_grpc as model_grpc

SCORES = {"angry": 0.125, "happy": 0.625, "neutral": 0.1875, "sad": 0.0625}
"""Exact in binary, so that a test can compare them with ==."""

FRAMES = 5
DIMENSION = 4
MODEL = "models/fake@1"

Request = emotion_service_pb2.AnalyzeRequest
Response = emotion_service_pb2.AnalyzeResponse


class Refusal(Exception):
    """Raised by an answer, the call fails with this status, its details and its pushback.

    retry_after in seconds becomes RetryInfo; pushback_ms the trailer that gRPC obeys.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        text: str = "",
        *,
        reason: str = "",
        field: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        retry_after: float | None = None,
        pushback_ms: int | None = None,
    ) -> None:
        super().__init__(text)
        details: list[Any] = []
        if reason:
            info = {"reason": reason, "domain": "speechemotion", "metadata": metadata}
            details.append(error_details_pb2.ErrorInfo(**info))
        if field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if retry_after is not None:
            delay = duration_pb2.Duration(nanos=round(retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        self.status = status_pb2.Status(code=code.value[0], message=text)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            self.status.details.append(packed)
        self.pushback_ms = pushback_ms


def happy(request: Request) -> Response:
    """Finds happiness in anything; frames and embedding if asked for."""
    response = Response(emotion="happy", confidence=SCORES["happy"], scores=SCORES)
    if request.granularity == Request.GRANULARITY_FRAME:
        response.frames.CopyFrom(_frames())
    if request.extract_embedding:
        vector = np.arange(DIMENSION, dtype="<f4")
        response.embedding.CopyFrom(
            result_pb2.Tensor(
                data_type=result_pb2.Tensor.DATA_TYPE_FLOAT32,
                shape=[DIMENSION],
                data=vector.tobytes(),
            )
        )
    about = response.metadata
    about.request_id = request.request_id
    about.audio.duration_ms, about.audio.source_channel_count = 1500, 1
    about.audio.source_sample_rate_hz, about.audio.container = 16_000, "wav"
    about.provenance.model, about.provenance.runtime = MODEL, "fake"
    about.provenance.batch_size = 1
    about.provenance.cache_status = result_pb2.Provenance.CACHE_STATUS_MISS
    about.timing.inference_ms, about.timing.total_ms = 2.0, 3.0
    return response


def _frames() -> result_pb2.FrameScores:
    return result_pb2.FrameScores(
        labels=list(SCORES),
        frame_count=FRAMES,
        frame_period_ms=20,
        first_frame_offset_ms=12.5,
        scores=list(SCORES.values()) * FRAMES,
    )


class FakeServer:
    """Answers with `answer`, after every refusal in `refusals`, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Request], Response] = happy) -> None:
        self.answer = answer
        self.refusals: deque[Refusal] = deque()
        self.requests: list[Request] = []  # every attempt, in order of arrival
        self.metadata: list[dict[str, str]] = []  # of each attempt
        self.running = 0
        self.most_running = 0  # calls at the same time
        self.lock = threading.Lock()
        self.health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(32),
            options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)],
        )
        port = self._server.add_insecure_port("localhost:0")
        self.target = f"localhost:{port}"

    def __enter__(self) -> Self:
        emotion_service_pb2_grpc.add_EmotionServiceServicer_to_server(_Emotions(self), self._server)
        model_grpc.add_ModelServiceServicer_to_server(_Models(), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.serve(True)
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(None).wait()

    def serve(self, serving: bool) -> None:
        """What the health service says."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        self.health.set("", status.SERVING if serving else status.NOT_SERVING)

    def respond(self, request: Request) -> Response:
        with self.lock:
            self.requests.append(request)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            refusal = self.refusals.popleft() if self.refusals else None
        try:
            if refusal is not None:
                raise refusal
            return self.answer(request)
        finally:
            with self.lock:
                self.running -= 1


class _Emotions(emotion_service_pb2_grpc.EmotionServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def Analyze(self, request: Request, context: grpc.ServicerContext) -> Response:
        self._server.metadata.append({k: str(v) for k, v in context.invocation_metadata()})
        try:
            return self._server.respond(request)
        except Refusal as refusal:
            _abort(context, refusal)

    def BatchAnalyze(
        self,
        request: emotion_service_pb2.BatchAnalyzeRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> emotion_service_pb2.BatchAnalyzeResponse:
        return emotion_service_pb2.BatchAnalyzeResponse(
            items=[self._item(each) for each in request.requests]
        )

    def _item(self, request: Request) -> emotion_service_pb2.BatchAnalyzeResponse.Item:
        item = emotion_service_pb2.BatchAnalyzeResponse.Item
        try:
            return item(response=self._server.respond(request))
        except Refusal as refusal:
            return item(error=refusal.status)


class _Models(model_grpc.ModelServiceServicer):
    """One model, listed on a page that is followed by an empty one."""

    def ListModels(
        self,
        request: model_service_pb2.ListModelsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> model_service_pb2.ListModelsResponse:
        if request.page_token:
            return model_service_pb2.ListModelsResponse()
        return model_service_pb2.ListModelsResponse(models=[_model()], next_page_token="last")

    def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.Model:
        if request.name not in (MODEL, MODEL.partition("@")[0]):
            text = f"There is no {request.name}."
            _abort(context, Refusal(grpc.StatusCode.NOT_FOUND, text, reason="MODEL_NOT_FOUND"))
        return _model()

    def GetServerInfo(
        self,
        request: model_service_pb2.GetServerInfoRequest,  # noqa: ARG002
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> model_service_pb2.GetServerInfoResponse:
        return model_service_pb2.GetServerInfoResponse(
            server_version="0.0.0",
            api_version="speechemotion.v1",
            containers=["wav", "flac"],
            limits=model_service_pb2.Limits(
                max_audio_bytes=16 * 2**20,
                max_audio_ms=60_000,
                min_audio_ms=200,
                max_batch_items=32,
            ),
        )


def _model() -> model_service_pb2.Model:
    return model_service_pb2.Model(
        name=MODEL,
        display_name="Fake",
        version="1",
        state=model_service_pb2.Model.STATE_READY,
        labels=list(SCORES),
        sample_rate_hz=16_000,
        frame_period_ms=20,
        embedding_dimension=DIMENSION,
        runtime="fake",
        device="cpu",
    )


def _abort(context: grpc.ServicerContext, refusal: Refusal) -> Never:
    # One tuple: abort_with_status forgets what set_trailing_metadata was given.
    status: Any = rpc_status.to_status(refusal.status)
    trailers = status.trailing_metadata
    if refusal.pushback_ms is not None:
        trailers = (*trailers, (PUSHBACK, str(refusal.pushback_ms)))
    context.abort_with_status(status._replace(trailing_metadata=trailers))
    raise AssertionError("unreachable: abort raises")
