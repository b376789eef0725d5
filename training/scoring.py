"""Logits of a model for recordings of any length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import normalise, pad_waves
from training.data import Wave
from training.model import Student

_BATCH = 16


@torch.no_grad()
def logits(model: Student, waves: Sequence[Wave]) -> NDArray[np.float64]:
    """(N, 9) in the order of the waves; neighbours in length share a batch."""
    model.eval()
    order = np.argsort([len(wave) for wave in waves])
    result = np.zeros((len(waves), model.size.classes))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        padded, lengths = pad_waves([normalise(torch.from_numpy(waves[i])) for i in rows])
        result[rows] = model(padded, lengths).double().numpy()
    return result
