"""Brings waveforms to mean 0 and variance 1, each clip over its own samples; knows no weights.

As FunASR `models/emotion2vec/model.py`, a layer norm over the whole clip with eps 1e-5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from server.speech import HOP, WINDOW

EPS = 1e-5


def normalise(waveform: Tensor) -> Tensor:
    """(samples,) float32 -> with mean 0 and variance 1; silence stays finite."""
    return F.layer_norm(waveform, waveform.shape, eps=EPS)


def normalise_rows(
    waveforms: Tensor, samples: Tensor, *, normalised: bool = True
) -> tuple[Tensor, Tensor]:
    """Raw rows as a batch for `Emotion2vec`, without asking the device for a value.

    `waveforms` (B, N + 320) float32, of which each row's first `samples` (B,) int64 are its clip
    and the rest may be anything. Returns waveforms (B, N), as `normalise` makes them of each clip,
    cut to whole frames, zero after that; and frames (B,).
    """
    place = torch.arange(waveforms.shape[1], device=waveforms.device)
    padding = place >= samples[:, None]
    x = waveforms.masked_fill(padding, 0)
    if normalised:
        x = (x - x.sum(1, keepdim=True) / samples[:, None]).masked_fill(padding, 0)
        variance = x.square().sum(1, keepdim=True) / samples[:, None]
        x = x * torch.rsqrt(variance + EPS)
    frames = (samples - WINDOW) // HOP + 1
    whole = WINDOW + HOP * (frames - 1)
    return x.masked_fill(place >= whole[:, None], 0)[:, :-HOP], frames
