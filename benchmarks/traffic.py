"""The load generator: closed or open loop, many bodies, several processes, checked answers.

Also measures the processor time of a server's whole process tree over the same seconds. Knows no
server: a Target says how to speak to one.
"""

import asyncio
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import aiohttp
import grpc

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CHECKED = 16  # one answer in so many is compared with what the model must say
START = 1.5  # s; for the generator's processes to come up


class Client(Protocol):
    """One connection pool."""

    async def call(self, body: bytes, limit: float | None) -> bytes: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, and what; `expected[i]` belongs to `bodies[i]`, and `read` finds it."""

    address: str
    path: str  # "/package.Service/Method" of gRPC, or of HTTP
    bodies: Sequence[bytes]
    expected: Sequence[Sequence[float]]
    read: Callable[[bytes], Sequence[float]]
    http: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    def connect(self) -> Client:
        return HttpClient(self) if self.http else GrpcClient(self)

    def is_right(self, number: int, answer: bytes) -> bool:
        wanted, got = self.expected[number % len(self.bodies)], self.read(answer)
        pairs = zip(wanted, got, strict=False)
        return len(got) == len(wanted) and all(abs(a - b) < 1e-3 for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Load:
    """Closed: `callers` that wait for their answers. Open: Poisson arrivals, `rate` a second."""

    seconds: float
    callers: int = 64
    rate: float = 0.0
    warm_up: float = 1.5
    processes: int = 1
    timeout: float | None = 20.0  # s, the deadline sent along
    hurry: float = 0.0  # share of callers that leave early, at a random time within `timeout`


@dataclass
class Outcome:
    """What came back; times in seconds."""

    ends: list[tuple[float, float, str]] = field(default_factory=list)  # at, latency, outcome
    cpu: float = 0.0  # of the server, in the measured window
    seconds: float = 0.0
    resident: float = 0.0  # MB, of the server's tree, summed

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(outcome for _, _, outcome in self.ends)

    @property
    def served(self) -> int:
        return self.outcomes["OK"]

    @property
    def rate(self) -> float:
        return self.served / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Of the server for each answer."""
        return 1000 * self.cpu / max(self.served, 1)

    def quantile(self, percent: float, outcome: str = "OK") -> float:
        """Latency by the nearest rank, in milliseconds; nan if there is none."""
        times = sorted(latency for _, latency, kind in self.ends if kind == outcome)
        return (
            1000 * times[min(len(times) - 1, int(len(times) * percent / 100))]
            if times
            else float("nan")
        )


class GrpcClient:
    """Four channels, each with a connection of its own; messages stay bytes."""

    def __init__(self, target: Target) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
        ]
        self._channels = [grpc.aio.insecure_channel(target.address, options) for _ in range(4)]
        self._methods = [channel.unary_unary(target.path) for channel in self._channels]
        self._headers = target.headers
        self._turn = 0

    async def call(self, body: bytes, limit: float | None) -> bytes:
        self._turn += 1
        method = self._methods[self._turn % len(self._methods)]
        answer: bytes = await method(body, timeout=limit, metadata=self._headers)
        return answer

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class HttpClient:
    """HTTP/1.1, connections kept alive."""

    def __init__(self, target: Target) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        self._url = f"http://{target.address}{target.path}"
        self._headers = {"content-type": "application/octet-stream", **dict(target.headers)}

    async def call(self, body: bytes, limit: float | None) -> bytes:
        patience = aiohttp.ClientTimeout(total=limit)
        async with self._session.post(
            self._url, data=body, headers=self._headers, timeout=patience
        ) as answer:
            if answer.status != 200:
                raise aiohttp.ClientError(f"HTTP {answer.status}")
            return await answer.read()

    async def close(self) -> None:
        await self._session.close()


def drive(target: Target, load: Load, *, server: int = 0) -> Outcome:
    """Runs a load to its end; `server` is the process id whose tree is measured, 0 for none."""
    return drive_all([(target, load)], server=server)[0]


def drive_all(pairs: Sequence[tuple[Target, Load]], *, server: int = 0) -> list[Outcome]:
    """Runs several loads at once, over the same seconds."""
    context = multiprocessing.get_context("spawn")
    begin = time.monotonic() + START
    warm_up = max(load.warm_up for _, load in pairs)
    running = []
    for target, load in pairs:
        for index in range(load.processes):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_generate, args=(target, load, index, begin, warm_up, theirs)
            )
            process.start()
            running.append((process, ours, load))
    window = _measure(begin + warm_up, min(load.seconds for _, load in pairs), server)
    outcomes = {id(load): window() for _, load in pairs}
    for process, ours, load in running:
        outcomes[id(load)].ends += ours.recv()
        process.join()
    return [_within(outcomes[id(load)], begin + warm_up, load) for _, load in pairs]


def _measure(begin: float, seconds: float, server: int) -> Callable[[], Outcome]:
    time.sleep(max(0.0, begin - time.monotonic()))
    before = tree(server)
    time.sleep(seconds)
    after = tree(server)
    return lambda: Outcome(cpu=after[0] - before[0], seconds=seconds, resident=after[1])


def _within(outcome: Outcome, begin: float, load: Load) -> Outcome:
    outcome.seconds = load.seconds
    outcome.ends = [end for end in outcome.ends if begin <= end[0] < begin + load.seconds]
    return outcome


def tree(process: int) -> tuple[float, float]:
    """Seconds of processor time, and resident MB, of a process and all its descendants."""
    cpu = resident = 0.0
    children = _children()
    left = [process] if process else []
    while left:
        one = left.pop()
        left += children.get(one, [])
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICK  # threads that have ended included
            resident += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE / 1e6
        except OSError:
            continue  # it ended meanwhile
    return cpu, resident


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            children.setdefault(int(parent), []).append(int(folder.name))
    return children


def _generate(
    target: Target, load: Load, index: int, begin: float, warm_up: float, result: Connection
) -> None:
    result.send(asyncio.run(_play(target, load, index, begin, begin + warm_up + load.seconds)))


async def _play(
    target: Target, load: Load, index: int, begin: float, end: float
) -> list[tuple[float, float, str]]:
    rng = random.Random(index)
    ends: list[tuple[float, float, str]] = []
    client = target.connect()
    numbers = iter(range(index, 10**9, load.processes))
    await asyncio.sleep(begin - time.monotonic())

    async def one(due: float) -> None:
        outcome = await _ask(client, target, next(numbers), load, rng)
        now = time.monotonic()
        ends.append((now, now - due, outcome))

    async def caller() -> None:
        while (now := time.monotonic()) < end:
            await one(now)

    async with asyncio.TaskGroup() as group:
        if not load.rate:
            for _ in range(load.callers // load.processes):
                group.create_task(caller())
        else:
            due = begin
            while due < end:
                await asyncio.sleep(due - time.monotonic())
                group.create_task(one(due))
                due += rng.expovariate(load.rate / load.processes)
    await client.close()
    return ends


async def _ask(client: Client, target: Target, number: int, load: Load, rng: random.Random) -> str:
    body = target.bodies[number % len(target.bodies)]
    call = client.call(body, load.timeout)
    try:
        if load.hurry and rng.random() < load.hurry:
            async with asyncio.timeout(rng.random() * (load.timeout or 1.0)):
                answer = await call
        else:
            answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except TimeoutError:
        return "LEFT"
    except aiohttp.ClientError as error:
        return str(error) if str(error).startswith("HTTP") else type(error).__name__
    if number % CHECKED == 0 and not target.is_right(number, answer):
        return "WRONG"
    return "OK"
