"""Augmented clips with what the teacher hears in their clean form, kept in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from training import augment, sounds
from training.data import UNKNOWN, Clip, Wave, read_wave, to_pcm
from training.model import HOP, RECEPTIVE_FIELD
from training.spectrum import SAMPLE_RATE
from training.storage import save_arrays
from training.teacher import Teacher

LAYER = 1  # of the teacher: the second of four hears emotion best (measured, see the model card)
COMPONENTS = 128  # principal components of the teacher's 384 dimensions
_TEACHER_RMS = 0.07  # the level at which the teacher listens, of full scale
_LONGEST = 6.0  # s
_SHORTEST = 1.0  # s


@dataclass(frozen=True)
class Basis:
    """Maps the teacher's frames to standardised principal components."""

    mean: NDArray[np.float32]  # (384,)
    matrix: NDArray[np.float32]  # (384, COMPONENTS)

    @classmethod
    def fit(cls, frames: NDArray[np.float32]) -> Basis:
        """Fit on (N, 384) frames of clean speech."""
        mean, deviation = frames.mean(0), frames.std(0) + 1e-5
        _, _, directions = np.linalg.svd(np.cov(((frames - mean) / deviation).T))
        matrix = directions[:COMPONENTS].T / deviation[:, None]
        return cls(mean.astype(np.float32), matrix.astype(np.float32))

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float16]:
        return ((frames - self.mean) @ self.matrix).astype(np.float16)


@dataclass(frozen=True)
class Example:
    """One augmented clip; ``teacher`` (frames, COMPONENTS) starts at frame ``start``."""

    pcm: NDArray[np.int16]
    label: int
    speaker: str
    clip: int  # which recording it was made of; -1 for synthetic sounds
    teacher: NDArray[np.float16]
    start: int

    @property
    def frames(self) -> int:
        return (len(self.pcm) - RECEPTIVE_FIELD) // HOP + 1


_RAGGED = ("pcm", "teacher")


def save(path: Path, examples: Sequence[Example]) -> None:
    """Write all examples to one file."""
    arrays: dict[str, Any] = {}
    for field in fields(Example):
        values = [getattr(example, field.name) for example in examples]
        if field.name in _RAGGED:
            arrays[field.name + "_ends"] = np.cumsum([len(value) for value in values])
            arrays[field.name] = np.concatenate(values)
        else:
            arrays[field.name] = np.array(values)
    save_arrays(path, arrays)


def load(path: Path) -> list[Example]:
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    for name in _RAGGED:
        columns[name] = np.split(columns[name], columns.pop(name + "_ends")[:-1])
    return [
        Example(pcm, int(label), str(speaker), int(clip), teacher, int(start))
        for pcm, label, speaker, clip, teacher, start in zip(
            *(columns[field.name] for field in fields(Example)), strict=True
        )
    ]


def listen(teacher: Teacher, wave: Wave) -> NDArray[np.float32]:
    """(samples,) -> (frames, 384) of the chosen layer."""
    level = float(np.sqrt((wave**2).mean())) + 1e-9
    return teacher(torch.from_numpy(wave)[None] * (_TEACHER_RMS / level))[LAYER][0].numpy()


def fit_basis(teacher: Teacher, clips: Sequence[Clip]) -> Basis:
    """Fit the basis on the first six seconds of each clip."""
    heard = [listen(teacher, read_wave(c.path)[: 6 * SAMPLE_RATE]) for c in tqdm(clips, "basis")]
    return Basis.fit(np.concatenate(heard))


class Maker:
    """Turns clips into augmented examples."""

    def __init__(self, teacher: Teacher, basis: Basis, rng: Generator) -> None:
        self._teacher, self._basis, self._rng = teacher, basis, rng

    def clean(self, clip: Clip, index: int) -> Example:
        """The clip as it is, up to six seconds."""
        wave = read_wave(clip.path)[: round(_LONGEST * SAMPLE_RATE)]
        heard = self._basis(listen(self._teacher, wave))
        return self._example(wave, clip, index, heard, 0)

    def distorted(self, clip: Clip, wave: Wave, index: int, seconds: float) -> Example:
        """A crop at another speed, heard by the teacher; then silence and distortions."""
        rng = self._rng
        wave = augment.random_crop(wave, seconds, rng)
        wave = augment.change_speed(wave, rng.uniform(0.85, 1.18))
        heard = self._basis(listen(self._teacher, wave))
        start = 0
        if rng.random() < 0.4:
            start, after = rng.integers(0, 40, 2)  # frames of 20 ms
            wave = augment.pad_silence(wave, start * HOP, after * HOP, rng)
        return self._example(augment.degrade(wave, rng), clip, index, heard, int(start))

    @staticmethod
    def _example(
        wave: Wave, clip: Clip, index: int, heard: NDArray[np.float16], start: int
    ) -> Example:
        pcm = to_pcm(wave)
        frames = (len(pcm) - RECEPTIVE_FIELD) // HOP + 1
        return Example(pcm, clip.label, clip.speaker, index, heard[: frames - start], start)

    def of_short_clips(self, clips: Sequence[Clip], versions: int) -> Iterator[Example]:
        """Each clip once clean, then in so many distorted versions."""
        for index, clip in enumerate(tqdm(clips, "EmoDB")):
            yield self.clean(clip, index)
            wave = read_wave(clip.path)
            for _ in range(versions):
                seconds = _LONGEST if self._rng.random() < 0.6 else self._rng.uniform(_SHORTEST, 4)
                yield self.distorted(clip, wave, index, seconds)

    def of_long_clips(self, clips: Sequence[Clip], versions: int) -> Iterator[Example]:
        """So many crops of every four seconds of each clip."""
        for index, clip in enumerate(tqdm(clips, "LibriSpeech")):
            wave = read_wave(clip.path)
            for _ in range(versions * max(1, round(len(wave) / SAMPLE_RATE / 4))):
                yield self.distorted(clip, wave, index, self._rng.uniform(_SHORTEST, 5))

    def of_sounds(self, count: int) -> Iterator[Example]:
        """Synthetic sounds, half of them distorted like speech; the teacher has no say."""
        for _ in tqdm(range(count), "sounds"):
            kind, wave = sounds.unknown_sound(self._rng)
            if kind != "near_silence" and self._rng.random() < 0.5:
                wave = augment.degrade(wave, self._rng)
            nothing = np.zeros((0, COMPONENTS), np.float16)
            yield Example(to_pcm(wave), UNKNOWN, kind, -1, nothing, 0)
