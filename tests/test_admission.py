"""The door: who is refused under load, and that a refusal comes before any work."""

import asyncio
import threading
from contextlib import AsyncExitStack, ExitStack
from math import inf
from urllib.request import urlopen

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2 import (
    AnalyzeOptions,
    AnalyzeRequest,
    BatchAnalyzeRequest,
)
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from batcher import Batcher, BatchPolicy, Closed, CostModel, DeadlineUnmeetable, Priority, QueueFull
from server.app import serving
from server.engine.fake import FakeEngine
from server.errors import TooManyCalls, failure_of
from server.service.analysis import is_quick
from server.service.calls import Call
from server.service.degradation import Relief
from server.service.door import Door
from server.service.query import read_query

GARBAGE = AnalyzeRequest(audio_data=b"this is not audio")
BULK = AnalyzeOptions(priority=AnalyzeOptions.PRIORITY_BULK)


def one_call(deadline: float = inf) -> Call:
    return Call("Analyze", "ipv4:10.0.0.1:99", 0.0, deadline, "id")


@pytest.mark.asyncio
@pytest.mark.looptime
class TestBatcherCheck:
    """Time is virtual; a batch of four takes 10 seconds."""

    @pytest.fixture
    async def batcher(self):
        async def model(batch):
            await asyncio.sleep(10)
            return batch

        policy = BatchPolicy(
            max_batch_size=4, max_queue_size=8, max_drain_time=99.0, slots_per_device=1
        )
        async with Batcher({"cpu": model}, policy, cost_model=CostModel(0.0, 10.0)) as b:
            yield b

    async def test_it_refuses_as_submit_would(self, batcher):
        calls = [asyncio.create_task(batcher.submit(1)) for _ in range(4)]
        await asyncio.sleep(0.1)  # they run now
        calls += [asyncio.create_task(batcher.submit(1)) for _ in range(7)]
        await asyncio.sleep(0)

        batcher.check()
        calls.append(asyncio.create_task(batcher.submit(1)))
        await asyncio.sleep(0)

        with pytest.raises(QueueFull):
            batcher.check()
        with pytest.raises(QueueFull):
            await batcher.submit(1)
        assert batcher.statistics().refused == 2
        await asyncio.gather(*calls)

    async def test_those_on_their_way_count_as_waiting(self, batcher):
        batcher.check(ahead=7)

        with pytest.raises(QueueFull, match="8 requests"):
            batcher.check(ahead=8)

    async def test_their_work_counts_against_a_deadline(self, batcher):
        now = asyncio.get_running_loop().time()
        batcher.check(deadline=now + 15, ahead=0)

        with pytest.raises(DeadlineUnmeetable) as refusal:
            batcher.check(deadline=now + 15, ahead=4)

        assert refusal.value.by_load

    async def test_an_estimate_that_nothing_confirms_refuses_nobody(self, batcher):
        now = asyncio.get_running_loop().time()

        for _ in range(3):
            batcher.check(deadline=now + 1)  # a batch takes 10 s, by an old estimate

    async def test_a_closed_batcher_lets_nobody_in(self, batcher):
        await batcher.drain()

        with pytest.raises(Closed):
            batcher.check()


class TestDoor:
    """What waits for the threads that decode."""

    @pytest.fixture
    async def door(self):
        async def model(batch):
            return batch

        policy = BatchPolicy(max_batch_size=4, max_queue_size=8)
        async with Batcher({"cpu": model}, policy) as b:
            yield Door(b, Relief(), decode_threads=2, max_wait=10.0, on_step=print)

    async def test_the_queue_is_full_of_what_is_being_decoded(self, door):
        with ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(door.preparing())
            with pytest.raises(QueueFull):
                door.check(one_call(), Priority.INTERACTIVE)

        door.check(one_call(), Priority.INTERACTIVE)

    async def test_a_long_way_to_the_decoders_is_refused(self, door):
        for _ in range(200):
            door.note(audio_seconds=60.0, decode_seconds=7.0)

        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(door.preparing())
            with pytest.raises(QueueFull, match="decoding") as refusal:
                door.check(one_call(), Priority.INTERACTIVE)

        assert refusal.value.retry_after == pytest.approx(0.5, abs=0.1)

    async def test_decoding_counts_against_the_deadline(self, door):
        soon = asyncio.get_running_loop().time() + 5
        door.check(one_call(soon), Priority.INTERACTIVE)
        for _ in range(200):
            door.note(audio_seconds=60.0, decode_seconds=7.0)

        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(door.preparing())
            with pytest.raises(DeadlineUnmeetable):
                door.check(one_call(soon), Priority.INTERACTIVE)


