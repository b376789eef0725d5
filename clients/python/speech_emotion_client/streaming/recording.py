"""A stream that has ended as one Analysis; holds a few numbers for each segment, no audio."""

import numpy as np
from numpy.typing import NDArray

from speech_emotion_client.result import Analysis, Frames, Timing

from .events import Segment, Summary


class Recording:
    """Collects final segments; with `frames`, also where each was and how it was scored."""

    def __init__(self, segmentation: str, *, frames: bool) -> None:
        self._segmentation = segmentation
        self._with_frames = frames
        self._labels: tuple[str, ...] = ()
        self._centres: list[float] = []
        self._rows: list[NDArray[np.float32]] = []
        self._embeddings: list[NDArray[np.float32]] = []
        self._queue_ms = self._inference_ms = 0.0

    def add(self, segment: Segment) -> None:
        self._queue_ms += segment.timing.queue_ms
        self._inference_ms += segment.timing.inference_ms
        if segment.embedding is not None:
            self._embeddings.append(segment.embedding)
        if self._with_frames:
            self._labels = self._labels or tuple(sorted(segment.scores))
            self._centres.append((segment.start + segment.end) / 2)
            row = [segment.scores.get(label, 0.0) for label in self._labels]
            self._rows.append(np.array(row, np.float32))

    def analysis(self, summary: Summary) -> Analysis:
        """The whole, as the server weighed it. The timing is the sum over the segments."""
        busy = self._queue_ms + self._inference_ms
        return Analysis(
            emotion=summary.emotion,
            confidence=summary.confidence,
            scores=summary.scores,
            frames=self._frames() if self._with_frames else None,
            embedding=np.stack(self._embeddings) if self._embeddings else None,
            warnings=summary.warnings,
            timing=Timing(self._queue_ms, 0.0, 0.0, self._inference_ms, busy),
            provenance=summary.provenance,
            audio=summary.audio,
            request_id=summary.request_id,
            segmentation=self._segmentation,
            timeline=summary.timeline,
        )

    def _frames(self) -> Frames:
        scores = np.array(self._rows, np.float32).reshape(len(self._rows), len(self._labels))
        return Frames(self._labels, np.array(self._centres), scores)
