from google.api import annotations_pb2 as _annotations_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.rpc import status_pb2 as _status_pb2
from speech_emotion_client.v1 import audio_pb2 as _audio_pb2
from speech_emotion_client.v1 import result_pb2 as _result_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnalyzeRequest(_message.Message):
    __slots__ = ("audio_data", "granularity", "extract_embedding", "audio_format", "model", "request_id", "options")
    class Granularity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GRANULARITY_UNSPECIFIED: _ClassVar[AnalyzeRequest.Granularity]
        GRANULARITY_UTTERANCE: _ClassVar[AnalyzeRequest.Granularity]
        GRANULARITY_FRAME: _ClassVar[AnalyzeRequest.Granularity]
        utterance: _ClassVar[AnalyzeRequest.Granularity]
        frame: _ClassVar[AnalyzeRequest.Granularity]
    GRANULARITY_UNSPECIFIED: AnalyzeRequest.Granularity
    GRANULARITY_UTTERANCE: AnalyzeRequest.Granularity
    GRANULARITY_FRAME: AnalyzeRequest.Granularity
    utterance: AnalyzeRequest.Granularity
    frame: AnalyzeRequest.Granularity
    AUDIO_DATA_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_FIELD_NUMBER: _ClassVar[int]
    EXTRACT_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    audio_data: bytes
    granularity: AnalyzeRequest.Granularity
    extract_embedding: bool
    audio_format: _audio_pb2.AudioFormat
    model: str
    request_id: str
    options: AnalyzeOptions
    def __init__(self, audio_data: _Optional[bytes] = ..., granularity: _Optional[_Union[AnalyzeRequest.Granularity, str]] = ..., extract_embedding: _Optional[bool] = ..., audio_format: _Optional[_Union[_audio_pb2.AudioFormat, _Mapping]] = ..., model: _Optional[str] = ..., request_id: _Optional[str] = ..., options: _Optional[_Union[AnalyzeOptions, _Mapping]] = ...) -> None: ...

class AnalyzeOptions(_message.Message):
    __slots__ = ("cache_mode", "priority", "embedding_data_type", "frame_stride", "content_digest")
    class CacheMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CACHE_MODE_UNSPECIFIED: _ClassVar[AnalyzeOptions.CacheMode]
        CACHE_MODE_BYPASS: _ClassVar[AnalyzeOptions.CacheMode]
        CACHE_MODE_REFRESH: _ClassVar[AnalyzeOptions.CacheMode]
        CACHE_MODE_ONLY: _ClassVar[AnalyzeOptions.CacheMode]
    CACHE_MODE_UNSPECIFIED: AnalyzeOptions.CacheMode
    CACHE_MODE_BYPASS: AnalyzeOptions.CacheMode
    CACHE_MODE_REFRESH: AnalyzeOptions.CacheMode
    CACHE_MODE_ONLY: AnalyzeOptions.CacheMode
    class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PRIORITY_UNSPECIFIED: _ClassVar[AnalyzeOptions.Priority]
        PRIORITY_INTERACTIVE: _ClassVar[AnalyzeOptions.Priority]
        PRIORITY_BULK: _ClassVar[AnalyzeOptions.Priority]
    PRIORITY_UNSPECIFIED: AnalyzeOptions.Priority
    PRIORITY_INTERACTIVE: AnalyzeOptions.Priority
    PRIORITY_BULK: AnalyzeOptions.Priority
    CACHE_MODE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    FRAME_STRIDE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    cache_mode: AnalyzeOptions.CacheMode
    priority: AnalyzeOptions.Priority
    embedding_data_type: _result_pb2.Tensor.DataType
    frame_stride: int
    content_digest: bool
    def __init__(self, cache_mode: _Optional[_Union[AnalyzeOptions.CacheMode, str]] = ..., priority: _Optional[_Union[AnalyzeOptions.Priority, str]] = ..., embedding_data_type: _Optional[_Union[_result_pb2.Tensor.DataType, str]] = ..., frame_stride: _Optional[int] = ..., content_digest: _Optional[bool] = ...) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ("emotion", "confidence", "scores", "frames", "embedding", "metadata", "windowed")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    EMOTION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    WINDOWED_FIELD_NUMBER: _ClassVar[int]
    emotion: str
    confidence: float
    scores: _containers.ScalarMap[str, float]
    frames: _result_pb2.FrameScores
    embedding: _result_pb2.Tensor
    metadata: _result_pb2.AnalysisMetadata
    windowed: WindowedAnalysis
    def __init__(self, emotion: _Optional[str] = ..., confidence: _Optional[float] = ..., scores: _Optional[_Mapping[str, float]] = ..., frames: _Optional[_Union[_result_pb2.FrameScores, _Mapping]] = ..., embedding: _Optional[_Union[_result_pb2.Tensor, _Mapping]] = ..., metadata: _Optional[_Union[_result_pb2.AnalysisMetadata, _Mapping]] = ..., windowed: _Optional[_Union[WindowedAnalysis, _Mapping]] = ...) -> None: ...

