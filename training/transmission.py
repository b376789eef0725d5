"""What networks do to speech: companding, narrow bands and lossy codecs, in memory."""

from __future__ import annotations

import io
from typing import cast

import av
import numpy as np

from training.data import Wave, resample
from training.spectrum import SAMPLE_RATE

TELEPHONE_RATE = 8000  # Hz
_MU = 255.0  # ITU-T G.711


def mu_law(wave: Wave) -> Wave:
    """8 bits a sample, logarithmically spaced."""
    scale = float(np.abs(wave).max(initial=0)) or 1.0
    x = wave / scale
    compressed = np.sign(x) * np.log1p(_MU * np.abs(x)) / np.log1p(_MU)
    steps = np.round(compressed * 127) / 127
    expanded = np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(_MU)) / _MU
    return np.asarray(expanded * scale, dtype=np.float32)


def telephone(wave: Wave) -> Wave:
    """A fixed-line call: 8 kHz and mu-law, back at 16 kHz and at the same length."""
    narrow = mu_law(resample(wave, SAMPLE_RATE, TELEPHONE_RATE))
    return fit(resample(narrow, TELEPHONE_RATE, SAMPLE_RATE), len(wave))


def lossy(wave: Wave, codec: str, bits: int) -> Wave:
    """Encode with ``libopus`` or ``mp3`` at so many bits a second, and decode."""
    container = "ogg" if codec == "libopus" else "mp3"
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = cast(av.AudioStream, output.add_stream(codec, rate=SAMPLE_RATE, layout="mono"))
        stream.bit_rate = bits
        peak = float(np.abs(wave).max(initial=0)) or 1.0
        pcm = np.round(wave / peak * 29_000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for block in (frame, None):
            output.mux(stream.encode(block))
    return fit(_decode(file) * peak, len(wave))


def _decode(file: io.BytesIO) -> Wave:
    file.seek(0)
    with av.open(file, "r") as source:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        blocks = [
            block.to_ndarray()[0]
            for frame in source.decode(audio=0)
            for block in resampler.resample(frame)
        ]
        blocks += [block.to_ndarray()[0] for block in resampler.resample(None)]
    return np.concatenate(blocks)


def fit(wave: Wave, samples: int) -> Wave:
    """Cut or pad with zeros at the end."""
    if len(wave) >= samples:
        return wave[:samples]
    return np.pad(wave, (0, samples - len(wave)))
