"""Several devices behind one server: all of them work, each as fast as it can, and one may die."""

import asyncio

import grpc
import pytest
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from server.app import serving
from server.choices import policy_of
from server.config import Settings
from server.engine import Capacity, DeviceLost
from server.engine.fake import FakeEngine

CALLS = 60


@pytest.fixture
def fast():
    return FakeEngine(device="cuda:0", delay_s_per_batch=0.002, batch_size=1)


@pytest.fixture
def slow():
    return FakeEngine(device="cuda:1", delay_s_per_batch=0.05, batch_size=1)


@pytest.fixture
def settings(settings):
    """Nobody is refused, however slow the machine is that runs this."""
    return settings.model_copy(update={"max_queue_seconds": 600})


async def analyse(server, audio, calls=CALLS):
    async with grpc.aio.insecure_channel(f"localhost:{server.port}") as channel:
        stub = EmotionServiceStub(channel)
        requests = (stub.Analyze(AnalyzeRequest(audio_data=audio)) for _ in range(calls))
        return await asyncio.gather(*requests)


async def test_both_devices_work_and_the_slower_gets_less(settings, fast, slow, tone):
    async with serving(settings, [lambda: fast, lambda: slow]) as server:
        answers = await analyse(server, tone(0.5))

    assert len(answers) == CALLS == len(fast.batches) + len(slow.batches)
    assert 1 <= len(slow.batches) < len(fast.batches)
    assert fast.warmed_up
    assert slow.warmed_up


async def test_a_lost_device_gets_nothing_more_and_costs_no_call(settings, fast, tone):
    lost = FakeEngine(device="cuda:1", batch_size=1, fail_when=lambda _: DeviceLost("sticky"))

    async with serving(settings, [lambda: fast, lambda: lost]) as server:
        answers = await analyse(server, tone(0.5))
        await analyse(server, tone(0.5))

    assert len(answers) == CALLS
    assert len(lost.batches) == 1
    assert len(fast.batches) == 2 * CALLS


def test_the_engine_chooses_the_batch_within_the_settings():
    capacity = Capacity(batch_size=64, preferred_sizes=(1, 2, 4, 64), batch_seconds=160, slots=2)

    policy = policy_of(Settings(), capacity)
    limited = policy_of(Settings(max_batch_size=2, max_batch_seconds=10), capacity)

    assert (policy.max_batch_size, policy.preferred_sizes) == (64, (1, 2, 4, 64))
    assert (policy.max_batch_cost, policy.slots_per_device) == (160, 2)
    assert (limited.max_batch_size, limited.preferred_sizes) == (2, (1, 2))
    assert limited.max_batch_cost == 10


async def test_unequal_devices_run_batches_of_their_own_size(settings, tone):
    large = FakeEngine(device="cuda:0", delay_s_per_batch=0.02, batch_size=8)
    small = FakeEngine(device="cuda:1", delay_s_per_batch=0.02, batch_size=2)

    async with serving(settings, [lambda: large, lambda: small]) as server:
        answers = await analyse(server, tone(0.5))

    assert len(answers) == CALLS
    assert 2 < max(large.batches) <= 8
    assert 1 <= max(small.batches) <= 2
