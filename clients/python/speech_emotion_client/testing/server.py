"""The scripted server itself: real sockets, and a memory of what it was asked."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from speech_emotion_client.channel import MAX_MESSAGE_BYTES
from speech_emotion_client.v1 import (
    emotion_service_pb2,
    emotion_service_pb2_grpc,
    model_service_pb2,
)
from speech_emotion_client.v1 import model_service_pb2_grpc as model_grpc

from .answers import DIMENSION, MODEL, SCORES, Request, Response, happy
from .refusal import Refusal, abort
from .streams import LIMITS, FakeStreams


class FakeServer:
    """Answers with `answer`, after every refusal in `refusals`, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Request], Response] = happy) -> None:
        self.answer = answer
        self.refusals: deque[Refusal] = deque()
        self.requests: list[Request] = []  # every attempt, in order of arrival
        self.metadata: list[dict[str, str]] = []  # of each attempt
        self.streams = FakeStreams()
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
        self._server.metadata.append(_plain(context))
        try:
            return self._server.respond(request)
        except Refusal as refusal:
            abort(context, refusal)

    def AnalyzeStream(
        self,
        request_iterator: Iterator[emotion_service_pb2.AnalyzeStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[emotion_service_pb2.AnalyzeStreamResponse]:
        try:
            self._server.streams.metadata.append(_plain(context))
            yield from self._server.streams.serve(request_iterator)
        except Refusal as refusal:
            abort(context, refusal)

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
            abort(context, Refusal(grpc.StatusCode.NOT_FOUND, text, reason="MODEL_NOT_FOUND"))
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
                max_upload_bytes=100 * 2**20,
            ),
            stream_limits=LIMITS,
        )


def _plain(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: str(value) for key, value in context.invocation_metadata()}


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
