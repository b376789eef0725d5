"""What the server says about itself: logs now, other listeners beside them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """One finished call. Never holds audio, scores or anything derived from them."""

    method: str  # "speechemotion.v1.EmotionService/Analyze"
    code: str  # gRPC status name
    reason: str  # ErrorInfo.reason; empty if all went well
    request_id: str
    peer: str
    client: str = ""  # who it is, if a trusted proxy said so
    seconds: float
    audio_seconds: float
    error_id: str = ""  # what the caller was told in place of the cause
    cause: BaseException | None = None  # only of unforeseen failures
