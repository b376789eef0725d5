"""What one stream shall do, and what every stream may do. Pure; lengths in samples, times in s."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from server.streaming.decisions import Segmenter
from server.streaming.speech_segments import SpeechSegments
from server.streaming.voice import Ear, VoiceRule
from server.streaming.windows import ClientMarks, FixedWindows


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What every stream is held to."""

    window_ms: int = 2_000  # where the client names none
    hop_ms: int = 1_000
    max_segment_ms: int = 60_000
    max_chunk_bytes: int = 256 * 1024
    idle_timeout: float = 30.0  # without a message from the client
    max_session: float = 4 * 3600.0  # of time, and of audio
    resume_window: float = 60.0
    max_speed: float = 2.0  # seconds of audio for each second
    max_sessions: int = 1_024  # of a tenant, those that wait to be resumed included
    max_pending: int = 8  # results that are computed or wait to be read
    max_lag: float = 1.0
    heartbeat: float = 10.0


@dataclass(frozen=True, slots=True)
class Windows:
    """Every `hop` samples a segment of `window`."""

    window: int
    hop: int


@dataclass(frozen=True, slots=True)
class Marks:
    """The client says where a segment ends, after `longest` at the latest."""

    longest: int


@dataclass(frozen=True, slots=True)
class Speech:
    """Stretches of speech, of `longest` at most."""

    rule: VoiceRule
    longest: int


Segmentation: TypeAlias = Windows | Marks | Speech


def segmenter_for(
    segmentation: Segmentation, interval: int, make_ear: Callable[[], Ear]
) -> Segmenter:
    """`interval` is that of the interim results; 0: none."""
    match segmentation:
        case Windows(window, hop):
            return FixedWindows(window, hop, interval)
        case Marks(longest):
            return ClientMarks(longest, interval)
        case Speech(rule, longest):
            return SpeechSegments(rule, make_ear(), longest, interval)
