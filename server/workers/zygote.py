"""A process that has loaded the model and forks workers, which then share its memory.

Knows nothing of what they serve. Neither threads nor gRPC nor an event loop survive a fork, so
whoever calls `hatch` has started none of them.
"""

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from server import notify

VARIABLE = "ZYGOTE_SOCKET"  # the number of the zygote's end; what it says is always a process id
MESSAGE_SIZE = 1024

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

# One thread: numpy's BLAS starts its own at import, and looking for GPUs must not start CUDA.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


class StartFailed(Exception):
    """A worker, or what is needed to make one, ended before it served."""


class Zygote:
    """As its supervisor sees it. One call of `fork` at a time."""

    def __init__(self, process: asyncio.subprocess.Process, ours: socket.socket) -> None:
        self._process = process
        self._socket = ours

    @classmethod
    async def start(cls, command: Sequence[str], notify_address: Path) -> Self:
        """Returns when it has loaded. Raises StartFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        said = {VARIABLE: str(theirs.fileno()), notify.VARIABLE: str(notify_address)}
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **ONE_THREAD, **said},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C of our terminal is for us alone
            )
        zygote = cls(process, ours)
        try:
            if await zygote._hear() != process.pid:
                status = await process.wait()
                raise StartFailed(f"loading for the workers ended with {status}")
        except BaseException:
            await zygote.end()
            raise
        return zygote

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def fork(self, order: dict[str, int]) -> int:
        """The process id of a worker that gets `order` from `hatch`. Raises StartFailed."""
        try:
            self._socket.send(json.dumps(order).encode())
        except OSError as error:
            raise StartFailed("the zygote is dead") from error
        if pid := await self._hear():
            return pid
        raise StartFailed("no worker could be forked")

    async def end(self) -> None:
        """Its workers go on."""
        self._socket.close()
        if self.alive:
            self._process.kill()
        await self._process.wait()

    async def _hear(self) -> int:
        return int(await asyncio.get_running_loop().sock_recv(self._socket, MESSAGE_SIZE) or 0)


def adopt() -> None:
    """Workers become children of this process, whoever forked them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def is_zygote() -> bool:
    """Whether the supervisor started this process to fork workers."""
    return VARIABLE in os.environ


def hatch() -> dict[str, int]:
    """Returns again and again, each time in a new worker, with its order.

    Ends the process that calls it when the supervisor is gone. Each worker is a child of the
    supervisor, which adopts it from a process in between, and dies with it.
    """
    supervisor = os.getppid()
    with socket.socket(fileno=int(os.environ.pop(VARIABLE))) as orders, suppress(OSError):
        gc.collect()
        gc.freeze()  # a collection would write to every object, and so copy its page
        orders.send(b"%d" % os.getpid())
        while order := orders.recv(MESSAGE_SIZE):
            between = os.fork()
            if not between:
                _be_born(supervisor)
                orders.send(b"%d" % os.getpid())
                return dict(json.loads(order))
            if os.waitpid(between, 0)[1]:
                orders.send(b"0")
    sys.exit(0)


def _be_born(supervisor: int) -> None:
    """Returns in a child that the supervisor has adopted, and in nobody else."""
    between = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    while os.getppid() == between:
        time.sleep(0.001)
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(0)  # it died just before


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option})")
