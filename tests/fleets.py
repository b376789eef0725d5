"""A whole fleet of processes on ports of its own, and callers of its doors."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from fleet.companions import companions, sharing
from fleet.compose import compose
from fleet.local import Fleet
from fleet.plan import replica
from fleet.ports import beside


class Log(list[str]):
    """What the processes print."""

    def of(self, name: str) -> list[dict]:
        """The JSON lines of one process."""
        lines = [line.partition(" | ") for line in self]
        return [json.loads(text) for who, _, text in lines if who.strip() == name and "{" in text]


@asynccontextmanager
async def running(
    folder: Path,
    config: dict[str, Any] | None = None,
    *,
    replicas: int = 2,
    flags: Sequence[str] = (),
    each: Sequence[Sequence[str]] = (),
    share: bool = False,
) -> AsyncIterator[Fleet]:
    """`each`: flags of one replica after the other, beside the common ones; `share`: a Redis."""
    ports = beside(replicas)
    programs = [one for one in companions(ports, folder)[0] if share and one.name == "redis"]
    flags = [*sharing(programs), *flags]
    log = Log()
    fleet = Fleet(
        folder,
        ports,
        config or compose([]),
        replicas=[
            replica(n, ports, [*flags, *(each[n] if each else ())], module="benchmarks.replica")
            for n in range(replicas)
        ],
        companions=programs,
        envoy_drain=0,
        write=log.append,
    )
    try:
        async with fleet:
            fleet.log = log
            yield fleet
    except BaseException:
        print(*log[-80:])
        raise


def visit(url: str | None = None, **options) -> aiohttp.ClientSession:
    """Reads every answer at once: one that is dropped unread leaves a connection open."""

    async def read(_session, _context, end) -> None:
        await end.response.read()

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(read)
    return aiohttp.ClientSession(url, trace_configs=[trace], **options)


async def until(condition, *, patience: float = 20.0) -> None:
    """Waits until the coroutine function says True."""
    async with asyncio.timeout(patience):
        while not await condition():
            await asyncio.sleep(0.05)


async def logged(fleet: Fleet, request_id: str) -> dict:
    """The one line that the servers wrote about a call."""
    found: list[dict] = []

    async def written() -> bool:
        names = [replica.program.name for replica in fleet.replicas]
        lines = [line for name in names for line in fleet.log.of(name)]
        found[:] = [line for line in lines if line.get("request_id") == request_id]
        return bool(found)

    await until(written)
    assert len(found) == 1
    return found[0]


async def calls_of(fleet: Fleet, number: int) -> int:
    """How many calls a replica has answered well."""
    url = f"http://127.0.0.1:{fleet.ports.probes[number]}/metrics"
    async with visit() as session, session.get(url) as answer:
        text = await answer.text()
    lines = [line for line in text.splitlines() if line.startswith("emotion_api_calls_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if 'code="OK"' in line)


async def statistics(fleet: Fleet, matching: str) -> dict[str, int]:
    """Envoy's counters and gauges whose names match."""
    url = f"http://127.0.0.1:{fleet.ports.admin}/stats?filter={matching}"
    async with visit() as session, session.get(url) as answer:
        lines = (await answer.text()).splitlines()
    pairs = (line.rpartition(": ") for line in lines)
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


async def sent_to_replicas(fleet: Fleet) -> int:
    """Calls that Envoy has passed on, whatever became of them."""
    return sum((await statistics(fleet, "cluster.speech.*.upstream_rq_total$")).values())
