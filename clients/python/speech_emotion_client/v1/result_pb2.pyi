import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from speech_emotion_client.v1 import audio_pb2 as _audio_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmotionResult(_message.Message):
    __slots__ = ("emotion", "confidence", "scores", "frames", "embedding")
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
    emotion: str
    confidence: float
    scores: _containers.ScalarMap[str, float]
    frames: FrameScores
    embedding: Tensor
    def __init__(self, emotion: _Optional[str] = ..., confidence: _Optional[float] = ..., scores: _Optional[_Mapping[str, float]] = ..., frames: _Optional[_Union[FrameScores, _Mapping]] = ..., embedding: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class FrameScores(_message.Message):
    __slots__ = ("labels", "frame_count", "frame_period_ms", "first_frame_offset_ms", "scores")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FRAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    FRAME_PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    frame_count: int
    frame_period_ms: float
    first_frame_offset_ms: float
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, labels: _Optional[_Iterable[str]] = ..., frame_count: _Optional[int] = ..., frame_period_ms: _Optional[float] = ..., first_frame_offset_ms: _Optional[float] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("data_type", "shape", "data")
    class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DATA_TYPE_UNSPECIFIED: _ClassVar[Tensor.DataType]
        DATA_TYPE_FLOAT32: _ClassVar[Tensor.DataType]
        DATA_TYPE_FLOAT16: _ClassVar[Tensor.DataType]
    DATA_TYPE_UNSPECIFIED: Tensor.DataType
    DATA_TYPE_FLOAT32: Tensor.DataType
    DATA_TYPE_FLOAT16: Tensor.DataType
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    data_type: Tensor.DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, data_type: _Optional[_Union[Tensor.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("model", "model_digest", "runtime", "precision", "cache_status", "compute_time", "batch_size")
    class CacheStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CACHE_STATUS_UNSPECIFIED: _ClassVar[Provenance.CacheStatus]
        CACHE_STATUS_MISS: _ClassVar[Provenance.CacheStatus]
        CACHE_STATUS_HIT: _ClassVar[Provenance.CacheStatus]
        CACHE_STATUS_COALESCED: _ClassVar[Provenance.CacheStatus]
        CACHE_STATUS_BYPASSED: _ClassVar[Provenance.CacheStatus]
    CACHE_STATUS_UNSPECIFIED: Provenance.CacheStatus
    CACHE_STATUS_MISS: Provenance.CacheStatus
    CACHE_STATUS_HIT: Provenance.CacheStatus
    CACHE_STATUS_COALESCED: Provenance.CacheStatus
    CACHE_STATUS_BYPASSED: Provenance.CacheStatus
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    CACHE_STATUS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TIME_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_digest: str
    runtime: str
    precision: str
    cache_status: Provenance.CacheStatus
    compute_time: _timestamp_pb2.Timestamp
    batch_size: int
    def __init__(self, model: _Optional[str] = ..., model_digest: _Optional[str] = ..., runtime: _Optional[str] = ..., precision: _Optional[str] = ..., cache_status: _Optional[_Union[Provenance.CacheStatus, str]] = ..., compute_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., batch_size: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_ms", "decode_ms", "preprocess_ms", "inference_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_MS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., preprocess_ms: _Optional[float] = ..., inference_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class AnalysisMetadata(_message.Message):
    __slots__ = ("request_id", "audio", "provenance", "timing", "warnings")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    audio: _audio_pb2.AudioInfo
    provenance: Provenance
    timing: Timing
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    def __init__(self, request_id: _Optional[str] = ..., audio: _Optional[_Union[_audio_pb2.AudioInfo, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ...) -> None: ...
