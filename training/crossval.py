"""Leave one speaker out: what a model that never heard a speaker says about this speaker."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training import conditions, scoring
from training.data import Wave, speakers
from training.model import Student
from training.pipeline import Pipeline
from training.spectrum import SAMPLE_RATE
from training.storage import save_arrays

Logits = NDArray[np.float64]  # (N, 9)
_READ_SECONDS = 8  # of each LibriSpeech clip


class CrossValidation:
    """One fold for each acted speaker; each leaves its logits in a file."""

    def __init__(self, pipeline: Pipeline, work: Path) -> None:
        self.pipeline, self._work = pipeline, work
        self.clips = pipeline.materials.emodb_clips
        held_out = conditions.delivered(pipeline.materials.held_out_clips, "clean")
        self.read = [wave[: _READ_SECONDS * SAMPLE_RATE] for wave in held_out]
        self.kinds, self.sounds = conditions.unknown_sounds(0)

    @cached_property
    def _waves(self) -> dict[str, list[Wave]]:
        """All acted clips under each condition; only needed where a fold is missing."""
        return {name: conditions.delivered(self.clips, name) for name in conditions.CONDITIONS}

    def fold(self, speaker: str) -> dict[str, Logits]:
        """Logits by condition for the speaker's clips; also for "read" speech and "sounds"."""
        path = self._work / f"logits-without-{speaker}.npz"
        if not path.exists():
            save_arrays(path, self._scores(self.pipeline.student(speaker), speaker))
        with np.load(path) as file:
            return {name: file[name] for name in file.files}

    def _scores(self, student: Student, speaker: str) -> dict[str, Logits]:
        rows = [i for i, clip in enumerate(self.clips) if clip.speaker == speaker]
        scores = {
            name: scoring.logits(student, [waves[i] for i in rows])
            for name, waves in self._waves.items()
        }
        scores["read"] = scoring.logits(student, self.read)
        scores["sounds"] = scoring.logits(student, self.sounds)
        return scores

    def folds(self) -> dict[str, dict[str, Logits]]:
        return {speaker: self.fold(speaker) for speaker in speakers(self.clips)}

    def truth(self, speaker: str) -> NDArray[np.int64]:
        return np.array([clip.label for clip in self.clips if clip.speaker == speaker])
