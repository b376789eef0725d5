"""What a stream says: frozen values made from its events. Knows no transport.

All times are seconds from the start of the session.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech_emotion_client.result import (
    AudioInfo,
    Frames,
    Notice,
    Provenance,
    Span,
    Timing,
    to_array,
    to_audio,
    to_frames,
    to_notices,
    to_provenance,
    to_scores,
    to_timing,
)
from speech_emotion_client.server import StreamLimits, to_stream_limits
from speech_emotion_client.v1 import emotion_service_pb2 as pb

from .options import Segmentation, from_config

TRIGGERS: Mapping[int, str] = {
    pb.SegmentResult.TRIGGER_INTERVAL: "interval",
    pb.SegmentResult.TRIGGER_WINDOW: "window",
    pb.SegmentResult.TRIGGER_SPEECH_END: "speech_end",
    pb.SegmentResult.TRIGGER_MAX_LENGTH: "max_length",
    pb.SegmentResult.TRIGGER_CLIENT_MARK: "client_mark",
    pb.SegmentResult.TRIGGER_FINISH: "finish",
}


@dataclass(frozen=True, slots=True)
class Cursors:
    """How far the server is, in samples of the audio that was sent; exclusive ends."""

    accepted: int
    processed: int
    final: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Event:
    cursors: Cursors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SessionStarted(_Event):
    """The stream is open; comes once more after every resume."""

    session_id: str
    segmentation: Segmentation  # with the server's defaults filled in
    limits: StreamLimits
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpeechStarted(_Event):
    """VoiceActivity only."""

    time: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpeechEnded(_Event):
    """VoiceActivity only."""

    time: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment(_Event):
    """The emotions of one segment; an interim result is followed by a better one."""

    index: int  # 0, 1, 2, ...
    revision: int  # rises with each interim result
    is_final: bool
    trigger: str  # why it ends: "interval" (interim), "window", "speech_end", "max_length", ...
    start: float
    end: float  # exclusive
    emotion: str
    confidence: float
    scores: dict[str, float]  # highest first; they sum to 1
    frames: Frames | None  # times from the start of the segment
    embedding: NDArray[np.float32] | None
    timing: Timing
    replayed: bool  # sent before the connection broke, and not received then


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heartbeat(_Event):
    """Nothing else to say; `lag` is how long the oldest segment has waited for its result."""

    lag: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamWarning(_Event):
    """Something to know, such as INTERIMS_SKIPPED."""

    notice: Notice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draining(_Event):
    """The server stops in `grace` seconds; the stream then goes on elsewhere by itself."""

    grace: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summary(_Event):
    """The last event."""

    emotion: str  # "" if there was nothing to analyse
    confidence: float
    scores: dict[str, float]  # mean of the segments, weighted by their length
    timeline: tuple[Span, ...]
    speech_share: dict[str, float]  # emotion -> share of the speech, highest first; they sum to 1
    segment_count: int
    duration: float
    speech_duration: float
    audio: AudioInfo
    provenance: Provenance
    warnings: tuple[Notice, ...]
    request_id: str


Event = (
    SessionStarted
    | SpeechStarted
    | SpeechEnded
    | Segment
    | Heartbeat
    | StreamWarning
    | Draining
    | Summary
)


def to_event(message: pb.AnalyzeStreamResponse, *, resumed: bool) -> Event | None:
    """None for an event that this version does not know."""
    at = message.cursors
    cursors = Cursors(at.accepted_sample, at.processed_sample, at.final_sample)
    match message.WhichOneof("event"):
        case "session_started":
            return _started(message.session_started, cursors, resumed)
        case "speech_started":
            return SpeechStarted(cursors=cursors, time=message.speech_started.offset_ms / 1000)
        case "speech_ended":
            return SpeechEnded(cursors=cursors, time=message.speech_ended.offset_ms / 1000)
        case "segment":
            return _segment(message.segment, cursors)
        case "heartbeat":
            return Heartbeat(cursors=cursors, lag=message.heartbeat.lag_ms / 1000)
        case "warning":
            notice = Notice(message.warning.code, message.warning.message)
            return StreamWarning(cursors=cursors, notice=notice)
        case "draining":
            return Draining(cursors=cursors, grace=message.draining.grace_ms / 1000)
        case "summary":
            return _summary(message.summary, cursors)
        case _:
            return None


def _started(message: pb.SessionStarted, cursors: Cursors, resumed: bool) -> SessionStarted:
    return SessionStarted(
        cursors=cursors,
        session_id=message.session_id,
        segmentation=from_config(message.effective_config),
        limits=to_stream_limits(message.limits),
        resumed=resumed,
    )


def _segment(message: pb.SegmentResult, cursors: Cursors) -> Segment:
    result = message.result
    return Segment(
        cursors=cursors,
        index=message.segment_index,
        revision=message.revision,
        is_final=message.is_final,
        trigger=TRIGGERS.get(message.trigger, ""),
        start=message.start_ms / 1000,
        end=message.end_ms / 1000,
        emotion=result.emotion,
        confidence=result.confidence,
        scores=to_scores(result.scores),
        frames=to_frames(result.frames) if result.HasField("frames") else None,
        embedding=to_array(result.embedding) if result.HasField("embedding") else None,
        timing=to_timing(message.timing),
        replayed=message.replayed,
    )


def _summary(message: pb.SessionSummary, cursors: Cursors) -> Summary:
    about: Any = message.metadata
    return Summary(
        cursors=cursors,
        emotion=message.overall.emotion,
        confidence=message.overall.confidence,
        scores=to_scores(message.overall.scores),
        timeline=tuple(
            Span(each.start_ms / 1000, each.end_ms / 1000, each.emotion, each.confidence)
            for each in message.timeline
        ),
        speech_share=to_scores(message.speech_share),
        segment_count=message.segment_count,
        duration=message.audio_ms / 1000,
        speech_duration=message.speech_ms / 1000,
        audio=to_audio(about.audio),
        provenance=to_provenance(about.provenance),
        warnings=to_notices(about.warnings),
        request_id=about.request_id,
    )
