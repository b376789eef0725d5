"""When to start a process again that died, and when to give up. Pure: times are arguments."""

FAST = 10.0
"""Seconds; who lives longer has not died of its start."""

FIRST_DELAY = 0.5
"""Seconds; doubled with every further fast death."""

MOST_DEATHS = 5


class Restarts:
    """What became of one worker's predecessors."""

    def __init__(self) -> None:
        self._fast_deaths = 0

    def died(self, lifetime: float) -> float | None:
        """Seconds to wait before the next start; None: it is hopeless. `lifetime` in seconds."""
        self._fast_deaths = self._fast_deaths + 1 if lifetime < FAST else 1
        if self._fast_deaths >= MOST_DEATHS:
            return None
        return FIRST_DELAY * 2.0 ** (self._fast_deaths - 1)
