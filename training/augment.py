"""Distortions of speech that keep its emotion: voices, rooms, microphones, noise, networks."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy.signal import fftconvolve

from training import sounds, transmission
from training.data import Wave, resample
from training.spectrum import SAMPLE_RATE


def change_speed(wave: Wave, factor: float) -> Wave:
    """Play faster (> 1) or slower: pitch, formants and tempo move together."""
    return resample(wave, SAMPLE_RATE, SAMPLE_RATE / factor)


def random_crop(wave: Wave, seconds: float, rng: Generator) -> Wave:
    """A stretch of at most so many seconds, anywhere."""
    samples = round(seconds * SAMPLE_RATE)
    if len(wave) <= samples:
        return wave
    start = rng.integers(0, len(wave) - samples + 1)
    return wave[start : start + samples]


def equalise(wave: Wave, rng: Generator, decibels: float = 6.0) -> Wave:
    """A random smooth frequency response: another microphone (standard deviation in dB)."""
    spectrum = np.fft.rfft(wave)
    knots = rng.normal(0, decibels, 7)
    octaves = np.log2(np.maximum(np.linspace(0, SAMPLE_RATE / 2, len(spectrum)), 60) / 60)
    gains = np.interp(octaves, np.linspace(0, octaves[-1], len(knots)), knots)
    return np.fft.irfft(spectrum * 10 ** (gains / 20), len(wave)).astype(np.float32)


def reverberate(wave: Wave, rng: Generator) -> Wave:
    """A room: decaying noise (reverberation time 0.15-0.9 s) behind the direct sound."""
    decay = rng.uniform(0.15, 0.9)  # s, to -60 dB
    seconds = np.arange(round(decay * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(seconds)) * 10 ** (-3 * seconds / decay)
    tail *= 10 ** (-rng.uniform(-2, 12) / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return np.asarray(fftconvolve(wave, tail)[: len(wave)], dtype=np.float32)


def add_noise(wave: Wave, noise: Wave, snr: float) -> Wave:
    """Mix at a signal-to-noise ratio in dB."""
    power = float((wave**2).mean())
    scale = np.sqrt(power / (float((noise**2).mean()) + 1e-12)) * 10 ** (-snr / 20)
    return np.asarray(wave + scale * noise, dtype=np.float32)


def low_pass(wave: Wave, cutoff: float) -> Wave:
    """Remove all above a frequency in Hz, by way of a lower sampling rate."""
    narrow = resample(wave, SAMPLE_RATE, 2 * cutoff)
    return transmission.fit(resample(narrow, 2 * cutoff, SAMPLE_RATE), len(wave))


def clip_peaks(wave: Wave, rng: Generator) -> Wave:
    """An input that was too loud: cut at 15-70 % of the peak."""
    limit = float(np.abs(wave).max(initial=0)) * rng.uniform(0.15, 0.7)
    return np.clip(wave, -limit, limit)


def network(wave: Wave, rng: Generator) -> Wave:
    """One of: telephone, Opus, MP3, a lower band."""
    kind = rng.integers(4)
    if kind == 0:
        return transmission.telephone(wave)
    if kind == 1:
        return transmission.lossy(wave, "libopus", int(rng.choice([8, 12, 16, 24, 32])) * 1000)
    if kind == 2:
        return transmission.lossy(wave, "mp3", int(rng.choice([24, 32, 48, 64])) * 1000)
    return low_pass(wave, rng.uniform(2500, 7000))


def degrade(wave: Wave, rng: Generator) -> Wave:
    """A random chain of the above, in the order in which sound travels."""
    if rng.random() < 0.35:
        wave = reverberate(wave, rng)
    if rng.random() < 0.6:
        kind = sounds.KINDS[str(rng.choice(["coloured_noise", "gusts", "hum", "band_noise"]))]
        wave = add_noise(wave, kind(len(wave), rng), rng.uniform(3, 30))
    if rng.random() < 0.6:
        wave = equalise(wave, rng)
    if rng.random() < 0.1:
        wave = clip_peaks(wave, rng)
    if rng.random() < 0.4:
        wave = network(wave, rng)
    return wave


def pad_silence(wave: Wave, before: int, after: int, rng: Generator) -> Wave:
    """Put so many samples of faint noise (-80 .. -45 dB of the rms) around the speech."""
    level = np.sqrt(float((wave**2).mean()) + 1e-12) * 10 ** (rng.uniform(-80, -45) / 20)
    padded = np.pad(wave, (before, after))
    padded[:before] += level * rng.standard_normal(before)
    padded[before + len(wave) :] += level * rng.standard_normal(after)
    return padded.astype(np.float32)
