"""A stream without an event loop of one's own: the loop runs in a thread behind the iterator."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
END = object()


def iterate(
    make: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]],
) -> Generator[T, None, None]:
    """What the iterator that `make` opens yields, each item fetched only when it is asked for."""
    with _loop() as run:
        manager = run(_called(make))
        items = run(manager.__aenter__())
        try:
            while (item := run(_next(items))) is not END:
                yield item
        finally:
            run(manager.__aexit__(None, None, None))


async def _called(make: Callable[[], T]) -> T:
    """On the loop, which is where channels and events belong."""
    return make()


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, END)


async def _settle() -> None:
    """What gRPC has left to do for calls that are over."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@contextmanager
def _loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs coroutines on a loop in a thread, one after the other, and waits for each."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="speech-emotion-stream", daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(_settle(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
