"""Settings -> what each room wants to know of them. Pure."""

from math import inf

from batcher import BatchPolicy
from server.audio import AudioLimits
from server.config import Settings
from server.engine import Capacity
from server.service.analysis import Limits
from server.service.degradation import Relief
from server.streaming.plan import StreamLimits


def policy_of(settings: Settings, capacity: Capacity) -> BatchPolicy:
    """Lengths and costs are in seconds of audio; the engine's choice, within the settings."""
    size = min(settings.max_batch_size or capacity.batch_size, settings.max_queue_size)
    return BatchPolicy(
        max_batch_size=size,
        max_batch_cost=min(settings.max_batch_seconds, capacity.batch_seconds),
        preferred_sizes=tuple(one for one in capacity.preferred_sizes if one <= size),
        max_queue_delay=settings.queue_delay_ms / 1000,
        max_queue_size=settings.max_queue_size,
        max_drain_time=settings.max_queue_seconds,
        slots_per_device=capacity.slots,
    )


def relief_of(settings: Settings) -> Relief:
    """What bulk goes without under load; 0 switches a step off."""
    return Relief(
        scores_only_after=settings.degrade_bulk_after_seconds or inf,
        refuse_bulk_after=settings.refuse_bulk_after_seconds or inf,
    )


def limits_of(settings: Settings) -> Limits:
    """What one call may bring."""
    audio = AudioLimits(max_bytes=settings.max_audio_bytes, max_seconds=settings.max_audio_seconds)
    return Limits(
        audio=audio,
        max_batch_items=settings.max_batch_items,
        max_frame_embedding_seconds=settings.max_frame_embedding_seconds,
    )


def stream_limits_of(settings: Settings) -> StreamLimits:
    """What every stream is held to."""
    return StreamLimits(
        window_ms=settings.stream_window_ms,
        hop_ms=min(settings.stream_hop_ms, settings.stream_window_ms),  # no audio is left out
        max_segment_ms=round(1000 * settings.max_audio_seconds),
        max_chunk_bytes=settings.max_stream_chunk_bytes,
        idle_timeout=settings.stream_idle_seconds,
        max_session=settings.max_stream_seconds,
        resume_window=settings.stream_resume_seconds,
        max_speed=settings.max_stream_speed,
        max_sessions=settings.max_stream_sessions,
        max_pending=settings.max_stream_pending,
        max_lag=settings.max_stream_lag_ms / 1000,
        heartbeat=settings.stream_heartbeat_seconds,
    )
