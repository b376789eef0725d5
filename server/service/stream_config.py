"""A stream's configuration: read, checked, and its defaults filled in. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.protobuf.message import Message
from speechemotion.v1 import emotion_service_pb2 as pb

from batcher import Priority
from server.service.query import Query, read_query
from server.speech import SAMPLE_RATE, InvalidInput
from server.streaming.plan import Marks, Segmentation, Speech, StreamLimits, Windows
from server.streaming.voice import VoiceRule

SAMPLES_PER_MS = SAMPLE_RATE // 1000
SHORTEST = 100  # ms; of hops and interims: more results than that nobody reads
VOICE_DEFAULTS = {"min_speech_ms": 250, "end_silence_ms": 500, "max_segment_ms": 15_000}
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the client asked for, with the server's defaults filled in."""

    query: Query
    segmentation: Segmentation
    interval: int  # samples; 0: no interim results
    live: bool
    priority: Priority
    effective: pb.StreamConfig

    @property
    def pacing(self) -> str:
        """As metrics say it."""
        return "realtime" if self.live else "bulk"

    @property
    def container(self) -> bool:
        """Whether the audio says itself what it is."""
        described = self.query.described
        return described is None or described.encoding is None

    @property
    def identity(self) -> bytes:
        """Two streams that may share a session have the same."""
        own = pb.StreamConfig()
        own.CopyFrom(self.effective)
        own.ClearField("request_id")
        return own.SerializeToString(deterministic=True)


def read_config(config: pb.StreamConfig, limits: StreamLimits, embedding_seconds: float) -> Order:
    """Checks the configuration. Raises InvalidInput, its fields beginning with `config.`.

    `embedding_seconds` is the longest segment whose frame embeddings fit a message, as float32.
    """
    effective = pb.StreamConfig()
    effective.CopyFrom(config)
    effective.ClearField("resume_token")
    query = _read_query(config)
    longest = min(limits.max_segment_ms, _longest_embedding(query, embedding_seconds))
    if config.interim_interval_ms:
        _check(config, "interim_interval_ms", SHORTEST, longest)
    segmentation = _read_segmentation(effective, limits, longest)
    effective.pacing = _pacing(config)
    live = effective.pacing != pb.StreamConfig.PACING_BULK
    bulk = not live or query.priority is Priority.BULK
    return Order(
        query=query,
        segmentation=segmentation,
        interval=config.interim_interval_ms * SAMPLES_PER_MS,
        live=live,
        priority=Priority.BULK if bulk else Priority.STREAM,
        effective=effective,
    )


def _read_query(config: pb.StreamConfig) -> Query:
    """Everything a stream has in common with a single request, read as one without audio."""
    request = pb.AnalyzeRequest(
        model=config.model,
        granularity=config.granularity,
        extract_embedding=config.extract_embedding,
        audio_format=config.audio_format if config.HasField("audio_format") else None,
        request_id=config.request_id,
        options=config.options,
    )
    with fields_of_config():
        return read_query(request)


@contextmanager
def fields_of_config() -> Iterator[None]:
    """What is found wrong in a request of its own here is a field of the configuration."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(
            error.reason, str(error), field=f"config.{error.field}", **error.metadata
        ) from None


def _longest_embedding(query: Query, seconds: float) -> int:
    """The longest segment, in ms, whose answer fits a message."""
    if not (query.frames and query.embedding):
        return 2**32 - 1
    return round(1000 * seconds * query.stride * (2 if query.embedding_type == "<f2" else 1))


def _pacing(config: pb.StreamConfig) -> pb.StreamConfig.Pacing:
    if config.pacing not in pb.StreamConfig.Pacing.values():
        text = f"config.pacing has no value {config.pacing}."
        raise InvalidInput("FIELD_INVALID", text, field="config.pacing", actual=config.pacing)
    return config.pacing or pb.StreamConfig.PACING_REALTIME


def _read_segmentation(config: pb.StreamConfig, limits: StreamLimits, longest: int) -> Segmentation:
    """Fills the defaults into `config`."""
    match config.WhichOneof("segmentation"):
        case "voice_activity":
            return _read_voice(config.voice_activity, longest)
        case "client_marks":
            return Marks(longest * SAMPLES_PER_MS)
        case _:
            config.fixed_window.SetInParent()
            return _read_window(config.fixed_window, limits, longest)


def _read_window(window: pb.FixedWindow, limits: StreamLimits, longest: int) -> Windows:
    window.window_ms = window.window_ms or limits.window_ms
    window.hop_ms = window.hop_ms or min(limits.hop_ms, window.window_ms)
    _check(window, "window_ms", SHORTEST, longest)
    _check(window, "hop_ms", SHORTEST, window.window_ms)
    return Windows(window.window_ms * SAMPLES_PER_MS, window.hop_ms * SAMPLES_PER_MS)


def _read_voice(voice: pb.VoiceActivity, longest: int) -> Speech:
    for name, default in VOICE_DEFAULTS.items():
        setattr(voice, name, getattr(voice, name) or min(default, longest))
    if not voice.HasField("threshold"):
        voice.threshold = THRESHOLD
    _check(voice, "min_speech_ms", 32, 5_000)
    _check(voice, "end_silence_ms", 64, 10_000)
    _check(voice, "max_segment_ms", voice.min_speech_ms + 1_000, longest)
    _check(voice, "threshold", 0.01, 0.99)
    rule = VoiceRule(
        threshold=voice.threshold,
        min_speech=voice.min_speech_ms * SAMPLES_PER_MS,
        end_silence=voice.end_silence_ms * SAMPLES_PER_MS,
    )
    return Speech(rule, voice.max_segment_ms * SAMPLES_PER_MS)


PATHS = {"FixedWindow": "config.fixed_window.", "VoiceActivity": "config.voice_activity."}


def _check(message: Message, name: str, low: float, high: float) -> None:
    value = getattr(message, name)
    if not low <= value <= high:
        path = PATHS.get(message.DESCRIPTOR.name, "config.") + name
        raise InvalidInput(
            "FIELD_INVALID",
            f"{path} is from {low} to {high}, not {value:g}.",
            field=path,
            limit=f"{low}..{high}",
            actual=value,
        )
