"""The recordings on which the model is measured, clean and as a network would deliver them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from training import augment, sounds, transmission
from training.data import Clip, Wave, read_wave
from training.spectrum import SAMPLE_RATE

_SOUNDS_OF_EACH_KIND = 20


def _noise_10_db(wave: Wave, rng: Generator) -> Wave:
    return augment.add_noise(wave, sounds.coloured_noise(len(wave), rng), 10)


CONDITIONS: dict[str, Callable[[Wave, Generator], Wave]] = {
    "clean": lambda wave, rng: wave,  # noqa: ARG005
    "telephone": lambda wave, rng: transmission.telephone(wave),  # noqa: ARG005
    "opus": lambda wave, rng: transmission.lossy(wave, "libopus", 16_000),  # noqa: ARG005
    "noise": _noise_10_db,
}


def delivered(clips: Sequence[Clip], condition: str, seed: int = 1) -> list[Wave]:
    """Read the clips and put each through the condition."""
    rng = np.random.default_rng(seed)
    return [CONDITIONS[condition](read_wave(clip.path), rng) for clip in clips]


def unknown_sounds(seed: int) -> tuple[list[str], list[Wave]]:
    """Kinds and waves of sounds without speech, from another seed than those learnt."""
    rng = np.random.default_rng([seed, 99])
    kinds = [kind for kind in sounds.KINDS for _ in range(_SOUNDS_OF_EACH_KIND)]
    waves = [sounds.KINDS[k](round(rng.uniform(1, 6) * SAMPLE_RATE), rng) for k in kinds]
    return kinds, waves
