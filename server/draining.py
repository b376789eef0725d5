"""How a server ends: asked to by a signal, when all is answered, or when its time is over."""

import asyncio
import signal
from contextlib import suppress

import grpc
import structlog

from batcher import Batcher
from server import hearing
from server.service.calls import Calls
from server.service.stream import Streams
from server.speech import Prediction, Utterance

LAST_WORD = 1.0
"""Seconds for statuses to reach their callers once the time to drain is over."""

TURN = 0.1
"""Seconds that a server without any time to drain has to see that nothing is left."""

ARRIVAL = 0.05
"""Seconds for which a call that gRPC has accepted may not be ours yet: its message still comes."""

HANDSHAKE = 0.3
"""Seconds for connections that the kernel has made to be known to gRPC, and to say what for."""

TURNS, HANDOVER = 20, 0.01
"""How often, and seconds after each other, nothing new may come out of gRPC's threads before all
that was heard is ours. Where processors are scarce the turns take longer, as the threads do."""

QUIET, PAUSE = 1.0, 1.0
"""Seconds that nobody is heard at most, doubled each time, and until it is tried again."""

log = structlog.get_logger()


class ServingFailed(Exception):
    """The process cannot go on, or has not finished what it accepted; the log says what."""


def stop_on_signals() -> asyncio.Event:
    """Set by SIGINT and SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def fall_silent(port: int, calls: Calls, streams: Streams, ends_at: float) -> None:
    """Hears nobody any more, from a moment on at which all who were heard are answered.

    For a port that others serve too: what is not heard any more goes to them, and no call is cut.
    Takes at most half of the time up to `ends_at` (loop time). Where streams or calls last longer,
    or the system does not let us, some are cut as by any gRPC server that stops.
    """
    now = asyncio.get_running_loop().time
    half, quiet = (now() + ends_at) / 2, QUIET
    try:
        await asyncio.to_thread(hearing.take_no_more, port)
        await asyncio.sleep(HANDSHAKE)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(half):
                await streams.ended()
        while now() + quiet < half and not await _pauses(port, calls, quiet):
            quiet *= 2
            await asyncio.sleep(PAUSE)
    except OSError as error:
        log.info("callers may be cut off", reason=str(error))


async def _pauses(port: int, calls: Calls, seconds: float) -> bool:
    """Hears nobody; if the calls that run do not end in time, their callers are heard again."""
    await asyncio.to_thread(hearing.stop, port)
    try:
        async with asyncio.timeout(seconds):
            for _ in range(TURNS):
                await calls.idle()
                await asyncio.sleep(HANDOVER)
            await calls.idle()
    except TimeoutError:
        await asyncio.to_thread(hearing.go_on, port)
        return False
    return True


async def finish(
    server: grpc.aio.Server, calls: Calls, batches: Batcher[Utterance, Prediction], ends_at: float
) -> None:
    """Lets accepted calls finish; then ends health watches, which would never end themselves.

    Raises ServingFailed if they have not by `ends_at` (loop time); whoever still waits is told to
    try elsewhere.
    """
    grace = max(ends_at - asyncio.get_running_loop().time(), TURN)
    stopping = asyncio.create_task(server.stop(grace + LAST_WORD))
    try:
        async with asyncio.timeout(grace):
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
