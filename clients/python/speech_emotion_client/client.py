"""The blocking client. Thread-safe: one for the whole program is right."""

import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import partial
from typing import Any, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from . import channel, outcome, request, result, server, window
from .aio import AsyncClient
from .audio import AudioSource
from .errors import DeadlineExceeded, SpeechEmotionError, Unavailable, from_rpc_error
from .outcome import Outcome
from .request import AnalyzeOptions, Call
from .streaming import blocking
from .streaming.chunks import StreamSource
from .streaming.events import Event
from .streaming.options import StreamCall, StreamOptions
from .v1 import emotion_service_pb2, emotion_service_pb2_grpc, model_service_pb2
from .v1 import model_service_pb2_grpc as model_grpc

T = TypeVar("T")


class Client:
    """A connection to one server, or to one address that stands for several.

    timeout: seconds for each call, retries included.
    retries: how often gRPC tries again after UNAVAILABLE, RESOURCE_EXHAUSTED or a CANCELLED
        of the server's, 0 to 4.
    api_key: sent as `x-api-key`; use TLS with it.
    tls: True for the system's certificate authorities, or credentials of your own.
    max_message_bytes: the largest message to send or accept.
    """

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
        self._emotions = emotion_service_pb2_grpc.EmotionServiceStub(self._channel)
        self._models = model_grpc.ModelServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection.target!r})"

    def close(self) -> None:
        self._channel.close()

    def analyze(self, audio: AudioSource, **options: Unpack[AnalyzeOptions]) -> result.Analysis:
        """Analyses one utterance; see AnalyzeOptions.

        Raises a SpeechEmotionError, or OSError if `audio` is a file that cannot be read.
        """
        return self._analyze(audio, Call(**options))

    def analyze_many(
        self,
        items: Iterable[AudioSource],
        *,
        concurrency: int = 8,
        ordered: bool = True,
        **options: Unpack[AnalyzeOptions],
    ) -> Iterator[Outcome]:
        """Analyses each item in a call of its own, at most `concurrency` at once.

        Yields in the order of `items`, or as they come; holds at most twice `concurrency` items, so
        `items` may be endless. A bad item costs the others nothing.
        """
        call = Call(**options)
        jobs = (
            partial(self._outcome, index, item, call.item(index))
            for index, item in enumerate(items)
        )
        return window.in_threads(jobs, concurrency, ordered=ordered)

    def batch(
        self, items: Sequence[AudioSource], **options: Unpack[AnalyzeOptions]
    ) -> list[Outcome]:
        """Analyses all items in one call, for small clips; Limits.max_batch_items caps it.

        A bad item costs the others nothing; raises SpeechEmotionError if the call as a whole fails.
        """
        call = Call(**options)
        message, unread = outcome.build_batch(items, call)
        answers = emotion_service_pb2.BatchAnalyzeResponse()
        if message.requests:
            answers = self._call(self._emotions.BatchAnalyze, message, call.timeout)
        return outcome.from_batch(items, answers, unread)

    def stream(
        self, audio: StreamSource, **options: Unpack[StreamOptions]
    ) -> Generator[Event, None, None]:
        """Analyses audio of any length; the events as they come, the last of which is a Summary.

        `audio` is a file or an iterable of chunks. Uses a connection of its own until the last
        event; close the iterator to end it early. See AsyncClient.stream, which can also be fed
        step by step.
        """
        StreamCall(**options)  # wrong ones are refused here, not at the first event
        return blocking.iterate(partial(_stream, self._connection, audio, options))

    def models(self) -> list[server.Model]:
        found: list[server.Model] = []
        message = model_service_pb2.ListModelsRequest()
        while True:
            page = self._call(self._models.ListModels, message)
            found += map(server.to_model, page.models)
            if not page.next_page_token:
                return found
            message = model_service_pb2.ListModelsRequest(page_token=page.next_page_token)

    def model(self, name: str) -> server.Model:
        """The model "models/NAME" or "models/NAME@VERSION"; raises NotFound."""
        message = model_service_pb2.GetModelRequest(name=name)
        return server.to_model(self._call(self._models.GetModel, message))

    def server_info(self) -> server.ServerInfo:
        message = model_service_pb2.GetServerInfoRequest()
        return server.to_server_info(self._call(self._models.GetServerInfo, message))

    def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """What grpc.health.v1 says, such as "SERVING"; raises Unavailable if nobody answers."""
        message = health_pb2.HealthCheckRequest(service=service)
        return server.health_name(self._call(self._health.Check, message, timeout))

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Waits until the server serves; raises DeadlineExceeded after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self.health(timeout=left) == "SERVING":
                    return
            except (Unavailable, DeadlineExceeded):
                pass
            time.sleep(channel.poll_delay(left))
        raise channel.not_ready(self._connection.target, timeout)

    def _analyze(self, audio: AudioSource, call: Call) -> result.Analysis:
        message = request.build(audio, call)
        return result.from_response(self._call(self._emotions.Analyze, message, call.timeout))

    def _outcome(self, index: int, item: AudioSource, call: Call) -> Outcome:
        try:
            return Outcome(index, item, analysis=self._analyze(item, call))
        except (SpeechEmotionError, OSError) as error:
            return Outcome(index, item, error=error)

    def _call(self, method: Callable[..., T], message: object, timeout: float | None = None) -> T:
        seconds = self._connection.seconds(timeout)
        try:
            return method(message, timeout=seconds, metadata=self._connection.metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


@asynccontextmanager
async def _stream(
    connection: channel.Connection, audio: StreamSource, options: StreamOptions
) -> AsyncIterator[AsyncIterator[Event]]:
    settings: dict[str, Any] = {
        each.name: getattr(connection, each.name) for each in fields(connection)
    }
    async with AsyncClient(**settings) as client, client.stream(audio, **options) as events:
        yield events


def _open(connection: channel.Connection) -> grpc.Channel:
    credentials = connection.credentials
    if credentials is None:
        return grpc.insecure_channel(connection.target, connection.options)
    return grpc.secure_channel(connection.target, credentials, connection.options)
