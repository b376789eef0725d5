"""Several processes of one server: kept running, renewed without a gap, ended together."""

import asyncio
import itertools
import os
import signal
import socket
import sys

import grpc
import pytest
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub
from test_lifecycle import Process

from server.config import Settings
from server.notify import READY, notify
from server.workers import restarts
from server.workers.plan import plan_for
from server.workers.restarts import Restarts
from server.workers.supervisor import Supervisor
from server.workers.worker import listening

FLAGS = ("--engine", "fake", "--metrics-port", "0", "--log-format", "json")
SAYS_READY = "from server.notify import *; notify(READY); "


class TestRestarts:
    def test_the_pause_doubles_with_every_fast_death_until_it_is_hopeless(self):
        record = Restarts()

        assert [record.died(1.0) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, None]

    def test_a_long_life_makes_up_for_it(self):
        record = Restarts()
        for lifetime in (1.0, 1.0, 1.0):
            record.died(lifetime)

        assert record.died(3600.0) == 0.5


class TestPlan:
    def test_each_worker_has_ports_of_its_own_and_its_share_of_the_cores(self):
        settings = Settings(workers=3, port=5000, metrics_port=9000)

        plan = plan_for(settings, ["serve"], cores=8, port=5000)

        assert plan.flags(2, 9003) == [
            "--workers=1", "--port=5002", "--metrics-port=9003", "--threads=2",
        ]  # fmt: skip

    def test_on_a_shared_port_all_have_the_same(self):
        settings = Settings(workers=3, share_port=True, threads=7)

        plan = plan_for(settings, ["serve"], cores=2, port=5000)

        assert {flag for slot in range(3) for flag in plan.flags(slot, 0)} == {
            "--workers=1", "--port=5000", "--metrics-port=0", "--threads=7",
        }  # fmt: skip

    def test_a_machine_with_few_cores_gives_every_worker_one_thread(self):
        plan = plan_for(Settings(workers=4), ["serve"], cores=2, port=0)

        assert plan.threads == 1


def test_the_socket_of_whoever_started_us_hears_that_we_serve(tmp_path):
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))

        notify(READY, {"NOTIFY_SOCKET": str(address)})

        assert listener.recv(100).decode() == f"READY=1\nMAINPID={os.getpid()}"


def test_nobody_listening_is_no_error(tmp_path):
    notify(READY, {})
    notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "gone")})


class Family(Process):
    """A supervisor and its workers; they write one log."""

    def events(self) -> list[str]:
        """In the order in which they happened; each process writes its lines when it likes."""
        lines = sorted(self.log, key=lambda line: line["timestamp"])
        return [line["event"] for line in lines]

    async def serving(self, count: int) -> list[int]:
        """The ids of the next `count` workers that serve."""
        return [(await self.until("worker serving"))["pid"] for _ in range(count)]


@pytest.fixture
async def start():
    """Starts two workers; whatever happens, they end with the test."""
    families: list[Family] = []

    async def start_family(*flags: str) -> Family:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", *FLAGS, "--workers", "2", *flags),
            stderr=asyncio.subprocess.PIPE,
        )
        families.append(Family(process))
        return families[-1]

    yield start_family
    for family in families:
        await family.kill()


async def analyze(port: int, audio: bytes) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = AnalyzeRequest(audio_data=audio)
        answer = await EmotionServiceStub(channel).Analyze(request, wait_for_ready=True, timeout=30)
        return answer.emotion


async def test_each_worker_answers_on_its_own_port_and_all_end_with_0(start, tone):
    port = two_free_ports()
    family = await start("--port", str(port))
    await family.until("workers serving")

    answers = [await analyze(one, tone(0.1)) for one in (port, port + 1)]
    family.signal(signal.SIGTERM)

    assert all(answers)
    assert await family.exit_status() == 0
    assert [line["event"] for line in family.log].count("stopped") == 2


async def test_a_worker_that_dies_is_replaced(start, tone):
    family = await start("--port", "0", "--share-port")
    first, second = await family.serving(2)
    port = (await family.until("workers serving"))["port"]

    os.kill(first, signal.SIGKILL)
    [third] = await family.serving(1)

    assert third not in {first, second}
    assert await analyze(port, tone(0.1))


