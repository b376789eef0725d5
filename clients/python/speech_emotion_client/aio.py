"""The asyncio client: method for method the blocking one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Self, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from . import channel, outcome, request, result, server, window
from .audio import AudioSource
from .errors import DeadlineExceeded, SpeechEmotionError, Unavailable, from_rpc_error
from .outcome import Outcome
from .request import AnalyzeOptions, Call
from .streaming.chunks import StreamSource, chunks_of
from .streaming.options import StreamCall, StreamOptions
from .streaming.stream import EmotionStream
from .v1 import emotion_service_pb2, emotion_service_pb2_grpc, model_service_pb2
from .v1 import model_service_pb2_grpc as model_grpc


class AsyncClient:
    """As Client, on the event loop that runs when it is made."""

    def __init__(
        self,
        target: str = channel.DEFAULT_TARGET,
        *,
        timeout: float = channel.DEFAULT_TIMEOUT,
        retries: int = 3,
        api_key: str | None = None,
        tls: channel.ServerTLS = False,
        max_message_bytes: int = channel.MAX_MESSAGE_BYTES,
    ) -> None:
        self._connection = channel.Connection(
            target=target,
            timeout=timeout,
            retries=retries,
            api_key=api_key,
            tls=tls,
            max_message_bytes=max_message_bytes,
        )
        self._channel = _open(self._connection)
        # The generated stubs are typed for neither kind of channel.
        self._emotions: Any = emotion_service_pb2_grpc.EmotionServiceStub(self._channel)
        self._models: Any = model_grpc.ModelServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection.target!r})"

    async def close(self) -> None:
        await self._channel.close(None)

    async def analyze(
        self, audio: AudioSource, **options: Unpack[AnalyzeOptions]
    ) -> result.Analysis:
        """Analyses one utterance; see Client.analyze. Files are read in a thread."""
        return await self._analyze(audio, Call(**options))

    def analyze_many(
        self,
        items: Iterable[AudioSource],
        *,
        concurrency: int = 8,
        ordered: bool = True,
        **options: Unpack[AnalyzeOptions],
    ) -> AsyncIterator[Outcome]:
        """Analyses each item in a call of its own; see Client.analyze_many."""
        call = Call(**options)
        jobs = (
            partial(self._outcome, index, item, call.item(index))
            for index, item in enumerate(items)
        )
        return window.in_tasks(jobs, concurrency, ordered=ordered)

    async def batch(
        self, items: Sequence[AudioSource], **options: Unpack[AnalyzeOptions]
    ) -> list[Outcome]:
        """Analyses all items in one call; see Client.batch."""
        call = Call(**options)
        message, unread = await asyncio.to_thread(outcome.build_batch, items, call)
        answers = emotion_service_pb2.BatchAnalyzeResponse()
        if message.requests:
            answers = await self._call(self._emotions.BatchAnalyze, message, call.timeout)
        return outcome.from_batch(items, answers, unread)

    def stream(
        self, audio: StreamSource | None = None, **options: Unpack[StreamOptions]
    ) -> EmotionStream:
        """Analyses audio of any length while it comes; see EmotionStream and StreamOptions.

        With `audio` the stream is fed from it and finished; otherwise feed it with `send`.

            async with client.stream("lecture.mp3", pacing="bulk") as events:
                async for event in events: ...
        """
        call = StreamCall(**options)

        async def feed(stream: EmotionStream) -> None:
            async for chunk in chunks_of(audio):  # type: ignore[arg-type]  # used only if there is
                await stream.send(chunk)
            await stream.finish()

        return EmotionStream(
            self._open_stream,
            call,
            seconds=self._connection.seconds(call.timeout),
            feed=None if audio is None else feed,
        )

    async def models(self) -> list[server.Model]:
        found: list[server.Model] = []
        message = model_service_pb2.ListModelsRequest()
        while True:
            page = await self._call(self._models.ListModels, message)
            found += map(server.to_model, page.models)
            if not page.next_page_token:
                return found
            message = model_service_pb2.ListModelsRequest(page_token=page.next_page_token)

    async def model(self, name: str) -> server.Model:
        """The model "models/NAME" or "models/NAME@VERSION"; raises NotFound."""
        message = model_service_pb2.GetModelRequest(name=name)
        return server.to_model(await self._call(self._models.GetModel, message))

    async def server_info(self) -> server.ServerInfo:
        message = model_service_pb2.GetServerInfoRequest()
        return server.to_server_info(await self._call(self._models.GetServerInfo, message))

    async def health(
        self,
        service: str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as Client's
    ) -> str:
        """What grpc.health.v1 says, such as "SERVING"; raises Unavailable if nobody answers."""
        message = health_pb2.HealthCheckRequest(service=service)
        return server.health_name(await self._call(self._health.Check, message, timeout))

    async def wait_ready(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - as Client's
        """Waits until the server serves; raises DeadlineExceeded after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                if await self.health(timeout=left) == "SERVING":
                    return
            except (Unavailable, DeadlineExceeded):
                pass
            await asyncio.sleep(channel.poll_delay(left))
        raise channel.not_ready(self._connection.target, timeout)

    async def _analyze(self, audio: AudioSource, call: Call) -> result.Analysis:
        message = await asyncio.to_thread(request.build, audio, call)
        return result.from_response(await self._call(self._emotions.Analyze, message, call.timeout))

    def _open_stream(self, session: str) -> Any:
        """A connection of the session; a proxy that knows the header takes it to one replica."""
        metadata = (*self._connection.metadata, ("x-session-id", session))
        return self._emotions.AnalyzeStream(metadata=metadata)

    async def _outcome(self, index: int, item: AudioSource, call: Call) -> Outcome:
        try:
            return Outcome(index, item, analysis=await self._analyze(item, call))
        except (SpeechEmotionError, OSError) as error:
            return Outcome(index, item, error=error)

    async def _call(
        self,
        method: Callable[..., Any],
        message: object,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline that travels with the call
    ) -> Any:
        seconds = self._connection.seconds(timeout)
        try:
            return await method(message, timeout=seconds, metadata=self._connection.metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def _open(connection: channel.Connection) -> grpc.aio.Channel:
    credentials = connection.credentials
    if credentials is None:
        return grpc.aio.insecure_channel(connection.target, connection.options)
    return grpc.aio.secure_channel(connection.target, credentials, connection.options)
