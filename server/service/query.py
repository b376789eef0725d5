"""A request, whichever RPC brought it, checked before anything is decoded. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2 import (
    AnalyzeOptions,
    AnalyzeRequest,
    AnalyzeUploadRequest,
)
from speechemotion.v1.result_pb2 import Tensor

from batcher import Priority
from server.audio import Encoding, RawFormat
from server.service.calls import MAX_REQUEST_ID
from server.speech import InvalidInput

Value = TypeVar("Value")

MAX_STRIDE = 1000  # frames, 20 s

ENCODINGS = {
    AudioFormat.ENCODING_UNSPECIFIED: None,
    AudioFormat.ENCODING_PCM_S16LE: Encoding.PCM_S16LE,
    AudioFormat.ENCODING_PCM_F32LE: Encoding.PCM_F32LE,
    AudioFormat.ENCODING_MULAW: Encoding.MULAW,
    AudioFormat.ENCODING_ALAW: Encoding.ALAW,
}
GRANULARITIES = {
    AnalyzeRequest.GRANULARITY_UNSPECIFIED: False,
    AnalyzeRequest.GRANULARITY_UTTERANCE: False,
    AnalyzeRequest.GRANULARITY_FRAME: True,
}
PRIORITIES = {
    AnalyzeOptions.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    AnalyzeOptions.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    AnalyzeOptions.PRIORITY_BULK: Priority.BULK,
}
DATA_TYPES = {
    Tensor.DATA_TYPE_UNSPECIFIED: "<f4",
    Tensor.DATA_TYPE_FLOAT32: "<f4",
    Tensor.DATA_TYPE_FLOAT16: "<f2",
}
CACHE_ONLY = {
    AnalyzeOptions.CACHE_MODE_UNSPECIFIED: False,
    AnalyzeOptions.CACHE_MODE_BYPASS: False,
    AnalyzeOptions.CACHE_MODE_REFRESH: False,
    AnalyzeOptions.CACHE_MODE_ONLY: True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What the caller wants to know, and of which bytes."""

    data: bytes | memoryview
    described: RawFormat | None  # None: the bytes say themselves what they are
    model: str
    request_id: str
    frames: bool
    embedding: bool
    embedding_type: str  # numpy's name, little-endian
    stride: int  # every Nth frame is answered
    priority: Priority
    cache_only: bool
    digest: bool = False  # of the bytes, to be told


def read_query(
    request: AnalyzeRequest | AnalyzeUploadRequest, audio: bytes | memoryview | None = None
) -> Query:
    """Checks every field but the audio itself; `audio` is it if it is not in the request.

    Raises InvalidInput.
    """
    if len(request.request_id) > MAX_REQUEST_ID:
        raise _out_of_range("request_id", "characters", MAX_REQUEST_ID, len(request.request_id))
    options = request.options
    if options.frame_stride > MAX_STRIDE:
        raise _out_of_range("options.frame_stride", "frames", MAX_STRIDE, options.frame_stride)
    described = _read_format(request.audio_format) if request.HasField("audio_format") else None
    return Query(
        data=_data(request) if audio is None else audio,
        described=described,
        model=request.model,
        request_id=request.request_id,
        frames=_known(GRANULARITIES, request.granularity, "granularity"),
        embedding=request.extract_embedding,
        embedding_type=_known(
            DATA_TYPES, options.embedding_data_type, "options.embedding_data_type"
        ),
        stride=options.frame_stride or 1,
        priority=_known(PRIORITIES, options.priority, "options.priority"),
        cache_only=_known(CACHE_ONLY, options.cache_mode, "options.cache_mode"),
        digest=options.content_digest,
    )


def wanted_priority(request: AnalyzeRequest | AnalyzeUploadRequest) -> Priority:
    """The class a request asks for, before it has been checked; looks at no audio."""
    return PRIORITIES.get(request.options.priority, Priority.INTERACTIVE)


def _data(request: AnalyzeRequest | AnalyzeUploadRequest) -> bytes:
    """Each access of a bytes field copies it: this is the only one."""
    if isinstance(request, AnalyzeUploadRequest):
        body: bytes = request.audio.data
        return body
    return request.audio_data


def _read_format(described: AudioFormat) -> RawFormat:
    return RawFormat(
        encoding=_known(ENCODINGS, described.encoding, "audio_format.encoding"),
        sample_rate_hz=described.sample_rate_hz,
        channel_count=described.channel_count or 1,
        channel_index=described.channel_index,
    )


def _known(table: Mapping[Any, Value], number: int, field: str) -> Value:
    if number not in table:
        raise InvalidInput(
            "FIELD_INVALID", f"{field} has no value {number}.", field=field, actual=number
        )
    return table[number]


def _out_of_range(field: str, unit: str, limit: int, actual: int) -> InvalidInput:
    text = f"{field} is at most {limit} {unit}, not {actual}."
    return InvalidInput("FIELD_INVALID", text, field=field, limit=limit, actual=actual)
