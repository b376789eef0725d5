"""What engines are compared on: lengths as in EmoDB and LibriSpeech, or real files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from server.speech import SAMPLE_RATE, Waveform

# Seconds. EmoDB's clips last 1.2 to 9 s, most of them 2 to 3.5; LibriSpeech's are cut at 10 s.
LENGTHS = (
    1.2, 1.5, 1.6, 1.8, 1.9, 2.0, 2.1, 2.2, 2.4, 2.5, 2.6, 2.8, 2.9, 3.1, 3.3, 3.6,
    3.9, 4.2, 4.6, 5.1, 5.4, 5.9, 6.3, 6.8, 7.2, 7.7, 8.3, 8.8, 9.2, 9.6, 9.9, 10.0,
)  # fmt: skip


def noise(seconds: float, seed: int = 0) -> Waveform:
    """Never silence: zeros make some devices faster than data does."""
    samples = round(seconds * SAMPLE_RATE)
    rough = np.random.default_rng(seed).standard_normal(samples, np.float32)
    return np.clip(rough / 8, -1, 1).astype(np.float32)


def mixture() -> list[Waveform]:
    """One clip of each length, in an order that no engine can profit from."""
    lengths = np.random.default_rng(1).permutation(LENGTHS)
    return [noise(float(seconds), seed) for seed, seconds in enumerate(lengths)]


def read(folder: Path, longest: float = 30.0) -> Iterator[Waveform]:
    """Every file of a folder that libsndfile reads, mono, at 16 kHz, cut to `longest` seconds."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            continue
        mono = soxr.resample(sound.mean(1), rate, SAMPLE_RATE).astype(np.float32)
        if len(mono) >= SAMPLE_RATE:
            yield mono[: round(longest * SAMPLE_RATE)]
