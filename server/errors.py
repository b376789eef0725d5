"""The one table: what went wrong -> the gRPC status, reason and details that the caller sees.

Every failure carries `google.rpc.ErrorInfo`. Text written for the caller is sent; the text of an
unforeseen exception never is: it goes to the log under an id, and the caller gets the id.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    QuotaFailure,
    RequestInfo,
    ResourceInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from grpc import StatusCode

import batcher
from server.speech import InvalidInput

DOMAIN = "speechemotion"
PUSHBACK = "grpc-retry-pushback-ms"
MAX_MODEL_NAME = 128  # characters; what is longer is not repeated: clients take 8 KB of trailers
CALLS_RETRY = 0.2  # s; about the time of a call
NOT_READY_RETRY = 1.0  # s; long enough for a load balancer to have moved on


class ModelNotFound(Exception):
    """The caller names a model that this server does not serve; `field` is where."""

    def __init__(self, name: str, *, field: str = "model") -> None:
        super().__init__("This server has no model of that name.")
        self.name = name
        self.field = field


class CacheMiss(Exception):
    """The caller wants a cached answer or none, and there is none."""


class StreamAborted(Exception):
    """A stream ended before its time; `reason` is UPPER_SNAKE, `token` opens it again if any."""

    def __init__(self, reason: str, text: str, token: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.token = token


class SessionNotFound(Exception):
    """The resume token is unknown here, or its time is over."""

    def __init__(self) -> None:
        super().__init__("There is no such session; open a new stream.")


class SessionStoreUnavailable(Exception):
    """The session may be one of another replica; at the moment nobody can say."""


class TooManyStreams(Exception):
    """The caller has as many streams as it may."""

    def __init__(self, limit: int, retry_after: float) -> None:
        super().__init__(f"{limit} streams of yours are open, and no more are allowed.")
        self.retry_after = retry_after


class Unauthenticated(Exception):
    """A key is needed, and there is none or not one of ours."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class TooManyCalls(Exception):
    """The server works on as many calls as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} calls are in progress, and no more are allowed.")


class NoRoom(Exception):
    """The disk cannot take the file that has to wait there."""

    def __init__(self) -> None:
        super().__init__("The disk of this server has no room for the file at the moment.")


class Unforeseen(Exception):
    """Not in the table: the log has the cause under `id`."""

    def __init__(self, identity: str) -> None:
        super().__init__(f"Internal error {identity}; the server's log has the details.")
        self.id = identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as the caller sees it."""

    code: StatusCode
    reason: str  # UPPER_SNAKE, stable
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    details: tuple[Message, ...] = ()
    retry_after: float | None = None  # s; None: nothing is said, negative: do not retry

    @property
    def status(self) -> Status:
        """The same as `google.rpc.Status`, ErrorInfo first."""
        info = ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        value: int = self.code.value[0]
        details = [_pack(message) for message in (info, *self.details)]
        return Status(code=value, message=self.text, details=details)

    @property
    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """Trailing metadata: details for the caller, pushback for its gRPC library."""
        details = ("grpc-status-details-bin", self.status.SerializeToString())
        if self.retry_after is None:
            return (details,)
        pushback = max(-1, math.ceil(1000 * self.retry_after))
        return (details, (PUSHBACK, str(pushback)))


