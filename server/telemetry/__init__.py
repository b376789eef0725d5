"""What the server says about itself: logs now, other listeners beside them."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """One finished call. Never holds audio, scores or anything derived from them."""

    method: str  # "speechemotion.v1.EmotionService/Analyze"
    code: str  # gRPC status name
    reason: str  # ErrorInfo.reason; empty if all went well
    request_id: str
    peer: str
    client: str = ""  # who it is, if a trusted proxy said so
    ended_at: float  # seconds since the epoch
    seconds: float
    audio_seconds: float
    error_id: str = ""  # what the caller was told in place of the cause
    cause: BaseException | None = None  # only of unforeseen failures


class StreamEvent(StrEnum):
    """What happens to the connection of a stream."""

    OPENED = "opened"  # a new session, or one that is resumed
    CLOSED = "closed"
    RESUMED = "resumed"  # from the memory of this replica
    TAKEN_OVER = "taken_over"  # from another replica


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One event of one stream; the names are few, and none is the caller's."""

    event: StreamEvent
    pacing: str  # "realtime", "bulk"
    segmentation: str  # "fixed_window", "voice_activity", "client_marks"


class Outcome(StrEnum):
    """What became of a window."""

    SENT = "sent"
    SKIPPED = "skipped"  # an interim, for load
    ABANDONED = "abandoned"  # its connection was gone first; a final is computed again


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowReport:
    """One window of a stream."""

    outcome: Outcome
    pacing: str
    trigger: str  # "interval" is an interim
    lag: float = 0.0  # s; from its last sample to its result
    silence: float = 0.0  # s; before it, heard and not analysed
