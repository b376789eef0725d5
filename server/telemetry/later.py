"""Small work that can wait.

Done some at a time, each piece costs a fraction of what it costs between the steps of a call, where
its code and data are no longer in the processor's caches.
"""

import asyncio
from collections.abc import Callable
from typing import Any

PAUSE = 0.02
"""Seconds for which work is collected."""


class Later:
    """Does in order what it was given, a moment later. What fails is told to the loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[Any], object], Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # that will ring

    def add(self, function: Callable[[Any], object], argument: Any) -> None:
        """Outside of an event loop nothing waits."""
        self._waiting.append((function, argument))
        if self._loop is not None and not self._loop.is_closed():
            return  # asking for the running loop is a system call
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._ring()
        else:
            self._loop.call_later(PAUSE, self._ring)

    def now(self) -> None:
        """All that waits; for those who look at the result, and at the end."""
        waiting, self._waiting = self._waiting, []
        for function, argument in waiting:
            try:
                function(argument)
            except Exception as error:
                if self._loop is None:
                    raise
                context = {"message": "telemetry failed", "exception": error}
                self._loop.call_exception_handler(context)

    def _ring(self) -> None:
        self.now()
        self._loop = None
