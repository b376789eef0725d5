"""Why a request was not served, and what a device may say of itself. Knows no transport.

BatcherError               raised by `Batcher.submit`
├── Overloaded             refused at the door, worth a retry after `retry_after` seconds
│   ├── QueueFull          too much waits already
│   └── TenantLimit        this tenant has too many requests in flight
├── DeadlineUnmeetable     refused at the door: too slow even alone, or `by_load`
├── DeadlineExpired        its deadline passed in the queue, before its turn
├── Closed                 the batcher drains, has stopped or is broken
└── BatchFailed            the engine failed on this very request; the cause is chained

OutOfMemory, DeviceLost    raised by a RunBatch: signals to the batcher, never to a caller
"""


class BatcherError(Exception):
    """Base class of everything `Batcher.submit` raises on purpose."""


class Overloaded(BatcherError):
    """Refused at the door for load; `retry_after` is in seconds."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class QueueFull(Overloaded):
    """More waits than `max_queue_size`, or than `max_drain_time` would serve."""


class TenantLimit(Overloaded):
    """The tenant has `max_tenant_in_flight` requests waiting or running."""


class DeadlineUnmeetable(BatcherError):
    """By the measured service rate the answer would come too late, so no device was used.

    `by_load` says that only the queue is in the way; then `retry_after` is in seconds, else 0.
    """

    def __init__(self, text: str, *, by_load: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.by_load = by_load
        self.retry_after = retry_after


class DeadlineExpired(BatcherError):
    """The deadline passed while the request waited; no device was used."""


class Closed(BatcherError):
    """Nothing is accepted any more, or the time to drain was over."""


class BatchFailed(BatcherError):
    """The engine failed on this request alone. The text never repeats the cause's text."""


class OutOfMemory(Exception):
    """The batch did not fit: the device wants smaller ones."""


class DeviceLost(Exception):
    """The device will not work again in this process."""
