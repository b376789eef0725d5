from google.api import annotations_pb2 as _annotations_pb2
from speechemotion.v1 import emotion_service_pb2 as _emotion_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "display_name", "version", "weights_digest", "state", "labels", "sample_rate_hz", "frame_period_ms", "embedding_dimension", "runtime", "precision", "device", "license")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Model.State]
        STATE_LOADING: _ClassVar[Model.State]
        STATE_READY: _ClassVar[Model.State]
        STATE_DRAINING: _ClassVar[Model.State]
        STATE_FAILED: _ClassVar[Model.State]
    STATE_UNSPECIFIED: Model.State
    STATE_LOADING: Model.State
    STATE_READY: Model.State
    STATE_DRAINING: Model.State
    STATE_FAILED: Model.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    FRAME_PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    version: str
    weights_digest: str
    state: Model.State
    labels: _containers.RepeatedScalarFieldContainer[str]
    sample_rate_hz: int
    frame_period_ms: float
    embedding_dimension: int
    runtime: str
    precision: str
    device: str
    license: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., version: _Optional[str] = ..., weights_digest: _Optional[str] = ..., state: _Optional[_Union[Model.State, str]] = ..., labels: _Optional[_Iterable[str]] = ..., sample_rate_hz: _Optional[int] = ..., frame_period_ms: _Optional[float] = ..., embedding_dimension: _Optional[int] = ..., runtime: _Optional[str] = ..., precision: _Optional[str] = ..., device: _Optional[str] = ..., license: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("server_version", "api_version", "limits", "containers", "stream_limits")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    STREAM_LIMITS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    api_version: str
    limits: Limits
    containers: _containers.RepeatedScalarFieldContainer[str]
    stream_limits: _emotion_service_pb2.StreamLimits
    def __init__(self, server_version: _Optional[str] = ..., api_version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., containers: _Optional[_Iterable[str]] = ..., stream_limits: _Optional[_Union[_emotion_service_pb2.StreamLimits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_audio_bytes", "max_audio_ms", "min_audio_ms", "max_batch_items", "max_concurrent_streams", "max_frame_embedding_ms", "max_upload_bytes")
    MAX_AUDIO_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_AUDIO_MS_FIELD_NUMBER: _ClassVar[int]
    MIN_AUDIO_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_EMBEDDING_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_audio_bytes: int
    max_audio_ms: int
    min_audio_ms: int
    max_batch_items: int
    max_concurrent_streams: int
    max_frame_embedding_ms: int
    max_upload_bytes: int
    def __init__(self, max_audio_bytes: _Optional[int] = ..., max_audio_ms: _Optional[int] = ..., min_audio_ms: _Optional[int] = ..., max_batch_items: _Optional[int] = ..., max_concurrent_streams: _Optional[int] = ..., max_frame_embedding_ms: _Optional[int] = ..., max_upload_bytes: _Optional[int] = ...) -> None: ...
