"""What a stream says: segments, summaries and limits as messages. Pure."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1 import result_pb2
from speechemotion.v1.audio_pb2 import AudioInfo
from speechemotion.v1.result_pb2 import (
    AnalysisMetadata,
    EmotionResult,
    Provenance,
    Timing,
)

from batcher import Served
from server.service.answer import resource_name, to_result
from server.service.query import Query
from server.speech import SAMPLE_RATE, Model, Notice, Prediction
from server.streaming.decisions import Segment, Trigger
from server.streaming.plan import StreamLimits
from server.streaming.session import Cursors, Session, Source
from server.streaming.timeline import Timeline

Result: TypeAlias = pb.SegmentResult

SAMPLES_PER_MS = SAMPLE_RATE // 1000
TRIGGERS = {
    Trigger.INTERVAL: pb.SegmentResult.TRIGGER_INTERVAL,
    Trigger.WINDOW: pb.SegmentResult.TRIGGER_WINDOW,
    Trigger.SPEECH_END: pb.SegmentResult.TRIGGER_SPEECH_END,
    Trigger.MAX_LENGTH: pb.SegmentResult.TRIGGER_MAX_LENGTH,
    Trigger.CLIENT_MARK: pb.SegmentResult.TRIGGER_CLIENT_MARK,
    Trigger.FINISH: pb.SegmentResult.TRIGGER_FINISH,
}


def to_ms(samples: int) -> int:
    return samples // SAMPLES_PER_MS


def to_limits(limits: StreamLimits) -> pb.StreamLimits:
    return pb.StreamLimits(
        max_chunk_bytes=limits.max_chunk_bytes,
        idle_timeout_ms=round(1000 * limits.idle_timeout),
        max_session_ms=round(1000 * limits.max_session),
        resume_window_ms=round(1000 * limits.resume_window),
        max_speed=limits.max_speed,
        max_sessions=limits.max_sessions,
        max_pending_results=limits.max_pending,
        max_lag_ms=round(1000 * limits.max_lag),
        max_segment_ms=limits.max_segment_ms,
    )


def to_segment(
    query: Query, segment: Segment, served: Served[Prediction], model: Model, total: float
) -> Result:
    """`total` is in seconds since the last sample of the segment came."""
    return Result(
        segment_index=segment.index,
        revision=segment.revision,
        is_final=segment.final,
        trigger=TRIGGERS[segment.trigger],
        start_ms=to_ms(segment.start),
        end_ms=to_ms(segment.end),
        result=to_result(query, served.result, model),
        timing=Timing(
            queue_ms=1000 * served.queue_time,
            inference_ms=1000 * served.run_time,
            total_ms=1000 * total,
        ),
    )


def to_summary(session: Session[Result], model: Model, request_id: str) -> pb.SessionSummary:
    """The last word of a stream that went well."""
    timeline, labels = session.timeline, model.labels
    audio_ms = round(1000 * session.seconds())
    return pb.SessionSummary(
        overall=_overall(timeline, labels),
        timeline=[
            pb.SessionSummary.Span(
                start_ms=to_ms(span.start),
                end_ms=to_ms(span.end),
                emotion=labels[span.emotion],
                confidence=span.confidence,
            )
            for span in timeline.spans
        ],
        speech_share={labels[key]: share for key, share in timeline.shares().items()},
        segment_count=timeline.segments,
        audio_ms=audio_ms,
        speech_ms=to_ms(timeline.speech()),
        metadata=_metadata(session.source, audio_ms, model, request_id),
    )


def _metadata(source: Source, audio_ms: int, model: Model, request_id: str) -> AnalysisMetadata:
    return AnalysisMetadata(
        request_id=request_id,
        audio=AudioInfo(
            duration_ms=audio_ms,
            source_sample_rate_hz=source.rate_hz,
            source_channel_count=source.channels,
            container=source.container,
            model_sample_count=round(audio_ms * SAMPLES_PER_MS),
        ),
        provenance=Provenance(
            model=resource_name(model),
            model_digest=model.digest,
            runtime=model.runtime,
            precision=model.precision,
        ),
        warnings=[to_warning(notice) for notice in _notices(source, model)],
    )


def _notices(source: Source, model: Model) -> tuple[Notice, ...]:
    if not 0 < source.rate_hz < SAMPLE_RATE:
        return model.notices
    text = f"The audio was recorded at {source.rate_hz} Hz; the model was trained on 16000 Hz."
    return (*model.notices, Notice("RESAMPLED_FROM_LOW_RATE", text))


def to_warning(notice: Notice) -> result_pb2.Warning:
    return result_pb2.Warning(code=notice.code, message=notice.text)


def _overall(timeline: Timeline, labels: tuple[str, ...]) -> EmotionResult | None:
    scores = timeline.overall()
    if scores is None:
        return None
    best = max(range(len(scores)), key=scores.__getitem__)
    return EmotionResult(
        emotion=labels[best],
        confidence=scores[best],
        scores=dict(zip(labels, scores, strict=True)),
    )


def to_event(sequence: int, cursors: Cursors, event: Mapping[str, Any]) -> pb.AnalyzeStreamResponse:
    """`event` has one entry: the name of its field, and the message."""
    return pb.AnalyzeStreamResponse(
        sequence=sequence,
        cursors=pb.StreamCursors(
            accepted_sample=cursors.accepted,
            processed_sample=cursors.processed,
            final_sample=cursors.final,
            accepted_byte=cursors.accepted_bytes,
        ),
        **event,
    )
