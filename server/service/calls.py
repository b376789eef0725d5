"""What every RPC has in common: an id, a report at the end, and errors as statuses."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from os import urandom
from time import monotonic, time
from typing import TypeAlias
from urllib.parse import unquote

import grpc

from server.errors import Failure, TooManyCalls, failure_of
from server.service.callers import MAX_LENGTH, Callers, header
from server.service.callers import Context as Context
from server.telemetry import CallReport

MAX_REQUEST_ID = MAX_LENGTH

Trailers: TypeAlias = tuple[tuple[str, str | bytes], ...]


@dataclass(slots=True)
class Call:
    """One RPC in progress; what is learnt on the way goes into its report."""

    method: str
    peer: str
    arrived_at: float  # monotonic seconds, the clock of the event loop
    deadline: float  # the same clock; inf if the caller set none
    request_id: str
    client: str = ""  # see callers.py
    audio_seconds: float = 0.0

    @property
    def tenant(self) -> str:
        """Who shares a fair part of the queue: the named caller, or all of one address."""
        return self.client or self.peer.rpartition(":")[0]

    def named(self, request_id: str) -> None:
        """The request brings an id of its own, stronger than the header's; ignored if too long."""
        if 0 < len(request_id) <= MAX_REQUEST_ID:
            self.request_id = request_id


class Calls:
    """The calls in flight. Every RPC of ours runs inside `answering`."""

    def __init__(
        self,
        on_call: Callable[[CallReport], None],
        trailers: Callable[[], Trailers] = tuple,
        *,
        callers: Callers | None = None,
        max_calls: int = 0,
    ) -> None:
        """`max_calls` is the most `limited` calls at a time, 0 for no limit."""
        self._on_call = on_call
        self._max_calls = max_calls
        self._limited = 0
        self._trailers = trailers
        self._callers = callers or Callers(trust_proxy=False)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Calls running={self._running}>"

    async def idle(self) -> None:
        """Returns as soon as no call is in flight."""
        await self._idle.wait()

    def answering(self, context: Context, method: str, *, limited: bool = False) -> "_Answering":
        """Around the body of an RPC; yields its Call.

        Ends the call with the status that the table of errors gives for what is raised. One
        `limited` call too many ends before its body.
        """
        return _Answering(self, context, method, limited)

    def begin(self, call: Call, context: Context, *, limited: bool) -> None:
        """Counts it. Raises TooManyCalls, Unauthenticated."""
        self._running += 1
        self._limited += limited
        self._idle.clear()
        _at_the_end(self._left)
        if limited and 0 < self._max_calls < self._limited:
            raise TooManyCalls(self._max_calls)
        call.client = self._callers.name(context)

    async def end(self, call: Call, context: Context, error: BaseException | None) -> None:
        """Reports it, and tells its caller if it failed."""
        if error is None:
            if trailers := self._trailers():
                context.set_trailing_metadata(trailers)
            self._report(call, "OK", "")
        elif isinstance(error, asyncio.CancelledError):
            self._report(call, "CANCELLED", "")
        elif isinstance(error, Exception):
            await self._abort(call, context, error)

    def forget(self, *, limited: bool) -> None:
        """Its handler is over, however it ended."""
        self._limited -= limited

    def _left(self, _: object) -> None:
        """Its answer is not only made, but on its way."""
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def _abort(self, call: Call, context: Context, error: Exception) -> None:
        failure = self.failure(call, error)
        if failure.code is not grpc.StatusCode.INTERNAL:
            self._report(call, failure.code.name, failure.reason)
        try:
            await context.abort(failure.code, failure.text, failure.trailers)
        except grpc.aio.AbortError as aborted:
            _at_the_end(partial(_let_go, aborted))
            raise

    def failure(self, call: Call, error: BaseException) -> Failure:
        """What the caller is told; an unforeseen cause is reported here, under the caller's id."""
        failure = failure_of(error)
        if failure.code is grpc.StatusCode.INTERNAL:
            self._report(call, "INTERNAL", failure.reason, failure.metadata["id"], error)
        return failure

    def _report(
        self,
        call: Call,
        code: str,
        reason: str,
        error_id: str = "",
        cause: BaseException | None = None,
    ) -> None:
        self._on_call(
            CallReport(
                method=call.method,
                code=code,
                reason=reason,
                request_id=call.request_id,
                peer=call.peer,
                client=call.client,
                ended_at=time(),
                seconds=monotonic() - call.arrived_at,
                audio_seconds=call.audio_seconds,
                error_id=error_id,
                cause=cause,
            )
        )


class _Answering:
    """A class, because every call pays for it: a generator would cost twice as much."""

    __slots__ = ("_call", "_calls", "_context", "_limited")

    def __init__(self, calls: Calls, context: Context, method: str, limited: bool) -> None:
        self._calls = calls
        self._context = context
        self._limited = limited
        self._call = _begin(context, method)

    async def __aenter__(self) -> Call:
        try:
            self._calls.begin(self._call, self._context, limited=self._limited)
        except Exception as error:
            await self.__aexit__(type(error), error, None)
        return self._call

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: object
    ) -> None:
        try:
            await self._calls.end(self._call, self._context, error)
        finally:
            self._calls.forget(limited=self._limited)


def _at_the_end(callback: Callable[[object], None]) -> None:
    """Calls it once the RPC of this task is over, its status sent.

    As the context's own callbacks, but those keep the context, and so what gRPC has of the call,
    until Python looks for cycles.
    """
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(callback)


def _let_go(aborted: BaseException, _: object) -> None:
    """Of what the caller sent, which is in the frames that the error has come through.

    gRPC keeps the error with the call, and the frames have the call's context: a cycle, which would
    keep the audio of refused calls until Python looks for cycles.
    """
    aborted.__traceback__ = aborted.__context__ = None


def _begin(context: Context, method: str) -> Call:
    now = monotonic()
    remaining = context.time_remaining()
    return Call(
        method=method,
        peer=unquote(context.peer()),
        arrived_at=now,
        deadline=float("inf") if remaining is None else now + remaining,
        request_id=header(context, "x-request-id") or urandom(16).hex(),
    )
