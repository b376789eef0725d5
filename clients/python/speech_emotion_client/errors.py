"""Why a call gave no answer: one tree of exceptions, decoded from google.rpc details.

    SpeechEmotionError
    ├── InvalidRequest           an option or the whole request is wrong; also a ValueError
    │   └── InvalidAudio         the audio is wrong: empty, too long, not audio
    ├── NotFound                 no such model
    ├── CacheMiss                cache="only", and nothing was cached
    ├── Unauthenticated          no or bad API key
    ├── PermissionDenied
    ├── Overloaded               shed by load or quota; `retry_after` says when to come back
    ├── Unavailable              nobody answers, or the server starts or drains
    ├── DeadlineExceeded         the deadline passed, or cannot be met
    ├── StreamAborted            the server ended a stream before its summary
    │   └── StreamLost           a broken stream could not be resumed
    └── ServerError              a fault of the server; `request_id` is in its log

Knows nothing of audio or results.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

PUSHBACK = "grpc-retry-pushback-ms"
AUDIO_REASONS = ("AUDIO_", "FORMAT_", "SAMPLE_RATE_")


class SpeechEmotionError(Exception):
    """Base of all; the text is for people, the attributes are for programs.

    `code` is the gRPC status ("INVALID_ARGUMENT"), `reason` the server's stable UPPER_SNAKE word or
    "", `field` the path of the guilty field or "", `metadata` every variable part of the text
    (limits, actual values), `retry_after` seconds or None, `request_id` what the server
    logged, or "".
    """

    def __init__(
        self,
        text: str,
        *,
        code: str = "",
        reason: str = "",
        field: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata)
        self.retry_after = retry_after
        self.request_id = request_id


class InvalidRequest(SpeechEmotionError, ValueError):
    """The request cannot be served as it is; sending it again is of no use."""


def check_count(name: str, value: int) -> None:
    """Raises InvalidRequest for what no field of a message holds."""
    if not 0 <= value < 2**32:
        raise InvalidRequest(f"{name} is {value}, not a count.", field=name)


class InvalidAudio(InvalidRequest):
    """The audio cannot be analysed; sending it again is of no use."""


class NotFound(SpeechEmotionError):
    """The server has no model of that name."""


class CacheMiss(SpeechEmotionError):
    """Only a cached answer was wanted, and there is none."""


class Unauthenticated(SpeechEmotionError):
    """The API key is missing or wrong."""


class PermissionDenied(SpeechEmotionError):
    """The API key is good, but not for this."""


class Overloaded(SpeechEmotionError):
    """The server shed the call, also after retries; `retry_after` (seconds) if it said when."""


class Unavailable(SpeechEmotionError):
    """No server answers (`reason` is then ""), or it is starting or draining."""


class DeadlineExceeded(SpeechEmotionError):
    """The call's timeout passed, retries included, or the server saw that it cannot be met."""


class StreamAborted(SpeechEmotionError):
    """The server ended the stream: idle or open for too long, or taken over by another."""


class StreamLost(StreamAborted):
    """A broken stream could not be resumed; what is final so far stays so, the rest is lost."""


class ServerError(SpeechEmotionError):
    """Something unforeseen in the server; give `request_id` to whoever runs it."""


BY_CODE: Mapping[str, type[SpeechEmotionError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": InvalidRequest,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": Overloaded,
    "ABORTED": StreamAborted,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": SpeechEmotionError,  # the client was closed under the call
}


def error_class(code: str, reason: str, field: str) -> type[SpeechEmotionError]:
    if reason == "CACHE_MISS":
        return CacheMiss
    if reason == "PAYLOAD_TOO_LARGE":
        return InvalidRequest
    kind = BY_CODE.get(code, ServerError)
    about_audio = field.partition(".")[0] == "audio_data" or reason.startswith(AUDIO_REASONS)
    return InvalidAudio if kind is InvalidRequest and about_audio else kind


def from_status(status: status_pb2.Status, pushback: float | None = None) -> SpeechEmotionError:
    """The error that a google.rpc.Status describes; `pushback` in seconds if there was one."""
    info, bad, retry, request = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
        error_details_pb2.RequestInfo(),
    )
    for detail in status.details:
        for message in (info, bad, retry, request):
            detail.Unpack(message)
    code = code_pb2.Code.Name(status.code) if status.code in code_pb2.Code.values() else "UNKNOWN"
    # gRPC itself, on either side, answers a message over its limit with this text and no details.
    oversize = code == "RESOURCE_EXHAUSTED" and "larger than max" in status.message
    reason = info.reason or ("PAYLOAD_TOO_LARGE" if oversize else "")
    field = bad.field_violations[0].field if bad.field_violations else ""
    delay = (
        retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    )
    return error_class(code, reason, field)(
        status.message or code,
        code=code,
        reason=reason,
        field=field,
        metadata=info.metadata,
        retry_after=pushback if delay is None else delay,
        request_id=request.request_id or info.metadata.get("request_id", ""),
    )


def from_rpc_error(error: grpc.RpcError) -> SpeechEmotionError:
    """The typed form of what a stub raised; without details, from the code alone."""
    status = _rich_status(error) or status_pb2.Status(
        code=error.code().value[0], message=error.details() or ""
    )
    return from_status(status, _pushback(error))


def _rich_status(error: Any) -> status_pb2.Status | None:
    # Details that contradict the status, or are no details, come from a broken proxy: ignored.
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError):
        return None


def _pushback(error: Any) -> float | None:
    """Seconds; None if the server named none, or forbade a retry with a negative one."""
    for key, value in error.trailing_metadata() or ():
        if key == PUSHBACK and str(value).isdigit():
            return int(value) / 1000
    return None
