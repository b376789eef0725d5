"""/healthz, /readyz and /metrics over plain HTTP, in the event loop that does the work.

A loop that hangs answers no probe, which is the truth. Knows nothing but GET; one answer a
connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client.exposition import CONTENT_TYPE_LATEST

PATIENCE = 5.0  # s, for a request line and headers
MAX_HEAD = 16 * 1024  # bytes
PLAIN = "text/plain; charset=utf-8"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: int
    body: bytes
    kind: str = PLAIN

    def to_bytes(self, *, with_body: bool) -> bytes:
        """As HTTP/1.1; the answer to HEAD has no body."""
        head = (
            f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\n"
            f"content-type: {self.kind}\r\ncontent-length: {len(self.body)}\r\n"
            "cache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        return head.encode() + (self.body if with_body else b"")


class Probes:
    """What orchestrators and Prometheus ask."""

    def __init__(self, metrics: Callable[[], bytes], ready: Callable[[], bool]) -> None:
        """`metrics`: in Prometheus' text format."""
        self._metrics = metrics
        self._ready = ready

    def answer(self, method: str, path: str) -> Page:
        """Alive is who answers at all; ready is who may be sent calls."""
        if method not in {"GET", "HEAD"}:
            return Page(405, b"only GET\n")
        match path.partition("?")[0]:
            case "/healthz":
                return Page(200, b"ok\n")
            case "/readyz":
                return Page(200, b"ready\n") if self._ready() else Page(503, b"not ready\n")
            case "/metrics":
                return Page(200, self._metrics(), CONTENT_TYPE_LATEST)
            case _:
                return Page(404, b"there are /healthz, /readyz and /metrics\n")

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Serves on `host` and yields the port; raises OSError if somebody else has it."""
        server = await asyncio.start_server(self._talk, host, port, limit=MAX_HEAD)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._reply(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # whoever it was does not speak HTTP, or has left
        finally:
            writer.close()

    def _reply(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Page(400, b"not HTTP/1.1\n").to_bytes(with_body=True)
        return self.answer(words[0], words[1]).to_bytes(with_body=words[0] != "HEAD")
