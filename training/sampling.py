"""Which examples an epoch sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from training.batches import Item
from training.data import EMODB_CLASSES


@dataclass(frozen=True)
class Subset:
    """So many random items of each pool."""

    pools: Mapping[int, Sequence[Item]]

    def __call__(self, rng: Generator) -> list[Item]:
        return [
            pool[i]
            for count, pool in self.pools.items()
            for i in rng.permutation(len(pool))[:count]
        ]


@dataclass(frozen=True)
class Balanced:
    """Every acted emotion alike; read speech and sounds as a bounded share.

    Without the balance one would learn how LibriSpeech was recorded, not what neutral sounds like.
    """

    acted: Sequence[Item]
    read: Sequence[Item]
    sounds: Sequence[Item]
    per_class: int = 50
    read_share: int = 90
    sound_share: int = 60
    clean_share: float = 0.3

    def __call__(self, rng: Generator) -> list[Item]:
        chosen: list[Item] = []
        for label in EMODB_CLASSES:
            versions = by_clip([item for item in self.acted if item.example.label == label])
            picked = repeated_permutation(len(versions), self.per_class, rng)
            chosen += [self._version(versions[clip], rng) for clip in picked]
        for pool, count in ((self.read, self.read_share), (self.sounds, self.sound_share)):
            chosen += [pool[i] for i in rng.permutation(len(pool))[:count]]
        return chosen

    def _version(self, versions: Sequence[Item], rng: Generator) -> Item:
        """The first version is the clean one."""
        clean = rng.random() < self.clean_share
        return versions[0 if clean else int(rng.integers(len(versions)))]


def by_clip(items: Sequence[Item]) -> list[list[Item]]:
    """Group the versions of each recording."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.example.clip, []).append(item)
    return list(groups.values())


def repeated_permutation(size: int, count: int, rng: Generator) -> list[int]:
    """``count`` indices below ``size``: all of them before any comes again."""
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return [int(i) for i in np.concatenate(rounds)[:count]]
