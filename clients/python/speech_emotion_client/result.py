"""What comes back: frozen values made from the response messages. Knows no transport."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .v1 import audio_pb2, emotion_service_pb2, result_pb2

TENSOR_TYPES = {
    result_pb2.Tensor.DATA_TYPE_FLOAT32: "<f4",
    result_pb2.Tensor.DATA_TYPE_FLOAT16: "<f2",
}
CACHE = {
    result_pb2.Provenance.CACHE_STATUS_MISS: "miss",
    result_pb2.Provenance.CACHE_STATUS_HIT: "hit",
    result_pb2.Provenance.CACHE_STATUS_COALESCED: "coalesced",
    result_pb2.Provenance.CACHE_STATUS_BYPASSED: "bypassed",
}


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Scores over time."""

    labels: tuple[str, ...]  # names of the columns
    times: NDArray[np.float64]  # (frames,) seconds, centres
    scores: NDArray[np.float32]  # (frames, labels), each row sums to 1

    def __len__(self) -> int:
        return len(self.times)

    @property
    def emotions(self) -> list[str]:
        """The label with the highest score in each frame."""
        return [self.labels[column] for column in self.scores.argmax(axis=1)]


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The audio as the server decoded it."""

    duration: float  # seconds
    sample_rate: int  # Hz, of the source
    channels: int  # of the source
    container: str  # "wav", "flac", "ogg/opus", ...; "raw" if the caller described it


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went inside the server, in milliseconds; the stages may overlap."""

    queue_ms: float
    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which weights, on what, made the answer, and when."""

    model: str  # models/NAME@VERSION
    model_digest: str
    runtime: str
    precision: str
    cache: str  # "miss", "hit", "coalesced", "bypassed", or "" if unknown
    compute_time: datetime | None
    batch_size: int  # requests that shared the forward pass


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know that did not prevent an answer."""

    code: str  # stable
    message: str  # for people


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one emotion; seconds from the start, `end` exclusive."""

    start: float
    end: float
    emotion: str
    confidence: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Analysis:
    """The emotions of one utterance, or of a recording that was cut into segments.

    In segments, `scores` are their mean, weighted by their length; `frames` has a row for each
    segment, at its centre, and `embedding` is (segments, dimension). A model that attends to a
    whole clip scores it differently.
    """

    emotion: str
    confidence: float  # score of `emotion`, in [0, 1]
    scores: dict[str, float]  # of the whole utterance, highest first; they sum to 1
    frames: Frames | None
    embedding: NDArray[np.float32] | None  # (dimension,), or (frames, dimension)
    warnings: tuple[Notice, ...]
    timing: Timing
    provenance: Provenance
    audio: AudioInfo
    request_id: str
    segmentation: str = ""  # how it was cut, for people; "" if it was analysed as a whole
    timeline: tuple[Span, ...] = ()  # neighbouring segments of one emotion, merged

    def __str__(self) -> str:
        return f"{self.emotion} ({self.confidence:.1%})"


def from_response(response: emotion_service_pb2.AnalyzeResponse) -> Analysis:
    about = response.metadata
    return Analysis(
        emotion=response.emotion,
        confidence=response.confidence,
        scores=to_scores(response.scores),
        frames=to_frames(response.frames) if response.HasField("frames") else None,
        embedding=to_array(response.embedding) if response.HasField("embedding") else None,
        warnings=to_notices(about.warnings),
        timing=to_timing(about.timing),
        provenance=to_provenance(about.provenance),
        audio=to_audio(about.audio),
        request_id=about.request_id,
    )


def to_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Highest first."""
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))


def to_frames(message: result_pb2.FrameScores) -> Frames:
    index = np.arange(message.frame_count)
    times = (message.first_frame_offset_ms + index * message.frame_period_ms) / 1000
    scores = np.array(message.scores, np.float32).reshape(message.frame_count, len(message.labels))
    return Frames(tuple(message.labels), times, scores)


def to_array(message: result_pb2.Tensor) -> NDArray[np.float32]:
    flat: NDArray[Any] = np.frombuffer(message.data, TENSOR_TYPES[message.data_type])
    return flat.astype(np.float32).reshape(tuple(message.shape))


def to_notices(warnings: Iterable[result_pb2.Warning]) -> tuple[Notice, ...]:
    return tuple(Notice(each.code, each.message) for each in warnings)


def to_audio(audio: audio_pb2.AudioInfo) -> AudioInfo:
    return AudioInfo(
        duration=audio.duration_ms / 1000,
        sample_rate=audio.source_sample_rate_hz,
        channels=audio.source_channel_count,
        container=audio.container,
    )


def to_timing(timing: result_pb2.Timing) -> Timing:
    return Timing(
        queue_ms=timing.queue_ms,
        decode_ms=timing.decode_ms,
        preprocess_ms=timing.preprocess_ms,
        inference_ms=timing.inference_ms,
        total_ms=timing.total_ms,
    )


def to_provenance(message: result_pb2.Provenance) -> Provenance:
    return Provenance(
        model=message.model,
        model_digest=message.model_digest,
        runtime=message.runtime,
        precision=message.precision,
        cache=CACHE.get(message.cache_status, ""),
        compute_time=(
            message.compute_time.ToDatetime(UTC) if message.HasField("compute_time") else None
        ),
        batch_size=message.batch_size,
    )
