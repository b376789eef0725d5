"""What an operator may choose: the limits and the order. Knows no request and no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf


class Priority(IntEnum):
    """Who goes first; a lower class is lifted as it waits (`BatchPolicy.aging`)."""

    INTERACTIVE = 0
    STREAM = 1
    BULK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """The limits a batch is formed under. Times in seconds, lengths in the caller's unit."""

    max_batch_size: int = 32

    # Length units after padding: len(batch) * longest. What fits into the device's memory; a
    # longer single request still runs, alone.
    max_batch_cost: float = 320.0

    # How long a request waits for company, counted only while a device is idle. 0 is best where
    # a batch costs little more than its parts (CPU); a few milliseconds pay on a GPU.
    max_queue_delay: float = 0.002

    # Requests; a guard of memory. Under load `max_drain_time` is the limit that acts.
    max_queue_size: int = 1024

    # What a request would have to wait for others of its class and above; past it QueueFull.
    max_drain_time: float = 10.0

    # A request is let in if it makes its deadline even though its turn comes so much later than
    # estimated: a share of the wait, and seconds for the way back.
    wait_slack: float = 0.1
    answer_time: float = 0.01

    # Sizes the engine runs best, such as those it has captured as graphs.
    preferred_sizes: tuple[int, ...] = ()

    # Share of a batch that may be padding. Past it a neighbour still joins where the cost model
    # says that together is cheaper than apart. No request ever waits for better company.
    padding_limit: float = 0.05

    # Seconds of waiting that lift a request by one class.
    aging: float = 1.0

    # Requests of one tenant, waiting or running; 0 is no limit.
    max_tenant_in_flight: int = 0

    # Share of the devices, relative to the others' of the same class; 1.0 for those not named.
    tenant_weights: Mapping[str, float] = field(default_factory=dict)

    # Batches handed to one RunBatch at a time: with 2, the next is prepared while one runs.
    slots_per_device: int = 2

    # How long before the predicted end of the running batch the next is formed. Later means
    # fuller batches and a shorter way for the urgent; too late leaves the device idle.
    prepare_time: float = 0.005

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch_size <= self.max_queue_size:
            raise ValueError("need 1 <= max_batch_size <= max_queue_size")
        if not (self.max_batch_cost > 0 and 0 < self.max_drain_time < inf and self.aging > 0):
            raise ValueError("max_batch_cost, max_drain_time and aging must be positive, finite")
        times = (self.max_queue_delay, self.prepare_time, self.wait_slack, self.answer_time)
        if min(*times, self.max_tenant_in_flight) < 0:
            raise ValueError("no delay, time or limit may be negative")
        if self.slots_per_device < 1 or not 0 <= self.padding_limit < 1:
            raise ValueError("need slots_per_device >= 1 and 0 <= padding_limit < 1")
        if list(self.preferred_sizes) != sorted(set(self.preferred_sizes) - {0}):
            raise ValueError("preferred_sizes must be positive and strictly increasing")
        if not all(weight > 0 for weight in self.tenant_weights.values()):
            raise ValueError("tenant_weights must be positive")
