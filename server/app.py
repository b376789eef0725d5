"""Puts the server together, runs it, and takes it down in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import structlog
from grpc_channelz.v1 import channelz
from speechemotion.v1.emotion_service_pb2_grpc import add_EmotionServiceServicer_to_server
from speechemotion.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server

from batcher import Batcher, CostModel
from server import health, memory
from server.choices import limits_of, policy_of, relief_of, stream_limits_of
from server.config import PortTaken, Settings
from server.draining import ServingFailed, fall_silent, finish, stop_on_signals
from server.engine import Engine
from server.engine_threads import Started, in_thread, start
from server.health import Health
from server.listening import credentials_of, listen, make_server
from server.notify import READY, notify
from server.reflection import add_reflection
from server.service import emotion, models
from server.service.analysis import Analyzer
from server.service.callers import Callers, read_keys
from server.service.calls import Calls
from server.service.door import Door
from server.service.malformed import Registry
from server.service.received import receive
from server.service.stream import Streams
from server.service.stream_store import SessionStore
from server.service.upload import Uploads
from server.speech import Model, Prediction, Utterance
from server.telemetry import CallReport
from server.telemetry.logs import log_call
from server.telemetry.watching import Telemetry

log = structlog.get_logger()
SERVICES = (emotion.NAME, models.NAME)


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that answers."""

    port: int
    engines: Sequence[Engine]  # one a device; the model is the same
    batcher: Batcher[Utterance, Prediction]
    metrics_port: int
    streams: Streams


@asynccontextmanager
async def serving(
    settings: Settings,
    make_engine: Callable[[], Engine] | Sequence[Callable[[], Engine]],
    on_call: Callable[[CallReport], None] = log_call,
) -> AsyncIterator[Serving]:
    """Load, warm up, listen, SERVING; on leaving NOT_SERVING, notice, drain.

    `make_engine`: one, or one for each device. Raises PortTaken; ServingFailed if something was
    not finished in the time to drain.
    """
    makers = [make_engine] if callable(make_engine) else make_engine
    decoders = ThreadPoolExecutor(settings.decode_threads, "decode")
    telemetry = Telemetry(on_call)
    async with AsyncExitStack() as stack:
        stack.callback(decoders.shutdown, wait=False)
        metrics_port = await _listen_for_probes(settings, telemetry, stack)
        callers = await in_thread(decoders, callers_of, settings)
        credentials = await in_thread(decoders, credentials_of, settings)
        started = [await start(make, stack) for make in makers]
        batches = await stack.enter_async_context(_batcher(settings, started, telemetry))
        model = started[0].engine.model
        telemetry.watch(batches, model, devices=len(started))
        store = _session_store(settings, telemetry, stack)
        rpcs = _make_rpcs(settings, batches, model, telemetry, callers, decoders, store)
        server = make_server(settings)
        status = _add_services(settings, server, rpcs)
        port = listen(settings, server, credentials)
        await server.start()
        await status.announce(serving=True)
        telemetry.serving(True)
        try:
            engines = [one.engine for one in started]
            yield Serving(port, engines, batches, metrics_port, rpcs.streams)
        finally:
            telemetry.serving(False)
            await status.withdraw()
            await asyncio.sleep(settings.drain_notice_seconds)
            ends_at = asyncio.get_running_loop().time() + settings.drain_grace_seconds
            rpcs.streams.drain(settings.drain_grace_seconds)
            try:
                if settings.share_port:
                    await fall_silent(port, rpcs.calls, rpcs.streams, ends_at)
                await finish(server, rpcs.calls, batches, ends_at)
            finally:
                rpcs.streams.close()


async def run(
    settings: Settings,
    make_engine: Callable[[], Engine] | Sequence[Callable[[], Engine]],
    stop: asyncio.Event | None = None,
) -> None:
    """Serves until `stop` is set, by default by SIGINT and SIGTERM. Raises ServingFailed."""
    log.info("loading", model=settings.model, engine=settings.engine)
    async with serving(settings, make_engine) as server:
        stop = stop or stop_on_signals()
        memory.settle()
        _announce(settings, server)
        notify(READY)
        broken = asyncio.create_task(server.batcher.wait_broken())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({broken, stopped}, return_when=asyncio.FIRST_COMPLETED)
        failed = broken.done()
        stopped.cancel()
        broken.cancel()
        log.info("draining", batcher=repr(server.batcher))
    if failed:
        raise ServingFailed("the batcher broke: this process can serve no more")
    log.info("stopped")


