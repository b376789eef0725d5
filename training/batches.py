"""From examples to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from training.examples import COMPONENTS, Example
from training.model import HOP, RECEPTIVE_FIELD, Student, frame_counts

_PCM_SCALE = 32_768.0


@dataclass(frozen=True)
class Item:
    """An example, with the output of the frozen front end if it was computed."""

    example: Example
    features: NDArray[np.float16] | None = None  # (frames, conv)


def shorten(item: Item, longest: int, rng: Generator) -> Item:
    """A random stretch of at most so many frames."""
    example = item.example
    if example.frames <= longest:
        return item
    first = int(rng.integers(example.frames - longest + 1))
    before = max(0, example.start - first)  # frames that the teacher did not hear
    skipped = max(0, first - example.start)
    stretch = replace(
        example,
        pcm=example.pcm[first * HOP : (first + longest - 1) * HOP + RECEPTIVE_FIELD],
        teacher=example.teacher[skipped : skipped + max(0, longest - before)],
        start=before,
    )
    features = item.features
    return Item(stretch, None if features is None else features[first : first + longest])


@dataclass(frozen=True)
class Batch:
    """``inputs`` are waves (B, samples), or front-end features (B, T, conv)."""

    inputs: Tensor
    lengths: Tensor  # (B,) samples
    labels: Tensor  # (B,)
    teacher: Tensor  # (B, T, COMPONENTS)
    heard: Tensor  # (B, T): True where the teacher has a frame

    @property
    def counts(self) -> Tensor:
        return frame_counts(self.lengths)

    @property
    def speech(self) -> Tensor:
        """(B,): True where the teacher heard the clip at all."""
        return self.heard.any(1)


def normalise(wave: Tensor) -> Tensor:
    """Layer-norm over all samples of a clip, as FunASR does: eps 1e-5, no affine."""
    return F.layer_norm(wave, wave.shape)


def wave_of(example: Example) -> Tensor:
    return normalise(torch.from_numpy(example.pcm.astype(np.float32) / _PCM_SCALE))


def pad_waves(waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips -> (B, samples) and their lengths."""
    padded = torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True)
    return padded, torch.tensor([len(wave) for wave in waves])


def collate(items: Sequence[Item]) -> Batch:
    """Pad the items and their teacher frames to the longest."""
    lengths = torch.tensor([len(item.example.pcm) for item in items])
    frames = int(frame_counts(lengths).max())
    teacher = torch.zeros(len(items), frames, COMPONENTS)
    heard = torch.zeros(len(items), frames, dtype=torch.bool)
    for row, item in enumerate(items):
        start, values = item.example.start, item.example.teacher
        teacher[row, start : start + len(values)] = torch.from_numpy(values).float()
        heard[row, start : start + len(values)] = True
    labels = torch.tensor([item.example.label for item in items])
    return Batch(_inputs(items), lengths, labels, teacher, heard)


def _inputs(items: Sequence[Item]) -> Tensor:
    cached = [item.features for item in items if item.features is not None]
    if len(cached) == len(items):
        rows = [torch.from_numpy(features).float() for features in cached]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return pad_waves([wave_of(item.example) for item in items])[0]


def in_batches(items: Sequence[Item], size: int, rng: Generator) -> list[list[Item]]:
    """Group items of similar length, in random order."""
    noisy = [len(item.example.pcm) * rng.uniform(0.85, 1.15) for item in items]
    order = np.argsort(noisy)
    groups = [
        [items[i] for i in order[start : start + size]] for start in range(0, len(items), size)
    ]
    return [groups[i] for i in rng.permutation(len(groups))]


@torch.no_grad()
def with_features(model: Student, examples: Sequence[Example]) -> list[Item]:
    """Run the front end once over all examples."""
    model.eval()
    items = []
    for example in examples:
        features = model.audio.front_end(wave_of(example)[None])[0]
        items.append(Item(example, features.half().numpy()))
    return items
