"""Opus is decoded by one library, whoever reads the container."""

import io

import numpy as np
import soundfile

from server.audio import AudioLimits, decode
from server.audio.ffmpeg import open_ffmpeg


def low_rate_opus() -> bytes:
    """Two seconds of something voiced, at the lowest bit rate there is."""
    times = np.arange(2 * 48_000) / 48_000
    buzz = sum(np.sin(2 * np.pi * 130 * n * times + n * n) / n for n in range(1, 30))
    wave = 0.1 * buzz * (1 + np.sin(2 * np.pi * 4 * times))
    file = io.BytesIO()
    soundfile.write(file, wave, 48_000, format="OGG", subtype="OPUS", compression_level=1.0)
    return file.getvalue()


def test_a_stream_hears_the_opus_that_a_unary_call_hears():
    data = low_rate_opus()

    with open_ffmpeg("ogg/opus", data) as source:
        streamed = np.concatenate(list(source.blocks)).ravel()
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")

    assert source.container == decode(data, None, AudioLimits()).container
    np.testing.assert_allclose(streamed, whole, atol=2 / 32768)
