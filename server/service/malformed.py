"""Bytes that are no message of ours are the caller's mistake; gRPC would call them UNKNOWN."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.service.calls import Calls, Context
from server.speech import InvalidInput

Deserialize = Callable[[bytes], Any]


class Registry:
    """Stands for a server while services of ours are added to it, by their generated functions."""

    def __init__(
        self, server: grpc.aio.Server, calls: Calls, readers: Mapping[str, Deserialize]
    ) -> None:
        """`readers`: of methods by their full names, instead of the generated ones."""
        self._server = server
        self._calls = calls
        self._readers = readers

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Registered ones come first; these are the same, for servers that know no others."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        ours = {name: self._ours(f"{service}/{name}", one) for name, one in handlers.items()}
        self._server.add_registered_method_handlers(service, ours)  # type: ignore[attr-defined]  # the stubs lack it

    def _ours(self, method: str, handler: Any) -> Any:
        read = self._readers.get(method, handler.request_deserializer)
        handler = handler._replace(request_deserializer=read)
        if handler.request_streaming:
            return _streaming(handler)
        return _unary(handler, self._calls, method)


def _streaming(handler: Any) -> Any:
    """Its reads raise InvalidInput."""
    read: Deserialize = handler.request_deserializer

    def deserialize(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError as error:
            raise _malformed() from error

    return handler._replace(request_deserializer=deserialize)


def _unary(handler: Any, calls: Calls, method: str) -> Any:
    """What its deserializer raised would end in gRPC, so it is handed on and raised here."""
    read: Deserialize = handler.request_deserializer
    answer: Callable[[Any, Context], Awaitable[Any]] = handler.unary_unary

    def deserialize(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return None

    async def answer_or_refuse(request: Any, context: Context) -> Any:
        if request is None:
            async with calls.answering(context, method):
                raise _malformed()
        return await answer(request, context)

    return handler._replace(request_deserializer=deserialize, unary_unary=answer_or_refuse)


def _malformed() -> InvalidInput:
    text = "The request is no message of this method: its bytes do not parse."
    return InvalidInput("REQUEST_MALFORMED", text, field="")
