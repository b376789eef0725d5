"""The convolutions, taught first and alone to tell the log-mel spectrum of what they hear.

They take most of the computing and learn badly from twenty minutes of emotion; spectra are free.
Afterwards they are fixed, and their output is computed once for every example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from tqdm import trange

from training.batches import wave_of
from training.examples import Example
from training.model import HOP, AudioEncoder
from training.spectrum import SAMPLE_RATE, log_mel

_BANDS = 80
_SCALE = 3.0  # about the standard deviation of a natural log-mel band of speech
_SEGMENT = round(1.5 * SAMPLE_RATE)
_BATCH = 16


def segments(examples: Sequence[Example], rng: Generator) -> Tensor:
    """(B, samples): a stretch of each of some examples that are long enough, drawn anew."""
    rows: list[Tensor] = []
    while len(rows) < _BATCH:
        example = examples[int(rng.integers(len(examples)))]
        spare = len(example.pcm) - _SEGMENT
        if spare >= 0:
            start = int(rng.integers(spare + 1))
            rows.append(wave_of(example)[start : start + _SEGMENT])
    return torch.stack(rows)


def teach(encoder: AudioEncoder, examples: Sequence[Example], steps: int, seed: int) -> float:
    """Train the front end in place; return the share of variance left over at the end."""
    rng = np.random.default_rng([seed, 7])
    channels = encoder.channels
    readout = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, _BANDS))
    parameters = [*encoder.local_encoder.parameters(), *readout.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.01)
    left = 1.0
    for step in (bar := trange(steps, desc="front end")):
        rate = 4e-3 * min(1, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate
        waves = segments(examples, rng)
        target = log_mel(waves, _BANDS, HOP) / _SCALE
        loss = (readout(encoder.front_end(waves)) - target).square().mean()
        optimiser.zero_grad()
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        left += 0.05 * (float(loss.detach() / target.var()) - left)
        bar.set_postfix(unexplained=f"{left:.3f}")
    return left
