"""One child process: started, watched, its output labelled line by line, and ended."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from fleet.plan import Program

POLL = 0.1  # s, between two looks at a process that is not ready


class Died(Exception):
    """A process ended by itself before it was ready."""


def first_of(error: BaseException) -> BaseException:
    """Of several that happened together, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def said(line: str) -> str:
    """What a line of output says to people, if it is one of a log in JSON."""
    try:
        return str(json.loads(line)["event"])
    except (ValueError, LookupError, TypeError):
        return line


class Process:
    """`write` gets its output, one labelled line at a time."""

    def __init__(self, program: Program, write: Callable[[str], None]) -> None:
        self.program = program
        self._write = write
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._last = "it said nothing"

    def __repr__(self) -> str:
        return f"<Process {self.program.name} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        """None unless it runs."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def start(self) -> None:
        self._child = await asyncio.create_subprocess_exec(
            *self.program.arguments,
            env=os.environ | dict(self.program.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
            start_new_session=True,  # Ctrl-C is for the supervisor, which ends them in order
        )
        assert self._child.stdout
        self._reader = asyncio.create_task(self._label(self._child.stdout))

    async def ready(self) -> None:
        """Waits until it answers. Raises Died if it ends instead."""
        while not await answers(self.program.ready):
            if not self.pid:
                await self.ended()  # with its last words
                raise Died(f"{self.program.name} ended before it was ready: {self._last}")
            await asyncio.sleep(POLL)

    def send(self, number: signal.Signals) -> None:
        if self._child and self._child.returncode is None:
            self._child.send_signal(number)

    async def ended(self) -> int:
        """Waits for it to end by itself or otherwise; returns its exit status."""
        assert self._child
        status = await self._child.wait()
        if self._reader:
            await self._reader
        return status

    async def stop(self, patience: float) -> None:
        """SIGTERM, and SIGKILL to what has not ended after `patience` seconds."""
        if not self.pid:
            return
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.ended(), patience)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.ended()

    async def _label(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            text = line.decode(errors="replace").rstrip()
            self._last = said(text) or self._last
            self._write(f"{self.program.name:<10} | {text}\n")


async def answers(url: str) -> bool:
    """Whether somebody accepts at a tcp URL, or answers 200 to GET at an http one."""
    where = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
    except OSError:
        return False
    try:
        return where.scheme == "tcp" or await get(reader, writer, where.path) == 200
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """The status of a GET; 0 if there was none within two seconds."""
    return await _ask(reader, writer, "GET", path)


async def post(host: str, port: int, path: str) -> int:
    """The status of a POST without a body, for Envoy's admin interface; 0 if nobody is there."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return 0
    try:
        return await _ask(reader, writer, "POST", path)
    finally:
        writer.close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, verb: str, path: str
) -> int:
    head = (
        f"{verb} {path} HTTP/1.1\r\nhost: fleet\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(2):
            writer.write(head.encode())
            words = (await reader.readline()).split()
    except (OSError, TimeoutError):
        return 0
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
