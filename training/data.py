"""The speech to learn from: EmoDB (CC0) and LibriSpeech (CC BY 4.0), split by speaker."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from training.spectrum import SAMPLE_RATE

Wave = NDArray[np.float32]  # mono samples at 16 kHz

LABELS = (
    "生气/angry", "厌恶/disgusted", "恐惧/fearful", "开心/happy", "中立/neutral",
    "其他/other", "难过/sad", "吃惊/surprised", "<unk>",
)  # fmt: skip
NAMES = tuple(label.split("/")[-1] for label in LABELS)
UNKNOWN = NAMES.index("<unk>")
NEUTRAL = NAMES.index("neutral")
SURPRISED = NAMES.index("surprised")
EMODB_CLASSES = tuple(i for i in range(len(NAMES)) if i not in (SURPRISED, UNKNOWN))


@dataclass(frozen=True)
class Clip:
    """One recording, its speaker and the index of its label."""

    path: Path
    corpus: str
    speaker: str
    label: int


def read_wave(path: Path) -> Wave:
    """Read any format that libsndfile knows as mono at 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(samples.mean(1), rate, SAMPLE_RATE)


def resample(wave: Wave, rate: float, target: float) -> Wave:
    """Change the sampling rate, in Hz."""
    if rate == target:
        return wave
    return np.asarray(soxr.resample(wave, rate, target), dtype=np.float32)


def read_corpus(folder: Path) -> list[Clip]:
    """Read ``manifest.tsv``: path, speaker and emotion of every clip."""
    with (folder / "manifest.tsv").open(encoding="utf-8") as file:
        return [
            Clip(folder / r["path"], folder.name, r["speaker"], NAMES.index(r["emotion"]))
            for r in csv.DictReader(file, delimiter="\t")
        ]


def is_held_out(speaker: str) -> bool:
    """Say whether a LibriSpeech speaker is kept for measuring: one in five, by a fixed hash."""
    return hashlib.sha256(speaker.encode()).digest()[0] % 5 == 0


def split_librispeech(clips: list[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to learn from, and those of the held-out speakers."""
    learn = [clip for clip in clips if not is_held_out(clip.speaker)]
    return learn, [clip for clip in clips if is_held_out(clip.speaker)]


def speakers(clips: list[Clip]) -> list[str]:
    return sorted({clip.speaker for clip in clips})


def to_pcm(wave: Wave) -> NDArray[np.int16]:
    """Scale to 90 % of full range in 16 bits: the model sees no level but in its proportions."""
    peak = float(np.abs(wave).max(initial=0.0))
    return np.round(wave * (29_500 / peak if peak > 0 else 0)).astype(np.int16)
