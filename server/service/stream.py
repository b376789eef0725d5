"""AnalyzeStream: opens sessions, resumes them, and ends every stream with its last word."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any
from uuid import uuid4

from grpc import StatusCode

from batcher import Batcher, Closed
from server.audio import AudioLimits
from server.errors import (
    SessionNotFound,
    StreamAborted,
    TooManyStreams,
    Unforeseen,
    failure_of,
)
from server.service.calls import Call, Context
from server.service.door import Door
from server.service.stream_config import Order, read_config
from server.service.stream_connection import Connection
from server.service.stream_messages import Result
from server.service.stream_opening import Opening
from server.service.stream_outbox import Workshop
from server.service.stream_sharing import Sharing
from server.service.stream_store import SessionStore
from server.speech import InvalidInput, Model, Prediction, Utterance
from server.streaming.plan import StreamLimits
from server.streaming.session import Session
from server.streaming.sessions import Sessions
from server.telemetry import StreamEvent, StreamReport, WindowReport

LAST_SHARE, LAST_SECONDS = 0.1, 0.5
"""Streams are ended so long before the time to drain is over, so that all hear why: a tenth of it,
but half a second (or half of it) at least."""

MOVING = 2.0
"""Seconds for a stream to hear what is being computed, before it goes on at another replica."""

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
        door: Door,
        *,
        max_decoders: int,
        embedding_seconds: float,
        strained: Callable[[], bool],
        report: Callable[[StreamReport | WindowReport], None],
        store: SessionStore | None = None,
    ) -> None:
        """`strained`: whether interim results are what the server goes without now.

        Without a `store` a session can be resumed on this replica only.
        """
        self._shop = Workshop(
            batcher=batcher,
            model=model,
            limits=limits,
            decoders=decoders,
            apart=self._apart,
            strained=strained,
            report=report,
        )
        self._opening = Opening(self._shop, door, audio)
        self._max_decoders = max_decoders
        self._embedding_seconds = embedding_seconds
        self._sharing = Sharing(store, self._shop, self._opening) if store else None
        self._sessions = Sessions(limits.max_sessions, limits.resume_window)
        self._connections: dict[str, Connection] = {}  # by resume token
        self._leaving: dict[str, asyncio.Task[None]] = {}  # ended, still at work
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._none_open = asyncio.Event()
        self._none_open.set()

    def __repr__(self) -> str:
        return f"<Streams open={len(self._connections)} sessions={len(self._sessions)}>"

    async def ended(self) -> None:
        """Returns as soon as none is open."""
        await self._none_open.wait()

    async def serve(self, context: Context, call: Call) -> None:
        """One call, from its first message to its last."""
        connection = await self._open(context, call)
        session = connection.session
        self._connections[session.token] = connection
        self._none_open.clear()
        self._report(StreamEvent.OPENED, connection.order)
        keep = drained = False
        try:
            await connection.run()
        except asyncio.CancelledError:
            keep = True
            raise
        except Exception as error:
            keep = isinstance(error, StreamAborted) and bool(error.token)
            drained = isinstance(error, Closed)
            connection.detach()
            failure = failure_of(error)
            await connection.say_last(failure.status)
            if failure.code is StatusCode.INTERNAL:  # event and status have the same id
                raise Unforeseen(failure.metadata["id"]) from error
            raise
        finally:
            self._report(StreamEvent.CLOSED, connection.order)
            self._settle(connection, keep=keep, drained=drained)
            if not self._connections:
                self._none_open.set()

    def drain(self, grace: float) -> None:
        """Opens no more streams, and ends those there are within `grace` seconds.

        Those that can go on at another replica are sent there at once.
        """
        self._draining = True
        now = asyncio.get_running_loop().time()
        longest = grace - max(LAST_SHARE * grace, min(LAST_SECONDS, grace / 2))
        for connection in self._connections.values():
            moves = self._sharing is not None and self._sharing.is_kept(connection.session)
            connection.drain(now + (min(MOVING, longest) if moves else longest))

    def close(self) -> None:
        """Forgets every session."""
        for session in list(self._sessions):
            self._sessions.remove(session)

    async def _open(self, context: Context, call: Call) -> Connection:
        config = await self._opening.config(context)
        if self._draining:
            raise Closed
        order = read_config(config, self._shop.limits, self._embedding_seconds)
        call.named(order.query.request_id)
        self._opening.check(order)
        token = config.resume_token
        session = await (self._resume(token, order) if token else self._begin(order, call))
        keeper = self._sharing.keeper(session.token) if self._sharing else None
        return Connection(self._shop, session, order, context, call, keeper)

    async def _begin(self, order: Order, call: Call) -> Session[Result]:
        self._opening.admit(call, order)
        if not self._sessions.has_room(call.tenant):
            raise TooManyStreams(self._shop.limits.max_sessions, retry_after=1.0)
        if order.container and self._decoding() >= self._max_decoders:
            raise TooManyStreams(self._max_decoders, retry_after=1.0)
        session = await self._opening.session(
            order, identity=uuid4().hex, token=secrets.token_urlsafe(24), tenant=call.tenant
        )
        self._sessions.add(session)
        if self._sharing is not None:
            self._sharing.keep(session)
        return session

    async def _resume(self, token: str, order: Order) -> Session[Result]:
        session = await self._find(token, order)
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
        if (last := self._leaving.get(token)) is not None:
            await asyncio.wait({last})
        if self._sessions.find(token) is None:  # it had just ended
            raise SessionNotFound
        return session

    async def _find(self, token: str, order: Order) -> Session[Result] | None:
        """Here, or where replicas share their sessions."""
        sharing, session = self._sharing, self._sessions.find(token)
        if sharing is not None and session is not None and await sharing.is_elsewhere(token):
            await self._let_go(token)
        elif session is not None:
            self._report(StreamEvent.RESUMED, order)
            return self._sessions.find(token)
        if sharing is None:
            return None
        session = await sharing.take_over(token, order)
        if session is None or self._sessions.find(token) is not None:  # two came at once
            return self._sessions.find(token)
        if not self._sessions.has_room(session.tenant):
            raise TooManyStreams(self._shop.limits.max_sessions, retry_after=1.0)
        self._sessions.add(session)
        self._report(StreamEvent.TAKEN_OVER, order)
        return session

    async def _let_go(self, token: str) -> None:
        """Another replica has gone on with this session, and is ahead of ours."""
        if (connection := self._connections.pop(token, None)) is not None:
            await connection.hand_over()
        if self._sharing is not None:
            self._sharing.let_go(token)
        if (session := self._sessions.find(token)) is not None:
            self._sessions.remove(session)

    def _settle(self, connection: Connection, *, keep: bool, drained: bool) -> None:
        """The connection has ended; its session waits to be resumed somewhere, or is over."""
        session = connection.session
        if self._connections.get(session.token) is connection:
            del self._connections[session.token]
        if connection.handed_over:
            return
        if not keep:
            self._sessions.remove(session)
            if self._sharing is not None and not drained:
                self._sharing.forget(session)
            return
        self._leaving[session.token] = self._apart(self._leave(connection))
        loop = asyncio.get_running_loop()
        self._sessions.park(session, loop.time())
        loop.call_later(self._shop.limits.resume_window + TICK, self._expire)

    async def _leave(self, connection: Connection) -> None:
        """What is being decided in a thread still goes back to the session."""
        await connection.quiet()
        del self._leaving[connection.session.token]

    def _expire(self) -> None:
        self._sessions.expire(asyncio.get_running_loop().time())
        if self._sharing is not None:
            self._sharing.prune({session.token for session in self._sessions})

    def _report(self, event: StreamEvent, order: Order) -> None:
        segmentation = order.effective.WhichOneof("segmentation") or ""
        self._shop.report(StreamReport(event, order.pacing, segmentation))

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
