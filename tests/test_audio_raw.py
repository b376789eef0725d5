"""Headerless samples are what the caller says they are, or refused."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from server.audio import AudioLimits, Encoding, RawFormat, decode
from server.speech import InvalidInput

LIMITS = AudioLimits()
EVERY_CODE = bytes(range(256)) * 4


def described(encoding, rate_hz=16_000, **rest):
    return RawFormat(encoding=encoding, sample_rate_hz=rate_hz, **rest)


def test_sixteen_bit_samples_are_divided_by_32768():
    samples = np.arange(-32768, 32768, 16, dtype="<i2")

    audio = decode(samples.tobytes(), described(Encoding.PCM_S16LE), LIMITS)

    assert np.array_equal(audio.waveform, samples / np.float32(32768))
    assert (audio.container, audio.source_rate_hz, audio.source_channels) == ("raw", 16_000, 1)


@given(st.lists(st.integers(-32768, 32767), min_size=400, max_size=600), st.integers(0, 3))
def test_samples_that_need_no_resampler_have_the_answer_of_those_that_take_the_long_way(
    values, clipped
):
    samples = np.array(values + [32767, -32767, -32768][:clipped], "<i2")
    floats = (samples / np.float32(32768)).astype("<f4")

    short = decode(samples.tobytes(), described(Encoding.PCM_S16LE), LIMITS)
    long = decode(floats.tobytes(), described(Encoding.PCM_F32LE), LIMITS)

    assert np.array_equal(short.waveform, long.waveform)
    assert short.notices == long.notices


@pytest.mark.parametrize(
    ("limits", "index", "reason"),
    [
        (AudioLimits(max_seconds=0.05), 0, "AUDIO_TOO_LONG"),
        (AudioLimits(min_samples=1_001), 0, "AUDIO_TOO_SHORT"),
        (AudioLimits(max_bytes=1_999), 0, "AUDIO_TOO_LARGE"),
        (LIMITS, 2, "CHANNEL_OUT_OF_RANGE"),
    ],
)
def test_samples_that_need_no_resampler_are_refused_for_the_same_reasons(limits, index, reason):
    for encoding, size in ((Encoding.PCM_S16LE, 2_000), (Encoding.PCM_F32LE, 4_000)):
        with pytest.raises(InvalidInput) as refused:
            decode(bytes(size), described(encoding, channel_index=index), limits)

        assert refused.value.reason == reason


def test_float_samples_pass_unchanged():
    samples = np.linspace(-1.5, 1.5, 10_000, dtype="<f4")

    audio = decode(samples.tobytes(), described(Encoding.PCM_F32LE), LIMITS)

    assert np.array_equal(audio.waveform, samples)


@pytest.mark.parametrize(
    ("encoding", "subtype"), [(Encoding.MULAW, "ULAW"), (Encoding.ALAW, "ALAW")]
)
def test_g711_tables_agree_with_libsndfile(encoding, subtype):
    expected, _ = soundfile.read(
        io.BytesIO(EVERY_CODE),
        dtype="float32",
        format="RAW",
        subtype=subtype,
        channels=1,
        samplerate=16_000,
    )

    audio = decode(EVERY_CODE, described(encoding), LIMITS)

    assert np.array_equal(audio.waveform, expected)


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_g711_inside_wav_needs_no_description(subtype):
    file = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(8000) / 10)
    soundfile.write(file, tone, 8000, format="WAV", subtype=subtype)

    audio = decode(file.getvalue(), None, LIMITS)

    assert audio.container == "wav"
    assert len(audio.waveform) == 16_000


@pytest.mark.parametrize(("index", "expected"), [(0, 0.375), (1, 0.5), (2, 0.25)])
def test_interleaved_channels_are_averaged_or_chosen(index, expected):
    samples = np.tile(np.array([0.5, 0.25], "<f4"), 5000)

    audio = decode(
        samples.tobytes(),
        described(Encoding.PCM_F32LE, channel_count=2, channel_index=index),
        LIMITS,
    )

    assert np.array_equal(audio.waveform, np.full(5000, expected, np.float32))


def test_no_channel_count_means_one():
    audio = decode(bytes(1600), described(Encoding.PCM_S16LE, channel_count=0), LIMITS)

    assert audio.source_channels == 1
    assert len(audio.waveform) == 800


def test_another_rate_is_resampled():
    audio = decode(bytes(16_000), described(Encoding.PCM_S16LE, 8000), LIMITS)

    assert len(audio.waveform) == 16_000
    assert [notice.code for notice in audio.notices] == ["RESAMPLED_FROM_LOW_RATE"]


@pytest.mark.parametrize(
    ("change", "reason", "field", "metadata"),
    [
        (
            {"sample_rate_hz": 0},
            "SAMPLE_RATE_OUT_OF_RANGE",
            "audio_format.sample_rate_hz",
            {"limit": "4000..192000", "actual": "0"},
        ),
        (
            {"sample_rate_hz": 192_001},
            "SAMPLE_RATE_OUT_OF_RANGE",
            "audio_format.sample_rate_hz",
            {"limit": "4000..192000", "actual": "192001"},
        ),
        (
            {"channel_count": 17},
            "CHANNEL_OUT_OF_RANGE",
            "audio_format.channel_count",
            {"limit": "1..16", "actual": "17"},
        ),
        (
            {"channel_count": -1},
            "CHANNEL_OUT_OF_RANGE",
            "audio_format.channel_count",
            {"limit": "1..16", "actual": "-1"},
        ),
        (
            {"channel_index": 2},
            "CHANNEL_OUT_OF_RANGE",
            "audio_format.channel_index",
            {"limit": "0..1", "actual": "2"},
        ),
        (
            {"channel_count": 3},
            "AUDIO_UNDECODABLE",
            "audio_data",
            {"limit": "6", "actual": "1000"},
        ),
    ],
)
def test_a_description_that_cannot_be_is_refused(change, reason, field, metadata):
    asked = {"encoding": Encoding.PCM_S16LE, "sample_rate_hz": 16_000} | change

    with pytest.raises(InvalidInput) as refused:
        decode(bytes(1000), RawFormat(**asked), LIMITS)

    assert (refused.value.reason, refused.value.field) == (reason, field)
    assert refused.value.metadata == metadata


def test_half_a_sample_is_refused():
    with pytest.raises(InvalidInput, match="whole frames of 2 bytes, got 1001") as refused:
        decode(bytes(1001), described(Encoding.PCM_S16LE), LIMITS)

    assert refused.value.reason == "AUDIO_UNDECODABLE"


def test_a_container_described_as_samples_is_not_heard_as_noise():
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1000), 16_000, format="FLAC")

    with pytest.raises(InvalidInput, match="begin like flac") as refused:
        decode(file.getvalue(), described(Encoding.MULAW), LIMITS)

    assert (refused.value.reason, refused.value.field) == ("FIELD_INVALID", "audio_format.encoding")
