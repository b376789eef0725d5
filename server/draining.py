"""How a server ends: asked to by a signal, when all is answered, or when its time is over."""

import asyncio
import signal
from contextlib import suppress

import grpc
import structlog

from batcher import Batcher
from server.service.calls import Calls
from server.speech import Prediction, Utterance

LAST_WORD = 1.0
"""Seconds for statuses to reach their callers once the time to drain is over."""

TURN = 0.1
"""Seconds that a server without any time to drain has to see that nothing is left."""

ARRIVAL = 0.05
"""Seconds for which a call that gRPC has accepted may not be ours yet: its message still comes."""

log = structlog.get_logger()


class ServingFailed(Exception):
    """The process cannot go on, or has not finished what it accepted; the log says what."""


def stop_on_signals() -> asyncio.Event:
    """Set by SIGINT and SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def finish(
    server: grpc.aio.Server, calls: Calls, batches: Batcher[Utterance, Prediction], grace: float
) -> None:
    """Lets accepted calls finish; then ends health watches, which would never end themselves.

    Raises ServingFailed if `grace` seconds do not do; whoever still waits is told to try elsewhere.
    """
    stopping = asyncio.create_task(server.stop(grace + LAST_WORD))
    try:
        async with asyncio.timeout(max(grace, TURN)):
            await calls.idle()
            await asyncio.wait({stopping}, timeout=ARRIVAL)
            await calls.idle()
            await batches.drain()
    except TimeoutError:
        log.error("abandoned after the time to drain", calls=repr(calls), batcher=repr(batches))
        await batches.drain(asyncio.get_running_loop().time())
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await calls.idle()
        raise ServingFailed("not all that was accepted was finished in the time to drain") from None
    finally:
        await server.stop(0)
        await stopping