def failure_of(error: BaseException) -> Failure:
    """What the caller is told of `error`; an exception outside the table becomes `Unforeseen`."""
    match error:
        case InvalidInput():
            return _invalid(error)
        case ModelNotFound() if len(error.name) > MAX_MODEL_NAME:
            return _invalid(_name_too_long(error))
        case ModelNotFound():
            return _model_not_found(error)
        case CacheMiss():
            return _plain(StatusCode.FAILED_PRECONDITION, "CACHE_MISS", str(error))
        case StreamAborted():
            token = {"resume_token": error.token} if error.token else {}
            return _plain(StatusCode.ABORTED, error.reason, str(error), **token)
        case SessionNotFound():
            return _plain(StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", str(error))
        case SessionStoreUnavailable():
            text = "Sessions of other replicas cannot be found at the moment."
            return _unavailable("SESSION_STORE_UNAVAILABLE", text)
        case TooManyStreams():
            return _shed("TOO_MANY_STREAMS", str(error), error.retry_after)
        case Unauthenticated():
            return _plain(StatusCode.UNAUTHENTICATED, error.reason, str(error))
        case TooManyCalls():
            return _shed("TOO_MANY_CALLS", str(error), CALLS_RETRY)
        case NoRoom():
            return _shed("DISK_FULL", str(error), NOT_READY_RETRY)
        case batcher.BatcherError():
            return _not_served(error)
        case Unforeseen():
            return _unforeseen(error)
        case _:
            return failure_of(Unforeseen(uuid4().hex))


def _not_served(error: batcher.BatcherError) -> Failure:
    match error:
        case batcher.QueueFull():
            return _shed("QUEUE_FULL", "Too many requests are waiting.", error.retry_after)
        case batcher.TenantLimit():
            return _quota(error)
        case batcher.DeadlineUnmeetable(by_load=True):
            text = "The requests that are waiting leave no time to meet the deadline."
            return _shed("DEADLINE_UNMEETABLE", text, error.retry_after)
        case batcher.DeadlineUnmeetable():
            text = "The deadline is shorter than the analysis takes."
            return _plain(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_UNMEETABLE", text)
        case batcher.DeadlineExpired():
            text = "The deadline passed while the request waited."
            return _plain(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED", text)
        case batcher.Closed():
            return _unavailable("DRAINING", "The server is shutting down.")
        case _:
            return failure_of(Unforeseen(uuid4().hex))


def _invalid(error: InvalidInput) -> Failure:
    violation = BadRequest.FieldViolation(
        field=error.field, description=str(error), reason=error.reason
    )
    return Failure(
        code=StatusCode.INVALID_ARGUMENT,
        reason=error.reason,
        text=str(error),
        metadata={"field": error.field, **error.metadata},
        details=(BadRequest(field_violations=[violation]),),
    )


def _name_too_long(error: ModelNotFound) -> InvalidInput:
    limit, actual = MAX_MODEL_NAME, len(error.name)
    text = f"The name of a model has at most {limit} characters, not {actual}."
    return InvalidInput("FIELD_INVALID", text, field=error.field, limit=limit, actual=actual)


def _model_not_found(error: ModelNotFound) -> Failure:
    text = f"This server has no model named {error.name!r}; ListModels says what it has."
    resource = ResourceInfo(
        resource_type="speechemotion.v1.Model", resource_name=error.name, description=text
    )
    return Failure(
        code=StatusCode.NOT_FOUND,
        reason="MODEL_NOT_FOUND",
        text=text,
        metadata={"model": error.name},
        details=(resource,),
    )


def _plain(code: StatusCode, reason: str, text: str, **metadata: str) -> Failure:
    return Failure(code=code, reason=reason, text=text, metadata=metadata)


def _unforeseen(error: Unforeseen) -> Failure:
    return Failure(
        code=StatusCode.INTERNAL,
        reason="INTERNAL",
        text=str(error),
        metadata={"id": error.id},
        details=(RequestInfo(request_id=error.id),),
    )


def _shed(reason: str, text: str, retry_after: float) -> Failure:
    return Failure(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason=reason,
        text=text,
        details=(_retry_info(retry_after),),
        retry_after=retry_after,
    )


def _quota(error: batcher.TenantLimit) -> Failure:
    text = "Too many of your requests are in flight."
    violation = QuotaFailure.Violation(subject="client", description=text)
    return Failure(
        code=StatusCode.RESOURCE_EXHAUSTED,
        reason="TENANT_LIMIT",
        text=text,
        details=(QuotaFailure(violations=[violation]), _retry_info(error.retry_after)),
        retry_after=error.retry_after,
    )


def _unavailable(reason: str, text: str) -> Failure:
    return Failure(
        code=StatusCode.UNAVAILABLE,
        reason=reason,
        text=text,
        details=(_retry_info(NOT_READY_RETRY),),
        retry_after=NOT_READY_RETRY,
    )


def _retry_info(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(math.ceil(1000 * seconds))
    return RetryInfo(retry_delay=delay)


def _pack(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