class WindowedAnalysis(_message.Message):
    __slots__ = ("fixed_window", "window_count", "timeline")
    FIXED_WINDOW_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNT_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    fixed_window: FixedWindow
    window_count: int
    timeline: _containers.RepeatedCompositeFieldContainer[SessionSummary.Span]
    def __init__(self, fixed_window: _Optional[_Union[FixedWindow, _Mapping]] = ..., window_count: _Optional[int] = ..., timeline: _Optional[_Iterable[_Union[SessionSummary.Span, _Mapping]]] = ...) -> None: ...

class AnalyzeUploadRequest(_message.Message):
    __slots__ = ("audio", "granularity", "extract_embedding", "audio_format", "model", "request_id", "options")
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_FIELD_NUMBER: _ClassVar[int]
    EXTRACT_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    audio: _httpbody_pb2.HttpBody
    granularity: AnalyzeRequest.Granularity
    extract_embedding: bool
    audio_format: _audio_pb2.AudioFormat
    model: str
    request_id: str
    options: AnalyzeOptions
    def __init__(self, audio: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ..., granularity: _Optional[_Union[AnalyzeRequest.Granularity, str]] = ..., extract_embedding: _Optional[bool] = ..., audio_format: _Optional[_Union[_audio_pb2.AudioFormat, _Mapping]] = ..., model: _Optional[str] = ..., request_id: _Optional[str] = ..., options: _Optional[_Union[AnalyzeOptions, _Mapping]] = ...) -> None: ...

class BatchAnalyzeRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[AnalyzeRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[AnalyzeRequest, _Mapping]]] = ...) -> None: ...

