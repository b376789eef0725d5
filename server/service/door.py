"""Whom to let in, decided before a byte of the audio is copied or decoded.

Who waits for a decoding thread counts as waiting, though the batcher cannot see it yet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batcher import Batcher, Priority, QueueFull
from server.service.calls import Call
from server.service.degradation import SOON, Relief, Step, refusal, scores_only, step_for
from server.service.query import Query
from server.speech import Notice, Prediction, Utterance

WEIGHT = 1 / 16
"""Of the newest utterance in the running means."""


class Door:
    """Stands before the decoding threads and the batcher behind them."""

    def __init__(
        self,
        batcher: Batcher[Utterance, Prediction],
        relief: Relief,
        *,
        decode_threads: int,
        max_wait: float,
        on_step: Callable[[Step], None],
    ) -> None:
        self._batcher = batcher
        self._relief = relief
        self._threads = decode_threads
        self._max_wait = max_wait
        self._on_step = on_step
        self._preparing = 0  # let in, and not yet in the batcher's queue
        self._audio_seconds = 0.0  # of an utterance, a running mean
        self._decode_seconds = 0.0  # the same

    def __repr__(self) -> str:
        return f"<Door preparing={self._preparing}>"

    def check(self, call: Call, priority: Priority) -> None:
        """Raises a BatcherError if the utterance could not be served in time."""
        wait = self._preparing * self._decode_seconds / self._threads
        if wait > self._max_wait:
            raise QueueFull(f"{wait:.1f} s of decoding wait", max(wait - self._max_wait, SOON))
        self._batcher.check(
            deadline=call.deadline - wait,
            priority=priority,
            tenant=call.tenant,
            ahead=self._preparing,
            ahead_length=self._preparing * self._audio_seconds,
        )
        if priority is not Priority.BULK:
            return
        drain_time = self._batcher.estimated_drain_time()
        if step_for(priority, drain_time, self._relief) is Step.BULK_REFUSED:
            self._on_step(Step.BULK_REFUSED)
            raise refusal(drain_time, self._relief)

    def grant(self, query: Query) -> tuple[Query, tuple[Notice, ...]]:
        """What of the query can be afforded now, and what its caller must know of the rest."""
        if query.priority is not Priority.BULK:
            return query, ()
        drain_time = self._batcher.estimated_drain_time()
        if step_for(query.priority, drain_time, self._relief) is None:
            return query, ()
        granted, notices = scores_only(query)
        if notices:
            self._on_step(Step.SCORES_ONLY)
        return granted, notices

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Around the work between `check` and `submit`."""
        self._preparing += 1
        try:
            yield
        finally:
            self._preparing -= 1

    def note(self, audio_seconds: float, decode_seconds: float) -> None:
        """Learns from an utterance that has been decoded."""
        self._audio_seconds += WEIGHT * (audio_seconds - self._audio_seconds)
        self._decode_seconds += WEIGHT * (decode_seconds - self._decode_seconds)
