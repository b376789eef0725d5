"""`--workers N`: starts N server processes, replaces those that die or are to be renewed.

They are processes of their own, started as this one was: gRPC does not survive a fork. Knows
signals and exit statuses, and nothing of what a worker serves.
"""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import structlog

from server import notify
from server.config import Settings
from server.workers.plan import Plan, plan_for, reserved
from server.workers.restarts import Restarts
from server.workers.worker import Heard, Worker, listening, start_process

log = structlog.get_logger()


class StartFailed(Exception):
    """A worker ended before it served."""


async def supervise(settings: Settings, stop: asyncio.Event, renew: asyncio.Event) -> int:
    """Keeps the workers running until `stop`; returns the exit status.

    Each time `renew` is set it replaces them one by one. 1 means that a worker could not be
    started, or died again and again.
    """
    command = [sys.executable, *sys.orig_argv[1:]]
    cores = len(os.sched_getaffinity(0))
    with reserved(settings) as port, tempfile.TemporaryDirectory() as folder:
        plan = plan_for(settings, command, cores=cores, port=port)
        async with listening(Path(folder) / "notify") as heard:
            return await Supervisor(plan, heard).run(stop, renew)


class Supervisor:
    """The workers of one machine. Its state is who runs in which slot."""

    def __init__(self, plan: Plan, heard: Heard) -> None:
        self._plan = plan
        self._heard = heard
        self._workers: dict[int, Worker] = {}
        self._restarts = [Restarts() for _ in range(plan.count)]
        self._changing = [asyncio.Lock() for _ in range(plan.count)]  # one change at a time
        self._watches: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()

    async def run(self, stop: asyncio.Event, renew: asyncio.Event) -> int:
        """See `supervise`."""
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

    async def _start(self, slot: int) -> Worker:
        used = {worker.metrics_port for worker in self._workers.values()}
        first = self._plan.metrics_port
        ports = range(first, first + self._plan.count + 1)
        metrics_port = next(port for port in ports if port not in used) if first else 0
        command = [*self._plan.command, *self._plan.flags(slot, metrics_port)]
        process = await start_process(command, self._heard.address)
        now = asyncio.get_running_loop().time()
        worker = Worker(slot, metrics_port, process, now)
        self._heard.workers[process.pid] = worker
        watch = asyncio.create_task(self._watch(worker))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return worker

    async def _until_ready(self, worker: Worker) -> None:
        """Raises StartFailed."""
        ready = asyncio.create_task(worker.ready.wait())
        ended = asyncio.create_task(worker.process.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        ended.cancel()
        if not worker.ready.is_set():
            status = worker.process.returncode
            raise StartFailed(f"worker {worker.slot} ended with {status} before it served")
        log.info("worker serving", worker=worker.slot, pid=worker.process.pid)

    async def _watch(self, worker: Worker) -> None:
        """Sees a worker to its end, and starts another in its place if it was still wanted."""
        status = await worker.process.wait()
        del self._heard.workers[worker.process.pid]
        if not worker.wanted or not worker.ready.is_set():
            return
        async with self._changing[worker.slot]:
            await self._replace_dead(worker, status)

    async def _replace_dead(self, worker: Worker, status: int) -> None:
        loop = asyncio.get_running_loop()
        while worker.wanted and self._workers[worker.slot] is worker:
            delay = self._restarts[worker.slot].died(loop.time() - worker.started_at)
            if delay is None:
                log.error("a worker dies again and again", worker=worker.slot, status=status)
                self._failed.set()
                return
            log.error("a worker died", worker=worker.slot, status=status, restart_in=delay)
            await asyncio.sleep(delay)
            worker = self._workers[worker.slot] = await self._start(worker.slot)
            try:
                return await self._until_ready(worker)
            except StartFailed:
                status = worker.process.returncode or 0

    async def _renew_all(self) -> None:
        """One after the other; on a shared port the new one serves before the old one stops."""
        log.info("renewing the workers")
        for slot in range(self._plan.count):
            async with self._changing[slot]:
                try:
                    await self._renew(slot)
                except StartFailed as failure:
                    log.error("renewing was given up", reason=str(failure))
                    return
        log.info("workers renewed")

    async def _renew(self, slot: int) -> None:
        """Raises StartFailed; the slot is then served by whoever could be started."""
        old = self._workers[slot]
        if not self._plan.shared:
            await self._stop(old)
        new = await self._start(slot)
        try:
            await self._until_ready(new)
        except StartFailed:
            if not self._plan.shared:
                self._workers[slot] = new
                await self._replace_dead(new, new.process.returncode or 0)
            raise
        self._workers[slot] = new
        await self._stop(old)

    async def _stop(self, worker: Worker) -> None:
        worker.wanted = False
        if worker.process.returncode is None:
            worker.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._plan.patience):
                await worker.process.wait()
        except TimeoutError:
            log.error("a worker did not stop", worker=worker.slot)
            worker.process.kill()
            await worker.process.wait()

    async def _stop_all(self) -> None:
        notify.notify(notify.STOPPING)
        log.info("stopping the workers")
        everyone = {*self._workers.values(), *self._heard.workers.values()}
        for worker in everyone:
            worker.wanted = False
        await asyncio.gather(*(self._stop(worker) for worker in everyone))
        for watch in self._watches:
            watch.cancel()
