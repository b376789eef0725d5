"""A replica dies, hangs, drains or is replaced under load: no call is lost, with a plain client."""

import asyncio
import signal

import grpc
import pytest
import pytest_asyncio
from fleets import calls_of, running, statistics, until, visit
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from benchmarks.load import offer
from fleet.compose import compose

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

RATE = 60  # calls a second
NO_RETRIES = [("grpc.enable_retries", 0)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    async with running(folder, replicas=3, flags=["--delay-ms", "20"]) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def analyze(fleet, tone):
    """Calls through Envoy with a client that never tries again."""
    address = f"127.0.0.1:{fleet.ports.door}"
    audio = tone(2.0)
    async with grpc.aio.insecure_channel(address, options=NO_RETRIES) as channel:
        stub = EmotionServiceStub(channel)
        yield lambda: stub.Analyze(AnalyzeRequest(audio_data=audio), timeout=30)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def all_healthy(fleet):
    """Each test starts with every replica in rotation."""

    async def everybody_is_back() -> bool:
        healthy = await statistics(fleet, "cluster.speech.membership_healthy$")
        return list(healthy.values()) == [3]

    await until(everybody_is_back, patience=40)


async def during(load: asyncio.Task, *, after: float = 1.0) -> None:
    """Lets the load run for a while; it must not be over when the trouble starts."""
    await asyncio.sleep(after)
    assert not load.done()


async def test_a_killed_replica_loses_no_call_and_is_started_again(fleet, analyze):
    load = asyncio.create_task(offer(analyze, rate=RATE, count=4 * RATE))
    await during(load)
    fleet.replicas[0].send(signal.SIGKILL)
    tally = await load

    assert tally.failed == 0, tally


async def test_a_hung_replica_loses_no_call(fleet, analyze):
    load = asyncio.create_task(offer(analyze, rate=RATE, count=5 * RATE))
    await during(load)
    fleet.replicas[1].send(signal.SIGSTOP)
    try:
        tally = await load
    finally:
        fleet.replicas[1].send(signal.SIGCONT)

    assert tally.failed == 0, tally


async def test_replacing_every_replica_loses_no_call(fleet, analyze):
    pids = [replica.pid for replica in fleet.replicas]
    rolling = asyncio.create_task(fleet.roll())
    tallies = []
    while not rolling.done():
        tallies.append(await offer(analyze, rate=RATE, count=RATE))
    await rolling

    assert sum(tally.failed for tally in tallies) == 0, [str(tally) for tally in tallies]
    assert not {replica.pid for replica in fleet.replicas} & set(pids)


async def test_a_replica_that_is_taken_out_by_file_gets_no_calls_and_comes_back(fleet, analyze):
    one, *others = fleet.ports.replicas

    fleet.announce(fleet.ports.replicas, draining=[one])
    await until(lambda: _healthy(fleet, 2))
    before = await calls_of(fleet, 0)
    out = await offer(analyze, rate=RATE, count=RATE)
    after = await calls_of(fleet, 0)
    fleet.announce(others)
    gone = await offer(analyze, rate=RATE, count=RATE // 2)
    fleet.announce(fleet.ports.replicas)
    await until(lambda: _healthy(fleet, 3))
    back = await offer(analyze, rate=RATE, count=RATE)

    assert out.failed + gone.failed + back.failed == 0, (out, gone, back)
    assert before == after < await calls_of(fleet, 0)


async def test_one_file_switches_from_blue_replicas_to_green_ones(fleet, analyze):
    *blue, green = fleet.ports.replicas

    fleet.announce(fleet.ports.replicas, draining=[green])
    await until(lambda: _healthy(fleet, 2))
    before = [await calls_of(fleet, number) for number in range(3)]
    load = asyncio.create_task(offer(analyze, rate=RATE, count=3 * RATE))
    await during(load)
    fleet.announce(fleet.ports.replicas, draining=blue)
    await until(lambda: _healthy(fleet, 1))
    switched = [await calls_of(fleet, number) for number in range(3)]
    tally = await load
    after = [await calls_of(fleet, number) for number in range(3)]
    fleet.announce(fleet.ports.replicas)

    assert tally.failed == 0, tally
    assert switched[0] > before[0]
    assert after[2] > switched[2] >= before[2]


async def test_a_fleet_without_a_ready_replica_says_so(fleet):
    everyone = fleet.ports.replicas

    fleet.announce(everyone, draining=everyone)
    await until(lambda: _healthy(fleet, 0))
    async with visit(f"http://127.0.0.1:{fleet.ports.door}") as session:
        answer = await session.get("/ready")
        body = await answer.json()
    fleet.announce(everyone)
    await until(lambda: _healthy(fleet, 3))

    assert answer.status == 503
    assert body == {"code": 14, "message": "No replica is ready.", "details": []}


async def test_an_envoy_whose_memory_is_full_says_that_it_is_busy(tmp_path):
    config = compose([])
    heap = config["overload_manager"]["resource_monitors"][0]["typed_config"]
    heap["max_heap_size_bytes"] = 2**20
    async with running(tmp_path, config, replicas=1) as full, visit() as session:
        url, answers = f"http://127.0.0.1:{full.ports.door}/api/v1/analyze", []

        async def refused_for_load() -> bool:
            answers.append(await session.post(url, json={}))
            return answers[-1].status != 400  # of a request without audio

        await until(refused_for_load)
        refusal = await answers[-1].json()

    assert (answers[-1].status, refusal["code"]) == (429, 8)
    assert answers[-1].headers["retry-after"] == "1"


async def _healthy(fleet, count: int) -> bool:
    found = await statistics(fleet, "cluster.speech.membership_healthy$")
    return list(found.values()) == [count]
