"""One worker process, and how it says that it serves."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from server import notify

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(slots=True, eq=False)
class Worker:
    """One process. `wanted` is false once its end is no accident any more."""

    slot: int
    metrics_port: int
    process: asyncio.subprocess.Process
    started_at: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: bool = True


class Heard(asyncio.DatagramProtocol):
    """Takes what the workers say through NOTIFY_SOCKET."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.workers: dict[int, Worker] = {}  # by process id

    def datagram_received(self, data: bytes, _: object) -> None:
        said = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
        worker = self.workers.get(int(said.get("MAINPID", 0)))
        if worker and said.get("READY") == "1":
            worker.ready.set()


@asynccontextmanager
async def listening(address: Path) -> AsyncIterator[Heard]:
    loop = asyncio.get_running_loop()
    heard = Heard(address)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    receiver.bind(str(address))
    transport, _ = await loop.create_datagram_endpoint(lambda: heard, sock=receiver)
    try:
        yield heard
    finally:
        transport.close()


async def start_process(command: Sequence[str], notify_address: Path) -> asyncio.subprocess.Process:
    """Starts a worker that outlives neither us nor, by itself, a Ctrl-C of our terminal."""
    return await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, notify.VARIABLE: str(notify_address)},
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    """Runs in the new process: a supervisor that is killed leaves no orphans behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
