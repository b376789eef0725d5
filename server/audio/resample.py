"""Many channels at any rate become one at 16 kHz, block by block; keeps no more than one block."""

import numpy as np
import soxr

from server.audio.limits import check_amplitude
from server.audio.source import Block
from server.speech import SAMPLE_RATE, Waveform

_NOTHING = np.empty(0, np.float32)


def mix(block: Block) -> Waveform:
    """The mean of the channels, a new array; shape (frames,)."""
    total: Waveform = block[:, 0].copy()
    if block.shape[1] == 1:
        return total
    with np.errstate(over="ignore", invalid="ignore"):  # the result is checked at the end
        # Adding columns: numpy's mean over a short last axis is 25 times slower.
        for channel in range(1, block.shape[1]):
            total += block[:, channel]
        total /= block.shape[1]
    return total


class Resampler:
    """Mono from `rate_hz` to 16 kHz; the cuts between pieces leave no trace in the result.

    libsoxr's HQ quality, as FunASR's `load_audio_text_image_video` without torchaudio. Samples
    that are at 16 kHz already pass unchanged. Runs on the calling thread only.
    """

    def __init__(self, rate_hz: int) -> None:
        same = rate_hz == SAMPLE_RATE
        self._stream = None if same else soxr.ResampleStream(rate_hz, SAMPLE_RATE, 1, quality="HQ")

    def push(self, samples: Waveform) -> Waveform:
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def finish(self) -> Waveform:
        """What the filter still holds; push nothing afterwards."""
        return (
            _NOTHING if self._stream is None else self._stream.resample_chunk(_NOTHING, last=True)
        )


class Channel:
    """One of the channels, or their mean, at 16 kHz."""

    def __init__(self, rate_hz: int, index: int) -> None:
        self._rate_hz = rate_hz
        self._index = index
        self._resampler = Resampler(rate_hz)

    def push(self, block: Block) -> Waveform:
        heard = block[:, self._index - 1 : self._index] if self._index else block
        samples = mix(heard)
        check_amplitude(samples)
        return self._resampler.push(samples)

    def cut(self) -> Waveform:
        rest = self._resampler.finish()
        self._resampler = Resampler(self._rate_hz)
        return rest
