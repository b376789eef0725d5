"""One process that serves, by itself or as a worker that was forked with the model in memory."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import structlog
import uvloop

from server.app import run
from server.config import Settings, SettingsError, unknown_variables
from server.draining import ServingFailed
from server.engine import CannotLoad, Engine, cores
from server.engine.loading import device_names, load
from server.workers import hatch, is_zygote

MakeEngine = Callable[[], Engine]

log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Ends the process: with 0 after a signal, with 1 if it could not serve or not go on."""
    for name in unknown_variables(os.environ):
        log.warning("no setting reads this variable", variable=name)
    try:
        devices = device_names(settings.devices, engine=settings.engine)
        make_engines = [_making(settings, device) for device in devices]
        if is_zygote():
            if can_be_forked(settings, devices):
                log.info("loading for the workers", model=settings.model, engine=settings.engine)
                make_engines = [_returning(make()) for make in make_engines]
            settings = settings.model_copy(update=hatch())
        uvloop.run(run(settings, make_engines))
    except (ServingFailed, CannotLoad, SettingsError) as error:
        log.error(str(error))
        os._exit(1)  # an engine that hangs would be waited for until it returns
    sys.exit(0)


def can_be_forked(settings: Settings, devices: Sequence[str]) -> bool:
    """Whether an engine that was loaded works in a child: CUDA does not, FunASR starts threads."""
    return settings.engine != "funasr" and set(devices) == {"cpu"}


def threads_of(settings: Settings, available: int) -> int:
    """Of each model, 0 for as many as pay: workers share the cores."""
    if settings.threads or settings.workers == 1:
        return settings.threads
    return max(1, available // settings.workers)


def _making(settings: Settings, device: str) -> MakeEngine:
    return partial(
        load,
        settings.model,
        engine=settings.engine,
        device=device,
        precision=settings.precision,
        threads=threads_of(settings, cores.available()),
        memory_fraction=settings.memory_fraction,
    )


def _returning(engine: Engine) -> MakeEngine:
    return lambda: engine
