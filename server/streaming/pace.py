"""How fast a live stream may send: a bucket of audio that refills with time. Pure."""

BURST = 5.0
"""Seconds of audio that may come at once: what gathers in a client while it reconnects."""


class Pace:
    """`speed` seconds of audio for each second, at most BURST seconds in advance."""

    def __init__(self, speed: float, now: float, behind: float = 0.0) -> None:
        """`behind`: seconds that have to come once more before the stream is where it was."""
        self._speed = speed
        self._room = BURST + behind
        self._at = now

    def spend(self, audio: float, now: float) -> float:
        """Takes `audio` seconds out of the bucket; how long to wait before the next, in seconds."""
        refilled = min(BURST, self._room + (now - self._at) * self._speed)
        self._room = max(self._room, refilled) - audio
        self._at = now
        return max(0.0, -self._room / self._speed)
