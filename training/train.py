"""The loop: losses, schedule, averaged weights, and checkpoints to continue from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from training.batches import Batch, Item, collate, in_batches, shorten
from training.data import SURPRISED
from training.distil import Distiller
from training.model import Student
from training.storage import save_state

Draw = Callable[[Generator], Sequence[Item]]  # the items of one epoch


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, but its data and seed."""

    epochs: int
    rate: float = 1e-3
    batch: int = 16  # clips
    longest: int = 150  # frames of 20 ms; longer clips are cut at random
    decay: float = 0.05
    warmup: float = 0.1  # share of all steps
    labels: float = 1.0  # weights of the losses
    frames: float = 1.0
    summary: float = 1.0
    smoothing: float = 0.1
    masking: float = 0.0  # share of frames and of channels hidden from the encoder
    averaging: float = 0.0  # decay per step of the averaged weights; 0 is off


def label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy; the smoothed mass goes to the labels that have data."""
    target = torch.full_like(logits, smoothing / (logits.shape[1] - 1))
    target[:, SURPRISED] = 0
    target.scatter_(1, labels[:, None], 0)
    target.scatter_(1, labels[:, None], 1 - target.sum(1, keepdim=True))
    return -(target * F.log_softmax(logits, 1)).sum(1).mean()


def hide(features: Tensor, share: float) -> Tensor:
    """Zero one stretch of frames and one of channels in each clip (Park et al. 2019)."""
    batch, frames, channels = features.shape
    keep = torch.ones(batch, frames, channels, dtype=torch.bool)
    for row in range(batch):
        for size, axis in ((frames, 0), (channels, 1)):
            length = int(torch.rand(()) * 2 * share * size)
            start = int(torch.rand(()) * (size - length))
            keep[row].narrow(axis, start, length).zero_()
    return features * keep


def optimisers(model: Student, distiller: Distiller, recipe: Recipe) -> list[Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else (Jordan et al. 2024).

    Muon's steps are scaled to the size of AdamW's, so that one rate serves both.
    """
    matrices: list[Tensor] = []
    others = list(distiller.parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = parameter.dim() == 2 and "blocks." in name
            (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, recipe.rate, weight_decay=recipe.decay),
    ]


class Trainer:
    """Trains a student on batches of waves, or of front-end features with the front end fixed."""

    def __init__(
        self, model: Student, distiller: Distiller, recipe: Recipe, seed: int, path: Path | None
    ) -> None:
        self.model, self.distiller, self.recipe = model, distiller, recipe
        self.average = copy.deepcopy(model)
        self._seed, self._path = seed, path
        self._optimisers = optimisers(model, distiller, recipe)
        self._epoch = 0
        if path is not None and path.exists():
            self._restore(torch.load(path))

    def run(self, draw: Draw, title: str) -> Student:
        """Train all epochs that are left; return the averaged model."""
        epochs = range(self._epoch, self.recipe.epochs)
        for epoch in (bar := tqdm(epochs, title, self.recipe.epochs, initial=self._epoch)):
            bar.set_postfix(self._train_epoch(epoch, draw))
            self._epoch = epoch + 1
            self._save()
        return self.average.eval()

    def _train_epoch(self, epoch: int, draw: Draw) -> dict[str, str]:
        # Seeded by the epoch, so that a resumed run draws what an uninterrupted one would.
        rng = np.random.default_rng([self._seed, epoch])
        torch.manual_seed(self._seed * 10_007 + epoch)
        items = [shorten(item, self.recipe.longest, rng) for item in draw(rng)]
        groups = in_batches(items, self.recipe.batch, rng)
        self.model.train()
        sums: dict[str, float] = {}
        for step, group in enumerate(groups):
            self._set_rate((epoch + step / len(groups)) / self.recipe.epochs)
            for name, loss in self._step(collate(group)).items():
                sums[name] = sums.get(name, 0.0) + loss / len(groups)
        return {name: f"{value:.3f}" for name, value in sums.items()}

    def _step(self, batch: Batch) -> dict[str, float]:
        losses = self._losses(batch)
        weighted = [getattr(self.recipe, name) * loss for name, loss in losses.items()]
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        torch.autograd.backward([torch.stack(weighted).sum()])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self._optimisers:
            optimiser.step()
        self._update_average()
        return {name: loss.item() for name, loss in losses.items()}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        features = batch.inputs
        if features.dim() == 2:
            features = self.model.audio.front_end(features)
        if self.recipe.masking:
            features = hide(features, self.recipe.masking)
        early, late = self.model.encode(features, batch.counts)
        pooled = self.model.pool(late, batch.counts)
        if self.recipe.labels:
            logits = self.model.proj(pooled)
            losses["labels"] = label_loss(logits, batch.labels, self.recipe.smoothing)
        if batch.speech.any():
            losses["frames"] = self.distiller.frame_loss(early, batch)
            losses["summary"] = self.distiller.summary_loss(pooled, batch)
        return losses

    def _set_rate(self, progress: float) -> None:
        """Linear warm-up, then a half cosine to zero."""
        warm = progress / self.recipe.warmup
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.recipe.rate * min(warm, cosine)

    @torch.no_grad()
    def _update_average(self) -> None:
        share = 1 - self.recipe.averaging
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, share)

    def _save(self) -> None:
        if self._path is None:
            return
        state = {
            "epoch": self._epoch,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "distiller": self.distiller.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }
        save_state(self._path, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self._epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.distiller.load_state_dict(state["distiller"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
