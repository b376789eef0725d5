"""Counts what happened and tells the hooks. Decides nothing; a hook that raises costs nothing."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from batcher.device import Device
from batcher.lane import Pending
from batcher.policy import Priority
from batcher.reports import BatchReport, Departure, DeviceStatistics, Outcome, Statistics

Report = TypeVar("Report")


def ignore(_: object) -> None:
    """The hook that listens to nothing."""


class Ledger:
    """One for each batcher."""

    def __init__(
        self, on_batch: Callable[[BatchReport], None], on_departure: Callable[[Departure], None]
    ) -> None:
        self.in_flight: dict[str, int] = {}  # requests of each tenant, waiting or running
        self.accepted = 0  # requests, waiting or running
        self._on_batch = on_batch
        self._on_departure = on_departure
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._cost = 0.0
        self._padding = 0.0

    def accept(self, tenant: str) -> None:
        self.accepted += 1
        self.in_flight[tenant] = self.in_flight.get(tenant, 0) + 1

    def leave(self, pending: Pending, outcome: Outcome, error: Any, now: float) -> None:
        """An accepted request has left; `error` is the class of what its caller was told."""
        self.accepted -= 1
        left = self.in_flight.pop(pending.tenant) - 1
        if left:
            self.in_flight[pending.tenant] = left
        self.depart(pending, outcome, error, now)

    def depart(self, pending: Pending, outcome: Outcome, error: Any, now: float) -> None:
        """A request has left, or was never let in."""
        self._outcomes[outcome] += 1
        if self._on_departure is not ignore:
            departure = Departure(
                outcome=outcome,
                error=error,
                priority=pending.priority,
                tenant=pending.tenant,
                length=pending.length,
                time=now - pending.enqueued_at,
            )
            _tell(self._on_departure, departure)

    def ran(self, report: BatchReport) -> None:
        self._cost += report.cost
        self._padding += report.padding * report.cost
        _tell(self._on_batch, report)

    def statistics(
        self,
        waiting_by_priority: Mapping[Priority, int],
        devices: Mapping[str, Device[Any, Any]],
        elapsed: float,
    ) -> Statistics:
        waiting = sum(waiting_by_priority.values())
        busy = [device.busy_time / elapsed if elapsed else 0.0 for device in devices.values()]
        return Statistics(
            waiting=waiting,
            running=self.accepted - waiting,
            waiting_by_priority=waiting_by_priority,
            devices={
                name: DeviceStatistics(
                    running=device.running,
                    batches=device.batches,
                    busy_share=share,
                    budget=device.budget,
                )
                for (name, device), share in zip(devices.items(), busy, strict=True)
            },
            **{outcome.value: count for outcome, count in self._outcomes.items()},
            busy_share=sum(busy) / len(busy) if busy else 0.0,
            padding=self._padding / self._cost if self._cost else 0.0,
        )


def _tell(hook: Callable[[Report], None], report: Report) -> None:
    try:
        hook(report)
    except Exception as error:
        context = {"message": "a hook of the batcher failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
