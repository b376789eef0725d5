"""Several processes of one server: kept running, renewed without a gap, ended together."""

import asyncio
import itertools
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest, AnalyzeResponse
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub
from streams import HeldEngine, Server
from structlog.testing import capture_logs
from test_lifecycle import Process

from server import hearing
from server.audio import AudioLimits, decode
from server.config import Settings
from server.draining import QUIET
from server.engine.loading import load
from server.notify import READY, notify
from server.process import can_be_forked, threads_of
from server.speech import Utterance, softmax
from server.workers import restarts
from server.workers.plan import plan_for
from server.workers.restarts import Restarts
from server.workers.supervisor import Supervisor
from server.workers.worker import Heard, listening
from server.workers.zygote import adopt

FLAGS = ("--engine", "fake", "--metrics-port", "0", "--log-format", "json")
SAYS_READY = "from server.notify import *; notify(READY); "
SERVES = SAYS_READY + "import time; time.sleep(60)"


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
    def test_each_worker_has_ports_of_its_own(self):
        plan = plan_for(Settings(workers=3, metrics_port=9000), port=5000)

        assert plan.order(2, used={9000, 9001, 9002}) == {"port": 5002, "metrics_port": 9003}

    def test_on_a_shared_port_all_have_the_same(self):
        settings = Settings(workers=3, share_port=True, metrics_port=0)

        plan = plan_for(settings, port=5000)

        orders = [plan.order(slot, used=()) for slot in range(3)]
        assert orders == 3 * [{"port": 5000, "metrics_port": 0}]


def test_only_what_survives_a_fork_is_loaded_before_it():
    assert can_be_forked(Settings(engine="native"), ["cpu"])
    assert not can_be_forked(Settings(engine="native"), ["cuda:0"])
    assert not can_be_forked(Settings(engine="funasr"), ["cpu"])


class TestThreads:
    def test_workers_share_the_cores(self):
        assert threads_of(Settings(workers=3), available=8) == 2

    def test_a_machine_with_few_cores_gives_every_worker_one(self):
        assert threads_of(Settings(workers=4), available=2) == 1

    def test_whoever_says_how_many_is_believed(self):
        assert threads_of(Settings(workers=4, threads=7), available=2) == 7

    def test_a_server_alone_lets_the_engine_choose(self):
        assert threads_of(Settings(), available=8) == 0


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

    @property
    def pid(self) -> int:
        return self._process.pid

    def children(self) -> set[int]:
        file = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return {int(child) for child in file.read_text().split()}

    async def serving(self, count: int) -> list[int]:
        """The ids of the next `count` workers that serve."""
        return [(await self.until("worker serving"))["pid"] for _ in range(count)]


@pytest.fixture
async def start():
    """Starts two workers; whatever happens, they end with the test."""
    families: list[Family] = []

    async def start_family(*flags: str, program: tuple[str, str] = ("-m", "server")) -> Family:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, *FLAGS, "--workers", "2", *flags),
            stderr=asyncio.subprocess.PIPE,
        )
        families.append(Family(process))
        return families[-1]

    yield start_family
    for family in families:
        await family.kill()


