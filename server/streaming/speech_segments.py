"""Segments that are stretches of speech; silence belongs to none. Pure, but for its ear."""

from server.speech import Waveform
from server.streaming.decisions import Bookmark, Decision, SpeechEnded, SpeechStarted, Trigger
from server.streaming.growth import Growth
from server.streaming.tape import Tape
from server.streaming.voice import FRAME, PADDING, Change, Ear, Voice, VoiceRule


class SpeechSegments:
    """Cuts speech after a pause, and at `longest` samples; decides once for every 32 ms frame."""

    def __init__(self, rule: VoiceRule, ear: Ear, longest: int, interval: int) -> None:
        self._voice = Voice(rule)
        self._ear = ear
        self._keep = rule.min_speech + PADDING + 2 * FRAME  # speech is recognised so late
        self._longest = longest
        self._tape = Tape()
        self._growth = Growth(self._tape, interval)
        self._heard = 0  # samples the ear has had
        self._free_from = 0  # the end of the last segment: the next cannot begin before

    def push(self, samples: Waveform) -> list[Decision]:
        self._tape.append(samples)
        decided: list[Decision] = []
        while self._heard + FRAME <= self._tape.end:
            probability = self._ear(self._tape.take(self._heard, self._heard + FRAME))
            self._heard += FRAME
            decided += self._after(self._voice.hear(probability))
        return decided

    def mark(self) -> list[Decision]:
        return []

    def finish(self) -> list[Decision]:
        """Speech that goes on ends with the audio."""
        if not self._voice.speaking:
            return []
        pausing = self._voice.silent_since is not None
        end = min(self._tape.end, self._voice.last + PADDING) if pausing else self._tape.end
        return self._end_speech(end, Trigger.FINISH)

    def bookmark(self) -> Bookmark:
        numbers = (self._heard, self._free_from, *self._growth.numbers, *self._voice.numbers)
        return Bookmark(self._tape.start, numbers, self._ear.state)

    def go_on(self, bookmark: Bookmark) -> None:
        self._tape.begin(bookmark.needs)
        self._heard, self._free_from = bookmark.numbers[:2]
        self._growth.go_on(*bookmark.numbers[2:6])
        self._voice.go_on(*bookmark.numbers[6:])
        assert bookmark.ear is not None  # it was made by one that listens
        self._ear.state = bookmark.ear

    def _after(self, change: Change | None) -> list[Decision]:
        if change is Change.STARTED:
            start = max(self._free_from, self._voice.first - PADDING, 0)
            self._growth.begin(start)
            return [SpeechStarted(start), *self._grow()]
        if change is Change.ENDED:
            end = min(self._heard, self._voice.last + PADDING)
            return [*self._grow(), *self._end_speech(end, Trigger.SPEECH_END)]
        if self._voice.speaking:
            return self._grow()
        self._tape.forget(self._heard - self._keep)
        return []

    def _grow(self) -> list[Decision]:
        """Interims, and cuts of what has become too long."""
        decided: list[Decision] = []
        while True:
            full = self._growth.start + self._longest
            interim = self._growth.next_interim()
            if interim is not None and interim < full and interim <= self._heard:
                decided += self._interim(interim)
            elif full <= self._speech_end():
                decided += self._growth.end(full, Trigger.MAX_LENGTH)
                self._begin_again(full)
            else:
                return decided

    def _interim(self, end: int) -> list[Decision]:
        """Of a pause there is nothing new to say."""
        if end > self._speech_end():
            self._growth.skip_interim()
            return []
        return self._growth.interim()

    def _speech_end(self) -> int:
        """Up to here there is speech, with its padding."""
        return min(self._heard, self._voice.last + PADDING)

    def _end_speech(self, end: int, trigger: Trigger) -> list[Decision]:
        end = max(end, self._growth.start)
        decided = self._growth.end(end, trigger)
        self._begin_again(end)
        return [*decided, SpeechEnded(end)]

    def _begin_again(self, at: int) -> None:
        self._growth.begin(at)
        self._free_from = at
        self._tape.forget(at)
