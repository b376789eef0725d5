"""What a session says at its end: one emotion for the whole, and when it was which. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Span:
    """A stretch of one emotion; positions in samples, `end` exclusive."""

    start: int
    end: int
    emotion: int  # column of the scores
    weight: float  # sum of confidence times samples
    samples: int  # that the weight counts

    @property
    def confidence(self) -> float:
        """The mean over the merged segments, weighted by their length."""
        return self.weight / self.samples


@dataclass(slots=True)
class Timeline:
    """Final segments, in the order of their starts.

    Where two overlap the later one counts: the earlier span ends where it begins.
    """

    labels: int
    spans: list[Span] = field(default_factory=list)
    segments: int = 0
    _weighted: NDArray[np.float64] = field(init=False)
    _samples: int = 0

    def __post_init__(self) -> None:
        self._weighted = np.zeros(self.labels)

    def add(self, start: int, end: int, scores: Sequence[float]) -> None:
        """One more final segment; `scores` sum to 1."""
        best = max(range(len(scores)), key=scores.__getitem__)
        self.segments += 1
        self._weighted += np.asarray(scores) * (end - start)
        self._samples += end - start
        weight = scores[best] * (end - start)
        last = self.spans[-1] if self.spans else None
        if last is not None and last.end >= start and last.emotion == best:
            last.end = max(last.end, end)
            last.weight += weight
            last.samples += end - start
            return
        if last is not None:
            last.end = min(last.end, start)
        self.spans.append(Span(start, end, best, weight, end - start))

    def overall(self) -> list[float] | None:
        """The scores of all segments, weighted by their length; None without any."""
        return (self._weighted / self._samples).tolist() if self._samples else None

    def speech(self) -> int:
        """Samples that any segment covers."""
        return sum(span.end - span.start for span in self.spans)

    def shares(self) -> dict[int, float]:
        """Emotion -> share of the speech; sums to 1 if there is any."""
        total = self.speech()
        shares: dict[int, float] = {}
        for span in self.spans:
            shares[span.emotion] = shares.get(span.emotion, 0) + (span.end - span.start) / total
        return shares