class BatchAnalyzeResponse(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("response", "error")
        RESPONSE_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        response: AnalyzeResponse
        error: _status_pb2.Status
        def __init__(self, response: _Optional[_Union[AnalyzeResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BatchAnalyzeResponse.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[BatchAnalyzeResponse.Item, _Mapping]]] = ...) -> None: ...

class AnalyzeStreamRequest(_message.Message):
    __slots__ = ("config", "audio", "control")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    config: StreamConfig
    audio: AudioChunk
    control: StreamControl
    def __init__(self, config: _Optional[_Union[StreamConfig, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., control: _Optional[_Union[StreamControl, _Mapping]] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("audio_format", "model", "granularity", "extract_embedding", "fixed_window", "voice_activity", "client_marks", "interim_interval_ms", "pacing", "request_id", "resume_token", "options")
    class Pacing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PACING_UNSPECIFIED: _ClassVar[StreamConfig.Pacing]
        PACING_REALTIME: _ClassVar[StreamConfig.Pacing]
        PACING_BULK: _ClassVar[StreamConfig.Pacing]
    PACING_UNSPECIFIED: StreamConfig.Pacing
    PACING_REALTIME: StreamConfig.Pacing
    PACING_BULK: StreamConfig.Pacing
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_FIELD_NUMBER: _ClassVar[int]
    EXTRACT_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    FIXED_WINDOW_FIELD_NUMBER: _ClassVar[int]
    VOICE_ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MARKS_FIELD_NUMBER: _ClassVar[int]
    INTERIM_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    PACING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    audio_format: _audio_pb2.AudioFormat
    model: str
    granularity: AnalyzeRequest.Granularity
    extract_embedding: bool
    fixed_window: FixedWindow
    voice_activity: VoiceActivity
    client_marks: ClientMarks
    interim_interval_ms: int
    pacing: StreamConfig.Pacing
    request_id: str
    resume_token: str
    options: AnalyzeOptions
    def __init__(self, audio_format: _Optional[_Union[_audio_pb2.AudioFormat, _Mapping]] = ..., model: _Optional[str] = ..., granularity: _Optional[_Union[AnalyzeRequest.Granularity, str]] = ..., extract_embedding: _Optional[bool] = ..., fixed_window: _Optional[_Union[FixedWindow, _Mapping]] = ..., voice_activity: _Optional[_Union[VoiceActivity, _Mapping]] = ..., client_marks: _Optional[_Union[ClientMarks, _Mapping]] = ..., interim_interval_ms: _Optional[int] = ..., pacing: _Optional[_Union[StreamConfig.Pacing, str]] = ..., request_id: _Optional[str] = ..., resume_token: _Optional[str] = ..., options: _Optional[_Union[AnalyzeOptions, _Mapping]] = ...) -> None: ...

class FixedWindow(_message.Message):
    __slots__ = ("window_ms", "hop_ms")
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    HOP_MS_FIELD_NUMBER: _ClassVar[int]
    window_ms: int
    hop_ms: int
    def __init__(self, window_ms: _Optional[int] = ..., hop_ms: _Optional[int] = ...) -> None: ...

class VoiceActivity(_message.Message):
    __slots__ = ("min_speech_ms", "end_silence_ms", "max_segment_ms", "threshold")
    MIN_SPEECH_MS_FIELD_NUMBER: _ClassVar[int]
    END_SILENCE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEGMENT_MS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    min_speech_ms: int
    end_silence_ms: int
    max_segment_ms: int
    threshold: float
    def __init__(self, min_speech_ms: _Optional[int] = ..., end_silence_ms: _Optional[int] = ..., max_segment_ms: _Optional[int] = ..., threshold: _Optional[float] = ...) -> None: ...

class ClientMarks(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("data", "first_sample", "first_byte")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FIRST_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    FIRST_BYTE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    first_sample: int
    first_byte: int
    def __init__(self, data: _Optional[bytes] = ..., first_sample: _Optional[int] = ..., first_byte: _Optional[int] = ...) -> None: ...

class StreamControl(_message.Message):
    __slots__ = ("end_segment", "finish")
    END_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    end_segment: EndSegment
    finish: Finish
    def __init__(self, end_segment: _Optional[_Union[EndSegment, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ...) -> None: ...

class EndSegment(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Finish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnalyzeStreamResponse(_message.Message):
    __slots__ = ("sequence", "cursors", "session_started", "speech_started", "segment", "speech_ended", "heartbeat", "warning", "draining", "summary", "error")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    SESSION_STARTED_FIELD_NUMBER: _ClassVar[int]
    SPEECH_STARTED_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    SPEECH_ENDED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    cursors: StreamCursors
    session_started: SessionStarted
    speech_started: SpeechStarted
    segment: SegmentResult
    speech_ended: SpeechEnded
    heartbeat: Heartbeat
    warning: _result_pb2.Warning
    draining: Draining
    summary: SessionSummary
    error: _status_pb2.Status
    def __init__(self, sequence: _Optional[int] = ..., cursors: _Optional[_Union[StreamCursors, _Mapping]] = ..., session_started: _Optional[_Union[SessionStarted, _Mapping]] = ..., speech_started: _Optional[_Union[SpeechStarted, _Mapping]] = ..., segment: _Optional[_Union[SegmentResult, _Mapping]] = ..., speech_ended: _Optional[_Union[SpeechEnded, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., warning: _Optional[_Union[_result_pb2.Warning, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ..., summary: _Optional[_Union[SessionSummary, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class StreamCursors(_message.Message):
    __slots__ = ("accepted_sample", "processed_sample", "final_sample", "accepted_byte")
    ACCEPTED_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    PROCESSED_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    FINAL_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_BYTE_FIELD_NUMBER: _ClassVar[int]
    accepted_sample: int
    processed_sample: int
    final_sample: int
    accepted_byte: int
    def __init__(self, accepted_sample: _Optional[int] = ..., processed_sample: _Optional[int] = ..., final_sample: _Optional[int] = ..., accepted_byte: _Optional[int] = ...) -> None: ...

class SessionStarted(_message.Message):
    __slots__ = ("session_id", "resume_token", "effective_config", "next_sample", "limits", "next_byte")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    NEXT_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_BYTE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    resume_token: str
    effective_config: StreamConfig
    next_sample: int
    limits: StreamLimits
    next_byte: int
    def __init__(self, session_id: _Optional[str] = ..., resume_token: _Optional[str] = ..., effective_config: _Optional[_Union[StreamConfig, _Mapping]] = ..., next_sample: _Optional[int] = ..., limits: _Optional[_Union[StreamLimits, _Mapping]] = ..., next_byte: _Optional[int] = ...) -> None: ...

class StreamLimits(_message.Message):
    __slots__ = ("max_chunk_bytes", "idle_timeout_ms", "max_session_ms", "resume_window_ms", "max_speed", "max_sessions", "max_pending_results", "max_lag_ms", "max_segment_ms")
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSION_MS_FIELD_NUMBER: _ClassVar[int]
    RESUME_WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_SPEED_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_PENDING_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MAX_LAG_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEGMENT_MS_FIELD_NUMBER: _ClassVar[int]
    max_chunk_bytes: int
    idle_timeout_ms: int
    max_session_ms: int
    resume_window_ms: int
    max_speed: float
    max_sessions: int
    max_pending_results: int
    max_lag_ms: int
    max_segment_ms: int
    def __init__(self, max_chunk_bytes: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ..., max_session_ms: _Optional[int] = ..., resume_window_ms: _Optional[int] = ..., max_speed: _Optional[float] = ..., max_sessions: _Optional[int] = ..., max_pending_results: _Optional[int] = ..., max_lag_ms: _Optional[int] = ..., max_segment_ms: _Optional[int] = ...) -> None: ...

class SpeechStarted(_message.Message):
    __slots__ = ("offset_ms",)
    OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    offset_ms: int
    def __init__(self, offset_ms: _Optional[int] = ...) -> None: ...

class SpeechEnded(_message.Message):
    __slots__ = ("offset_ms",)
    OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    offset_ms: int
    def __init__(self, offset_ms: _Optional[int] = ...) -> None: ...

class SegmentResult(_message.Message):
    __slots__ = ("segment_index", "revision", "is_final", "trigger", "start_ms", "end_ms", "result", "timing", "replayed")
    class Trigger(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TRIGGER_UNSPECIFIED: _ClassVar[SegmentResult.Trigger]
        TRIGGER_INTERVAL: _ClassVar[SegmentResult.Trigger]
        TRIGGER_WINDOW: _ClassVar[SegmentResult.Trigger]
        TRIGGER_SPEECH_END: _ClassVar[SegmentResult.Trigger]
        TRIGGER_MAX_LENGTH: _ClassVar[SegmentResult.Trigger]
        TRIGGER_CLIENT_MARK: _ClassVar[SegmentResult.Trigger]
        TRIGGER_FINISH: _ClassVar[SegmentResult.Trigger]
    TRIGGER_UNSPECIFIED: SegmentResult.Trigger
    TRIGGER_INTERVAL: SegmentResult.Trigger
    TRIGGER_WINDOW: SegmentResult.Trigger
    TRIGGER_SPEECH_END: SegmentResult.Trigger
    TRIGGER_MAX_LENGTH: SegmentResult.Trigger
    TRIGGER_CLIENT_MARK: SegmentResult.Trigger
    TRIGGER_FINISH: SegmentResult.Trigger
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    segment_index: int
    revision: int
    is_final: bool
    trigger: SegmentResult.Trigger
    start_ms: int
    end_ms: int
    result: _result_pb2.EmotionResult
    timing: _result_pb2.Timing
    replayed: bool
    def __init__(self, segment_index: _Optional[int] = ..., revision: _Optional[int] = ..., is_final: _Optional[bool] = ..., trigger: _Optional[_Union[SegmentResult.Trigger, str]] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., result: _Optional[_Union[_result_pb2.EmotionResult, _Mapping]] = ..., timing: _Optional[_Union[_result_pb2.Timing, _Mapping]] = ..., replayed: _Optional[bool] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("lag_ms",)
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    lag_ms: int
    def __init__(self, lag_ms: _Optional[int] = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ("grace_ms", "resume_token")
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    resume_token: str
    def __init__(self, grace_ms: _Optional[int] = ..., resume_token: _Optional[str] = ...) -> None: ...

class SessionSummary(_message.Message):
    __slots__ = ("overall", "timeline", "speech_share", "segment_count", "audio_ms", "speech_ms", "metadata")
    class Span(_message.Message):
        __slots__ = ("start_ms", "end_ms", "emotion", "confidence")
        START_MS_FIELD_NUMBER: _ClassVar[int]
        END_MS_FIELD_NUMBER: _ClassVar[int]
        EMOTION_FIELD_NUMBER: _ClassVar[int]
        CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
        start_ms: int
        end_ms: int
        emotion: str
        confidence: float
        def __init__(self, start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., emotion: _Optional[str] = ..., confidence: _Optional[float] = ...) -> None: ...
    class SpeechShareEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OVERALL_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    SPEECH_SHARE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_MS_FIELD_NUMBER: _ClassVar[int]
    SPEECH_MS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    overall: _result_pb2.EmotionResult
    timeline: _containers.RepeatedCompositeFieldContainer[SessionSummary.Span]
    speech_share: _containers.ScalarMap[str, float]
    segment_count: int
    audio_ms: int
    speech_ms: int
    metadata: _result_pb2.AnalysisMetadata
    def __init__(self, overall: _Optional[_Union[_result_pb2.EmotionResult, _Mapping]] = ..., timeline: _Optional[_Iterable[_Union[SessionSummary.Span, _Mapping]]] = ..., speech_share: _Optional[_Mapping[str, float]] = ..., segment_count: _Optional[int] = ..., audio_ms: _Optional[int] = ..., speech_ms: _Optional[int] = ..., metadata: _Optional[_Union[_result_pb2.AnalysisMetadata, _Mapping]] = ...) -> None: ...
