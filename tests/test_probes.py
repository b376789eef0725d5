"""/healthz and /readyz: alive from the start, ready only while calls are welcome."""

import asyncio
import threading

import aiohttp
import pytest

from server.app import serving
from server.engine.fake import FakeEngine
from server.listening import PortTaken


async def status(port: int, path: str, method: str = "GET") -> int:
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        return answer.status


async def test_a_server_that_serves_is_alive_and_ready(settings, engine):
    async with serving(settings, lambda: engine) as server:
        port = server.metrics_port

        assert await status(port, "/healthz") == 200
        assert await status(port, "/readyz") == 200
        assert await status(port, "/readyz", "HEAD") == 200


async def test_a_server_that_still_loads_is_alive_and_not_ready(settings, free_port):
    loading, go_on = threading.Event(), threading.Event()
    chosen = settings.model_copy(update={"metrics_port": free_port})

    def load_slowly() -> FakeEngine:
        loading.set()
        go_on.wait(20)
        return FakeEngine()

    async def live() -> None:
        async with serving(chosen, load_slowly):
            pass

    life = asyncio.create_task(live())
    while not loading.is_set():
        await asyncio.sleep(0.005)
    seen = await status(free_port, "/healthz"), await status(free_port, "/readyz")
    go_on.set()
    await life

    assert seen == (200, 503)


async def test_a_server_that_drains_is_alive_and_not_ready(settings, engine):
    chosen = settings.model_copy(update={"drain_notice_seconds": 0.3})
    leave, left = asyncio.Event(), asyncio.Event()
    ports = []

    async def live() -> None:
        async with serving(chosen, lambda: engine) as server:
            ports.append(server.metrics_port)
            left.set()
            await leave.wait()

    life = asyncio.create_task(live())
    await left.wait()
    leave.set()
    seen = []
    while not seen or seen[-1][1] == 200:
        seen.append((await status(ports[0], "/healthz"), await status(ports[0], "/readyz")))
    await life

    assert seen[-1] == (200, 503)


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [("/", "GET", 404), ("/metrics", "POST", 405), ("/metrics?name=x", "GET", 200)],
)
async def test_everything_else_is_refused(settings, engine, path, method, expected):
    async with serving(settings, lambda: engine) as server:
        assert await status(server.metrics_port, path, method) == expected


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"\x16\x03\x01 nonsense\r\n\r\n"])
async def test_what_is_not_http_is_told_so(settings, engine, sent):
    async with serving(settings, lambda: engine) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        writer.write(sent)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()

    assert line == b"HTTP/1.1 400 Bad Request\r\n"


async def test_an_endless_header_is_cut_off_and_costs_the_others_nothing(settings, engine):
    async with serving(settings, lambda: engine) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 100_000)
        rest = await reader.read()
        writer.close()

        assert rest == b""
        assert await status(server.metrics_port, "/healthz") == 200


async def test_a_taken_port_is_one_clear_error(settings, engine):
    async with serving(settings, lambda: engine) as first:
        chosen = settings.model_copy(update={"metrics_port": first.metrics_port})

        with pytest.raises(PortTaken, match="choose another --metrics-port"):
            async with serving(chosen, lambda: engine):
                pass


@pytest.fixture
async def free_port():
    """A port that was free a moment ago."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
