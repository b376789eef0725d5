"""What a server says of itself: its models, limits and versions."""

from collections.abc import Mapping
from dataclasses import dataclass

from grpc_health.v1 import health_pb2

from .v1 import emotion_service_pb2, model_service_pb2

STATES: Mapping[int, str] = {
    model_service_pb2.Model.STATE_LOADING: "loading",
    model_service_pb2.Model.STATE_READY: "ready",
    model_service_pb2.Model.STATE_DRAINING: "draining",
    model_service_pb2.Model.STATE_FAILED: "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One set of weights that the server can run."""

    name: str  # models/NAME@VERSION
    display_name: str
    version: str
    weights_digest: str
    state: str  # "loading", "ready", "draining", "failed", or "" if unknown
    labels: tuple[str, ...]
    sample_rate: int  # Hz; audio is resampled to it
    frame_period_ms: float
    embedding_dimension: int
    runtime: str
    precision: str
    device: str
    license: str  # SPDX expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may ask for; 0 where the server names no limit."""

    max_audio_bytes: int
    max_audio_ms: int
    min_audio_ms: int
    max_batch_items: int
    max_concurrent_streams: int
    max_frame_embedding_ms: int
    max_upload_bytes: int  # of a file sent to AnalyzeUpload, however long it is


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What every stream is held to; 0 where the server names no limit."""

    max_chunk_bytes: int
    idle_timeout_ms: int  # without audio
    max_session_ms: int
    resume_window_ms: int
    max_speed: float  # seconds of audio for each second, at real-time pacing
    max_sessions: int
    max_pending_results: int
    max_lag_ms: int
    max_segment_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Versions, limits and accepted inputs."""

    server_version: str
    api_version: str
    containers: tuple[str, ...]  # recognised without a RawFormat
    limits: Limits
    stream_limits: StreamLimits


def to_model(message: model_service_pb2.Model) -> Model:
    return Model(
        name=message.name,
        display_name=message.display_name,
        version=message.version,
        weights_digest=message.weights_digest,
        state=STATES.get(message.state, ""),
        labels=tuple(message.labels),
        sample_rate=message.sample_rate_hz,
        frame_period_ms=message.frame_period_ms,
        embedding_dimension=message.embedding_dimension,
        runtime=message.runtime,
        precision=message.precision,
        device=message.device,
        license=message.license,
    )


def to_server_info(message: model_service_pb2.GetServerInfoResponse) -> ServerInfo:
    limits = message.limits
    return ServerInfo(
        server_version=message.server_version,
        api_version=message.api_version,
        containers=tuple(message.containers),
        limits=Limits(
            max_audio_bytes=limits.max_audio_bytes,
            max_audio_ms=limits.max_audio_ms,
            min_audio_ms=limits.min_audio_ms,
            max_batch_items=limits.max_batch_items,
            max_concurrent_streams=limits.max_concurrent_streams,
            max_frame_embedding_ms=limits.max_frame_embedding_ms,
            max_upload_bytes=limits.max_upload_bytes,
        ),
        stream_limits=to_stream_limits(message.stream_limits),
    )


def to_stream_limits(limits: emotion_service_pb2.StreamLimits) -> StreamLimits:
    return StreamLimits(
        max_chunk_bytes=limits.max_chunk_bytes,
        idle_timeout_ms=limits.idle_timeout_ms,
        max_session_ms=limits.max_session_ms,
        resume_window_ms=limits.resume_window_ms,
        max_speed=limits.max_speed,
        max_sessions=limits.max_sessions,
        max_pending_results=limits.max_pending_results,
        max_lag_ms=limits.max_lag_ms,
        max_segment_ms=limits.max_segment_ms,
    )


def health_name(reply: health_pb2.HealthCheckResponse) -> str:
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))
