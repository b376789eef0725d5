"""What a call costs Envoy in processor time, beside what it costs the server.

Everything on; nothing but the router, which is what any HTTP/2 proxy has to do; a TCP proxy, which
only moves the bytes. The doors take turns, so that what else the machine does meets all of them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.load import offer
from benchmarks.stage import caller, cpu, fleet_of, paced
from fleet.compose import HTTP, find

ROUNDS = 10
IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Meter:
    """A door, and the process whose time is counted there."""

    name: str
    pid: int | None
    call: Callable[[], Awaitable[object]]

    async def per_call(self, rate: float, calls: int) -> float:
        """Milliseconds; the calls before it, not counted, bring the pace about."""
        await paced(self.call, rate, calls // 5)
        before = cpu(self.pid)
        tally = await paced(self.call, rate, calls)
        if tally.failed:
            raise RuntimeError(f"{self.name}: {tally}")
        return 1000 * (cpu(self.pid) - before) / calls


async def cost(calls: int) -> None:
    """`calls` of 160 KB at each door and rate. A call costs most at low rates, where each finds the
    caches full of somebody else's work."""
    async with AsyncExitStack() as stack:
        meters = [await stack.enter_async_context(meter) for meter in await _doors(stack)]
        for meter in meters:
            await offer(meter.call, rate=100, count=200)
        print(*await asyncio.gather(*map(_idle, meters)), sep="\n", flush=True)
        for rate in (100, 300, 0):
            spent: dict[str, list[float]] = {meter.name: [] for meter in meters}
            for _ in range(ROUNDS):
                for meter in meters:
                    spent[meter.name].append(await meter.per_call(rate, calls // ROUNDS))
            for name, each in spent.items():
                load = f"{rate}/s" if rate else "8 callers"
                print(f"CPU per call, {name}, {load}: {median(each):.3f} ms in the median, "
                      f"{min(each):.3f} in the best of {ROUNDS} rounds", flush=True)  # fmt: skip


async def _idle(meter: Meter) -> str:
    """Health checks and the like, which are in every figure: at 100/s a hundredth of it."""
    before = cpu(meter.pid)
    await asyncio.sleep(IDLE_SECONDS)
    return f"idle, {meter.name}: {1000 * (cpu(meter.pid) - before) / IDLE_SECONDS:.1f} ms/s"


async def _doors(stack: AsyncExitStack) -> list[AbstractAsyncContextManager[Meter]]:
    kinds = {"everything on": None, "only a router": only_router, "a TCP proxy": only_tcp}
    fleets = {
        name: await stack.enter_async_context(fleet_of([[]], change=change))
        for name, change in kinds.items()
    }
    server = fleets["everything on"].replicas[0].pid
    direct = fleets["everything on"].ports.replicas[0]
    return [
        *(_meter(f"Envoy, {name}", one.envoy.pid, one.ports.door) for name, one in fleets.items()),
        _meter("the server, called directly", server, direct),
    ]


@asynccontextmanager
async def _meter(name: str, pid: int | None, port: int) -> AsyncIterator[Meter]:
    async with caller(port) as call:
        yield Meter(name, pid, call)


def only_router(config: dict[str, Any]) -> None:
    """Takes every filter, log and retry out."""
    http = find(config, HTTP)
    http["http_filters"] = http["http_filters"][-1:]
    del http["access_log"]
    host = http["route_config"]["virtual_hosts"][0]
    for place in (host, *host["routes"]):
        place.pop("typed_per_filter_config", None)
        place.get("route", {}).pop("retry_policy", None)


def only_tcp(config: dict[str, Any]) -> None:
    """Passes bytes on to the replicas, whatever they mean."""
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    settings = {"@type": kind, "stat_prefix": "tcp", "cluster": "speech"}
    place, _, _ = HTTP.rpartition("/filters/")
    find(config, place)["filters"] = [
        {"name": "envoy.filters.network.tcp_proxy", "typed_config": settings}
    ]
