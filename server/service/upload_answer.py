"""What the windows of a long upload say together, as one answer. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1 import result_pb2
from speechemotion.v1.audio_pb2 import AudioInfo
from speechemotion.v1.result_pb2 import (
    AnalysisMetadata,
    EmotionResult,
    FrameScores,
    Provenance,
    Tensor,
    Timing,
)

from batcher import Served
from server.service.answer import TENSOR_TYPES, resource_name
from server.service.query import Query
from server.speech import (
    SAMPLE_RATE,
    InvalidInput,
    Model,
    Notice,
    Prediction,
    Vector,
    probabilities,
)
from server.streaming.decisions import Segment
from server.streaming.plan import Windows
from server.streaming.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The file, as it was when it had come and been decoded to its end; times in seconds."""

    request_id: str
    sha256: str  # of its bytes; empty if nobody asked
    samples: int  # at 16 kHz
    container: str
    rate_hz: int
    channels: int
    damaged: bool  # the decoder gave up before the end
    decode: float
    total: float
    computed_at: float  # seconds since the epoch


@dataclass(slots=True)
class Gathered:
    """The answers of the windows, in the order of their starts."""

    query: Query
    model: Model
    windows: Windows
    max_rows: int  # of embeddings that fit a message as float32
    queue: float = 0.0  # seconds, summed
    inference: float = 0.0
    timeline: Timeline = field(init=False)
    _rows: list[Vector] = field(default_factory=list)  # scores of every window
    _embeddings: list[Vector] = field(default_factory=list)  # of every `stride`th window
    _sum: Vector | None = None  # of the embeddings, weighted by the windows' samples
    _samples: int = 0

    def __post_init__(self) -> None:
        self.timeline = Timeline(len(self.model.labels))

    def add(self, segment: Segment, served: Served[Prediction]) -> None:
        """Raises InvalidInput EMBEDDING_TOO_LARGE."""
        scores = probabilities(served.result.logits)
        self.timeline.add(segment.start, segment.end, scores)
        self.queue += served.queue_time
        self.inference += served.run_time
        if self.query.embedding:
            self._add_embedding(served.result.embedding, segment.end - segment.start)
        self._rows.append(np.array(scores, np.float32))

    def to_response(self, received: Received) -> pb.AnalyzeResponse:
        """Of audio that has at least one window."""
        overall = self._overall()
        return pb.AnalyzeResponse(
            emotion=overall.emotion,
            confidence=overall.confidence,
            scores=overall.scores,
            frames=self._frames() if self.query.frames else None,
            embedding=self._embedding() if self.query.embedding else None,
            metadata=self._metadata(received),
            windowed=self._windowed(),
        )

    def _add_embedding(self, embedding: Vector, samples: int) -> None:
        if not self.query.frames:
            weighted = embedding * np.float32(samples)
            self._sum = weighted if self._sum is None else self._sum + weighted
            self._samples += samples
            return
        if len(self._rows) % self.query.stride == 0:
            self._embeddings.append(embedding.astype(self.query.embedding_type))
        limit = self.max_rows * (2 if self.query.embedding_type == "<f2" else 1)
        if len(self._embeddings) > limit:
            raise InvalidInput(
                "EMBEDDING_TOO_LARGE",
                f"At most {limit} embeddings fit an answer, and this upload has more windows; use"
                " a larger frame_stride or FLOAT16.",
                field="extract_embedding",
                limit=limit,
            )

    def _overall(self) -> EmotionResult:
        scores = self.timeline.overall()
        assert scores is not None  # audio without a window was refused
        best = max(range(len(scores)), key=scores.__getitem__)
        return EmotionResult(
            emotion=self.model.labels[best],
            confidence=scores[best],
            scores=dict(zip(self.model.labels, scores, strict=True)),
        )

    def _frames(self) -> FrameScores:
        rows = np.stack(self._rows[:: self.query.stride])
        return FrameScores(
            labels=self.model.labels,
            frame_count=len(rows),
            frame_period_ms=_to_ms(self.windows.hop) * self.query.stride,
            first_frame_offset_ms=_to_ms(self.windows.window) / 2,
            scores=rows.ravel().tolist(),
        )

    def _embedding(self) -> Tensor:
        if self.query.frames:
            values = np.stack(self._embeddings)
        else:
            assert self._sum is not None  # audio without a window was refused
            values = self._sum / np.float32(self._samples)
        kind = self.query.embedding_type
        return Tensor(
            data_type=TENSOR_TYPES[kind], shape=values.shape, data=values.astype(kind).tobytes()
        )

    def _windowed(self) -> pb.WindowedAnalysis:
        return pb.WindowedAnalysis(
            fixed_window=pb.FixedWindow(
                window_ms=_to_ms(self.windows.window), hop_ms=_to_ms(self.windows.hop)
            ),
            window_count=self.timeline.segments,
            timeline=[
                pb.SessionSummary.Span(
                    start_ms=_to_ms(span.start),
                    end_ms=_to_ms(span.end),
                    emotion=self.model.labels[span.emotion],
                    confidence=span.confidence,
                )
                for span in self.timeline.spans
            ],
        )

    def _metadata(self, received: Received) -> AnalysisMetadata:
        computed = Timestamp()
        computed.FromMilliseconds(round(1000 * received.computed_at))
        return AnalysisMetadata(
            request_id=received.request_id,
            audio=AudioInfo(
                duration_ms=_to_ms(received.samples),
                source_sample_rate_hz=received.rate_hz,
                source_channel_count=received.channels,
                container=received.container,
                model_sample_count=received.samples,
                content_sha256=received.sha256,
            ),
            provenance=Provenance(
                model=resource_name(self.model),
                model_digest=self.model.digest,
                runtime=self.model.runtime,
                precision=self.model.precision,
                cache_status=Provenance.CACHE_STATUS_MISS,
                compute_time=computed,
            ),
            timing=Timing(
                queue_ms=1000 * self.queue,
                decode_ms=1000 * received.decode,
                inference_ms=1000 * self.inference,
                total_ms=1000 * received.total,
            ),
            warnings=[
                result_pb2.Warning(code=notice.code, message=notice.text)
                for notice in (*self.model.notices, *_notices(received))
            ],
        )


def _to_ms(samples: int) -> int:
    return 1000 * samples // SAMPLE_RATE


def _notices(received: Received) -> Iterator[Notice]:
    if received.damaged:
        seconds = received.samples / SAMPLE_RATE
        text = f"The file breaks off or is damaged: only its first {seconds:.3f} s were analysed."
        yield Notice("AUDIO_TRUNCATED", text)
    if received.rate_hz < SAMPLE_RATE:
        text = (
            f"The audio was recorded at {received.rate_hz} Hz; the model was trained on 16000 Hz."
        )
        yield Notice("RESAMPLED_FROM_LOW_RATE", text)
