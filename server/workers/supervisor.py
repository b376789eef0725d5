"""`--workers N`: keeps N server processes running, replaces those that die or are to be renewed.

A zygote forks them. Knows signals and exit statuses, and nothing of what a worker serves.
"""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog

from server import notify
from server.config import Settings, SettingsError
from server.workers.plan import Plan, plan_for, reserved
from server.workers.restarts import Restarts
from server.workers.worker import Heard, Worker, listening
from server.workers.zygote import StartFailed, Zygote, adopt

log = structlog.get_logger()


def supervise(settings: Settings) -> int:
    """Keeps the workers running until SIGINT or SIGTERM; returns the exit status.

    Each SIGHUP replaces them one by one. 1 means that a worker could not be started, or died
    again and again.
    """
    adopt()
    try:
        with reserved(settings) as port:
            return asyncio.run(_supervise(plan_for(settings, port=port)))
    except SettingsError as error:
        log.error(str(error))
        return 1


async def _supervise(plan: Plan) -> int:
    stop, renew = asyncio.Event(), asyncio.Event()
    for number, event in ((signal.SIGINT, stop), (signal.SIGTERM, stop), (signal.SIGHUP, renew)):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    with tempfile.TemporaryDirectory() as folder:
        async with listening(Path(folder) / "notify") as heard:
            command = [sys.executable, *sys.orig_argv[1:]]
            return await Supervisor(plan, command, heard).run(stop, renew)


class Supervisor:
    """The workers of one machine. Its state is who runs in which slot."""

    def __init__(self, plan: Plan, command: Sequence[str], heard: Heard) -> None:
        """`command` starts a zygote."""
        self._plan = plan
        self._command = command
        self._heard = heard
        self._zygote: Zygote | None = None
        self._forking = asyncio.Lock()
        self._workers: dict[int, Worker] = {}
        self._restarts = [Restarts() for _ in range(plan.count)]
        self._changing = [asyncio.Lock() for _ in range(plan.count)]  # one change at a time
        self._watches: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()

    async def run(self, stop: asyncio.Event, renew: asyncio.Event) -> int:
        """Until `stop` is set, renewing each time `renew` is; returns the exit status."""
        try:
            async with asyncio.TaskGroup() as life:
                working = life.create_task(self._work(renew))
                ending = [life.create_task(event.wait()) for event in (stop, self._failed)]
                await asyncio.wait([working, *ending], return_when=asyncio.FIRST_COMPLETED)
                for task in (working, *ending):
                    task.cancel()
        except* StartFailed as failures:
            log.error(str(failures.exceptions[0]))
            self._failed.set()
        await self._stop_all()
        return int(self._failed.is_set())

    async def _work(self, renew: asyncio.Event) -> None:
        for slot in range(self._plan.count):
            self._workers[slot] = await self._start(slot)
        for worker in list(self._workers.values()):
            await self._until_ready(worker)
        log.info("workers serving", workers=self._plan.count, port=self._plan.port)
        notify.notify(notify.READY)
        while await renew.wait():
            renew.clear()
            await self._renew_all()

    async def _start(self, slot: int, zygote: Zygote | None = None) -> Worker:
        """Raises StartFailed."""
        async with self._forking:
            used = {worker.metrics_port for worker in self._workers.values()}
            order = self._plan.order(slot, used)
            pid = await (zygote or await self._living_zygote()).fork(order)
        worker = Worker(slot, order["metrics_port"], pid, asyncio.get_running_loop().time())
        self._heard.add(worker)
        watch = asyncio.create_task(self._watch(worker))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return worker

    async def _living_zygote(self) -> Zygote:
        if self._zygote and not self._zygote.alive:
            log.error("the zygote died; loading again")
            await self._zygote.end()
            self._zygote = None
        self._zygote = self._zygote or await Zygote.start(self._command, self._heard.address)
        return self._zygote

    async def _until_ready(self, worker: Worker) -> None:
        """Raises StartFailed."""
        ready = asyncio.create_task(worker.ready.wait())
        ended = asyncio.create_task(worker.ended.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        ended.cancel()
        if not worker.ready.is_set():
            raise StartFailed(f"worker {worker.slot} ended with {worker.status} before it served")
        log.info("worker serving", worker=worker.slot, pid=worker.pid)

    async def _watch(self, worker: Worker) -> None:
        """Sees a worker to its end, and starts another in its place if it was still wanted."""
        await worker.ended.wait()
        if not worker.wanted or not worker.ready.is_set():
            return
        async with self._changing[worker.slot]:
            await self._replace_dead(worker, f"it ended with {worker.status}")

    async def _replace_dead(self, worker: Worker, reason: str) -> None:
        loop = asyncio.get_running_loop()
        started_at = worker.started_at
        while worker.wanted and self._workers[worker.slot] is worker:
            delay = self._restarts[worker.slot].died(loop.time() - started_at)
            if delay is None:
                log.error("a worker dies again and again", worker=worker.slot, reason=reason)
                self._failed.set()
                return
            log.error("a worker died", worker=worker.slot, reason=reason, restart_in=delay)
            await asyncio.sleep(delay)
            started_at = loop.time()
            try:
                worker = self._workers[worker.slot] = await self._start(worker.slot)
                return await self._until_ready(worker)
            except StartFailed as failure:
                reason = str(failure)

    async def _renew_all(self) -> None:
        """One after the other; on a shared port the new one serves before the old one stops."""
        log.info("renewing the workers")
        try:
            spare: Zygote | None = await Zygote.start(self._command, self._heard.address)
        except StartFailed as failure:
            log.error("renewing was given up", reason=str(failure))
            return
        try:
            for slot in range(self._plan.count):
                async with self._changing[slot]:
                    await self._renew(slot, spare)
            async with self._forking:
                self._zygote, spare = spare, self._zygote
        except StartFailed as failure:
            log.error("renewing was given up", reason=str(failure))
        else:
            log.info("workers renewed")
        finally:
            if spare:
                await spare.end()

    async def _renew(self, slot: int, zygote: Zygote | None) -> None:
        """Raises StartFailed; the slot is then served as before."""
        old = self._workers[slot]
        if not self._plan.shared:
            await self._stop(old)
        try:
            new = await self._start(slot, zygote)
            await self._until_ready(new)
        except StartFailed as failure:
            if not self._plan.shared:
                old.wanted = True
                await self._replace_dead(old, str(failure))
            raise
        self._workers[slot] = new
        await self._stop(old)

    async def _stop(self, worker: Worker) -> None:
        worker.wanted = False
        worker.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._plan.patience):
                await worker.ended.wait()
        except TimeoutError:
            log.error("a worker did not stop", worker=worker.slot)
            worker.signal(signal.SIGKILL)
            await worker.ended.wait()

    async def _stop_all(self) -> None:
        notify.notify(notify.STOPPING)
        log.info("stopping the workers")
        for watch in self._watches:
            watch.cancel()
        if self._zygote:
            await self._zygote.end()
        everyone = {*self._workers.values(), *self._heard.workers.values()}
        await asyncio.gather(*(self._stop(worker) for worker in everyone))
