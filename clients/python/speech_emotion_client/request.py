"""The options of a call and the messages they become. Sends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from . import audio
from .errors import InvalidRequest, check_count
from .v1 import emotion_service_pb2, result_pb2

AnalyzeRequest = emotion_service_pb2.AnalyzeRequest
Options = emotion_service_pb2.AnalyzeOptions


GRANULARITIES = {
    "utterance": AnalyzeRequest.GRANULARITY_UTTERANCE,
    "frame": AnalyzeRequest.GRANULARITY_FRAME,
}
PRIORITIES = {"interactive": Options.PRIORITY_INTERACTIVE, "bulk": Options.PRIORITY_BULK}
CACHE_MODES = {
    "use": Options.CACHE_MODE_UNSPECIFIED,
    "bypass": Options.CACHE_MODE_BYPASS,
    "refresh": Options.CACHE_MODE_REFRESH,
    "only": Options.CACHE_MODE_ONLY,
}
EMBEDDING_TYPES = {
    "float32": result_pb2.Tensor.DATA_TYPE_FLOAT32,
    "float16": result_pb2.Tensor.DATA_TYPE_FLOAT16,
}
CHOICES: Mapping[str, Mapping[str, object]] = {
    "granularity": GRANULARITIES,
    "priority": PRIORITIES,
    "cache": CACHE_MODES,
    "embedding_type": EMBEDDING_TYPES,
}


class AnalyzeOptions(TypedDict, total=False):
    """What every analysing method takes by keyword.

    granularity: "frame" adds scores every 20 ms to those of the whole utterance.
    embedding: also return the vector the scores were read from.
    sample_rate: of an array, in Hz.
    format: describes bytes that have no header; leave it out for WAV, FLAC, MP3 ...
    channel: which channel to analyse, from 1; 0 averages all.
    model: "models/NAME" or "models/NAME@VERSION"; "" is the server's default.
    request_id: your own id for logs; calls with several items append "-0", "-1", ...
    timeout: seconds for the call, retries included; None is the client's default.
    priority: "bulk" waits while interactive calls go first.
    frame_stride: keep every Nth frame.
    embedding_type: "float16" halves the embedding's size on the wire.
    cache: "bypass" neither reads nor writes the server's cache, "refresh" only writes, "only" only
        reads and raises CacheMiss.
    """

    granularity: Literal["utterance", "frame"]
    embedding: bool
    sample_rate: int | None
    format: audio.RawFormat | None
    channel: int
    model: str
    request_id: str
    timeout: float | None
    priority: Literal["interactive", "bulk"]
    frame_stride: int
    embedding_type: Literal["float32", "float16"]
    cache: Literal["use", "bypass", "refresh", "only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """AnalyzeOptions with the defaults filled in; raises InvalidRequest for what makes no sense."""

    granularity: str = "utterance"
    embedding: bool = False
    sample_rate: int | None = None
    format: audio.RawFormat | None = None
    channel: int = 0
    model: str = ""
    request_id: str = ""
    timeout: float | None = None
    priority: str = "interactive"
    frame_stride: int = 1
    embedding_type: str = "float32"
    cache: str = "use"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                text = f"{name} is {value!r}, not one of {', '.join(choices)}."
                raise InvalidRequest(text, field=name)
        check_count("channel", self.channel)
        check_count("frame_stride", self.frame_stride)

    def item(self, index: int) -> "Call":
        """The same for one of several items; each gets an id of its own."""
        return replace(self, request_id=self.request_id and f"{self.request_id}-{index}")


def build(source: audio.AudioSource, call: Call) -> AnalyzeRequest:
    """Reads the audio; raises InvalidAudio or OSError before anything is sent."""
    data, raw = audio.read(source, call.format, call.sample_rate)
    return AnalyzeRequest(
        audio_data=data,
        granularity=GRANULARITIES[call.granularity],
        extract_embedding=call.embedding,
        audio_format=audio.to_message(raw, call.channel),
        model=call.model,
        request_id=call.request_id,
        options=Options(
            cache_mode=CACHE_MODES[call.cache],
            priority=PRIORITIES[call.priority],
            embedding_data_type=EMBEDDING_TYPES[call.embedding_type],
            frame_stride=call.frame_stride,
        ),
    )
