"""What a fleet loses when its parts die, hang, drain or differ: the measures of the fleet.

    python -m benchmarks.chaos [kill hang roll speeds limits cost rest upload fuzz]

Everything is on loopback, bounded in calls and time. Prints a line for each measure: what was
asked, what was seen. Servers have engines that only wait, unless the measure needs a model.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from benchmarks.load import Tally, offer
from fleet.compose import compose
from fleet.edge import equip
from fleet.local import Fleet
from fleet.plan import HOST, envoy, replica
from fleet.ports import beside

SECONDS = 5.0  # of audio: 160 KB of 16 kHz, 16 bit
NO_RETRIES = [("grpc.enable_retries", 0)]
TICK = os.sysconf("SC_CLK_TCK")


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
) -> AsyncIterator[Fleet]:
    """A fleet with these flags for each replica, in a folder that goes away with it."""
    with tempfile.TemporaryDirectory() as name:
        folder, ports = Path(name), beside(len(each))
        config = compose(variants)
        log: deque[str] = deque(maxlen=50)  # lines
        if keys:
            pairs = [{"key": key, "client": client} for key, client in keys]
            (folder / "keys.yaml").write_text(json.dumps(pairs))
        if variants:
            equip(config, folder)
        fleet = Fleet(
            folder,
            ports,
            config,
            replicas=[replica(n, ports, flags, module=module) for n, flags in enumerate(each)],
            envoy=envoy(ports, folder),
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


async def kill(rate: float) -> None:
    async with fleet_of([["--delay-ms", "10"]] * 3) as fleet, caller(fleet.ports.door) as call:
        load = asyncio.create_task(offer(call, rate=rate, count=1500))
        await asyncio.sleep(1.5)
        fleet.replicas[1].send(signal.SIGKILL)
        say("kill -9 of 1 of 3", f"{rate:g}/s, 160 KB", await load)


async def hang(rate: float) -> None:
    async with fleet_of([["--delay-ms", "10"]] * 3) as fleet, caller(fleet.ports.door) as call:
        load = asyncio.create_task(offer(call, rate=rate, count=round(8 * rate)))
        await asyncio.sleep(1.5)
        fleet.replicas[1].send(signal.SIGSTOP)
        try:
            say("SIGSTOP of 1 of 3", f"{rate:g}/s, 160 KB", await load)
        finally:
            fleet.replicas[1].send(signal.SIGCONT)


async def roll(rate: float) -> None:
    async with fleet_of([["--delay-ms", "10"]] * 3) as fleet, caller(fleet.ports.door) as call:
        load = asyncio.create_task(offer(call, rate=rate, count=3000))
        rounds = 0
        while not load.done():
            await fleet.roll()
            rounds += 1
        say("rolling restarts", f"{rate:g}/s, 160 KB, {rounds} rounds", await load)


async def speeds() -> None:
    """Replicas of speeds 1:2:6, one call at a time each, against what each does alone."""
    delays = (60, 30, 10)
    each = [["--delay-ms", str(delay), "--max-batch-size", "1"] for delay in delays]
    for variant in ((), ("orca",)):
        async with fleet_of(each, *variant) as fleet, short_caller(fleet.ports.door) as call:
            capacity = sum([await alone(port) for port in fleet.ports.replicas])
            await closed_loop(call, callers=24, seconds=3)
            done = await closed_loop(call, callers=24, seconds=8)
            name = variant[0] if variant else "least-request"
            share = done.outcomes["OK"] / 8 / capacity
            say(f"speeds 1:2:6, {name}", f"{share:.3f} of {capacity:.0f}/s", done)


async def alone(port: int) -> float:
    """Calls a second that a replica answers when it is always busy."""
    async with short_caller(port) as call:
        return (await closed_loop(call, callers=8, seconds=4)).outcomes["OK"] / 4


@asynccontextmanager
async def short_caller(port: int) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=NO_RETRIES) as channel:
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


async def limits() -> None:
    """10/s with a burst of 20 for an address; quotas of two keys; 1,000 addresses."""
    keys = [("gold-key", "gold"), ("plain-key", "plain")]
    async with fleet_of([[]], "edge", keys=keys) as fleet:
        one = await asks(fleet, "gold-key", lambda _: "127.1.0.1", rate=40, count=200)
        say("one address, 40/s for 5 s", "20 + 10/s: 70 expected", one)
        plain = await asks(fleet, "plain-key", spread, rate=60, count=240)
        say("a key of 25/s, burst 50, 60/s for 4 s", "150 expected", plain)
        gold = await asks(fleet, "gold-key", spread, rate=60, count=240)
        say("a key of 200/s, 60/s for 4 s", "240 expected", gold)
        many = await asks(fleet, "gold-key", spread, rate=150, count=1000)
        again = await asks(fleet, "gold-key", lambda n: f"127.2.0.{n % 10}", rate=100, count=400)
        say("1,000 addresses once each", "1000 expected", many)
        say("10 of them, 10/s each, after that", "400 expected, none refused anew", again)


def spread(number: int) -> str:
    return f"127.2.{number // 250}.{number % 250}"


async def asks(
    fleet: Fleet, key: str, address: Callable[[int], str], *, rate: float, count: int
) -> Tally:
    """GETs from chosen addresses, each on a connection of its own."""
    trust = ssl.create_default_context(cafile=fleet.folder / "certs" / "ca.pem")
    statuses = Tally()

    async def ask(number: int) -> None:
        connector = aiohttp.TCPConnector(
            ssl=trust, local_addr=(address(number), 0), force_close=True
        )
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"https://{HOST}:{fleet.ports.door}/api/v1/info"
            started = time.perf_counter()
            async with session.get(url, headers={"x-api-key": key}) as answer:
                statuses.outcomes["OK" if answer.status == 200 else str(answer.status)] += 1
            statuses.seconds.append(time.perf_counter() - started)

    numbers = iter(range(count))
    await offer(lambda: ask(next(numbers)), rate=rate, count=count)
    return statuses


async def cost(calls: int) -> None:
    """CPU time of Envoy and of the server for a call of 160 KB, beside the server alone."""
    async with fleet_of([[]]) as fleet:
        for name, port in (("direct", fleet.ports.replicas[0]), ("Envoy", fleet.ports.door)):
            async with caller(port) as call:
                await offer(call, rate=100, count=200)
                before = cpu(fleet.envoy.pid), cpu(fleet.replicas[0].pid)
                tally = await offer(call, rate=100, count=calls)
                after = cpu(fleet.envoy.pid), cpu(fleet.replicas[0].pid)
            door, server = (1000 * (b - a) / calls for a, b in zip(before, after, strict=True))
            say(f"CPU per call, {name}", f"Envoy {door:.2f} ms, server {server:.2f} ms", tally)


def cpu(pid: int | None) -> float:
    """Seconds of CPU that a process has used (proc(5), fields utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int | None) -> float:
    """Peak resident memory of a process, MiB (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


async def rest(callers: int, seconds: float) -> None:
    """Concurrent REST callers with a 160 KB clip as base64, three replicas of the demo model."""
    body = json.dumps({"audio_data": base64.b64encode(clip()).decode()}).encode()
    flags = ["--max-queue-seconds", "20"]
    async with fleet_of([flags] * 3, module="server") as fleet:
        tally = Tally()
        end = time.monotonic() + seconds
        headers = {"content-type": "application/json"}
        connector = aiohttp.TCPConnector(limit=0)
        url = f"http://{HOST}:{fleet.ports.door}/api/v1/analyze"

        async def one(session: aiohttp.ClientSession) -> None:
            while time.monotonic() < end:
                started = time.perf_counter()
                try:
                    async with session.post(url, data=body, headers=headers) as answer:
                        text = await answer.text()
                        outcome = "OK" if answer.status == 200 else str(answer.status)
                        if answer.status not in (200, 429):
                            outcome += f": {text[:120]}"
                except aiohttp.ClientError as error:
                    outcome = type(error).__name__
                tally.outcomes[outcome] += 1
                tally.seconds.append(time.perf_counter() - started)
                if outcome != "OK":
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))

        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(one(session) for _ in range(callers)))
        rate, most = tally.outcomes["OK"] / seconds, memory(fleet.envoy.pid)
        how = f"{rate:.0f} answers/s, Envoy {most:.0f} MiB"
        say(f"{callers} REST callers, demo model", how, tally)


async def upload() -> None:
    """Memory for the largest upload that is let in, and for one that is not."""
    async with fleet_of([[]]) as fleet:
        url = f"http://{HOST}:{fleet.ports.door}/api/v1/analyze:upload"
        start = memory(fleet.envoy.pid), memory(fleet.replicas[0].pid)
        for size in (16, 100):
            body = clip(1)[:44] + bytes(size * 2**20 - 44)
            async with aiohttp.ClientSession() as session:
                try:
                    async with session.post(url, data=iter_chunks(body)) as answer:
                        status = str(answer.status)
                except aiohttp.ClientError as error:
                    status = type(error).__name__
            grown = [
                now - then
                for now, then in zip(
                    (memory(fleet.envoy.pid), memory(fleet.replicas[0].pid)), start, strict=True
                )
            ]
            print(f"upload of {size} MiB: {status}; grown by Envoy {grown[0]:.0f} MiB, "
                  f"server {grown[1]:.0f} MiB", flush=True)  # fmt: skip


async def iter_chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 2**16):
        yield body[at : at + 2**16]


async def fuzz(count: int) -> None:
    """Malformed HTTP/1, HTTP/2, gRPC and JSON; afterwards everybody must still be there."""
    dice = random.Random(7)
    async with fleet_of([[]] * 2) as fleet:
        pids = [process.pid for process in fleet.processes]
        seen: Counter[str] = Counter()
        for _ in range(count // 50):
            throws = (_throw(fleet.ports.door, _malformed(dice)) for _ in range(50))
            seen.update(await asyncio.gather(*throws))
        async with short_caller(fleet.ports.door) as call:
            tally = await offer(call, rate=50, count=100)
        async with aiohttp.ClientSession() as session:
            url = f"http://{HOST}:{fleet.ports.admin}/stats?filter=ejections_enforced_total"
            ejected = (await (await session.get(url)).text()).split()
        alive = pids == [process.pid for process in fleet.processes]
        how = f"{dict(seen)}; all alive: {alive}; {ejected}"
        say(f"calls after {count} malformed requests", how, tally)


async def _throw(port: int, request: bytes) -> str:
    """One malformed request; the first digit of its status, or how the connection ended."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        await writer.drain()
        try:
            answer = await asyncio.wait_for(reader.read(4096), 1)
        except TimeoutError:
            return "waits for the rest"  # until request_headers_timeout or stream_idle_timeout
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    finally:
        writer.close()
    if b"grpc-status" in answer:
        return "gRPC error" if b"grpc-status: 0" not in answer else "gRPC OK"
    if answer.startswith(b"HTTP/1.1 "):
        return f"{chr(answer[9])}xx"
    return "http/2 frames" if answer else "closed"


