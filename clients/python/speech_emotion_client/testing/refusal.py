"""How a scripted server says no: a status, its details and its pushback."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Never

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from speech_emotion_client.errors import PUSHBACK


class Refusal(Exception):
    """Raised by an answer, the call fails with this status, its details and its pushback.

    retry_after in seconds becomes RetryInfo; pushback_ms the trailer that gRPC obeys.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        text: str = "",
        *,
        reason: str = "",
        field: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        retry_after: float | None = None,
        pushback_ms: int | None = None,
    ) -> None:
        super().__init__(text)
        details: list[Any] = []
        if reason:
            info = {"reason": reason, "domain": "speechemotion", "metadata": metadata}
            details.append(error_details_pb2.ErrorInfo(**info))
        if field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if retry_after is not None:
            delay = duration_pb2.Duration(nanos=round(retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        self.status = status_pb2.Status(code=code.value[0], message=text)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            self.status.details.append(packed)
        self.pushback_ms = pushback_ms


def abort(context: grpc.ServicerContext, refusal: Refusal) -> Never:
    # One tuple: abort_with_status forgets what set_trailing_metadata was given.
    status: Any = rpc_status.to_status(refusal.status)
    trailers = status.trailing_metadata
    if refusal.pushback_ms is not None:
        trailers = (*trailers, (PUSHBACK, str(refusal.pushback_ms)))
    context.abort_with_status(status._replace(trailing_metadata=trailers))
    raise AssertionError("unreachable: abort raises")
