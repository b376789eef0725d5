"""Starts a server as a process group of its own, waits until it answers, ends it."""

import io
import os
import random
import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2 import AnalyzeOptions, AnalyzeRequest, AnalyzeResponse

from benchmarks.peers import null_model
from benchmarks.traffic import Target

LOGS = Path("build/benchmarks/logs")
METHOD = "/speechemotion.v1.EmotionService/Analyze"
RAW = AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=16_000)


class CannotStart(Exception):
    """The server did not come up; the text says where its log is."""


def free_port(neighbours: int = 5) -> int:
    """A port that was free a moment ago, as were those after it; below those of outgoing calls."""
    while True:
        first = random.randrange(15_000, 30_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + 1 + neighbours):
                    probe = stack.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


@contextmanager
def process(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    patience: float = 60.0,
    settle: float = 0.5,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    quiet: bool = False,
) -> Iterator[int]:
    """Yields the process id once `port` accepts connections. Raises CannotStart."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = Path(os.devnull) if quiet else LOGS / f"{name}.log"
    python_path = os.pathsep.join([str(Path.cwd()), str(Path.cwd() / "protos")])
    variables = {**os.environ, "PYTHONPATH": python_path, **(environment or {})}
    with path.open("w") as log:
        started = subprocess.Popen(
            command, stdout=log, stderr=log, env=variables, cwd=folder, start_new_session=True
        )
    try:
        _wait(started, port, patience, path)
        time.sleep(settle)
        yield started.pid
    finally:
        _end(started)


def ours(
    port: int, *flags: str, module: str = "benchmarks.peers.ours", metrics_port: int = 0
) -> list[str]:
    """The command of our server, with its access log on."""
    fixed = [f"--port={port}", f"--metrics-port={metrics_port}", "--log-format=json"]
    return [sys.executable, "-m", module, *fixed, *flags]


def analyze(
    port: int,
    size: int,
    *,
    method: str = METHOD,
    headers: tuple[tuple[str, str], ...] = (),
    options: AnalyzeOptions | None = None,
    wav: bool = False,
) -> Target:
    """Calls of Analyze with `size` bytes of samples, for a server that has the null model."""
    bodies = null_model.bodies(size)
    requests = [
        AnalyzeRequest(audio_data=_as_wav(one), options=options)
        if wav
        else AnalyzeRequest(audio_data=one, audio_format=RAW, options=options)
        for one in bodies
    ]
    return Target(
        address=f"127.0.0.1:{port}",
        path=method,
        bodies=[request.SerializeToString() for request in requests],
        expected=expected(bodies),
        read=_scores,
        headers=headers,
    )


def _as_wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RAW.sample_rate_hz, 0, "NONE", ""))
        writer.writeframes(samples)
    return file.getvalue()


def expected(bodies: Sequence[bytes]) -> list[list[float]]:
    """What the null model says of each."""
    return [null_model.scores(np.frombuffer(one, "<i2")).tolist() for one in bodies]


def _scores(answer: bytes) -> list[float]:
    response = AnalyzeResponse.FromString(answer)
    return [response.scores[label] for label in null_model.LABELS]


def _wait(started: subprocess.Popen[bytes], port: int, patience: float, log: Path) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and started.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise CannotStart(f"no answer on port {port} within {patience:g} s, see {log}")


def _end(started: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(started.pid, number)
        except ProcessLookupError:
            break
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            continue
    started.wait()
