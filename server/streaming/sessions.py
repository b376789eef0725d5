"""The sessions of this replica, those included whose connection is gone. Pure: time is an argument.

A store that several replicas share would offer the same five methods.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from server.streaming.session import Session


@dataclass(slots=True)
class _Entry:
    session: Session[Any]
    expires_at: float = inf  # while a connection is there


class Sessions:
    """At most `limit` of a tenant; without a connection each lives for `resume_window` seconds."""

    def __init__(self, limit: int, resume_window: float) -> None:
        self._limit = limit
        self._resume_window = resume_window
        self._entries: dict[str, _Entry] = {}
        self._of_tenant: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Session[Any]]:
        return (entry.session for entry in self._entries.values())

    def has_room(self, tenant: str) -> bool:
        """Gives up the tenant's session that has waited longest to be resumed, if need be."""
        if self._of_tenant[tenant] < self._limit:
            return True
        own = (one for one in self._entries.values() if one.session.tenant == tenant)
        oldest = min(own, key=lambda one: one.expires_at)
        if oldest.expires_at == inf:
            return False
        self.remove(oldest.session)
        return True

    def add(self, session: Session[Any]) -> None:
        self._entries[session.token] = _Entry(session)
        self._of_tenant[session.tenant] += 1

    def find(self, token: str) -> Session[Any] | None:
        """The token is the key; the caller's address may have changed with its network."""
        entry = self._entries.get(token)
        return entry.session if entry else None

    def attach(self, session: Session[Any]) -> None:
        """A connection is there again."""
        self._entries[session.token].expires_at = inf

    def park(self, session: Session[Any], now: float) -> None:
        """Its connection is gone."""
        if session.token in self._entries:
            self._entries[session.token].expires_at = now + self._resume_window

    def expire(self, now: float) -> None:
        """Forgets the sessions that nobody has resumed in time."""
        for entry in [one for one in self._entries.values() if one.expires_at <= now]:
            self.remove(entry.session)

    def remove(self, session: Session[Any]) -> None:
        """It is over; its source is closed."""
        if self._entries.pop(session.token, None) is not None:
            self._of_tenant[session.tenant] -= 1
            if not self._of_tenant[session.tenant]:
                del self._of_tenant[session.tenant]
        session.source.close()
