"""What the student learns from the teacher, frame by frame and over a whole clip.

FitNets (Romero et al. 2015) with linear readouts, which are thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import Batch
from training.examples import COMPONENTS, Example
from training.model import Size


def summarise(teacher: Tensor, heard: Tensor) -> Tensor:
    """(B, T, C), (B, T) -> (B, 2C): mean and standard deviation over the frames heard."""
    weight = heard[..., None].float()
    count = weight.sum(1).clamp_min(1)
    mean = (teacher * weight).sum(1) / count
    variance = ((teacher - mean[:, None]).square() * weight).sum(1) / count
    return torch.cat([mean, (variance + 1e-6).sqrt()], 1)


class Distiller(nn.Module):
    """Readouts and the scales of their targets."""

    frame_scale: Tensor
    summary_mean: Tensor
    summary_scale: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.frames = nn.Linear(size.width, COMPONENTS)
        self.summary = nn.Linear(size.width, 2 * COMPONENTS)
        self.register_buffer("frame_scale", torch.ones(()))
        self.register_buffer("summary_mean", torch.zeros(2 * COMPONENTS))
        self.register_buffer("summary_scale", torch.ones(2 * COMPONENTS))

    @torch.no_grad()
    def fit(self, examples: Sequence[Example]) -> None:
        """Measure the scales on clips that the teacher heard.

        Frames get one scale: the strong components count more. The statistics are divided by the
        root of their deviation, half-way to whitening.
        """
        frames = torch.from_numpy(np.concatenate([e.teacher for e in examples[::7]])).float()
        self.frame_scale.copy_(frames.square().mean().sqrt())
        summaries = torch.cat([self._summary_of(example) for example in examples])
        root = summaries.std(0).sqrt() + 1e-3
        self.summary_mean.copy_(summaries.mean(0))
        centred = (summaries - self.summary_mean) / root
        self.summary_scale.copy_(root * centred.square().mean().sqrt())

    @staticmethod
    def _summary_of(example: Example) -> Tensor:
        teacher = torch.from_numpy(example.teacher).float()[None]
        return summarise(teacher, torch.ones(teacher.shape[:2], dtype=torch.bool))

    def frame_loss(self, frames: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of the teacher's frames; 1 for the mean as an answer."""
        target = batch.teacher[batch.heard] / self.frame_scale
        return cast(Tensor, (self.frames(frames[batch.heard]) - target).square().mean())

    def summary_loss(self, pooled: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of the teacher's statistics over the clip; 1 for the mean."""
        target = (summarise(batch.teacher, batch.heard) - self.summary_mean) / self.summary_scale
        error = cast(Tensor, self.summary(pooled)) - target
        return error[batch.speech].clamp(-5, 5).square().mean()