def callers_of(settings: Settings) -> Callers:
    """Raises BadKeys."""
    file = settings.api_keys_file
    return Callers(read_keys(file) if file else None, trust_proxy=settings.trust_proxy)


@dataclass(frozen=True, slots=True)
class _Rpcs:
    calls: Calls
    streams: Streams
    emotions: emotion.EmotionService
    catalogue: models.ModelService


def _batcher(
    settings: Settings, started: Sequence[Started], telemetry: Telemetry
) -> Batcher[Utterance, Prediction]:
    engines = {one.engine.model.device: one.engine.capacity for one in started}
    own = {
        name: (policy_of(settings, each), CostModel(each.per_audio_second, each.per_batch))
        for name, each in engines.items()
    }
    return Batcher(
        {one.engine.model.device: one.run_batch for one in started},
        policy_of(settings, started[0].engine.capacity),
        own=own,
        on_batch=telemetry.on_batch,
        on_departure=telemetry.on_departure,
    )


def _session_store(
    settings: Settings, telemetry: Telemetry, stack: AsyncExitStack
) -> SessionStore | None:
    if not settings.redis_url:
        return None
    keep = settings.stream_resume_seconds + settings.stream_idle_seconds
    store = SessionStore(settings.redis_url, keep, telemetry.on_store)
    stack.push_async_callback(store.close)
    return store


def _make_rpcs(
    settings: Settings,
    batches: Batcher[Utterance, Prediction],
    model: Model,
    telemetry: Telemetry,
    callers: Callers,
    decoders: ThreadPoolExecutor,
    store: SessionStore | None,
) -> _Rpcs:
    limits, stream_limits = limits_of(settings), stream_limits_of(settings)
    relief = relief_of(settings)
    calls = Calls(
        telemetry.on_call,
        telemetry.trailers,
        callers=callers,
        max_calls=settings.max_concurrent_calls,
    )
    door = Door(
        batches,
        relief,
        decode_threads=settings.decode_threads,
        max_wait=settings.max_queue_seconds,
        on_step=telemetry.on_degraded,
    )
    streams = Streams(
        batches,
        model,
        stream_limits,
        limits.audio,
        decoders,
        door,
        max_decoders=settings.max_stream_decoders,
        embedding_seconds=settings.max_frame_embedding_seconds,
        strained=lambda: batches.estimated_drain_time() > relief.scores_only_after,
        report=telemetry.on_stream,
        store=store,
    )
    analyzer = Analyzer(batches, model, limits, decoders, door)
    uploads = Uploads(
        analyzer,
        batches,
        stream_limits,
        decoders,
        max_bytes=settings.max_upload_bytes,
        max_long=settings.max_long_uploads,
    )
    emotions = emotion.EmotionService(analyzer, uploads, streams, calls)
    catalogue = models.ModelService(
        model, limits, stream_limits, calls, max_upload_bytes=settings.max_upload_bytes
    )
    return _Rpcs(calls, streams, emotions, catalogue)


def _add_services(settings: Settings, server: grpc.aio.Server, rpcs: _Rpcs) -> Health:
    registry = Registry(server, rpcs.calls, {f"{emotion.NAME}/Analyze": receive})
    add_EmotionServiceServicer_to_server(rpcs.emotions, registry)
    add_ModelServiceServicer_to_server(rpcs.catalogue, registry)
    if settings.channelz:
        channelz.add_channelz_servicer(server)  # type: ignore[arg-type]  # takes both
    if settings.reflection:
        add_reflection(server, (*SERVICES, health.NAME))
    return Health(server, SERVICES)


async def _listen_for_probes(
    settings: Settings, telemetry: Telemetry, stack: AsyncExitStack
) -> int:
    host, port = settings.metrics_host, settings.metrics_port
    try:
        return await stack.enter_async_context(telemetry.listening(host, port))
    except OSError as error:
        text = f"Cannot listen on {host}:{port} for metrics; choose another --metrics-port"
        raise PortTaken(text) from error


def _announce(settings: Settings, server: Serving) -> None:
    model = server.engines[0].model
    log.info(
        "serving",
        address=f"{settings.host}:{server.port}",
        metrics=f"{settings.metrics_host}:{server.metrics_port}",
        model=model.name,
        version=model.version,
        precision=model.precision,
        device=", ".join(engine.model.device for engine in server.engines),
    )
    for notice in model.notices:
        log.warning(notice.text, code=notice.code)
