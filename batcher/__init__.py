"""Groups concurrent requests into batches. Standard library only."""

from batcher.batcher import Batcher
from batcher.cost import CostModel
from batcher.device import RunBatch
from batcher.errors import (
    BatcherError,
    BatchFailed,
    Closed,
    DeadlineExpired,
    DeadlineUnmeetable,
    DeviceLost,
    OutOfMemory,
    Overloaded,
    QueueFull,
    TenantLimit,
)
from batcher.policy import BatchPolicy, Priority
from batcher.reports import BatchReport, Departure, DeviceStatistics, Outcome, Served, Statistics

__all__ = [
    "BatchFailed",
    "BatchPolicy",
    "BatchReport",
    "Batcher",
    "BatcherError",
    "Closed",
    "CostModel",
    "DeadlineExpired",
    "DeadlineUnmeetable",
    "Departure",
    "DeviceLost",
    "DeviceStatistics",
    "OutOfMemory",
    "Outcome",
    "Overloaded",
    "Priority",
    "QueueFull",
    "RunBatch",
    "Served",
    "Statistics",
    "TenantLimit",
]
