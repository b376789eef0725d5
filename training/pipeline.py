"""The stages in order; each leaves a file, so that a rerun continues where the last one stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training import front_end
from training.batches import Item, with_features
from training.distil import Distiller
from training.examples import Example
from training.materials import Materials
from training.model import Size, Student
from training.sampling import Balanced, Subset
from training.storage import save_arrays, save_state
from training.train import Recipe, Trainer

_SIZE = Size()

# The second trunk recipe starts where the first ends, with the full rate: a warm restart.
_TRUNK = (
    Recipe(25, rate=2e-3, batch=8, labels=0.1, averaging=0.99, longest=100),
    Recipe(45, rate=2e-3, batch=8, labels=0.05, averaging=0.99, longest=110),
)
_HEAD = Recipe(
    18,
    rate=2e-3,
    batch=8,
    longest=120,  # frames: 2.4 s
    frames=0.5,
    smoothing=0.05,
    averaging=0.995,
    masking=0.1,
)


@dataclass(frozen=True)
class Plan:
    """All numbers that decide the result, but the seed."""

    size: Size = _SIZE
    front_end_steps: int = 1000
    trunk: tuple[Recipe, ...] = _TRUNK
    trunk_clips: int = 940  # an epoch
    trunk_sounds: int = 60
    head: Recipe = _HEAD
    acted_clips: int = 50  # of each emotion in an epoch
    dropout: float = 0.1  # while the labels are learnt


class Pipeline:
    """Makes students from materials."""

    def __init__(self, materials: Materials, work: Path, plan: Plan, seed: int) -> None:
        self.materials, self._work, self._plan, self._seed = materials, work, plan, seed

    def front_end(self) -> Student:
        """A student whose convolutions are taught; the rest is random."""
        torch.manual_seed(self._seed)
        student = Student(self._plan.size)
        path = self._work / "front_end.pt"
        if not path.exists():
            heard = [*self.materials.librispeech(), *self.materials.sounds()]
            front_end.teach(student.audio, heard, self._plan.front_end_steps, self._seed)
            save_state(path, student.audio.local_encoder.state_dict())
        student.audio.local_encoder.load_state_dict(torch.load(path))
        return student

    def trunk(self) -> tuple[Student, Distiller]:
        """Teach the whole student what the teacher hears in LibriSpeech: no acted speaker in it."""
        student, distiller = self.front_end(), Distiller(self._plan.size)
        distiller.fit(self.materials.librispeech())
        draw = Subset(
            {
                self._plan.trunk_clips: self.items("librispeech"),
                self._plan.trunk_sounds: self.items("sounds"),
            }
        )
        for recipe in self._plan.trunk:
            path = self._work / "trunk.pt"
            trainer = Trainer(freeze(student), distiller, recipe, self._seed, path)
            student = trainer.run(draw, "trunk")
        return student, distiller

    def student(self, without: str | None) -> Student:
        """Teach emotions, on all acted speakers but one."""
        trunk, distiller = self.trunk()
        trunk.set_dropout(self._plan.dropout)
        acted = [i for i in self.items("emodb") if i.example.speaker != without]
        path = self._work / f"without-{without}.pt"
        trainer = Trainer(freeze(trunk), distiller, self._plan.head, self._seed, path)
        per_class = self._plan.acted_clips
        draw = Balanced(acted, self.items("librispeech"), self.items("sounds"), per_class)
        return trainer.run(draw, f"without {without}" if without else "all speakers")

    def items(self, corpus: str) -> list[Item]:
        """The examples of a corpus, with the output of the front end."""
        made: list[Example] = getattr(self.materials, corpus)()
        path = self._work / f"{corpus}-features.npz"
        if not path.exists():
            save_features(path, with_features(self.front_end(), made))
        return load_features(path, made)


def freeze(student: Student) -> Student:
    """Fix the convolutions: their outputs are computed once."""
    student.audio.local_encoder.requires_grad_(False)
    return student.train()


def save_features(path: Path, items: Sequence[Item]) -> None:
    arrays = [item.features for item in items if item.features is not None]
    ends = np.cumsum([len(array) for array in arrays])
    save_arrays(path, {"values": np.concatenate(arrays), "ends": ends})


def load_features(path: Path, examples: Sequence[Example]) -> list[Item]:
    with np.load(path) as file:
        rows = np.split(file["values"], file["ends"][:-1])
    return [Item(e, features) for e, features in zip(examples, rows, strict=True)]
