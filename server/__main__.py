"""`python -m server`: settings, signals, one event loop."""

import asyncio
import os
import signal
import sys
from functools import partial

import structlog
import uvloop

from server.app import run
from server.config import Settings, SettingsError, read_settings, unknown_variables
from server.engine import CannotLoad
from server.engine.loading import device_names, load
from server.listening import PortTaken
from server.telemetry.logs import configure
from server.workers import supervise

USAGE_ERROR = 2


def main() -> None:
    """Exit status: 0 after a signal, 1 if serving failed, 2 if the settings make no sense."""
    try:
        settings = read_settings(sys.argv[1:], os.environ)
    except SettingsError as error:
        print(f"speech-emotion-server: {error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    configure(level=settings.log_level, style=settings.log_format)
    try:
        if settings.workers > 1:
            sys.exit(asyncio.run(_supervise(settings)))  # uvloop hears no Unix datagrams
        sys.exit(uvloop.run(_serve(settings)))
    except (PortTaken, CannotLoad, SettingsError) as error:
        structlog.get_logger().error(str(error))
        sys.exit(1)


async def _supervise(settings: Settings) -> int:
    stop = _stop_on_signals()
    renew = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, renew.set)
    return await supervise(settings, stop, renew)


async def _serve(settings: Settings) -> int:
    log = structlog.get_logger()
    for name in unknown_variables(os.environ):
        log.warning("no setting reads this variable", variable=name)
    make_engines = [
        partial(
            load,
            settings.model,
            engine=settings.engine,
            device=device,
            precision=settings.precision,
            threads=settings.threads,
            memory_fraction=settings.memory_fraction,
        )
        for device in device_names(settings.devices, engine=settings.engine)
    ]
    return await run(settings, make_engines, _stop_on_signals())


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


if __name__ == "__main__":
    main()
