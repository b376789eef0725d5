"""What the session decides as audio comes in; positions count 16 kHz samples from its start."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias

from server.speech import Vector, Waveform


class Trigger(Enum):
    """Why a segment ends where it does."""

    INTERVAL = auto()  # it does not end yet: an interim result was due
    WINDOW = auto()
    SPEECH_END = auto()
    MAX_LENGTH = auto()
    CLIENT_MARK = auto()
    FINISH = auto()


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech begins at `at`."""

    at: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Speech ended at `at`; silence follows."""

    at: int


@dataclass(frozen=True, slots=True)
class TooShort:
    """A stretch in which the model has no frame: there will be no result for it."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """A stretch to be analysed."""

    index: int  # 0, 1, 2, ...; of the final segments
    revision: int  # rises with each interim of the same segment
    final: bool
    trigger: Trigger
    start: int
    end: int  # exclusive
    waveform: Waveform  # (end - start,)


Decision: TypeAlias = SpeechStarted | SpeechEnded | TooShort | Segment


@dataclass(frozen=True, slots=True, eq=False)
class Bookmark:
    """Where a segmenter is, but for the samples it holds: those come again, from `needs` on."""

    needs: int
    numbers: tuple[int, ...]  # only the segmenter knows what they mean
    ear: Vector | None = None  # what it has heard, if it listens


class Segmenter(Protocol):
    """One way to cut audio into segments. However the audio is cut, the decisions are the same."""

    def push(self, samples: Waveform) -> list[Decision]:
        """What can be decided now that these samples have come too."""
        ...

    def mark(self) -> list[Decision]:
        """The client wants the segment to end here."""
        ...

    def finish(self) -> list[Decision]:
        """There are no more samples."""
        ...

    def bookmark(self) -> Bookmark:
        """All that a fresh one needs to go on from here with the same decisions."""
        ...

    def go_on(self, bookmark: Bookmark) -> None:
        """Continues where another was; what is pushed next begins at `bookmark.needs`."""
        ...
