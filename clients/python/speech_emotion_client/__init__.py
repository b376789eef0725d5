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
    Unauthenticated,
    Unavailable,
)
from .outcome import Outcome
from .request import AnalyzeOptions
from .result import Analysis, AudioInfo, Frames, Notice, Provenance, Timing
from .samples import samples
from .server import Limits, Model, ServerInfo

__all__ = [
    "Analysis",
    "AnalyzeOptions",
    "AsyncClient",
    "AudioInfo",
    "AudioSource",
    "CacheMiss",
    "Client",
    "DeadlineExceeded",
    "Frames",
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
    "ServerError",
    "ServerInfo",
    "SpeechEmotionError",
    "Timing",
    "Unauthenticated",
    "Unavailable",
    "samples",
]