@asynccontextmanager
async def own_connection(port: int):
    """A client that shares its connection with no other, and does not retry."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield EmotionServiceStub(channel)


async def analyze(port: int, audio: bytes) -> AnalyzeResponse:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = AnalyzeRequest(audio_data=audio)
        client = EmotionServiceStub(channel)
        return await client.Analyze(request, wait_for_ready=True, timeout=30)


async def test_each_worker_answers_on_its_own_port_and_all_end_with_0(start, tone):
    port = two_free_ports()
    family = await start("--port", str(port))
    await family.until("workers serving")

    answers = [await analyze(one, tone(0.1)) for one in (port, port + 1)]
    family.signal(signal.SIGTERM)

    assert all(answer.emotion for answer in answers)
    assert await family.exit_status() == 0
    assert [line["event"] for line in family.log].count("stopped") == 2


async def test_a_worker_that_dies_is_replaced(start, tone):
    family = await start("--port", "0", "--share-port")
    first, second = await family.serving(2)
    port = (await family.until("workers serving"))["port"]

    os.kill(first, signal.SIGKILL)
    [third] = await family.serving(1)

    assert third not in {first, second}
    assert (await analyze(port, tone(0.1))).emotion


async def test_renewing_replaces_every_worker_while_callers_are_answered(start, tone):
    family = await start("--port", "0", "--share-port")
    old = await family.serving(2)
    port = (await family.until("workers serving"))["port"]
    renewed = asyncio.Event()
    request = AnalyzeRequest(audio_data=tone(0.1))

    answers: list[AnalyzeResponse] = []
    cut: list[grpc.StatusCode] = []

    async def keep_calling(client: EmotionServiceStub) -> None:
        while not renewed.is_set():
            try:
                answers.append(await client.Analyze(request))
            except grpc.aio.AioRpcError as error:
                cut.append(error.code())

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(own_connection(port)) for _ in range(4)]
        calling = asyncio.gather(*(keep_calling(one) for one in clients for _ in range(4)))
        family.signal(signal.SIGHUP)
        new = await family.serving(2)
        await family.until("workers renewed")
        renewed.set()
        await calling

    assert not set(old) & set(new)
    assert answers
    assert len(cut) <= 2  # none, unless gRPC's threads wait long for a processor; else eight
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
    assert all([(await analyze(one, tone(0.1))).emotion for one in (port, port + 1)])
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


async def test_a_signal_while_the_model_loads_leaves_nobody_behind(start):
    patch = "import time; from server.engine import loading; "
    hangs = "loading.FakeEngine = lambda: time.sleep(3600); "
    script = patch + hangs + "from server.__main__ import main; main()"
    family = await start("--port", "0", program=("-c", script))
    await family.until("loading for the workers")

    family.signal(signal.SIGTERM)

    assert await family.exit_status() == 0  # reads until the last of them has closed the log


async def test_a_supervisor_has_neither_torch_nor_grpc_in_memory(start):
    family = await start("--port", "0", "--share-port")
    [worker, _] = await family.serving(2)

    mapped, of_worker = (mapped_files(pid) for pid in (family.pid, worker))

    assert "cygrpc" in of_worker
    assert "cygrpc" not in mapped
    assert "torch" not in mapped


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


async def test_a_zygote_that_is_killed_costs_no_worker_and_is_replaced(start, tone):
    family = await start("--port", "0", "--share-port")
    first, second = await family.serving(2)
    port = (await family.until("workers serving"))["port"]
    [zygote] = family.children() - {first, second}

    os.kill(zygote, signal.SIGKILL)
    answer = await analyze(port, tone(0.1))
    os.kill(first, signal.SIGKILL)
    [third] = await family.serving(1)

    assert answer.emotion
    assert "the zygote died; loading again" in family.events()
    assert {second, third} < family.children()


async def test_forked_workers_with_several_threads_answer_as_one_that_was_not_forked(start, tone):
    port = two_free_ports()
    flags = ("--engine", "native", "--devices", "cpu", "--threads", "2", "--port", str(port))
    family = await start(*flags)
    workers = await family.serving(2)
    await family.until("workers serving")
    [zygote] = family.children() - set(workers)
    audio = tone(3.0)
    alone = await asyncio.to_thread(unforked, audio)

    answers = [await analyze(one, audio) for one in (port, port + 1)]

    assert len(os.listdir(f"/proc/{zygote}/task")) == 1
    for answer in answers:
        assert dict(answer.scores) == pytest.approx(alone, abs=1e-7)


def unforked(audio: bytes) -> dict[str, float]:
    """The scores of an engine in this process."""
    engine = load("demo", device="cpu", threads=2)
    engine.warm_up()
    waveform = decode(audio, None, AudioLimits()).waveform
    [prediction] = engine.infer([Utterance(waveform)])
    return dict(zip(engine.model.labels, softmax(prediction.logits).tolist(), strict=True))


@pytest.fixture
async def heard(tmp_path):
    adopt()
    async with listening(tmp_path / "notify") as receiver:
        yield receiver


def supervise_scripts(heard, works: str, *, loads: str = "", share_port: bool = False):
    """A supervisor of two scripts instead of servers."""
    script = "from server.workers import hatch; " + loads + "hatch(); " + works
    settings = Settings(workers=2, share_port=share_port)
    return Supervisor(plan_for(settings, port=0), [sys.executable, "-c", script], heard)


@asynccontextmanager
async def living(supervisor: Supervisor, heard: Heard):
    """Yields the event that renews, once two workers serve."""
    stop, renew = asyncio.Event(), asyncio.Event()
    life = asyncio.create_task(supervisor.run(stop, renew))
    while sum(worker.ready.is_set() for worker in heard.workers.values()) < 2:
        await asyncio.sleep(0.01)
    yield renew
    stop.set()
    assert await life == 0


async def test_a_worker_that_dies_again_and_again_ends_the_whole_with_1(heard, monkeypatch):
    monkeypatch.setattr(restarts, "FIRST_DELAY", 0.001)

    supervisor = supervise_scripts(heard, SAYS_READY + "exit(3)")
    status = await supervisor.run(stop=asyncio.Event(), renew=asyncio.Event())

    assert status == 1


async def test_a_renewal_that_cannot_load_leaves_the_old_ones_serving(heard, tmp_path):
    loads = f"open({str(tmp_path / 'loaded')!r}, 'x'); "  # fails the second time
    supervisor = supervise_scripts(heard, SERVES, loads=loads)

    with capture_logs() as log:
        async with living(supervisor, heard) as renew:
            old = set(heard.workers)
            renew.set()
            await until(log, "renewing was given up")

            assert set(heard.workers) == old


@pytest.mark.parametrize("share_port", [True, False])
async def test_a_renewal_whose_first_worker_fails_leaves_two_old_ones(heard, tmp_path, share_port):
    loads = f"f = open({str(tmp_path / 'loaded')!r}, 'a'); second = f.tell(); print(1, file=f); "
    works = "second and exit(4); " + SERVES
    supervisor = supervise_scripts(heard, works, loads=loads + "f.close(); ", share_port=share_port)

    with capture_logs() as log:
        async with living(supervisor, heard) as renew:
            old = set(heard.workers)
            renew.set()
            await until(log, "renewing was given up")

            assert len(heard.workers) == 2
            assert len(old & set(heard.workers)) == (2 if share_port else 1)
            assert all(worker.ready.is_set() for worker in heard.workers.values())


async def until(log: list, event: str) -> None:
    while not any(line["event"] == event for line in log):
        await asyncio.sleep(0.01)


async def test_on_a_shared_port_a_stopping_server_answers_whom_it_has_heard_however_long(tone):
    engine = HeldEngine(delay_s_per_batch=QUIET + 0.3)  # it is deaf once in vain
    async with Server(engine, share_port=True) as server:
        answer = asyncio.ensure_future(server.client.Analyze(AnalyzeRequest(audio_data=tone(0.1))))
        await engine.until_begun(1)

        await server.stop()

        assert (await answer).emotion


def test_what_is_not_heard_stays_with_its_sender():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as ours:
            ours.setblocking(False)

            hearing.stop(port)
            client.send(b"late")
            with pytest.raises(BlockingIOError):
                ours.recv(4)
            hearing.go_on(port)
            ours.setblocking(True)

            assert ours.recv(4) == b"late"


def test_a_port_that_takes_no_more_keeps_what_it_has():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as late:
        address = listener.getsockname()
        with socket.create_connection(address) as early:
            hearing.take_no_more(address[1])
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(address)

            with listener.accept()[0] as ours:
                early.send(b"here")
                assert ours.recv(4) == b"here"


def mapped_files(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def two_free_ports() -> int:
    """The first of two that follow each other and were free a moment ago."""
    # Below those that the kernel gives to connections.
    for port in itertools.count(20_000 + os.getpid() % 12_000, 2):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError
