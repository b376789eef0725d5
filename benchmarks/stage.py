"""Where the measures of the fleet take place: a fleet on loopback, and who calls it."""

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from benchmarks.load import Tally, offer
from fleet.companions import companions, sharing
from fleet.compose import compose
from fleet.edge import equip
from fleet.local import Fleet
from fleet.plan import HOST, replica
from fleet.ports import beside

SECONDS = 5.0  # of audio: 160 KB of 16 kHz, 16 bit
NO_RETRIES = [("grpc.enable_retries", 0)]


def clip(seconds: float = SECONDS) -> bytes:
    """A WAV file of noise."""
    samples = random.Random(1).randbytes(2 * round(16_000 * seconds))
    size = len(samples)
    head = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = (1).to_bytes(2, "little") * 2 + (16_000).to_bytes(4, "little")
    form += (32_000).to_bytes(4, "little") + (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    return head + form + b"data" + size.to_bytes(4, "little") + samples


@asynccontextmanager
async def fleet_of(
    each: Sequence[Sequence[str]],
    *variants: str,
    module: str = "benchmarks.replica",
    keys: Sequence[tuple[str, str]] = (),
    change: Callable[[dict[str, Any]], None] | None = None,
    share: bool = False,
) -> AsyncIterator[Fleet]:
    """A fleet with these flags for each replica, in a folder that goes away with it.

    `share`: with a Redis, so that streams go on at another replica.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, ports = Path(name), beside(len(each))
        config = compose(variants)
        log: deque[str] = deque(maxlen=50)  # lines
        if keys:
            pairs = [{"key": key, "client": client} for key, client in keys]
            (folder / "keys.yaml").write_text(json.dumps(pairs))
        if variants:
            equip(config, folder)
        if change:
            change(config)
        beside_it = [one for one in companions(ports, folder)[0] if share and one.name == "redis"]
        common = sharing(beside_it)
        fleet = Fleet(
            folder,
            ports,
            config,
            replicas=[
                replica(n, ports, [*common, *flags], module=module) for n, flags in enumerate(each)
            ],
            companions=beside_it,
            envoy_drain=0,
            write=log.append,
        )
        try:
            async with fleet:
                yield fleet
        except Exception:
            print(*log, file=sys.stderr)
            raise


@asynccontextmanager
async def caller(port: int) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Analyses a 160 KB clip, with a client that never tries again."""
    options = [*NO_RETRIES, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=options) as channel:
        stub = EmotionServiceStub(channel)
        request = pb.AnalyzeRequest(audio_data=clip())
        yield lambda: stub.Analyze(request, timeout=30)


@asynccontextmanager
async def short_caller(port: int) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    options = [*NO_RETRIES, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=options) as channel:
        stub = EmotionServiceStub(channel)
        request = pb.AnalyzeRequest(audio_data=clip(0.2))
        yield lambda: stub.Analyze(request, timeout=30)


async def closed_loop(
    call: Callable[[], Awaitable[object]], *, callers: int, seconds: float
) -> Tally:
    tally = Tally()
    end = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < end:
            await tally.note(call())

    await asyncio.gather(*(one() for _ in range(callers)))
    return tally


async def paced(call: Callable[[], Awaitable[object]], rate: float, count: int) -> Tally:
    """`count` calls at a rate; rate 0: by eight callers, each as fast as it is answered."""
    if rate:
        return await offer(call, rate=rate, count=count)
    tally, numbers = Tally(), iter(range(count))

    async def one() -> None:
        for _ in numbers:
            await tally.note(call())

    await asyncio.gather(*(one() for _ in range(8)))
    return tally


def cpu(pid: int | None) -> float:
    """Seconds of CPU that the threads of a process have used (proc(5), schedstat: exact)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int | None) -> float:
    """Peak resident memory of a process, MiB (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def say(measure: str, how: str, tally: Tally) -> None:
    total = tally.outcomes.total()
    print(f"{measure} ({how}): {tally.failed} of {total} failed; {tally}", flush=True)
