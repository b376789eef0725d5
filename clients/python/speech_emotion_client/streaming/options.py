"""The options of a stream and the configuration they become. Sends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

from speech_emotion_client import audio, request
from speech_emotion_client.errors import InvalidRequest, check_count
from speech_emotion_client.v1 import emotion_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """Segments of `window` seconds, one every `hop` seconds; 0 is the server's default."""

    window: float = 0.0
    hop: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceActivity:
    """Segments are stretches of speech; silence is not analysed. 0 is the server's default."""

    min_speech: float = 0.0  # seconds; shorter speech is ignored
    end_silence: float = 0.0  # seconds; so much silence ends a segment
    max_segment: float = 0.0  # seconds; longer speech is cut
    threshold: float | None = None  # speech probability in [0, 1]


@dataclass(frozen=True, slots=True)
class ClientMarks:
    """A segment ends where `end_segment` says."""


Segmentation = FixedWindow | VoiceActivity | ClientMarks

PACINGS: Mapping[str, "pb.StreamConfig.Pacing"] = {
    "realtime": pb.StreamConfig.PACING_REALTIME,
    "bulk": pb.StreamConfig.PACING_BULK,
}
CHOICES = {name: request.CHOICES[name] for name in ("granularity", "embedding_type")}


class StreamOptions(TypedDict, total=False):
    """What `stream` takes by keyword; the rest as in AnalyzeOptions.

    format: of samples without a header; leave it out for a container (WAV, MP3, Ogg ...).
    sample_rate: short for format=RawFormat(sample_rate): 16-bit, one channel.
    segmentation: FixedWindow (the default), VoiceActivity or ClientMarks.
    interim: seconds between results of a segment that still grows; 0 for final ones only.
    pacing: "bulk" sends a recording as fast as the server takes it, behind interactive calls.
    timeout: seconds to open the stream, or to open it again; None is the client's default.
    """

    granularity: Literal["utterance", "frame"]
    embedding: bool
    sample_rate: int | None
    format: audio.RawFormat | None
    channel: int
    model: str
    request_id: str
    timeout: float | None
    frame_stride: int
    embedding_type: Literal["float32", "float16"]
    segmentation: Segmentation
    interim: float
    pacing: Literal["realtime", "bulk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCall:
    """StreamOptions with the defaults filled in; raises InvalidRequest for what makes no sense."""

    granularity: str = "utterance"
    embedding: bool = False
    sample_rate: int | None = None
    format: audio.RawFormat | None = None
    channel: int = 0
    model: str = ""
    request_id: str = ""
    timeout: float | None = None
    frame_stride: int = 1
    embedding_type: str = "float32"
    segmentation: Segmentation = FixedWindow()
    interim: float = 0.0
    pacing: str = "realtime"

    def __post_init__(self) -> None:
        for name, choices in (CHOICES | {"pacing": PACINGS}).items():
            if (value := getattr(self, name)) not in choices:
                text = f"{name} is {value!r}, not one of {', '.join(choices)}."
                raise InvalidRequest(text, field=name)
        check_count("channel", self.channel)
        check_count("frame_stride", self.frame_stride)
        to_config(self)  # refuses seconds that are none

    @property
    def described(self) -> audio.RawFormat | None:
        """None for a container."""
        if self.format is None and self.sample_rate:
            return audio.RawFormat(self.sample_rate)
        return self.format


def to_config(call: StreamCall) -> pb.StreamConfig:
    """The first message of the stream, without a resume token."""
    config = pb.StreamConfig(
        audio_format=audio.to_message(call.described, call.channel),
        model=call.model,
        granularity=request.GRANULARITIES[call.granularity],
        extract_embedding=call.embedding,
        interim_interval_ms=_ms(call.interim),
        pacing=PACINGS[call.pacing],
        request_id=call.request_id,
        options=pb.AnalyzeOptions(
            embedding_data_type=request.EMBEDDING_TYPES[call.embedding_type],
            frame_stride=call.frame_stride,
        ),
    )
    _set_segmentation(config, call.segmentation)
    return config


def _set_segmentation(config: pb.StreamConfig, segmentation: Segmentation) -> None:
    match segmentation:
        case FixedWindow(window, hop):
            config.fixed_window.SetInParent()
            config.fixed_window.window_ms, config.fixed_window.hop_ms = _ms(window), _ms(hop)
        case VoiceActivity():
            voice = config.voice_activity
            voice.SetInParent()
            voice.min_speech_ms = _ms(segmentation.min_speech)
            voice.end_silence_ms = _ms(segmentation.end_silence)
            voice.max_segment_ms = _ms(segmentation.max_segment)
            if segmentation.threshold is not None:
                voice.threshold = segmentation.threshold
        case ClientMarks():
            config.client_marks.SetInParent()


def _ms(seconds: float) -> int:
    if not 0 <= 1000 * seconds < 2**32 - 1:
        raise InvalidRequest(f"{seconds} is no number of seconds that a message holds.")
    return round(1000 * seconds)


def from_config(config: pb.StreamConfig) -> Segmentation:
    """How the server cuts, with its defaults filled in."""
    match config.WhichOneof("segmentation"):
        case "voice_activity":
            voice = config.voice_activity
            return VoiceActivity(
                min_speech=voice.min_speech_ms / 1000,
                end_silence=voice.end_silence_ms / 1000,
                max_segment=voice.max_segment_ms / 1000,
                threshold=round(voice.threshold, 6) if voice.HasField("threshold") else None,
            )
        case "client_marks":
            return ClientMarks()
        case _:
            window = config.fixed_window
            return FixedWindow(window.window_ms / 1000, window.hop_ms / 1000)


def describe(segmentation: Segmentation) -> str:
    """The segmentation in words."""
    match segmentation:
        case FixedWindow(window, hop):
            return f"windows of {window:g} s, one every {hop:g} s"
        case VoiceActivity():
            silence, longest = segmentation.end_silence, segmentation.max_segment
            return f"stretches of speech, ended by {silence:g} s of silence or after {longest:g} s"
        case ClientMarks():
            return "segments that the client marks"