class Crowd:
    """A server whose model hangs: one call runs, others wait, and the rates are known."""

    def __init__(self, settings, audio: bytes, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._request = AnalyzeRequest(audio_data=audio)
        self._go = threading.Event()
        self._go.set()
        self.held: list[grpc.aio.UnaryUnaryCall] = []

    async def gather(self, count: int, **changes: object) -> EmotionServiceStub:
        def hang(_batch) -> None:
            self._go.wait()

        engine = FakeEngine(fail_when=hang)
        settings = self._settings.model_copy(update={"max_batch_size": 1, **changes})
        self.server = await self._stack.enter_async_context(serving(settings, lambda: engine))
        address = f"localhost:{self.server.port}"
        channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(address))
        self.client = EmotionServiceStub(channel)
        await self.client.Analyze(self._request)
        self._go.clear()
        for number in range(count):
            self.held.append(self.client.Analyze(self._request))
            await self.until(number + 1)
        return self.client

    async def until(self, inside: int) -> None:
        """Waits until so many calls run or wait."""
        while (now := self.server.batcher.statistics()).running + now.waiting < inside:
            await asyncio.sleep(0.001)

    async def disperse(self) -> None:
        """Lets the model go on; every held call is answered."""
        self._go.set()
        for call in self.held:
            assert (await call).emotion


@pytest.fixture
async def crowd(settings, tone):
    async with AsyncExitStack() as stack:
        crowd = Crowd(settings, tone(1.0), stack)
        yield crowd
        await crowd.disperse()


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_a_full_queue_refuses_before_the_audio_is_looked_at(crowd):
    client = await crowd.gather(3, max_queue_size=2)

    error = await refused(client.Analyze(GARBAGE))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = rpc_status.from_call(error).details
    retry = RetryInfo()
    assert any(detail.Unpack(retry) for detail in details)
    pushback = dict(error.trailing_metadata())["grpc-retry-pushback-ms"]
    assert int(pushback) == retry.retry_delay.ToMilliseconds() > 0


async def test_every_item_of_a_batch_meets_the_door(crowd):
    client = await crowd.gather(3, max_queue_size=2)

    answer = await client.BatchAnalyze(BatchAnalyzeRequest(requests=[GARBAGE, GARBAGE]))

    codes = [item.error.code for item in answer.items]
    assert codes == 2 * [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]]


async def test_a_call_too_many_is_refused_and_the_next_is_welcome(crowd):
    client = await crowd.gather(2, max_concurrent_calls=2)

    error = await refused(client.Analyze(GARBAGE))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 calls are in progress" in error.details()
    await crowd.disperse()
    assert (await refused(client.Analyze(GARBAGE))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bulk_gets_scores_only_while_much_waits_and_is_told_so(crowd, tone):
    client = await crowd.gather(2, degrade_bulk_after_seconds=1e-9)
    audio = tone(0.5)

    plain = client.Analyze(AnalyzeRequest(audio_data=audio, extract_embedding=True))
    bulk = client.Analyze(AnalyzeRequest(audio_data=audio, extract_embedding=True, options=BULK))
    await crowd.until(inside=4)
    await crowd.disperse()

    assert (await plain).HasField("embedding")
    answer = await bulk
    assert answer.emotion
    assert not answer.HasField("embedding")
    assert "DEGRADED_SCORES_ONLY" in [warning.code for warning in answer.metadata.warnings]
    page = await asyncio.to_thread(read, f"http://127.0.0.1:{crowd.server.metrics_port}/metrics")
    assert 'emotion_api_degraded_total{step="scores_only"} 1.0' in page


async def test_bulk_is_refused_first(crowd, tone):
    client = await crowd.gather(2, refuse_bulk_after_seconds=1e-9)

    error = await refused(client.Analyze(AnalyzeRequest(audio_data=tone(0.5), options=BULK)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await refused(client.Analyze(GARBAGE))).code() is grpc.StatusCode.INVALID_ARGUMENT


def read(url: str) -> str:
    with urlopen(url) as answer:
        return answer.read().decode()


def test_too_many_calls_are_worth_a_retry():
    failure = failure_of(TooManyCalls(7))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.retry_after


@pytest.mark.parametrize(
    ("size", "audio_format", "quick"),
    [
        (
            160_000,
            AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=16_000),
            True,
        ),
        (
            999_999,
            AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=16_000),
            False,
        ),
        (16_000, AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=8_000), False),
        (16_000, None, False),
    ],
)
def test_only_a_short_conversion_holds_up_the_loop(size, audio_format, quick):
    request = AnalyzeRequest(audio_data=bytes(size), audio_format=audio_format)

    assert is_quick(read_query(request)) is quick
