"""Live streams by the Python client, compared with one that nobody interrupted."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TypeAlias

from speech_emotion_client import AsyncClient, FixedWindow, Segment, SessionStarted

from benchmarks.stage import clip

STREAMS = 8
LIVE = 30.0  # s, of each live stream
CHUNK = 3200  # bytes: 100 ms
Finals: TypeAlias = list[tuple[float, float, str, float]]


async def finals(client: AsyncClient, late: float | None) -> tuple[Finals, int]:
    """The final results of a stream, and how often it was resumed.

    `late`: seconds after which it begins to be live; None for as fast as it goes.
    """
    await asyncio.sleep(late or 0)
    samples = clip(LIVE)[44:]

    async def microphone() -> AsyncIterator[bytes]:
        started = time.monotonic()
        for at in range(0, len(samples), CHUNK):
            if late is not None:
                await asyncio.sleep(started + at / 32_000 - time.monotonic())
            yield samples[at : at + CHUNK]

    found: Finals = []
    resumed = 0
    window = FixedWindow(2.0, 1.0)
    pacing = "bulk" if late is None else "realtime"
    async with client.stream(
        microphone(), sample_rate=16_000, segmentation=window, pacing=pacing
    ) as events:
        async for event in events:
            resumed += isinstance(event, SessionStarted) and event.resumed
            if isinstance(event, Segment) and event.is_final:
                found.append((event.start, event.end, event.emotion, event.confidence))
    return found, resumed


def compared(seen: tuple[Finals, int] | BaseException, whole: tuple[Finals, int]) -> str:
    if isinstance(seen, BaseException):
        return f"{type(seen).__name__}: {seen}"
    return "complete" if seen[0] == whole[0] else f"{len(seen[0])} finals, or different ones"
