"""Runs many jobs, a few at a time, and holds only those few. Knows neither audio nor gRPC."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def in_threads(jobs: Iterable[Callable[[], T]], concurrency: int, *, ordered: bool) -> Iterator[T]:
    """Results in the order of `jobs`, or as they come; `concurrency` jobs run at once.

    Twice as many are held, so that a slow one at the head does not idle the threads behind it.
    Leaving early starts nothing more and does not wait for what runs.
    """
    pool = ThreadPoolExecutor(concurrency, "speech-emotion")
    held: deque[Future[T]] = deque()
    try:
        for job in jobs:
            held.append(pool.submit(job))
            if len(held) == 2 * concurrency:
                yield _take(held, ordered)
        while held:
            yield _take(held, ordered)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _take(held: "deque[Future[T]]", ordered: bool) -> T:
    future = held[0] if ordered else wait(held, return_when=FIRST_COMPLETED).done.pop()
    held.remove(future)
    return future.result()


async def in_tasks(
    jobs: Iterable[Callable[[], Awaitable[T]]], concurrency: int, *, ordered: bool
) -> AsyncIterator[T]:
    """As `in_threads`, on the running event loop; leaving early cancels what runs."""
    places = asyncio.Semaphore(concurrency)
    held: deque[asyncio.Task[T]] = deque()
    try:
        for job in jobs:
            held.append(asyncio.create_task(_run(job, places)))
            if len(held) == 2 * concurrency:
                yield await _take_task(held, ordered)
        while held:
            yield await _take_task(held, ordered)
    finally:
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def _run(job: Callable[[], Awaitable[T]], places: asyncio.Semaphore) -> T:
    async with places:
        return await job()


async def _take_task(held: "deque[asyncio.Task[T]]", ordered: bool) -> T:
    if ordered:
        task = held[0]
    else:
        done, _ = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
    # A caller who is cancelled here must leave the task among those that are held.
    await asyncio.wait([task])
    held.remove(task)
    return task.result()
