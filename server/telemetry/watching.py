"""Everybody who listens to what the server does: the log, the metrics, the load report."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import structlog

from batcher import Batcher
from batcher.reports import BatchReport, Departure
from server.speech import Model
from server.telemetry import CallReport, StreamReport, WindowReport
from server.telemetry.later import Later
from server.telemetry.load import TRAILER, LoadMeter
from server.telemetry.metrics import Metrics
from server.telemetry.probes import Probes

log = structlog.get_logger()

REPORT_PAUSE = 0.02
"""Seconds between load reports: balancers weigh replicas once a second, and each costs 10 us."""
FAULTS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})


class Telemetry:
    """The hooks of one server; `on_call` is an additional listener, such as the log."""

    def __init__(self, on_call: Callable[[CallReport], None]) -> None:
        self._later = Later()
        self._log = on_call
        self._metrics = Metrics()
        self._meter = LoadMeter()
        self._drain_time: Callable[[], float] = float
        self._serving = False
        self._report_at = 0.0

    def on_call(self, report: CallReport) -> None:
        self._log(report)
        self._later.add(self._metrics.on_call, report)
        if report.code in FAULTS:
            self._meter.failed(monotonic())

    def on_batch(self, report: BatchReport) -> None:
        self._metrics.on_batch(report)
        self._meter.batch_ran(report.size, report.run_time, monotonic())

    def on_departure(self, departure: Departure) -> None:
        self._later.add(self._metrics.on_departure, departure)

    def on_degraded(self, step: str) -> None:
        """A request went without something, for load."""
        self._metrics.on_degraded(step)

    def on_stream(self, report: StreamReport | WindowReport) -> None:
        self._metrics.on_stream(report)

    def on_store(self, up: bool) -> None:
        """Whether streams can be resumed on another replica; called when that changes."""
        self._metrics.on_store(up)
        if up:
            log.info("Redis answers: streams can be resumed on other replicas")
        else:
            log.warning("Redis does not answer: streams go on, and can be resumed here only")

    def watch(self, batcher: Batcher[Any, Any], model: Model, devices: int = 1) -> None:
        """From now on there is a model and a queue to tell about."""
        self._meter = LoadMeter(devices)
        self._drain_time = batcher.estimated_drain_time
        self._metrics.watch(batcher.statistics, batcher.estimated_drain_time)
        self._metrics.describe(model)

    def serving(self, serving: bool) -> None:
        """Follows what health says."""
        self._serving = serving
        self._metrics.on_serving(serving)

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """The ORCA load report, as trailing metadata; nothing if there is nothing new to say."""
        now = monotonic()
        if now < self._report_at:
            return ()
        self._report_at = now + REPORT_PAUSE
        report = self._meter.report(now, self._drain_time())
        return ((TRAILER, report.to_bytes()),) if report else ()

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Serves probes and metrics and yields the port. Raises OSError if it is taken."""
        probes = Probes(self._scrape, lambda: self._serving)
        async with probes.listening(host, port) as bound:
            yield bound
        self._later.now()

    def _scrape(self) -> bytes:
        self._later.now()
        return self._metrics.to_bytes()
