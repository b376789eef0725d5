"""What a stream is apart from its connection: it outlives one, and goes on with the next.

Knows no transport and no clock; who calls it says what time it is.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from server.speech import SAMPLE_RATE, Waveform
from server.streaming.decisions import Bookmark, Decision, Segment, Segmenter
from server.streaming.timeline import Timeline

Answer = TypeVar("Answer")

MAX_REPLAYED = 1_024
"""Results kept for replay, however fast they come."""


class Source(Protocol):
    """Where bytes become samples; see `server.audio.incremental.Intake`."""

    @property
    def container(self) -> str: ...
    @property
    def rate_hz(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def size(self) -> int: ...
    def offer(self, data: bytes) -> None: ...
    def rewind(self, unit: str, first: int) -> int: ...
    def take(self) -> Waveform | None: ...
    def cut(self) -> Waveform: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Cursors:
    """How far the session is, in frames of the client's audio; exclusive ends."""

    accepted: int
    accepted_bytes: int  # of a container, otherwise 0
    processed: int
    final: int


@dataclass(frozen=True, slots=True)
class Delivered(Generic[Answer]):
    """A final result that was handed to the transport; whether it arrived nobody knows."""

    at: float
    answer: Answer


class Session(Generic[Answer]):
    """The state of one stream: bytes go in, decisions come out, answers are remembered."""

    def __init__(
        self,
        *,
        identity: str,
        token: str,
        tenant: str,
        config: bytes,
        source: Source,
        segmenter: Segmenter,
        labels: int,
        now: float,
    ) -> None:
        self.id = identity
        self.token = token
        self.tenant = tenant
        self.config = config  # a resumed stream must bring the same
        self.source = source
        self.started_at = now
        self.finished = False  # the client has sent all it had
        self.timeline = Timeline(labels)
        self.kept: int | None = None  # frames kept elsewhere too, if that is what counts
        self.known = 0  # finals that another replica sent before it lost the session
        self.behind = 0.0  # seconds of audio that its client may send again at once
        self.unsent: list[Decision] = []  # what the last connection left undone
        self._segmenter = segmenter
        self._delivered: deque[Delivered[Answer]] = deque()
        self.processed = 0  # samples at 16 kHz
        self.final = 0

    def __repr__(self) -> str:
        return f"<Session {self.id} accepted={self.source.frames} final={self.final}>"

    def go_on(self, bookmark: Bookmark, processed: int, final: int) -> None:
        """Continues where another replica was."""
        self._segmenter.go_on(bookmark)
        self.processed, self.final = processed, final

    def bookmark(self) -> Bookmark:
        """All that is decided lies before it; `step` is not running."""
        return self._segmenter.bookmark()

    def missing(self, data: bytes, unit: str, first: int | None) -> bytes:
        """The part of a chunk that has not come before. Raises InvalidInput SAMPLES_MISSING."""
        return data if first is None else data[self.source.rewind(unit, first) :]

    def step(self, data: bytes = b"") -> list[Decision] | None:
        """Accepts `data`, and decides about the next piece of all that was accepted.

        None if that was all: call it until then. Raises InvalidInput.
        """
        if data:
            self.source.offer(data)
        samples = self.source.take()
        return None if samples is None else self._segmenter.push(samples)

    def mark(self) -> list[Decision]:
        """The client ends its segment here; `step` has returned None."""
        return [*self._segmenter.push(self.source.cut()), *self._segmenter.mark()]

    def end(self) -> None:
        """There is no more audio; `step` until None, then `finish`."""
        self.source.finish()

    def finish(self) -> list[Decision]:
        """The last decisions."""
        self.finished = True
        return [*self._segmenter.push(self.source.cut()), *self._segmenter.finish()]

    def answered(self, segment: Segment) -> None:
        """The model has seen it."""
        self.processed = max(self.processed, segment.end)

    def deliver(
        self, segment: Segment, scores: Sequence[float], answer: Answer, now: float, keep: float
    ) -> None:
        """A final result goes out; it is kept for replay for `keep` seconds."""
        self.timeline.add(segment.start, segment.end, scores)
        self.final = max(self.final, segment.end)
        self.remember(answer, now)
        while self._delivered[0].at < now - keep or len(self._delivered) > MAX_REPLAYED:
            self._delivered.popleft()

    def remember(self, answer: Answer, now: float) -> None:
        """Keeps a final result for replay."""
        self._delivered.append(Delivered(now, answer))

    def replay(self) -> list[Answer]:
        """What the client may not have got, oldest first."""
        return [one.answer for one in self._delivered]

    def put_back(self, decisions: Iterable[Decision]) -> None:
        """The connection is gone before these were sent; interims will be out of date."""
        self.unsent += [one for one in decisions if not isinstance(one, Segment) or one.final]

    def cursors(self) -> Cursors:
        frames = self.source.frames
        return Cursors(
            accepted=frames if self.kept is None else min(self.kept, frames),
            accepted_bytes=0 if self.source.container == "raw" else self.source.size,
            processed=min(frames, self._at_source(self.processed)),
            final=min(frames, self._at_source(self.final)),
        )

    def _at_source(self, samples: int) -> int:
        """16 kHz -> the client's rate, rounded up: the resampler rounds down."""
        return -(-samples * self.source.rate_hz // SAMPLE_RATE)

    def seconds(self) -> float:
        """Audio accepted so far."""
        return self.source.frames / self.source.rate_hz if self.source.rate_hz else 0.0
