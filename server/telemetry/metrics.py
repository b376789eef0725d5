"""Every metric of the server, by name; fed by the reports of the calls and of the batcher.

Knows neither gRPC nor HTTP. Metrics have few, bounded labels: no caller, no request, no model text.
So that each combination is looked up once, and then remembered: `labels` takes 2 us.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from batcher.reports import BatchReport, Departure, Statistics
from server.speech import Model
from server.telemetry import CallReport, Outcome, StreamEvent, StreamReport, WindowReport

PREFIX = "emotion_api"

SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
RATIOS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


class Metrics:
    """One registry for one server. Its `on_...` methods are the hooks of calls and batcher."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._make_call_metrics()
        self._make_batch_metrics()
        self._make_stream_metrics()
        self._serving = self._gauge("serving", "1 while health says SERVING, else 0.")
        self._model = Info("model", "What is served.", namespace=PREFIX, registry=self.registry)

    def to_bytes(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)

    def on_call(self, report: CallReport) -> None:
        """Counts a finished RPC."""
        method = report.method.rpartition("/")[2]
        self._calls(method, report.code, report.reason).inc()
        self._call_seconds(method).observe(report.seconds)
        self._audio_seconds.inc(report.audio_seconds)

    def on_batch(self, report: BatchReport) -> None:
        """Counts a forward pass."""
        error = report.error.__name__ if report.error else ""
        self._batches(report.device, error).inc()
        self._batch_size.observe(report.size)
        self._batch_padding.observe(report.padding)
        self._queue_seconds.observe(report.queue_time)
        self._compute_seconds.observe(report.run_time)
        self._busy_seconds(report.device).inc(report.run_time)

    def on_departure(self, departure: Departure) -> None:
        """Counts an utterance that left the batcher, served or not."""
        error = departure.error.__name__ if departure.error else ""
        self._utterances(departure.outcome, departure.priority, error).inc()
        self._utterance_seconds(departure.outcome).observe(departure.time)

    def on_stream(self, report: StreamReport | WindowReport) -> None:
        """Counts what happens on a stream."""
        if isinstance(report, WindowReport):
            self._on_window(report)
        elif report.event is StreamEvent.OPENED:
            self._streams.labels(report.pacing, report.segmentation).inc()
        elif report.event is StreamEvent.CLOSED:
            self._streams.labels(report.pacing, report.segmentation).dec()
        else:
            self._resumed.labels(report.event).inc()

    def on_store(self, up: bool) -> None:
        """Whether the store that streams share answers."""
        self._store_up.set(up)

    def on_degraded(self, step: str) -> None:
        """Counts a request that went without something, for load."""
        self._degraded(step).inc()

    def on_serving(self, serving: bool) -> None:
        """Follows what health says."""
        self._serving.set(serving)

    def describe(self, model: Model) -> None:
        """Says which model this is, once it is loaded."""
        self._model.info(
            {
                "name": model.name,
                "version": model.version,
                "precision": model.precision,
                "runtime": model.runtime,
                "device": model.device,
            }
        )

    def watch(self, statistics: Callable[[], Statistics], drain_time: Callable[[], float]) -> None:
        """Reads the batcher's state at each scrape; the scrape runs in the batcher's own loop."""
        self.registry.register(_Load(statistics, drain_time))

    def _make_call_metrics(self) -> None:
        self._calls = cache(
            self._counter(
                "calls", "Finished RPCs by gRPC status and ErrorInfo reason.", "method code reason"
            ).labels
        )
        self._call_seconds = cache(
            self._histogram(
                "call_seconds", "From an RPC's arrival to its answer.", SECONDS, "method"
            ).labels
        )
        self._audio_seconds = self._counter("audio_seconds", "Audio decoded, in seconds.")
        self._degraded = cache(
            self._counter(
                "degraded", "Requests that went without something, for load.", "step"
            ).labels
        )

    def _on_window(self, report: WindowReport) -> None:
        self._windows.labels(report.outcome, report.pacing, report.trigger).inc()
        if report.outcome is Outcome.SENT:
            self._lag_seconds.labels(report.pacing).observe(report.lag)
            self._silence_seconds.inc(report.silence)

    def _make_stream_metrics(self) -> None:
        self._streams = self._gauge("streams", "Streams that are open.", "pacing segmentation")
        self._resumed = self._counter(
            "streams_resumed", "Streams that went on: here, or taken over from a replica.", "event"
        )
        self._windows = self._counter(
            "stream_windows", "Windows of streams.", "outcome pacing trigger"
        )
        self._lag_seconds = self._histogram(
            "stream_lag_seconds", "From a window's last sample to its result.", SECONDS, "pacing"
        )
        self._silence_seconds = self._counter(
            "stream_silence_seconds", "Audio between the segments of streams, not analysed."
        )
        self._store_up = self._gauge(
            "stream_store_up", "1 while streams can be resumed elsewhere: Redis answers."
        )

    def _make_batch_metrics(self) -> None:
        utterances = self._counter(
            "utterances", "Utterances that left the batcher.", "outcome priority error"
        )
        self._utterances = cache(
            lambda outcome, priority, error: utterances.labels(
                outcome, priority.name.lower(), error
            )
        )
        self._utterance_seconds = cache(
            self._histogram(
                "utterance_seconds", "In the batcher, waiting and running.", SECONDS, "outcome"
            ).labels
        )
        self._batches = cache(self._counter("batches", "Forward passes.", "device error").labels)
        self._batch_size = self._histogram("batch_size", "Utterances of a forward pass.", SIZES)
        self._batch_padding = self._histogram(
            "batch_padding_ratio", "Share of a forward pass that is padding.", RATIOS
        )
        self._queue_seconds = self._histogram(
            "queue_seconds", "Wait of the utterance that waited longest for its batch.", SECONDS
        )
        self._compute_seconds = self._histogram(
            "compute_seconds", "Time of the device for a forward pass.", SECONDS
        )
        self._busy_seconds = cache(
            self._counter("device_busy_seconds", "Time of the device.", "device").labels
        )

    def _counter(self, name: str, text: str, labels: str = "") -> Counter:
        return Counter(name, text, labels.split(), namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: str = "") -> Gauge:
        return Gauge(name, text, labels.split(), namespace=PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: Iterable[float], labels: str = ""
    ) -> Histogram:
        return Histogram(
            name,
            text,
            labels.split(),
            namespace=PREFIX,
            registry=self.registry,
            buckets=tuple(buckets),
        )


class _Load(Collector):
    """Gauges that are read when somebody asks."""

    def __init__(
        self, statistics: Callable[[], Statistics], drain_time: Callable[[], float]
    ) -> None:
        self._statistics = statistics
        self._drain_time = drain_time

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = self._statistics()
        waiting = GaugeMetricFamily(
            f"{PREFIX}_waiting", "Utterances in the queue.", labels=["priority"]
        )
        for priority, count in now.waiting_by_priority.items():
            waiting.add_metric([priority.name.lower()], count)
        yield waiting
        yield GaugeMetricFamily(f"{PREFIX}_running", "Utterances on a device.", now.running)
        yield GaugeMetricFamily(
            f"{PREFIX}_drain_seconds",
            "Estimated time until all that waits and runs is done.",
            self._drain_time(),
        )
        budget = GaugeMetricFamily(
            f"{PREFIX}_device_budget_ratio",
            "Share of the batch limits in use; below 1 after the device ran out of memory.",
            labels=["device"],
        )
        for name, device in now.devices.items():
            budget.add_metric([name], device.budget)
        yield budget

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: the batcher is not asked before the first scrape."""
        return iter(())
