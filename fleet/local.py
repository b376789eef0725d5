"""The fleet as a whole: starts everything in order, keeps it running, upgrades it, ends it."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fleet.companions import scrape_config
from fleet.edge import write_secret
from fleet.plan import (
    CANARY,
    HOST,
    Ports,
    Program,
    base_id_file,
    endpoints,
    envoy,
    has_canary,
    place,
)
from fleet.process import Died, Process, post

START_PATIENCE = 180.0  # s; a large checkpoint takes its time to load
STOP_PATIENCE = 45.0  # s; longer than the drain of a replica
ENVOY_DRAIN = 5.0  # s; of its connections
AGAIN = 1.0  # s, before a replica that died is started again


class Fleet:
    """Entered: everything runs and is ready. Left: everything of it has ended, in order."""

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        config: dict[str, Any],
        *,
        replicas: Sequence[Program],
        workers: int = 1,
        companions: Sequence[Program] = (),
        envoy_drain: float = ENVOY_DRAIN,
        write: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.ports = ports
        self.config = config
        self._write = write
        self._envoy_drain = envoy_drain
        self.replicas = [Process(program, write) for program in replicas]
        self._door = partial(
            envoy, ports, folder, workers=workers, drain=max(1.0, envoy_drain)
        )  # of any epoch
        self.envoy = Process(self._door(), write)
        self._epoch = 0  # of Envoy: how often it was restarted
        self.companions = [Process(program, write) for program in companions]
        self._keepers: list[asyncio.Task[None]] = []
        self._upgrading: set[str] = set()  # replicas that are meant to end

    @property
    def processes(self) -> list[Process]:
        return [*self.companions, *self.replicas, self.envoy]

    async def __aenter__(self) -> Self:
        self._write_files()
        try:
            async with asyncio.timeout(START_PATIENCE):
                async with asyncio.TaskGroup() as group:
                    for process in (*self.companions, *self.replicas):
                        group.create_task(self._start(process))
                await self._start(self.envoy)  # last: its first health check then passes
        except BaseException:
            await self._stop_all()
            raise
        keepers = [*(self._keep(one) for one in self.replicas), self._keep_envoy()]
        self._keepers = [asyncio.create_task(one) for one in keepers]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._drain_envoy()
        await self._stop_all()

    async def restart(self, replica: Process) -> None:
        """A new process in the place of a replica, which drains first."""
        self._upgrading.add(replica.program.name)
        try:
            await replica.stop(STOP_PATIENCE)
            await self._start(replica)
        finally:
            self._upgrading.discard(replica.program.name)

    async def roll(self) -> None:
        """Restarts all replicas one after another, as an upgrade would."""
        for replica in self.replicas:
            await self.restart(replica)
            await asyncio.sleep(AGAIN)  # until Envoy has seen that it is back

    async def restart_envoy(self, config: dict[str, Any] | None = None) -> None:
        """A new Envoy in the place of the old one, which never closes the port: a hot restart.

        `config`: its configuration from now on. Raises Died, and the old one goes on.
        """
        old, before, base_id = self.envoy, self.config, base_id_file(self.folder).read_text()
        self._write_envoy(config or before)
        new = Process(self._door(base_id=int(base_id), epoch=self._epoch + 1), self._write)
        self._upgrading.add(old.program.name)
        try:
            await new.start()
            await _first(old.ended(), new.ended())
            if not new.pid:
                raise Died("the new Envoy ended; see the log")
            self.envoy, self._epoch = new, self._epoch + 1
        except BaseException:
            await new.stop(STOP_PATIENCE)
            self._write_envoy(before)
            raise
        finally:
            self._upgrading.discard(old.program.name)

    def announce(self, ports: Sequence[int], draining: Sequence[int] = ()) -> None:
        """Tells Envoy which replicas there are; the last one is the canary, if there is one."""
        if has_canary(self.config):
            *ports, canary = ports
            self._replace("canary.json", endpoints([canary], cluster=CANARY))
        self._replace("replicas.json", endpoints(ports, draining=draining))

    def _replace(self, name: str, text: str) -> None:
        beside = self.folder / name
        beside.write_text(text)
        # Envoy watches for moves: it never sees half a file.
        beside.rename(self.folder / "endpoints" / name)

    def _write_files(self) -> None:
        (self.folder / "endpoints").mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.announce(self.ports.replicas)
        self._write_envoy(self.config)
        (self.folder / "prometheus.json").write_text(scrape_config(self.ports))

    def _write_envoy(self, config: dict[str, Any]) -> None:
        place(config, self.ports, self.folder)
        write_secret(self.folder / "envoy.json", json.dumps(config, indent=1))  # keys of callers
        self.config = config

    async def _start(self, process: Process) -> None:
        await process.start()
        await process.ready()

    async def _keep(self, replica: Process) -> None:
        """Starts a replica again whenever it dies."""
        while True:
            status = await replica.ended()
            if replica.program.name not in self._upgrading:
                self._write(f"fleet      | {replica.program.name} died with {status}\n")
                await asyncio.sleep(AGAIN)
                await replica.start()
            else:
                await asyncio.sleep(AGAIN)

    async def _keep_envoy(self) -> None:
        """The same for Envoy; the first of a new line, not the successor of the dead one."""
        while True:
            envoy = self.envoy
            status = await envoy.ended()
            if envoy is self.envoy and envoy.program.name not in self._upgrading:
                self._write(f"fleet      | {envoy.program.name} died with {status}\n")
                await asyncio.sleep(AGAIN)
                self._epoch = 0
                self.envoy = Process(self._door(), self._write)
                await self.envoy.start()
            else:
                await asyncio.sleep(AGAIN)

    async def _drain_envoy(self) -> None:
        if self.envoy.pid:
            await post(HOST, self.ports.admin, "/drain_listeners?graceful")
            await asyncio.sleep(self._envoy_drain)

    async def _stop_all(self) -> None:
        await self.envoy.stop(STOP_PATIENCE)
        await asyncio.gather(*(one.stop(STOP_PATIENCE) for one in self.replicas))
        await asyncio.gather(*(one.stop(STOP_PATIENCE) for one in self.companions))


async def _first(*ends: Coroutine[Any, Any, int]) -> None:
    """Returns when one of the processes has ended."""
    waits = [asyncio.create_task(end) for end in ends]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
