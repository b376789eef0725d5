"""Synthetic sounds without speech, which the model must answer with "unknown"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy.signal import butter, sosfilt

from training.data import Wave
from training.spectrum import SAMPLE_RATE


def _time(samples: int) -> Wave:
    return (np.arange(samples) / SAMPLE_RATE).astype(np.float32)


def _slow_envelope(samples: int, rng: Generator) -> Wave:
    """Random loudness that moves a few times a second, 0.05 .. 1."""
    knots = rng.uniform(0.05, 1.0, max(2, round(samples / SAMPLE_RATE * rng.uniform(1, 8))))
    places = np.linspace(0, len(knots) - 1, samples)
    return np.asarray(np.interp(places, np.arange(len(knots)), knots), dtype=np.float32)


def coloured_noise(samples: int, rng: Generator) -> Wave:
    """Noise whose power falls with frequency as f^-a, a in 0 (white) .. 2 (brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    bins = np.maximum(np.arange(len(spectrum)), 1)
    noise = np.fft.irfft(spectrum * bins ** (-rng.uniform(0, 2) / 2), samples)
    return np.asarray(noise / (noise.std() + 1e-9), dtype=np.float32)


def band_noise(samples: int, rng: Generator) -> Wave:
    """Noise in a random band: wind, fans, rain."""
    low = float(np.exp(rng.uniform(np.log(60), np.log(3000))))
    high = min(low * rng.uniform(1.5, 8), 7600.0)
    sections = butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfilt(sections, rng.standard_normal(samples)), dtype=np.float32)


def gusts(samples: int, rng: Generator) -> Wave:
    """Coloured or band noise of changing loudness."""
    source = coloured_noise if rng.random() < 0.5 else band_noise
    return source(samples, rng) * _slow_envelope(samples, rng)


def hum(samples: int, rng: Generator) -> Wave:
    """Mains or motor hum: harmonics of 40-250 Hz over a little noise."""
    base, phases = rng.uniform(40, 250), rng.uniform(0, 2 * np.pi, 12)
    fall = rng.uniform(0.5, 2)
    seconds = _time(samples)
    wave = 0.05 * coloured_noise(samples, rng)
    for order, phase in enumerate(phases, start=1):
        wave += order**-fall * np.sin(2 * np.pi * base * order * seconds + phase)
    return wave.astype(np.float32)


def tone(samples: int, rng: Generator) -> Wave:
    """A steady or gliding sine, 80-6000 Hz, sometimes keyed on and off."""
    start, end = np.exp(rng.uniform(np.log(80), np.log(6000), 2))
    glide = np.linspace(start, end if rng.random() < 0.4 else start, samples)
    wave = np.sin(2 * np.pi * np.cumsum(glide) / SAMPLE_RATE)
    if rng.random() < 0.4:
        wave = wave * (np.sin(2 * np.pi * rng.uniform(0.5, 6) * _time(samples)) > 0)
    return np.asarray(wave, dtype=np.float32)


def clicks(samples: int, rng: Generator) -> Wave:
    """Knocks and clicks: short decaying bursts at random times."""
    impulses = np.zeros(samples)
    count = 1 + rng.poisson(samples / SAMPLE_RATE * rng.uniform(1, 12))
    impulses[rng.integers(0, samples, count)] = rng.uniform(-1, 1, count)
    length = round(rng.uniform(0.003, 0.1) * SAMPLE_RATE)
    burst = rng.standard_normal(length) * np.exp(-6 * np.arange(length) / length)
    return np.convolve(impulses, burst)[:samples].astype(np.float32)


def chords(samples: int, rng: Generator) -> Wave:
    """Music-like: chords of decaying harmonic notes, one after the other."""
    wave = np.zeros(samples)
    place, root = 0, rng.uniform(80, 400)
    while place < samples:
        length = min(round(rng.uniform(0.15, 1.0) * SAMPLE_RATE), samples - place)
        seconds = _time(length)
        for interval in rng.choice(13, rng.integers(1, 5), replace=False):
            note = root * 2 ** (interval / 12)
            for order in range(1, 6):
                decay = np.exp(-2 * order * seconds) / order
                wave[place : place + length] += decay * np.sin(2 * np.pi * note * order * seconds)
        place += length
    return wave.astype(np.float32)


def near_silence(samples: int, rng: Generator) -> Wave:
    """Nothing at all, or the rounding noise of a quiet input."""
    if rng.random() < 0.4:
        return np.zeros(samples, np.float32)
    steps = np.round(rng.normal(0, rng.uniform(0.3, 3), samples))
    return (steps / 32_768).astype(np.float32)


def mixture(samples: int, rng: Generator) -> Wave:
    """Two of the others at once."""
    first, second = rng.choice(len(_SINGLE), 2, replace=False)
    loudness = rng.uniform(0.1, 1)
    mixed = _SINGLE[first](samples, rng) + loudness * _SINGLE[second](samples, rng)
    return np.asarray(mixed, dtype=np.float32)


_SINGLE: tuple[Callable[[int, Generator], Wave], ...] = (
    coloured_noise, band_noise, gusts, hum, tone, clicks, chords,
)  # fmt: skip
KINDS: dict[str, Callable[[int, Generator], Wave]] = {
    source.__name__: source for source in (*_SINGLE, mixture, near_silence)
}


def unknown_sound(rng: Generator) -> tuple[str, Wave]:
    """Draw a kind and 1-6 s of it."""
    kind = str(rng.choice(list(KINDS)))
    return kind, KINDS[kind](round(rng.uniform(1, 6) * SAMPLE_RATE), rng)
