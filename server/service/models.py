"""ModelService: what this server serves, and under which limits."""

from importlib.metadata import version

from speechemotion.v1.model_service_pb2 import (
    GetModelRequest,
    GetServerInfoRequest,
    GetServerInfoResponse,
    Limits,
    ListModelsRequest,
    ListModelsResponse,
    Model,
)
from speechemotion.v1.model_service_pb2_grpc import ModelServiceServicer

from server.audio import CONTAINERS
from server.errors import ModelNotFound
from server.service import analysis
from server.service.answer import resource_name, to_model
from server.service.calls import Calls, Context
from server.service.stream_messages import to_limits
from server.speech import SAMPLE_RATE, InvalidInput
from server.speech import Model as Facts
from server.streaming.plan import StreamLimits

NAME = "speechemotion.v1.ModelService"
VERSION = version("speech-emotion-server")


class ModelService(ModelServiceServicer):
    """Answers speechemotion.v1.ModelService. One server serves one model."""

    def __init__(
        self,
        model: Facts,
        limits: analysis.Limits,
        stream_limits: StreamLimits,
        calls: Calls,
        *,
        max_upload_bytes: int,
    ) -> None:
        self._model = model
        self._limits = limits
        self._stream_limits = stream_limits
        self._max_upload_bytes = max_upload_bytes
        self._calls = calls

    async def ListModels(self, request: ListModelsRequest, context: Context) -> ListModelsResponse:
        async with self._calls.answering(context, f"{NAME}/ListModels"):
            if request.page_token:  # one model fits one page: no page has a successor
                raise InvalidInput(
                    "FIELD_INVALID", "page_token is not one of ours.", field="page_token"
                )
            return ListModelsResponse(models=[to_model(self._model, Model.STATE_READY)])

    async def GetModel(self, request: GetModelRequest, context: Context) -> Model:
        async with self._calls.answering(context, f"{NAME}/GetModel"):
            if request.name not in {f"models/{self._model.name}", resource_name(self._model)}:
                raise ModelNotFound(request.name, field="name")
            return to_model(self._model, Model.STATE_READY)

    async def GetServerInfo(
        self, request: GetServerInfoRequest, context: Context
    ) -> GetServerInfoResponse:
        del request  # has no fields
        async with self._calls.answering(context, f"{NAME}/GetServerInfo"):
            return GetServerInfoResponse(
                server_version=VERSION,
                api_version="speechemotion.v1",
                limits=_limits(
                    self._limits, self._stream_limits.max_sessions, self._max_upload_bytes
                ),
                stream_limits=to_limits(self._stream_limits),
                containers=CONTAINERS,
            )


def _limits(limits: analysis.Limits, max_streams: int, max_upload_bytes: int) -> Limits:
    audio = limits.audio
    return Limits(
        max_audio_bytes=audio.max_bytes,
        max_audio_ms=round(1000 * audio.max_seconds),
        min_audio_ms=round(1000 * audio.min_samples / SAMPLE_RATE),
        max_batch_items=limits.max_batch_items,
        max_concurrent_streams=max_streams,
        max_frame_embedding_ms=round(1000 * limits.max_frame_embedding_seconds),
        max_upload_bytes=max_upload_bytes,
    )