def _malformed(dice: random.Random) -> bytes:
    junk = dice.randbytes(dice.randrange(1, 2000))
    path = dice.choice(["/api/v1/analyze", "/api/v1/analyze:batch", "/api/v1/analyze:upload",
                        "/speechemotion.v1.EmotionService/Analyze"])  # fmt: skip
    kind = dice.choice(["application/json", "application/grpc", "application/grpc-web+proto"])
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
    texts = [b'{"audio_data":', b'{"audio_data":"%%%"}', b"[[[[", b'{"granularity":9e999}', b"nul",
             b'{"audio_data":"' + base64.b64encode(junk) + b'"}', junk]  # fmt: skip
    body = dice.choice(texts)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return dice.choice(
        [
            head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body,
            head.encode() + b"transfer-encoding: chunked\r\n\r\n" + junk,
            head.encode() + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + body,
            preface + junk,
            preface + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + junk,
            junk + b"\r\n\r\n",
        ]
    )


def say(measure: str, how: str, tally: Tally) -> None:
    total = tally.outcomes.total()
    print(f"{measure} ({how}): {tally.failed} of {total} failed; {tally}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*")
    parser.add_argument("--rate", type=float, default=300, help="calls a second")
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    chosen = parser.parse_args()
    measures: dict[str, Callable[[], Awaitable[None]]] = {
        "kill": lambda: kill(chosen.rate),
        "hang": lambda: hang(chosen.rate / 3),
        "roll": lambda: roll(chosen.rate / 3),
        "speeds": speeds,
        "limits": limits,
        "cost": lambda: cost(1000),
        "rest": lambda: rest(chosen.callers, chosen.seconds),
        "upload": upload,
        "fuzz": lambda: fuzz(2000),
    }
    unknown = set(chosen.measures) - set(measures)
    if unknown:
        sys.exit(f"chaos: no such measure: {', '.join(unknown)}; there are {', '.join(measures)}")
    for name in chosen.measures or measures:
        await measures[name]()


if __name__ == "__main__":
    asyncio.run(main())
