"""Offers calls at a steady rate, however slow the answers are, and counts what came of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc


@dataclass
class Tally:
    """Outcomes by name, and how long each call took (s)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        times = " ".join(f"p{q:g} {1000 * self.quantile(q):.0f} ms" for q in (50, 95, 99, 100))
        return f"{dict(self.outcomes)} {times}"

    @property
    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes["OK"]

    def quantile(self, percent: float) -> float:
        """Of all calls, by the nearest rank."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    async def note(self, call: Awaitable[object]) -> None:
        started = time.perf_counter()
        try:
            await call
            outcome = "OK"
        except grpc.aio.AioRpcError as error:
            outcome = f"{error.code().name}: {error.details()}"
        self.outcomes[outcome] += 1
        self.seconds.append(time.perf_counter() - started)


async def offer(call: Callable[[], Awaitable[object]], *, rate: float, count: int) -> Tally:
    """`count` calls, `rate` a second; returns when the last one is answered."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(started + number / rate - loop.time())
            group.create_task(tally.note(call()))
    return tally
