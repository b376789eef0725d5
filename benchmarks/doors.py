"""What the door of the fleet lets in: limits, REST, uploads."""

import asyncio
import base64
import io
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from benchmarks.load import Tally, offer
from benchmarks.stage import clip, fleet_of, memory, say
from fleet.compose import HTTP, find
from fleet.local import Fleet
from fleet.plan import HOST


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
    async with fleet_of([[]], "edge", keys=keys, change=never_refilled) as fleet:
        known = await asks(fleet, "gold-key", lambda _: "127.1.0.1", rate=40, count=30)
        say("one address without refill", "20 expected", known)
        many = await asks(fleet, "gold-key", spread, rate=150, count=1000)
        say("1,000 other addresses", "1000 expected", many)
        again = await asks(fleet, "gold-key", lambda _: "127.1.0.1", rate=40, count=30)
        say("the first address again: forgotten, it would have 20", "0 expected", again)
        first = await asks(fleet, "gold-key", lambda _: spread(0), rate=40, count=30)
        say("the first of the 1,000 again: forgotten, it would have 20", "19 expected", first)


def never_refilled(config: dict[str, Any]) -> None:
    """An address has its 20 calls and no more, so that one that was forgotten shows."""
    buckets = find(config, f"{HTTP}/http_filters/limit.address/typed_config/descriptors/0")
    buckets["token_bucket"] |= {"tokens_per_fill": 1, "fill_interval": "3600s"}


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
    """Memory for an ordinary upload, for the largest that is let in, and for one that is not."""
    async with fleet_of([[]]) as fleet:
        url = f"http://{HOST}:{fleet.ports.door}/api/v1/analyze:upload"
        processes = {"Envoy": fleet.envoy.pid, "server": fleet.replicas[0].pid}
        start = {name: memory(pid) for name, pid in processes.items()}
        for name, size in (("10 s", 320_044), ("100 MB", 10**8), ("101 MiB", 101 * 2**20)):
            body = clip((size - 44) / 32_000)
            for how, data in (("whole", io.BytesIO(body)), ("chunked", iter_chunks(body))):
                began = time.perf_counter()
                said = await _upload(url, data)
                seconds = time.perf_counter() - began
                grown = ", ".join(
                    f"{one} {memory(pid) - start[one]:.0f} MiB" for one, pid in processes.items()
                )
                print(f"upload of {name}, {how}: {said} in {seconds:.1f} s; grown by {grown}",
                      flush=True)  # fmt: skip


async def _upload(url: str, data: object) -> str:
    """The status, and into how many windows the file was cut."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:
        try:
            async with session.post(url, data=data) as answer:
                windows = (await answer.json()).get("windowed", {}).get("window_count", 0)
                return f"{answer.status}, {windows} windows"
        except aiohttp.ClientError as error:
            return type(error).__name__


async def iter_chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 2**16):
        yield body[at : at + 2**16]
