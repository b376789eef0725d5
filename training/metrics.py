"""Recall, calibration and their uncertainty; plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]  # (N, 9), rows sum to 1
Truth = NDArray[np.int64]  # (N,)

BOOTSTRAP_ROUNDS = 2000


def softmax(logits: NDArray[np.float64]) -> Probabilities:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def recalls(truth: Truth, answers: Truth) -> dict[int, float]:
    """The share of each class that was answered rightly."""
    return {int(c): float((answers[truth == c] == c).mean()) for c in np.unique(truth)}


def unweighted_recall(truth: Truth, answers: Truth) -> float:
    """Unweighted average recall: every class counts the same, however rare."""
    return float(np.mean(list(recalls(truth, answers).values())))


def bootstrap(truth: Truth, answers: Truth, groups: NDArray[np.str_] | None) -> tuple[float, float]:
    """95 % interval of the recall; whole groups (speakers) are drawn if given, else clips."""
    rng = np.random.default_rng(0)
    if groups is None:
        groups = np.arange(len(truth)).astype(str)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    values = []
    for _ in range(BOOTSTRAP_ROUNDS):
        drawn = rng.integers(0, len(members), len(members))
        rows = np.concatenate([members[i] for i in drawn])
        values.append(unweighted_recall(truth[rows], answers[rows]))
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def calibration_error(truth: Truth, probabilities: Probabilities, bins: int = 10) -> float:
    """Expected calibration error with bins of equal width (Guo et al. 2017)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[place == b].sum() - confidence[place == b].sum()) for b in np.unique(place)]
    return float(sum(gaps) / len(truth))


def log_loss(truth: Truth, logits: NDArray[np.float64]) -> float:
    chosen = softmax(logits)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def best_temperature(truth: Truth, logits: NDArray[np.float64]) -> float:
    """The temperature, 0.3 .. 4, whose log loss is least (Guo et al. 2017)."""
    grid = np.exp(np.linspace(np.log(0.3), np.log(4), 200))
    return float(min(grid, key=lambda t: log_loss(truth, logits / t)))
