"""AnalyzeStream: opens sessions, resumes them, and ends every stream with its last word."""

import asyncio
import secrets
from collections.abc import Coroutine
from concurrent.futures import Executor
from typing import Any
from uuid import uuid4

import grpc
from grpc import StatusCode

from batcher import Batcher, Closed
from server.audio import AudioLimits
from server.audio.incremental import open_intake
from server.errors import (
    CacheMiss,
    ModelNotFound,
    SessionNotFound,
    StreamAborted,
    TooManyStreams,
    Unforeseen,
    failure_of,
)
from server.service.answer import resource_name
from server.service.calls import Call, Context
from server.service.stream_config import Order, fields_of_config, read_config
from server.service.stream_connection import Connection
from server.service.stream_messages import Result
from server.service.stream_outbox import Workshop
from server.speech import InvalidInput, Model, Prediction, Utterance
from server.streaming.plan import Speech, StreamLimits, segmenter_for
from server.streaming.session import Session
from server.streaming.sessions import Sessions
from server.streaming.voice import silero

LAST_SECONDS = 0.9
"""Share of the time to drain after which streams are ended, so that all hear why."""


TICK = 0.01
"""Seconds; a timer may be early by the resolution of the loop's clock."""


class Streams:
    """The streams of this server. An error before the first event is trailers-only, so that it
    can be retried; any other is an event first, and then the status of the call."""

    def __init__(
        self,
        batcher: Batcher[Utterance, Prediction],
        model: Model,
        limits: StreamLimits,
        audio: AudioLimits,
        decoders: Executor,
        *,
        max_decoders: int,
        embedding_seconds: float,
    ) -> None:
        self._shop = Workshop(
            batcher=batcher, model=model, limits=limits, decoders=decoders, apart=self._apart
        )
        self._audio = audio
        self._max_decoders = max_decoders
        self._embedding_seconds = embedding_seconds
        self._sessions = Sessions(limits.max_sessions, limits.resume_window)
        self._connections: dict[str, Connection] = {}  # by resume token
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    def __repr__(self) -> str:
        return f"<Streams open={len(self._connections)} sessions={len(self._sessions)}>"

    async def serve(self, context: Context, call: Call) -> None:
        """One call, from its first message to its last."""
        connection = await self._open(context, call)
        session = connection.session
        self._connections[session.token] = connection
        keep = False
        try:
            await connection.run()
        except asyncio.CancelledError:
            keep = True
            raise
        except Exception as error:
            keep = isinstance(error, StreamAborted) and bool(error.token)
            connection.detach()
            named = _named(error)
            await connection.say_last(failure_of(named).status)
            raise named from error
        finally:
            self._settle(connection, keep=keep)

    def drain(self, grace: float) -> None:
        """Opens no more streams, and ends those there are within `grace` seconds."""
        self._draining = True
        ends_at = asyncio.get_running_loop().time() + LAST_SECONDS * grace
        for connection in self._connections.values():
            connection.drain(ends_at)

    def close(self) -> None:
        """Forgets every session."""
        for session in list(self._sessions):
            self._sessions.remove(session)

    async def _open(self, context: Context, call: Call) -> Connection:
        config = await self._first_message(context)
        if self._draining:
            raise Closed
        order = read_config(config, self._shop.limits, self._embedding_seconds)
        call.named(order.query.request_id)
        self._check(order)
        token = config.resume_token
        session = await (self._resume(token, order) if token else self._begin(order, call.tenant))
        speech = isinstance(order.segmentation, Speech)
        off_loop = speech or session.source.container != "raw"
        return Connection(self._shop, session, order, context, call, off_loop=off_loop)

    async def _first_message(self, context: Context) -> Any:
        messages: list[Any] = []

        async def read() -> None:
            messages.append(await context.read())

        # In a task that the end of this call does not cancel: a cancelled read leaks.
        idle = self._shop.limits.idle_timeout
        await asyncio.wait({self._apart(read())}, timeout=idle)
        if not messages:
            raise StreamAborted("STREAM_IDLE", f"Nothing came for {idle:g} s.")
        message = messages[0]
        ended = message is grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
        if ended or message.WhichOneof("payload") != "config":
            text = "The first message of a stream is its config."
            raise InvalidInput("CONFIG_REQUIRED", text, field="config")
        return message.config

    def _check(self, order: Order) -> None:
        name, model = order.query.model, self._shop.model
        if name not in {"", f"models/{model.name}", resource_name(model)}:
            raise ModelNotFound(name)
        if order.query.cache_only:
            raise CacheMiss("Streams are not cached.")

    async def _begin(self, order: Order, tenant: str) -> Session[Result]:
        if not self._sessions.has_room(tenant):
            raise TooManyStreams(self._shop.limits.max_sessions, retry_after=1.0)
        with fields_of_config():
            source = open_intake(order.query.described, self._audio)
        if source.container != "raw" and self._decoding() >= self._max_decoders:
            raise TooManyStreams(self._max_decoders, retry_after=1.0)
        loop = asyncio.get_running_loop()
        segmenter = await loop.run_in_executor(
            self._shop.decoders, segmenter_for, order.segmentation, order.interval, silero
        )
        session: Session[Result] = Session(
            identity=uuid4().hex,
            token=secrets.token_urlsafe(24),
            tenant=tenant,
            config=order.identity,
            source=source,
            segmenter=segmenter,
            labels=len(self._shop.model.labels),
            now=loop.time(),
        )
        self._sessions.add(session)
        return session

    async def _resume(self, token: str, order: Order) -> Session[Result]:
        session = self._sessions.find(token)
        if session is None:
            raise SessionNotFound
        if session.config != order.identity:
            text = "A stream is resumed with the config it was opened with."
            raise InvalidInput("CONFIG_CHANGED", text, field="config")
        self._sessions.attach(session)
        while (old := self._connections.get(token)) is not None:  # others may resume it meanwhile
            await old.hand_over()
            if self._connections.get(token) is old:
                del self._connections[token]
        if self._sessions.find(token) is None:  # it had just ended
            raise SessionNotFound
        return session

    def _settle(self, connection: Connection, *, keep: bool) -> None:
        """The connection has ended; its session waits to be resumed, or is over."""
        session = connection.session
        if self._connections.get(session.token) is connection:
            del self._connections[session.token]
        if connection.handed_over:
            return
        if not keep:
            self._sessions.remove(session)
            return
        loop = asyncio.get_running_loop()
        self._sessions.park(session, loop.time())
        loop.call_later(self._shop.limits.resume_window + TICK, self._expire)

    def _expire(self) -> None:
        self._sessions.expire(asyncio.get_running_loop().time())

    def _decoding(self) -> int:
        return sum(session.source.container != "raw" for session in self._sessions)

    def _apart(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that outlives whoever starts it; a loop alone would let it be collected."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # only a read that fails because its call is over


def _named(error: Exception) -> Exception:
    """An error that is not in the table gets its id here, so that event and status agree."""
    failure = failure_of(error)
    if failure.code is StatusCode.INTERNAL and not isinstance(error, Unforeseen):
        return Unforeseen(failure.metadata["id"])
    return error
