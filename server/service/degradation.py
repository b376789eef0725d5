"""What bulk requests go without while much waits. Pure: the load is an argument."""

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from batcher import Priority, QueueFull
from server.service.query import Query
from server.speech import Notice

SOON = 0.1
"""Seconds; the shortest `retry_after`, so that the refused do not hammer."""


class Step(StrEnum):
    """One way to need less; the name is what metrics and warnings say."""

    SCORES_ONLY = "scores_only"
    BULK_REFUSED = "bulk_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """From which load on a step is taken, in seconds of estimated drain time; inf is never."""

    scores_only_after: float = inf
    refuse_bulk_after: float = inf


def step_for(priority: Priority, drain_time: float, relief: Relief) -> Step | None:
    """The strongest step that this load asks of a request; interactive ones are left alone."""
    if priority is not Priority.BULK:
        return None
    if drain_time > relief.refuse_bulk_after:
        return Step.BULK_REFUSED
    return Step.SCORES_ONLY if drain_time > relief.scores_only_after else None


def refusal(drain_time: float, relief: Relief) -> QueueFull:
    """What a bulk request is told that is not let in."""
    text = f"bulk is refused while {drain_time:.1f} s of work wait"
    return QueueFull(text, max(drain_time - relief.refuse_bulk_after, SOON))


def scores_only(query: Query) -> tuple[Query, tuple[Notice, ...]]:
    """The query without frames and embeddings, and what its caller is told."""
    if not (query.frames or query.embedding):
        return query, ()
    text = "The server is busy: this bulk request got its scores without frames or embeddings."
    return replace(query, frames=False, embedding=False), (Notice("DEGRADED_SCORES_ONLY", text),)
