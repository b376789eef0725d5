"""Log-mel spectra, the targets of the front end and the input of the teacher."""

from __future__ import annotations

import functools
import math

import torch

SAMPLE_RATE = 16_000  # Hz
WINDOW = 400  # samples, 25 ms: also what one frame of the student's front end sees
_LINEAR_STEP = 200 / 3  # Hz for each mel, below the break
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27  # mels are logarithmic above the break


def _to_mel(hertz: torch.Tensor) -> torch.Tensor:
    """Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above."""
    above = _BREAK_HZ / _LINEAR_STEP + (hertz.clamp_min(1e-3) / _BREAK_HZ).log() / _LOG_STEP
    return torch.where(hertz < _BREAK_HZ, hertz / _LINEAR_STEP, above)


def _to_hertz(mel: torch.Tensor) -> torch.Tensor:
    above = _BREAK_HZ * ((mel - _BREAK_HZ / _LINEAR_STEP) * _LOG_STEP).exp()
    return torch.where(mel < _BREAK_HZ / _LINEAR_STEP, mel * _LINEAR_STEP, above)


@functools.cache
def mel_filters(bands: int) -> torch.Tensor:
    """(bands, 201) triangles of unit area over the bins of a 400-point transform."""
    bins = torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)
    top = float(_to_mel(torch.tensor(SAMPLE_RATE / 2, dtype=torch.float64)))
    edges = _to_hertz(torch.linspace(0, top, bands + 2, dtype=torch.float64))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return (triangles * 2 / (edges[2:] - edges[:-2])[:, None]).float()


def power_spectrum(waves: torch.Tensor, hop: int, *, centred: bool) -> torch.Tensor:
    """(B, samples) -> (B, 201, frames): squared magnitudes of 25 ms Hann windows."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(
        waves, WINDOW, hop, window=window, center=centred, pad_mode="reflect", return_complex=True
    )
    return spectrum.abs().square()


def log_mel(waves: torch.Tensor, bands: int, hop: int) -> torch.Tensor:
    """(B, samples) -> (B, frames, bands): natural log; frame t covers hop*t .. hop*t+399."""
    power = power_spectrum(waves, hop, centred=False)
    return (mel_filters(bands) @ power).clamp_min(1e-6).log().transpose(1, 2)
