"""One timer for everything that may fall due. Knows not what."""

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """Rings at the earliest time it was set to since it last rang."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        """`when` is in loop.time() seconds; inf is never."""
        if when < self._at:
            if self._timer:
                self._timer.cancel()
            self._at = when
            self._timer = asyncio.get_running_loop().call_at(when, self._fire)

    def _fire(self) -> None:
        self._at = inf
        self._ring()
