"""Starts engines in threads of their own, and shows them to the batcher as it knows them."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

import structlog

import batcher
from batcher import RunBatch
from server.engine import DeviceLost, Engine
from server.speech import Prediction, Utterance

Result = TypeVar("Result")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Started:
    """An engine that is warm, and how the batcher runs it."""

    engine: Engine
    run_batch: RunBatch[Utterance, Prediction]


async def start(make_engine: Callable[[], Engine], stack: AsyncExitStack) -> Started:
    """Loads an engine in the thread that runs it, or with others if it takes several calls."""
    threads = ThreadPoolExecutor(1, "engine")
    stack.callback(threads.shutdown, wait=False)
    engine = await in_thread(threads, _load, make_engine)
    if engine.capacity.slots > 1:
        threads = ThreadPoolExecutor(engine.capacity.slots, "engine")
        stack.callback(threads.shutdown, wait=False)
    return Started(engine, _run_batch(threads, engine))


def _load(make_engine: Callable[[], Engine]) -> Engine:
    engine = make_engine()
    engine.warm_up()
    return engine


def _run_batch(thread: ThreadPoolExecutor, engine: Engine) -> RunBatch[Utterance, Prediction]:
    """The engine as the batcher knows it; also translates what engines say of their device."""

    async def run_batch(batch: Sequence[Utterance]) -> Sequence[Prediction]:
        try:
            return await in_thread(thread, engine.infer, batch)
        except DeviceLost as error:
            log.error("device lost", device=engine.model.device, exc_info=error)
            raise batcher.DeviceLost from error
        except MemoryError as error:
            log.warning("out of memory", device=engine.model.device, batch_size=len(batch))
            raise batcher.OutOfMemory from error

    return run_batch


async def in_thread(
    thread: ThreadPoolExecutor, function: Callable[..., Result], *arguments: object
) -> Result:
    """Calls a function that blocks."""
    return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)
