"""The examples of each corpus, made once and kept in the work folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from training import examples
from training.data import Clip, read_corpus, split_librispeech
from training.examples import Basis, Example, Maker
from training.storage import save_arrays
from training.teacher import Teacher, bundled_weights, read_weights

EMODB_VERSIONS = 6
LIBRISPEECH_VERSIONS = 4
SOUNDS = 800
_BASIS_CLIPS = 100


class Materials:
    """The examples of all corpora, made on first use."""

    def __init__(self, data: Path, work: Path, seed: int) -> None:
        self._work, self._seed = work, seed
        self.emodb_clips = read_corpus(data / "emodb")
        learn, held_out = split_librispeech(read_corpus(data / "librispeech"))
        self.librispeech_clips: list[Clip] = learn
        self.held_out_clips: list[Clip] = held_out
        self._loaded: dict[str, list[Example]] = {}
        work.mkdir(parents=True, exist_ok=True)

    def emodb(self) -> list[Example]:
        return self._made("emodb", lambda m: m.of_short_clips(self.emodb_clips, EMODB_VERSIONS))

    def librispeech(self) -> list[Example]:
        return self._made(
            "librispeech", lambda m: m.of_long_clips(self.librispeech_clips, LIBRISPEECH_VERSIONS)
        )

    def sounds(self) -> list[Example]:
        return self._made("sounds", lambda m: m.of_sounds(SOUNDS))

    def _made(self, name: str, make: Callable[[Maker], Iterator[Example]]) -> list[Example]:
        if name not in self._loaded:
            path = self._work / f"{name}.npz"
            if not path.exists():
                rng = np.random.default_rng([self._seed, *name.encode()])
                examples.save(path, list(make(Maker(self._teacher(), self._basis(), rng))))
            self._loaded[name] = examples.load(path)
        return self._loaded[name]

    def _teacher(self) -> Teacher:
        return Teacher(read_weights(bundled_weights()))

    def _basis(self) -> Basis:
        path = self._work / "basis.npz"
        if not path.exists():
            basis = examples.fit_basis(self._teacher(), self.librispeech_clips[:_BASIS_CLIPS])
            save_arrays(path, {"mean": basis.mean, "matrix": basis.matrix})
        with np.load(path) as file:
            return Basis(file["mean"], file["matrix"])
