"""Reads a file to its end or to its limit, whichever comes first; the order of the checks."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.audio.containers import open_container, undecodable
from server.audio.limits import (
    AudioLimits,
    check_amplitude,
    check_bytes,
    check_channel_index,
    check_channels,
    check_duration,
    check_rate,
    check_samples,
)
from server.audio.raw import Encoding, RawFormat, open_raw, stored_samples
from server.audio.resample import Resampler, mix
from server.audio.sniff import is_cut_short, recognise
from server.audio.source import Block, Source
from server.audio.wav import plain_samples
from server.speech import SAMPLE_RATE, Audio, InvalidInput, Notice, Waveform

_LARGEST_16 = 32767
_FULL_SCALE_16 = np.uint16(_LARGEST_16)
_TWO = np.uint16(2)
_FULL_SCALE = np.float32(32767 / 32768)
_CLIPPED_SHARE = 1e-3  # of the samples at full scale; below it are peaks, not distortion
_SLACK_SECONDS = 0.1  # headers round, and codecs pad: a smaller difference is no loss
_AS_CONTAINER = RawFormat(encoding=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listened:
    """What came out of a Source."""

    waveform: Waveform
    frames: int  # at the source's rate
    clipped_share: float  # in [0, 1]
    damaged: bool  # the decoder gave up before the end


def decode(data: bytes | memoryview, described: RawFormat | None, limits: AudioLimits) -> Audio:
    """The samples in `data`; blocks for milliseconds, may be called from any thread.

    A file that breaks off is analysed up to there, with the notice AUDIO_TRUNCATED. Other notices:
    AUDIO_CLIPPED, RESAMPLED_FROM_LOW_RATE. Samples outside [-1, 1] stay as they are,
    up to 2**31.

    Raises InvalidInput: AUDIO_EMPTY, AUDIO_TOO_LARGE, FORMAT_REQUIRED, FORMAT_UNSUPPORTED,
    FIELD_INVALID, SAMPLE_RATE_OUT_OF_RANGE, CHANNEL_OUT_OF_RANGE, AUDIO_UNDECODABLE,
    AUDIO_TOO_LONG, AUDIO_TOO_SHORT, AUDIO_NOT_FINITE, AUDIO_OUT_OF_RANGE.
    """
    check_bytes(len(data), limits)
    described = described or _AS_CONTAINER
    if is_plain(described):
        samples = stored_samples(data, described, Encoding.PCM_S16LE, limits)[:, 0]
        return _as_they_are("raw", samples, described, limits)
    if described.encoding is None and (found := plain_samples(data)) is not None:
        return _as_they_are("wav", np.frombuffer(found, "<i2"), described, limits)
    data = bytes(data)
    with ExitStack() as stack:
        source = _open(data, described, limits, stack)
        check_rate(source.rate_hz, "audio_data", limits)
        check_channels(source.channels, "audio_data", limits)
        check_channel_index(described.channel_index, source.channels)
        listened = listen(source, described.channel_index, limits)
    _check(listened, source, limits)
    return Audio(
        samples=listened.waveform,
        source_rate_hz=source.rate_hz,
        source_channels=source.channels,
        container=source.container,
        notices=_notices(listened, source, is_cut_short(source.container, data)),
    )


def is_plain(described: RawFormat) -> bool:
    """Whether the samples are what the model hears, but for their scale: they take no `listen`."""
    return (
        described.encoding is Encoding.PCM_S16LE
        and described.sample_rate_hz == SAMPLE_RATE
        and described.channel_count <= 1
    )


def _as_they_are(
    container: str, samples: NDArray[np.int16], described: RawFormat, limits: AudioLimits
) -> Audio:
    check_channel_index(described.channel_index, 1)
    check_duration(len(samples) / SAMPLE_RATE, limits)
    check_samples(len(samples), limits)
    return Audio(
        samples=samples,
        source_rate_hz=SAMPLE_RATE,
        source_channels=1,
        container=container,
        notices=_clipping(_count_clipped_16(samples) / len(samples)),
    )


def listen(source: Source, channel: int, limits: AudioLimits) -> Listened:
    """Reads until the source ends, breaks or exceeds the limit; channel 0 is the mean of all.

    Holds the waveform at 16 kHz and one block of the source, whatever its header says.

    Raises InvalidInput AUDIO_TOO_LONG with the first block that is too much.
    """
    resampler = Resampler(source.rate_hz)
    pieces: list[Waveform] = []
    frames = heard_samples = clipped = 0
    damaged = False
    try:
        for block in _until_damage(source.blocks):
            frames += len(block)
            check_duration(frames / source.rate_hz, limits)
            heard = block[:, channel - 1 : channel] if channel else block
            heard_samples += heard.size
            clipped += _count_clipped(heard)
            pieces.append(resampler.push(mix(heard)))
    except _DamagedError:
        damaged = True
    pieces.append(resampler.finish())
    return Listened(
        waveform=_join(pieces),
        frames=frames,
        clipped_share=clipped / max(1, heard_samples),
        damaged=damaged,
    )


def _join(pieces: list[Waveform]) -> Waveform:
    full = [piece for piece in pieces if len(piece)]
    return full[0] if len(full) == 1 else np.concatenate(pieces)


class _DamagedError(Exception):
    """The decoder could not go on."""


def _until_damage(blocks: Iterator[Block]) -> Iterator[Block]:
    try:
        yield from blocks
    except Exception as error:  # what a codec raises on bytes from strangers has no list
        raise _DamagedError from error


def _open(data: bytes, described: RawFormat, limits: AudioLimits, stack: ExitStack) -> Source:
    if described.encoding is not None:
        return open_raw(data, described, described.encoding, limits)
    container = recognise(data)
    if container is None:
        raise InvalidInput(
            "FORMAT_REQUIRED",
            "expected a known container or the encoding of headerless samples, got neither",
            field="audio_format.encoding",
        )
    return open_container(container, data, stack)


def _count_clipped(heard: Block) -> int:
    flat = heard.reshape(-1)  # numpy reduces one axis twice as fast as two
    if flat.max() < _FULL_SCALE and flat.min() > -_FULL_SCALE:
        return 0
    return int(np.count_nonzero(np.abs(flat) >= _FULL_SCALE))


def _count_clipped_16(samples: NDArray[np.int16]) -> int:
    """Those at 32767, -32768 and -32767, which are neighbours once the sign is a mere bit."""
    if samples.max() < _LARGEST_16 and samples.min() > -_LARGEST_16:
        return 0
    return int(np.count_nonzero(samples.view("<u2") - _FULL_SCALE_16 <= _TWO))


def _check(listened: Listened, source: Source, limits: AudioLimits) -> None:
    count = len(listened.waveform)
    if listened.damaged and count < limits.min_samples:
        raise undecodable(source.container)
    check_samples(count, limits)
    check_amplitude(listened.waveform)


def _notices(listened: Listened, source: Source, cut_short: bool) -> tuple[Notice, ...]:
    notices = []
    seconds = listened.frames / source.rate_hz
    announced = (source.announced_frames or 0) / source.rate_hz
    if listened.damaged or cut_short or seconds < announced - _SLACK_SECONDS:
        text = f"The file breaks off or is damaged: only its first {seconds:.3f} s were analysed."
        notices.append(Notice("AUDIO_TRUNCATED", text))
    notices += _clipping(listened.clipped_share)
    if source.rate_hz < SAMPLE_RATE:
        text = f"The audio was recorded at {source.rate_hz} Hz; the model was trained on 16000 Hz."
        notices.append(Notice("RESAMPLED_FROM_LOW_RATE", text))
    return tuple(notices)


def _clipping(share: float) -> tuple[Notice, ...]:
    if share <= _CLIPPED_SHARE:
        return ()
    text = f"{share:.1%} of the samples are at or above full scale."
    return (Notice("AUDIO_CLIPPED", text),)
