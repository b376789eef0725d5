"""What a running fleet is told by signals: to replace its replicas, to replace Envoy, to end."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from yaml import YAMLError

from fleet.compose import BadEdit
from fleet.local import Fleet
from fleet.process import Died

Orders: TypeAlias = "asyncio.Queue[signal.Signals]"

STOP = (signal.SIGTERM, signal.SIGINT)
ROLL, RESTART_ENVOY = signal.SIGHUP, signal.SIGUSR1
DOING = {
    ROLL: "The replicas are being replaced one after another",
    RESTART_ENVOY: "A new Envoy takes over, with envoy/envoy.yaml as it is now",
}


def heard() -> Orders:
    """The signals of this process from now on."""
    orders: Orders = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (*STOP, *DOING):
        loop.add_signal_handler(number, orders.put_nowait, number)
    return orders


async def obey(
    orders: Orders,
    fleet: Fleet,
    configure: Callable[[], dict[str, Any]],
    tell: Callable[[str, Sequence[str]], None],
) -> None:
    """Returns when told to end. What comes while something is being done is not heard.

    `configure`: Envoy's configuration as it is now. `tell`: gets what is being done, and of each
    order that was obeyed why it failed, or nothing.
    """
    done: list[str] = []
    tell("", done)
    while (order := await orders.get()) not in STOP:
        tell(DOING[order], done)
        work = asyncio.create_task(_do(order, fleet, configure))
        if await _stopped(orders, work):
            return
        done.append(work.result())
        tell("", done)


async def _stopped(orders: Orders, work: "asyncio.Task[str]") -> bool:
    """Waits for the work, which a signal to stop ends."""
    while not work.done():
        following = asyncio.create_task(orders.get())
        await asyncio.wait({work, following}, return_when=asyncio.FIRST_COMPLETED)
        if following.done() and following.result() in STOP:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return True
        following.cancel()
    return False


async def _do(order: signal.Signals, fleet: Fleet, configure: Callable[[], dict[str, Any]]) -> str:
    try:
        if order is ROLL:
            await fleet.roll()
        else:
            await fleet.restart_envoy(configure())
    except (BadEdit, Died, OSError, YAMLError) as error:
        return str(error)
    return ""