async def test_renewing_replaces_every_worker_while_callers_are_answered(start, tone):
    family = await start("--port", "0", "--share-port")
    old = await family.serving(2)
    port = (await family.until("workers serving"))["port"]
    renewed = asyncio.Event()
    answers: list[str] = []

    async def keep_calling() -> None:
        while not renewed.is_set():
            answers.append(await analyze(port, tone(0.1)))

    calling = asyncio.create_task(keep_calling())
    family.signal(signal.SIGHUP)
    new = await family.serving(2)
    await family.until("workers renewed")
    renewed.set()
    await calling

    assert not set(old) & set(new)
    assert all(answers)
    family.signal(signal.SIGTERM)
    assert await family.exit_status() == 0
    events = family.events()
    assert events.index("worker serving", events.index("renewing the workers")) < events.index(
        "draining"
    )


async def test_with_ports_of_their_own_one_at_a_time_is_renewed(start, tone):
    port = two_free_ports()
    family = await start("--port", str(port))
    old = await family.serving(2)
    await family.until("workers serving")

    family.signal(signal.SIGHUP)
    new = await family.serving(2)
    await family.until("workers renewed")

    assert not set(old) & set(new)
    assert all([await analyze(one, tone(0.1)) for one in (port, port + 1)])
    family.signal(signal.SIGTERM)
    assert await family.exit_status() == 0
    events = [event for event in family.events() if event in {"draining", "serving"}]
    assert events[:6] == ["serving", "serving", "draining", "serving", "draining", "serving"]


async def test_workers_do_not_outlive_a_supervisor_that_is_killed(start):
    family = await start("--port", "0", "--share-port")
    await family.until("workers serving")

    family.signal(signal.SIGKILL)

    await family.exit_status()  # reads until the last worker has closed the log
    assert [line["event"] for line in family.log].count("stopped") == 2


async def test_a_model_that_is_not_there_ends_the_whole_with_1(start):
    family = await start("--port", "0", "--engine", "native", "--model", "no/such/folder")

    assert await family.exit_status() == 1
    assert any("no/such/folder" in line["event"] for line in family.log)


async def test_a_shared_port_that_another_program_has_is_one_clear_line(start):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        family = await start("--port", str(port), "--share-port")

        assert await family.exit_status() == 1

    assert [line["event"] for line in family.log] == [
        f"Cannot listen on 127.0.0.1:{port}; is another server there?"
    ]


@pytest.fixture
async def supervisor(tmp_path):
    """Makes a supervisor of two scripts instead of servers."""
    async with listening(tmp_path / "notify") as heard:

        def make(script: str) -> Supervisor:
            command = [sys.executable, "-c", SAYS_READY + script]
            return Supervisor(plan_for(Settings(workers=2), command, cores=2, port=0), heard)

        yield make


async def test_a_worker_that_dies_again_and_again_ends_the_whole_with_1(supervisor, monkeypatch):
    monkeypatch.setattr(restarts, "FIRST_DELAY", 0.001)

    status = await supervisor("exit(3)").run(asyncio.Event(), asyncio.Event())

    assert status == 1


async def test_a_renewal_that_cannot_start_leaves_the_old_ones_serving(tmp_path):
    once = f"import pathlib, time; p = pathlib.Path({str(tmp_path / 'started')!r}); "
    script = once + "p.open('a').write('x'); p.stat().st_size > 2 and exit(4); "
    async with listening(tmp_path / "notify") as heard:
        command = [sys.executable, "-c", script + SAYS_READY + "time.sleep(60)"]
        settings = Settings(workers=2, share_port=True)
        supervisor = Supervisor(plan_for(settings, command, cores=2, port=0), heard)
        stop, renew = asyncio.Event(), asyncio.Event()
        life = asyncio.create_task(supervisor.run(stop, renew))
        old = await ready_workers(heard)

        renew.set()
        while (tmp_path / "started").stat().st_size < 3 or len(heard.workers) > 2:
            await asyncio.sleep(0.01)

        assert set(heard.workers) == set(old)
        stop.set()
        assert await life == 0


async def ready_workers(heard) -> list[int]:
    while sum(worker.ready.is_set() for worker in heard.workers.values()) < 2:
        await asyncio.sleep(0.01)
    return list(heard.workers)


def two_free_ports() -> int:
    """The first of two that follow each other and were free a moment ago."""
    for port in itertools.count(20_000 + os.getpid() % 20_000, 2):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError
