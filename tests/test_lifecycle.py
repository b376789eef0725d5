"""The life of the process: how it starts, how it refuses to, and how it ends."""

import asyncio
import json
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

import grpc
import pytest
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from server.app import run, serving
from server.draining import ServingFailed
from server.engine import DeviceLost
from server.engine.fake import FakeEngine

STOPPED_EARLY = b"speech-emotion-server: stopped before it served\n"

HANGS = """
def hang(_):
    print('{"event": "hangs"}', file=sys.stderr, flush=True)
    time.sleep(3600)
loading.FakeEngine = functools.partial(loading.FakeEngine, fail_when=hang)
"""


class Process:
    """A real server process; its log is JSON lines on stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log: list[dict] = []

    async def until(self, event: str) -> dict:
        """Reads the log up to that event."""
        while await self._read_line():
            if self.log and self.log[-1]["event"] == event:
                return self.log[-1]
        raise EOFError(f"the log ended before {event!r}: {self.log}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def exit_status(self) -> int:
        """Reads the rest of the log too."""
        while await self._read_line():
            pass
        return await self._process.wait()

    async def _read_line(self) -> bytes:
        line = await self._process.stderr.readline()
        if line.startswith(b"{"):  # gRPC's own core writes lines of another kind
            self.log.append(json.loads(line))
        return line

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.fixture
async def start():
    """Starts `python -m server` with flags; whatever happens, it ends with the test."""
    started: list[Process] = []

    async def start_server(*flags: str, program: tuple[str, str] = ("-m", "server")) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "--log-format", "json", *flags),
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(Process(process))
        return started[-1]

    yield start_server
    for process in started:
        await process.kill()


@pytest.fixture
async def start_script(start):
    """Starts the server after a script has changed the fake engine, as `loading` makes it."""

    async def start_changed(script: str, *flags: str) -> Process:
        imports = "import functools, sys, time\nfrom server.engine import loading\n"
        command = imports + script + "\nfrom server.__main__ import main; main()"
        return await start("--engine", "fake", "--port", "0", *flags, program=("-c", command))

    return start_changed


async def test_a_started_process_answers_and_ends_with_0_when_asked_to(start, tone):
    server = await start("--engine", "fake", "--port", "0")
    address = (await server.until("serving"))["address"]

    async with grpc.aio.insecure_channel(address) as channel:
        answer = await EmotionServiceStub(channel).Analyze(AnalyzeRequest(audio_data=tone(0.1)))
    server.signal(signal.SIGTERM)

    assert answer.emotion
    assert await server.exit_status() == 0
    assert [line["event"] for line in server.log] == [
        "loading", "serving", "call", "draining", "stopped",
    ]  # fmt: skip


async def test_who_called_while_the_server_stood_still_hears_from_it(start):
    server = await start("--engine", "fake", "--port", "0")
    address = (await server.until("serving"))["address"]
    end = asyncio.create_task(server.exit_status())

    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        server.signal(signal.SIGSTOP)
        calls = [EmotionServiceStub(channel).Analyze(AnalyzeRequest()) for _ in range(3_000)]
        await asyncio.sleep(1)
        server.signal(signal.SIGCONT)
        codes = Counter([(await call.code()).name for call in calls])
    server.signal(signal.SIGTERM)

    assert set(codes) <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}, codes
    assert await end == 0


async def test_a_port_that_is_taken_is_one_clear_line(start):
    first = await start("--engine", "fake", "--port", "0")
    port = (await first.until("serving"))["address"].rpartition(":")[2]

    second = await start("--engine", "fake", "--port", port)

    assert await second.exit_status() == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in second.log[-1]["event"]


async def test_a_model_that_is_not_there_is_one_clear_line(start):
    server = await start("--model", "no/such/folder", "--port", "0")

    assert await server.exit_status() == 1
    assert "no/such/folder" in server.log[-1]["event"]
    assert not any("exception" in line for line in server.log)


async def test_settings_that_make_no_sense_end_with_2():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "--port", "abc"), stderr=asyncio.subprocess.PIPE
    )
    _, printed = await process.communicate()

    assert process.returncode == 2
    assert printed.decode().startswith("speech-emotion-server: port:")


async def test_a_signal_while_the_modules_load_ends_with_0_and_a_word():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "--engine", "fake"), stderr=asyncio.subprocess.PIPE
    )
    while not catches(process.pid, signal.SIGTERM):
        await asyncio.sleep(0.001)

    process.send_signal(signal.SIGTERM)

    _, printed = await process.communicate()
    assert (process.returncode, printed) == (0, STOPPED_EARLY)


async def test_a_signal_while_the_model_loads_does_not_wait_for_it(start_script):
    server = await start_script("loading.FakeEngine = lambda: time.sleep(3600)")
    await server.until("loading")

    server.signal(signal.SIGTERM)

    assert await server.exit_status() == 0


@pytest.mark.parametrize("leave", [False, True], ids=["callers wait", "callers have left"])
async def test_an_engine_that_hangs_does_not_hold_the_process(start_script, tone, leave):
    server = await start_script(HANGS, "--drain-grace-seconds", "0.3")
    address = (await server.until("serving"))["address"]
    async with grpc.aio.insecure_channel(address) as channel:
        client = EmotionServiceStub(channel)
        runs = client.Analyze(AnalyzeRequest(audio_data=tone(0.1)))
        await server.until("hangs")
        waits = client.Analyze(AnalyzeRequest(audio_data=tone(0.2)))
        with pytest.raises(grpc.aio.AioRpcError):  # then the call before it is accepted
            await client.Analyze(AnalyzeRequest(audio_data=b""))
        if leave:
            runs.cancel()
            waits.cancel()

        server.signal(signal.SIGTERM)
        codes = [await call.code() for call in (runs, waits)]
        trailers = [dict(await call.trailing_metadata()) for call in (runs, waits)]

    assert await server.exit_status() == 1
    assert "abandoned after the time to drain" in [line["event"] for line in server.log]
    told = grpc.StatusCode.CANCELLED if leave else grpc.StatusCode.UNAVAILABLE
    assert codes == [told, told]
    for details in () if leave else trailers:
        assert b"DRAINING" in details["grpc-status-details-bin"]
        assert int(details["grpc-retry-pushback-ms"]) > 0


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal. Source: proc(5), SigCgt."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


async def test_draining_finishes_the_calls_in_flight_and_refuses_new_ones(settings, tone):
    engine = FakeEngine(delay_s_per_batch=0.2)

    async with serving(settings, lambda: engine) as server:
        channel = grpc.aio.insecure_channel(f"localhost:{server.port}")
        client = EmotionServiceStub(channel)
        call = asyncio.ensure_future(client.Analyze(AnalyzeRequest(audio_data=tone(0.1))))
        while not engine.batches:
            await asyncio.sleep(0.005)

    assert (await call).emotion
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.Analyze(AnalyzeRequest(audio_data=tone(0.1)))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    await channel.close()


async def test_the_engine_is_warm_before_anybody_can_ask(settings):
    engine = FakeEngine()

    async with serving(settings, lambda: engine):
        assert engine.warmed_up


async def test_a_lost_device_ends_the_process_with_1(settings, tone):
    engine = FakeEngine(fail_when=lambda _batch: DeviceLost("sticky"))
    chosen = settings.model_copy(update={"port": free_port()})
    life = asyncio.create_task(run(chosen, lambda: engine, asyncio.Event()))
    async with grpc.aio.insecure_channel(f"localhost:{chosen.port}") as channel:
        client = EmotionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.Analyze(AnalyzeRequest(audio_data=tone(0.1)), wait_for_ready=True)

    with pytest.raises(ServingFailed):
        await life
    assert "sticky" not in error.value.details()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
