"""Predictions and facts -> messages. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from speechemotion.v1 import model_service_pb2, result_pb2
from speechemotion.v1.emotion_service_pb2 import AnalyzeResponse
from speechemotion.v1.result_pb2 import (
    AnalysisMetadata,
    EmotionResult,
    FrameScores,
    Provenance,
    Tensor,
)

from server.service.query import Query
from server.speech import (
    HOP,
    SAMPLE_RATE,
    WINDOW,
    Audio,
    Model,
    Notice,
    Prediction,
    probabilities,
    softmax,
)

FRAME_MS = 1000 * HOP / SAMPLE_RATE
FIRST_FRAME_MS = 1000 * WINDOW / 2 / SAMPLE_RATE  # the centre of the first receptive field
TENSOR_TYPES = {"<f4": Tensor.DATA_TYPE_FLOAT32, "<f2": Tensor.DATA_TYPE_FLOAT16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """How one utterance went through the server; times in seconds."""

    request_id: str
    sha256: str  # of the bytes as received; empty if nobody asked
    decode: float
    queue: float
    inference: float
    total: float
    batch_size: int
    computed_at: float  # seconds since the epoch


def resource_name(model: Model) -> str:
    """models/NAME@VERSION."""
    return f"models/{model.name}@{model.version}"


def to_response(
    query: Query, audio: Audio, prediction: Prediction, model: Model, passage: Passage
) -> AnalyzeResponse:
    """The whole answer for one utterance."""
    response = AnalyzeResponse()
    response.CopyFrom(_blank(model))
    _fill(response, query, prediction, model)
    _fill_metadata(response.metadata, audio, passage)
    return response


def to_result(query: Query, prediction: Prediction, model: Model) -> EmotionResult:
    """The answer for one segment of a stream: an AnalyzeResponse without its metadata."""
    result = EmotionResult()
    _fill(result, query, prediction, model)
    return result


def to_model(model: Model, state: model_service_pb2.Model.State) -> model_service_pb2.Model:
    """What ListModels and GetModel say."""
    return model_service_pb2.Model(
        name=resource_name(model),
        display_name=model.name,
        version=model.version,
        weights_digest=model.digest,
        state=state,
        labels=model.labels,
        sample_rate_hz=SAMPLE_RATE,
        frame_period_ms=FRAME_MS,
        embedding_dimension=model.dimension,
        runtime=model.runtime,
        precision=model.precision,
        device=model.device,
        license=model.license,
    )


def _fill(
    answer: AnalyzeResponse | EmotionResult, query: Query, prediction: Prediction, model: Model
) -> None:
    """Field by field: with keywords, a message takes three times as long."""
    scores = probabilities(prediction.logits)
    best = scores.index(max(scores))
    answer.emotion, answer.confidence = model.labels[best], scores[best]
    by_label = answer.scores
    for label, score in zip(model.labels, scores, strict=True):
        by_label[label] = score
    if query.frames:
        answer.frames.CopyFrom(_frames(query, prediction, model))
    if query.embedding:
        answer.embedding.CopyFrom(_embedding(query, prediction))


def _frames(query: Query, prediction: Prediction, model: Model) -> FrameScores:
    assert prediction.frame_logits is not None  # the query asked for frames
    scores = softmax(prediction.frame_logits[:: query.stride])
    return FrameScores(
        labels=model.labels,
        frame_count=len(scores),
        frame_period_ms=FRAME_MS * query.stride,
        first_frame_offset_ms=FIRST_FRAME_MS,
        scores=scores.ravel().tolist(),  # a list packs 10 times faster than an array
    )


def _embedding(query: Query, prediction: Prediction) -> Tensor:
    if not query.frames:
        return _tensor(prediction.embedding, query.embedding_type)
    assert prediction.frame_embeddings is not None  # the query asked for frames
    return _tensor(prediction.frame_embeddings[:: query.stride], query.embedding_type)


def _tensor(values: NDArray[np.float32], kind: str) -> Tensor:
    return Tensor(
        data_type=TENSOR_TYPES[kind], shape=values.shape, data=values.astype(kind).tobytes()
    )


def _fill_metadata(metadata: AnalysisMetadata, audio: Audio, passage: Passage) -> None:
    metadata.request_id = passage.request_id
    about, timing, provenance = metadata.audio, metadata.timing, metadata.provenance
    about.duration_ms = audio.duration_ms
    about.source_sample_rate_hz = audio.source_rate_hz
    about.source_channel_count = audio.source_channels
    about.container = audio.container
    about.model_sample_count = len(audio.samples)
    about.content_sha256 = passage.sha256
    timing.queue_ms = 1000 * passage.queue
    timing.decode_ms = 1000 * passage.decode
    timing.inference_ms = 1000 * passage.inference
    timing.total_ms = 1000 * passage.total
    provenance.compute_time.FromMilliseconds(round(1000 * passage.computed_at))
    provenance.batch_size = passage.batch_size
    metadata.warnings.extend(_warnings(audio.notices))


@lru_cache(maxsize=16)
def _blank(model: Model) -> AnalyzeResponse:
    """What all answers of a model have in common; to be copied."""
    provenance = Provenance(
        model=resource_name(model),
        model_digest=model.digest,
        runtime=model.runtime,
        precision=model.precision,
        cache_status=Provenance.CACHE_STATUS_MISS,
    )
    warnings = _warnings(model.notices)
    return AnalyzeResponse(metadata=AnalysisMetadata(provenance=provenance, warnings=warnings))


def _warnings(notices: Iterable[Notice]) -> list[result_pb2.Warning]:
    return [result_pb2.Warning(code=notice.code, message=notice.text) for notice in notices]
