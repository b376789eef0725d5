"""What a fleet loses when its parts die, hang, drain or differ: the measures of the fleet.

    python -m benchmarks.chaos [kill hang roll upgrade speeds limits cost rest upload fuzz]

Everything is on loopback, bounded in calls and time. Prints a line for each measure: what was
asked, what was seen. Servers have engines that only wait, unless the measure needs a model.
"""

import argparse
import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

from speech_emotion_client import AsyncClient

from benchmarks.cost import cost
from benchmarks.doors import limits, rest, upload
from benchmarks.live import LIVE, STREAMS, compared, finals
from benchmarks.load import Tally, offer
from benchmarks.malformed import fuzz
from benchmarks.stage import caller, closed_loop, fleet_of, say, short_caller
from fleet.plan import HOST


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
    """Every replica is replaced, again and again, under unary calls and live streams."""
    flags = ["--delay-ms", "10", "--drain-grace-seconds", "5"]
    async with (
        fleet_of([flags] * 3, share=True) as fleet,
        caller(fleet.ports.door) as call,
        AsyncClient(f"{HOST}:{fleet.ports.door}") as client,
    ):
        whole = await finals(client, None)
        load = asyncio.create_task(offer(call, rate=rate, count=3000))
        streams = [asyncio.create_task(finals(client, n / 10)) for n in range(STREAMS)]
        rounds = 0
        while not load.done() or not all(stream.done() for stream in streams):
            await fleet.roll()
            rounds += 1
        say("rolling restarts", f"{rate:g}/s, 160 KB, {rounds} rounds", await load)
        seen = await asyncio.gather(*streams, return_exceptions=True)
        outcomes = Counter(compared(one, whole) for one in seen)
        resumed = sum(one[1] for one in seen if isinstance(one, tuple))
        print(f"{STREAMS} live streams of {LIVE:g} s, resumed {resumed} times: {dict(outcomes)}; "
              f"{len(whole[0])} finals each", flush=True)  # fmt: skip


async def upgrade(rate: float) -> None:
    """A new Envoy takes over from the old one, twice, under unary calls and live streams."""
    async with fleet_of([["--delay-ms", "10"]] * 3, share=True) as fleet:
        load = asyncio.create_task(_on_new_connections(fleet.ports.door, rate, 3000))
        async with (
            AsyncClient(f"{HOST}:{fleet.ports.door}") as client,
            caller(fleet.ports.door) as call,
        ):
            whole = await finals(client, None)
            kept = asyncio.create_task(offer(call, rate=rate, count=3000))
            streams = [asyncio.create_task(finals(client, n / 10)) for n in range(STREAMS)]
            for _ in range(2):
                await fleet.restart_envoy()
            say("hot restarts of Envoy, kept connection", f"{rate:g}/s, 160 KB", await kept)
            say("the same, a connection for each call", f"{rate:g}/s, 6 KB", await load)
            seen = await asyncio.gather(*streams, return_exceptions=True)
            print(f"{STREAMS} live streams: {dict(Counter(compared(s, whole) for s in seen))}")


async def _on_new_connections(port: int, rate: float, count: int) -> Tally:
    async def one() -> None:
        async with short_caller(port) as call:
            await call()

    return await offer(one, rate=rate, count=count)


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
        "upgrade": lambda: upgrade(chosen.rate / 3),
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
