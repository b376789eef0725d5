"""Bytes that are no message of ours are the caller's mistake; gRPC would call them UNKNOWN."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.service.calls import Calls, Context
from server.speech import InvalidInput

Deserialize = Callable[[bytes], Any]

GONE = 0.05
"""Seconds in which gRPC cancels us if the caller went away, which may look like an end at first."""


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
            raise _malformed("its bytes do not parse") from error

    return handler._replace(request_deserializer=deserialize)


def _unary(handler: Any, calls: Calls, method: str) -> Any:
    """As a stream of one message, which is the same to callers.

    What a unary deserializer raises ends in gRPC. And without a whole message gRPC calls no unary
    handler: the caller would hear nothing until his deadline (grpc/grpc#5268).
    """
    answer: Callable[[Any, Context], Awaitable[Any]] = handler.unary_unary

    async def read_and_answer(_: object, context: Context) -> Any:
        try:
            request = await _only_message(context)
        except InvalidInput:
            async with calls.answering(context, method):
                raise
        return await answer(request, context)

    return _streaming(handler)._replace(
        request_streaming=True, unary_unary=None, stream_unary=read_and_answer
    )


async def _only_message(context: Context) -> Any:
    """Raises InvalidInput."""
    request = await context.read()
    if request is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
        await asyncio.sleep(GONE)
        raise _malformed("it ended within or before it")
    return request


def _malformed(why: str) -> InvalidInput:
    text = f"The request is no message of this method: {why}."
    return InvalidInput("REQUEST_MALFORMED", text, field="")
