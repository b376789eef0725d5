"""One worker process: its end, and how it says that it serves."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, eq=False)
class Worker:
    """A child that we have not started ourselves, so that asyncio does not know it.

    `wanted` is false once its end is no accident any more.
    """

    slot: int
    metrics_port: int
    pid: int
    started_at: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0  # once it has ended; negative: the signal
    wanted: bool = True

    def signal(self, number: int) -> None:
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def look(self) -> None:
        """Notes its end, if that has come."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
            self.ended.set()


class Heard(asyncio.DatagramProtocol):
    """Takes what the workers say through NOTIFY_SOCKET, and that they have ended."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.workers: dict[int, Worker] = {}  # that live, by process id
        self._early: set[int] = set()  # have spoken before they were added

    def add(self, worker: Worker) -> None:
        self.workers[worker.pid] = worker
        if worker.pid in self._early:
            self._early.remove(worker.pid)
            worker.ready.set()
        self.child_ended()

    def child_ended(self) -> None:
        for worker in list(self.workers.values()):
            worker.look()
            if worker.ended.is_set():
                del self.workers[worker.pid]

    def datagram_received(self, data: bytes, _: object) -> None:
        said = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
        if said.get("READY") != "1":
            return
        pid = int(said.get("MAINPID", 0))
        if worker := self.workers.get(pid):
            worker.ready.set()
        else:
            self._early.add(pid)


@asynccontextmanager
async def listening(address: Path) -> AsyncIterator[Heard]:
    loop = asyncio.get_running_loop()
    heard = Heard(address)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    receiver.bind(str(address))
    transport, _ = await loop.create_datagram_endpoint(lambda: heard, sock=receiver)
    loop.add_signal_handler(signal.SIGCHLD, heard.child_ended)
    try:
        yield heard
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)
        transport.close()
