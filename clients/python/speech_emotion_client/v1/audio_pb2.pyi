from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioFormat(_message.Message):
    __slots__ = ("encoding", "sample_rate_hz", "channel_count", "channel_index")
    class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ENCODING_UNSPECIFIED: _ClassVar[AudioFormat.Encoding]
        ENCODING_PCM_S16LE: _ClassVar[AudioFormat.Encoding]
        ENCODING_PCM_F32LE: _ClassVar[AudioFormat.Encoding]
        ENCODING_MULAW: _ClassVar[AudioFormat.Encoding]
        ENCODING_ALAW: _ClassVar[AudioFormat.Encoding]
    ENCODING_UNSPECIFIED: AudioFormat.Encoding
    ENCODING_PCM_S16LE: AudioFormat.Encoding
    ENCODING_PCM_F32LE: AudioFormat.Encoding
    ENCODING_MULAW: AudioFormat.Encoding
    ENCODING_ALAW: AudioFormat.Encoding
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_INDEX_FIELD_NUMBER: _ClassVar[int]
    encoding: AudioFormat.Encoding
    sample_rate_hz: int
    channel_count: int
    channel_index: int
    def __init__(self, encoding: _Optional[_Union[AudioFormat.Encoding, str]] = ..., sample_rate_hz: _Optional[int] = ..., channel_count: _Optional[int] = ..., channel_index: _Optional[int] = ...) -> None: ...

class AudioInfo(_message.Message):
    __slots__ = ("duration_ms", "source_sample_rate_hz", "source_channel_count", "container", "model_sample_count", "content_sha256")
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    SOURCE_CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    MODEL_SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_SHA256_FIELD_NUMBER: _ClassVar[int]
    duration_ms: int
    source_sample_rate_hz: int
    source_channel_count: int
    container: str
    model_sample_count: int
    content_sha256: str
    def __init__(self, duration_ms: _Optional[int] = ..., source_sample_rate_hz: _Optional[int] = ..., source_channel_count: _Optional[int] = ..., container: _Optional[str] = ..., model_sample_count: _Optional[int] = ..., content_sha256: _Optional[str] = ...) -> None: ...
