"""The cast: a server with a fake engine, and a client that talks to it over a real socket."""

import asyncio
import io
import os

import grpc
import hypothesis
import numpy as np
import pytest
import pytest_asyncio
import soundfile
from blockbuster import blockbuster_ctx
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub
from speechemotion.v1.model_service_pb2_grpc import ModelServiceStub

from server.app import serving
from server.config import Settings
from server.engine.fake import FakeEngine
from server.telemetry import CallReport

# Many servers run at once, some of them processes of their own.
os.environ.setdefault("SPEECHEMOTION_METRICS_PORT", "0")

# No test asserts a time, and the machine may be busy.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")

# Otherwise looptime's hook makes a loop for the first test that has none, and nobody closes it.
asyncio.set_event_loop(None)


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def grpc_poller():
    """Keeps gRPC's poller thread for the whole run; it would be joined between two tests."""
    grpc.aio.init_grpc_aio()
    yield
    grpc.aio.shutdown_grpc_aio()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def settings() -> Settings:
    return Settings(port=0, max_audio_seconds=10, max_batch_items=4, queue_delay_ms=1)


@pytest.fixture
def reports() -> list[CallReport]:
    """What the server reports of its calls."""
    return []


@pytest.fixture
async def channel(settings, engine, reports):
    async with (
        serving(settings, lambda: engine, reports.append) as server,
        grpc.aio.insecure_channel(f"localhost:{server.port}") as connection,
    ):
        yield connection


@pytest.fixture
def client(channel) -> EmotionServiceStub:
    return EmotionServiceStub(channel)


@pytest.fixture
def catalogue(channel) -> ModelServiceStub:
    return ModelServiceStub(channel)


@pytest.fixture
def tone():
    """Makes a WAV file of a given length; every level and pitch gives another answer."""

    def make(seconds: float = 1.0, *, level: float = 0.5, pitch: float = 220.0) -> bytes:
        times = np.arange(round(16_000 * seconds)) / 16_000
        wave = level * np.sin(2 * np.pi * pitch * times)
        file = io.BytesIO()
        soundfile.write(file, wave, 16_000, format="WAV", subtype="PCM_16")
        return file.getvalue()

    return make


@pytest.fixture(autouse=True)
def no_blocking_calls():
    """Fails any test in which our code blocks the event loop (sleeps, file or lock waits)."""
    with blockbuster_ctx(["server", "batcher"]) as blockbuster:
        for function in blockbuster.functions.values():  # a traceback reads the source it shows
            function.can_block_in("server/telemetry/logs.py", "_print")
            function.can_block_in("server/engine_threads.py", "run_batch")
        yield
