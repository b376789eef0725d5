"""Asks a Speech Emotion Server which emotions are in speech.

Example:

    from speech_emotion_client import Client
    with Client("localhost:50051") as client:
        print(client.analyze("speech.wav"))
"""

from .aio import AsyncClient
from .audio import AudioSource, RawFormat
from .client import Client
from .errors import (
    CacheMiss,
    DeadlineExceeded,
    InvalidAudio,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    ServerError,
    SpeechEmotionError,
    StreamAborted,
    StreamLost,
    Unauthenticated,
    Unavailable,
)
from .outcome import Outcome
from .request import AnalyzeOptions
from .result import Analysis, AudioInfo, Frames, Notice, Provenance, Span, Timing
from .samples import samples
from .server import Limits, Model, ServerInfo, StreamLimits
from .streaming.chunks import StreamSource
from .streaming.events import (
    Cursors,
    Draining,
    Event,
    Heartbeat,
    Segment,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    StreamWarning,
    Summary,
)
from .streaming.options import ClientMarks, FixedWindow, StreamOptions, VoiceActivity
from .streaming.stream import EmotionStream

__all__ = [
    "Analysis",
    "AnalyzeOptions",
    "AsyncClient",
    "AudioInfo",
    "AudioSource",
    "CacheMiss",
    "Client",
    "ClientMarks",
    "Cursors",
    "DeadlineExceeded",
    "Draining",
    "EmotionStream",
    "Event",
    "FixedWindow",
    "Frames",
    "Heartbeat",
    "InvalidAudio",
    "InvalidRequest",
    "Limits",
    "Model",
    "NotFound",
    "Notice",
    "Outcome",
    "Overloaded",
    "PermissionDenied",
    "Provenance",
    "RawFormat",
    "Segment",
    "ServerError",
    "ServerInfo",
    "SessionStarted",
    "Span",
    "SpeechEmotionError",
    "SpeechEnded",
    "SpeechStarted",
    "StreamAborted",
    "StreamLimits",
    "StreamLost",
    "StreamOptions",
    "StreamSource",
    "StreamWarning",
    "Summary",
    "Timing",
    "Unauthenticated",
    "Unavailable",
    "VoiceActivity",
    "samples",
]
