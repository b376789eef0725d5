"""What Prometheus reads, after real calls to a real server."""

import asyncio
import re
import threading

import aiohttp
import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from server.app import serving
from server.engine.fake import FakeEngine


@pytest.fixture
def gate():
    """Closed, it holds up the device."""
    gate = threading.Event()
    gate.set()
    return gate


@pytest.fixture
def engine(gate):
    return FakeEngine(
        delay_s_per_batch=0.01, fail_when=lambda _batch: None if gate.wait(20) else TimeoutError()
    )


@pytest.fixture
async def server(settings, engine):
    async with serving(settings, lambda: engine) as server:
        yield server


@pytest.fixture
async def client(server):
    async with grpc.aio.insecure_channel(f"localhost:{server.port}") as channel:
        yield EmotionServiceStub(channel)


@pytest.fixture
def scrape(server):
    """Reads all samples: (name, labels as sorted pairs) -> value."""

    async def read() -> dict:
        url = f"http://127.0.0.1:{server.metrics_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            families = text_string_to_metric_families(await answer.text())
            return {
                (sample.name, *sorted(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
            }

    return read


def value(samples: dict, name: str, **labels: str) -> float:
    return samples[(f"emotion_api_{name}", *sorted(labels.items()))]


async def test_calls_are_counted_by_status_and_reason(client, scrape, tone):
    await client.Analyze(AnalyzeRequest(audio_data=tone(0.5)))
    with pytest.raises(grpc.aio.AioRpcError):
        await client.Analyze(AnalyzeRequest())

    samples = await scrape()

    assert value(samples, "calls_total", method="Analyze", code="OK", reason="") == 1
    refused = {"method": "Analyze", "code": "INVALID_ARGUMENT", "reason": "AUDIO_EMPTY"}
    assert value(samples, "calls_total", **refused) == 1
    assert value(samples, "call_seconds_count", method="Analyze") == 2
    assert value(samples, "audio_seconds_total") == pytest.approx(0.5, abs=0.01)


async def test_batches_are_measured_in_size_padding_and_time(client, engine, scrape, tone):
    audios = [tone(0.5), tone(1.0), tone(1.0)]
    await asyncio.gather(*(client.Analyze(AnalyzeRequest(audio_data=one)) for one in audios))

    samples = await scrape()

    passes = len(engine.batches)
    assert value(samples, "batches_total", device="cpu", error="") == passes
    assert value(samples, "batch_size_sum") == 3
    for name in ("queue_seconds", "compute_seconds", "batch_padding_ratio"):
        assert value(samples, f"{name}_count") == passes
    assert value(samples, "compute_seconds_sum") >= 0.01 * passes
    assert value(samples, "device_busy_seconds_total", device="cpu") >= 0.01 * passes
    served = {"outcome": "served", "priority": "interactive", "error": ""}
    assert value(samples, "utterances_total", **served) == 3
    assert value(samples, "utterance_seconds_count", outcome="served") == 3


async def test_the_state_is_read_when_somebody_asks(client, scrape, engine, gate, tone):
    gate.clear()
    call = asyncio.ensure_future(client.Analyze(AnalyzeRequest(audio_data=tone(0.5))))
    while not engine.batches:
        await asyncio.sleep(0.005)

    busy = await scrape()
    gate.set()
    await call
    idle = await scrape()

    assert (value(busy, "running"), value(idle, "running")) == (1, 0)
    assert value(idle, "waiting", priority="interactive") == 0
    assert value(idle, "serving") == 1
    assert value(idle, "device_budget_ratio", device="cpu") == 1


async def test_every_name_is_ours_and_every_label_is_bounded(client, scrape, tone):
    await client.Analyze(AnalyzeRequest(audio_data=tone(0.5), request_id="a-caller"))

    samples = await scrape()

    assert all(re.fullmatch(r"emotion_api_[a-z_]+", name) for name, *_ in samples)
    assert not any("a-caller" in str(key) for key in samples)
