"""What is refused for its size; pure checks on numbers, knows no codec."""

from dataclasses import dataclass
from math import isfinite

from server.speech import WINDOW, InvalidInput, Waveform

MAX_AMPLITUDE = 2.0**31
"""Full scale is 1, but files with 16, 24 or 32 bits as floats exist, and the model hears them as
well: it brings each clip to variance 1. Their squares add up in float32 to far below its 3e38."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """The most and the least that one request may hold.

    192 kHz is the highest rate of recording equipment, and 16 the channels of a microphone array;
    with the duration they bound the processor time that a small compressed file can cost (60 s of
    16-channel Opus: 3 s).
    """

    max_bytes: int = 16 * 2**20
    max_seconds: float = 60.0
    min_samples: int = WINDOW  # at 16 kHz
    min_rate_hz: int = 4_000
    max_rate_hz: int = 192_000
    max_channels: int = 16


def check_bytes(count: int, limits: AudioLimits) -> None:
    """Raises InvalidInput AUDIO_EMPTY or AUDIO_TOO_LARGE."""
    if count == 0:
        raise InvalidInput("AUDIO_EMPTY", "expected audio, got 0 bytes", limit=1, actual=0)
    if count > limits.max_bytes:
        text = f"expected at most {limits.max_bytes} bytes of audio, got {count}"
        raise InvalidInput("AUDIO_TOO_LARGE", text, limit=limits.max_bytes, actual=count)


def check_rate(rate_hz: int, field: str, limits: AudioLimits) -> None:
    """Raises InvalidInput SAMPLE_RATE_OUT_OF_RANGE."""
    low, high = limits.min_rate_hz, limits.max_rate_hz
    if not low <= rate_hz <= high:
        text = f"expected a sample rate from {low} to {high} Hz, got {rate_hz}"
        raise InvalidInput(
            "SAMPLE_RATE_OUT_OF_RANGE", text, field=field, limit=f"{low}..{high}", actual=rate_hz
        )


def check_channels(channels: int, field: str, limits: AudioLimits) -> None:
    """Raises InvalidInput CHANNEL_OUT_OF_RANGE."""
    if not 1 <= channels <= limits.max_channels:
        text = f"expected 1 to {limits.max_channels} channels, got {channels}"
        raise InvalidInput(
            "CHANNEL_OUT_OF_RANGE",
            text,
            field=field,
            limit=f"1..{limits.max_channels}",
            actual=channels,
        )


def check_channel_index(index: int, channels: int) -> None:
    """Raises InvalidInput CHANNEL_OUT_OF_RANGE; 0 stands for the mean of all channels."""
    if not 0 <= index <= channels:
        raise InvalidInput(
            "CHANNEL_OUT_OF_RANGE",
            f"expected a channel from 1 to {channels}, or 0 for the mean of all, got {index}",
            field="audio_format.channel_index",
            limit=f"0..{channels}",
            actual=index,
        )


def check_duration(seconds: float, limits: AudioLimits) -> None:
    """Raises InvalidInput AUDIO_TOO_LONG; `seconds` is what was decoded until now."""
    if seconds > limits.max_seconds:
        limit, actual = f"{limits.max_seconds:g}", f"{seconds:.3f}"
        text = f"expected at most {limit} s of audio, got at least {actual} s"
        raise InvalidInput("AUDIO_TOO_LONG", text, limit=limit, actual=actual)


def check_amplitude(waveform: Waveform) -> None:
    """Raises InvalidInput AUDIO_NOT_FINITE or AUDIO_OUT_OF_RANGE."""
    if not len(waveform):
        return
    low, high = float(waveform.min()), float(waveform.max())  # both are NaN if a sample is
    most = max(-low, high)
    if most <= MAX_AMPLITUDE:
        return
    if not isfinite(most):
        raise InvalidInput("AUDIO_NOT_FINITE", "expected finite samples, got NaN or infinity")
    limit, actual = f"{MAX_AMPLITUDE:.0f}", f"{most:.3g}"
    text = f"expected samples in [-1, 1], and none beyond {limit}, got {actual}"
    raise InvalidInput("AUDIO_OUT_OF_RANGE", text, limit=limit, actual=actual)


def check_samples(count: int, limits: AudioLimits) -> None:
    """Raises InvalidInput AUDIO_EMPTY or AUDIO_TOO_SHORT; `count` is at 16 kHz."""
    if count == 0:
        text = "expected audio, got a file without samples"
        raise InvalidInput("AUDIO_EMPTY", text, limit=limits.min_samples, actual=0)
    if count < limits.min_samples:
        text = f"expected at least {limits.min_samples} samples at 16 kHz, got {count}"
        raise InvalidInput("AUDIO_TOO_SHORT", text, limit=limits.min_samples, actual=count)
