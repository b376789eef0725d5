"""What the batcher tells: answers, batches, departures, its state. Frozen; times in seconds.

Tuples where one is made for each request or batch: they cost a third of a frozen dataclass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from batcher.policy import Priority

Result = TypeVar("Result")


class Outcome(StrEnum):
    """How a request left."""

    SERVED = "served"
    REFUSED = "refused"  # at the door
    EXPIRED = "expired"  # in the queue
    ABANDONED = "abandoned"  # its caller was cancelled, in the queue or while it ran
    FAILED = "failed"
    CLOSED = "closed"  # accepted, but the drain ended or the devices were gone first


class Served(NamedTuple, Generic[Result]):
    """An answer, and where its time went."""

    result: Result
    queue_time: float
    run_time: float  # of the device, for the whole batch
    batch_size: int
    device: str


class BatchReport(NamedTuple):
    """One call of a RunBatch, well or badly ended."""

    device: str
    size: int
    cost: float  # length units, padded
    padding: float  # share of the cost
    queue_time: float  # of the oldest
    run_time: float  # of the device
    predicted_time: float
    abandoned: int  # callers who left while it ran
    error: type[BaseException] | None  # what the RunBatch raised


class Departure(NamedTuple):
    """One request has left, for whatever reason."""

    outcome: Outcome
    error: type[BaseException] | None
    priority: Priority
    tenant: str
    length: float
    time: float  # since it came


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatistics:
    """One device, as it is now."""

    running: int  # batches
    batches: int  # since the start
    busy_share: float  # of the time since the start
    budget: float  # share of the policy's batch limits; below 1 after OutOfMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The batcher as it is now, and its counters since the start (requests)."""

    waiting: int
    running: int
    waiting_by_priority: Mapping[Priority, int]
    devices: Mapping[str, DeviceStatistics]
    served: int
    refused: int
    expired: int
    abandoned: int
    failed: int
    closed: int
    busy_share: float  # mean over the devices left
    padding: float  # share of all the cost that ran
