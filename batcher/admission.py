"""Whom to refuse at the door, and when it pays to knock again. Pure: the load is an argument."""

from collections.abc import Callable
from math import inf
from typing import Any

from batcher.errors import BatcherError, DeadlineUnmeetable, QueueFull, TenantLimit
from batcher.lane import Pending
from batcher.policy import BatchPolicy
from batcher.scheduler import Scheduler

SOON = 0.1
"""Seconds; the shortest `retry_after`, so that the refused do not hammer."""


class Admission:
    """Refuses what could not be served in time, before it costs anything."""

    def __init__(
        self,
        scheduler: Scheduler[Any],
        policy: BatchPolicy,
        seconds_alone: Callable[[float], float],
    ) -> None:
        """`seconds_alone(length)`: of the fastest device, for one request."""
        self._scheduler = scheduler
        self._policy = policy
        self._seconds_alone = seconds_alone

    def refusal(
        self,
        pending: Pending,
        in_flight: int,
        busy_time: float,
        trusted: bool,
        ahead: int = 0,
        ahead_length: float = 0.0,
    ) -> BatcherError | None:
        """The reason to refuse a request that has just come, or None.

        `in_flight` counts the requests of its tenant, `busy_time` the seconds until a device is
        free, and `trusted` says whether the cost model has been refreshed lately. `ahead` requests
        of `ahead_length` together are about to be submitted before it.
        """
        policy = self._policy
        if ahead:
            busy_time += self._scheduler.seconds_for(ahead_length, ahead)
        wait = busy_time + self._scheduler.work_before(pending)
        if len(self._scheduler) + ahead >= policy.max_queue_size:
            return QueueFull(f"{policy.max_queue_size} requests are waiting", max(wait / 2, SOON))
        if wait > policy.max_drain_time:
            return QueueFull(f"{wait:.1f} s of work wait", max(wait - policy.max_drain_time, SOON))
        if 0 < policy.max_tenant_in_flight <= in_flight:
            return TenantLimit(f"{in_flight} requests are in flight", max(wait / 2, SOON))
        if pending.deadline == inf:
            return None
        alone = self._seconds_alone(pending.length)
        left = pending.deadline - pending.enqueued_at
        if self._end(wait, alone) < left:
            return None
        if left <= 0 or alone >= left:
            # An estimate that nothing refreshes must not refuse for ever.
            hopeless = left <= 0 or trusted
            return (
                DeadlineUnmeetable(f"has {left:.3f} s, needs {alone:.3f} s") if hopeless else None
            )
        wait = busy_time + self._scheduler.work_before(pending, pending.due)
        if self._end(wait, alone) < left:
            return None
        late = wait + alone - left
        text = f"would be {late:.3f} s late for what waits"
        return DeadlineUnmeetable(text, by_load=True, retry_after=max(late, SOON))

    def _end(self, wait: float, alone: float) -> float:
        """Seconds until the caller has the answer, with some caution where others go first."""
        policy = self._policy
        return wait * (1 + policy.wait_slack) + alone + (policy.answer_time if wait else 0.0)
