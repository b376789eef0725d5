"""Where speech begins and ends, by what an ear says of each frame. Pure."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from server.speech import Vector, Waveform

FRAME = 512
"""Samples of one decision (32 ms); the only length Silero VAD 5 and later take."""

HYSTERESIS = 0.15
"""Speech goes on until its probability falls that far below the threshold.

Source: `silero_vad/utils_vad.py`, VADIterator and get_speech_timestamps.
"""

PADDING = 3 * FRAME
"""Samples kept before the first and after the last frame of speech (96 ms), so that soft onsets
and final consonants are heard."""


class Ear(Protocol):
    """Hears one stream; frames come in order."""

    state: Vector
    """All that it knows of the past; set it to go on elsewhere."""

    def __call__(self, frame: Waveform) -> float:
        """Probability in [0, 1] that a frame of FRAME samples is speech."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceRule:
    """What counts as a stretch of speech; lengths in samples."""

    threshold: float  # in [0, 1]
    min_speech: int  # shorter speech is ignored
    end_silence: int  # so much silence ends a segment


class Change(Enum):
    """What a frame made known."""

    STARTED = auto()
    ENDED = auto()


class Voice:
    """Two thresholds and two patience times over the probabilities of consecutive frames."""

    def __init__(self, rule: VoiceRule) -> None:
        self._rule = rule
        self._position = 0
        self._candidate: int | None = None  # where speech may have begun
        self.speaking = False
        self.silent_since: int | None = None  # while speaking: where a pause began
        self.first = 0  # of the speech that was found last
        self.last = 0  # end of its last frame that was speech

    @property
    def numbers(self) -> tuple[int, ...]:
        """All that it knows, for `go_on`; -1 is None."""
        candidate = -1 if self._candidate is None else self._candidate
        silent_since = -1 if self.silent_since is None else self.silent_since
        return self._position, candidate, silent_since, self.speaking, self.first, self.last

    def go_on(
        self, position: int, candidate: int, silent_since: int, speaking: int, first: int, last: int
    ) -> None:
        """Continues where another was."""
        self._position, self.first, self.last = position, first, last
        self._candidate = None if candidate < 0 else candidate
        self.silent_since = None if silent_since < 0 else silent_since
        self.speaking = bool(speaking)

    def hear(self, probability: float) -> Change | None:
        """Takes the next frame."""
        start = self._position
        self._position += FRAME
        return self._go_on(start, probability) if self.speaking else self._wait(start, probability)

    def _wait(self, start: int, probability: float) -> Change | None:
        if probability < self._rule.threshold - (HYSTERESIS if self._candidate is not None else 0):
            self._candidate = None
            return None
        if self._candidate is None:
            self._candidate = start
        if self._position - self._candidate < self._rule.min_speech:
            return None
        self.first, self.last = self._candidate, self._position
        self._candidate, self.silent_since, self.speaking = None, None, True
        return Change.STARTED

    def _go_on(self, start: int, probability: float) -> Change | None:
        if probability >= self._rule.threshold - HYSTERESIS:
            self.silent_since, self.last = None, self._position
            return None
        if self.silent_since is None:
            self.silent_since = start
        if self._position - self.silent_since < self._rule.end_silence:
            return None
        self.silent_since, self.speaking = None, False
        return Change.ENDED
