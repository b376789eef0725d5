"""A plain WAV is read without a library, and gets the answer that the library gives."""

import io
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import server.audio  # noqa: F401  # for sys.modules
from server.audio import AudioLimits, RawFormat, decode, plain_samples
from server.speech import InvalidInput

LIMITS = AudioLimits()
AUTO = RawFormat(encoding=None)
RNG = np.random.default_rng(7)


def noise(samples, loud=3000):
    return RNG.integers(-loud, loud, samples, dtype=np.int16)


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def riff(*chunks):
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


def fmt(channels=1, rate=16_000, bits=16, tag=1):
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits))


def by_library(data, monkeypatch, described=None):
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["server.audio.decode"], "plain_samples", lambda _: None)
        return decode(data, described, LIMITS)


def same(one, other):
    assert np.array_equal(one.waveform, other.waveform)
    assert replace(one, samples=other.samples) == replace(other, samples=other.samples)


@pytest.mark.parametrize("loud", [3000, 32_767])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ()),
        ((chunk(b"JUNK", bytes(28)),), (chunk(b"LIST", b"INFOISFT\x03\x00\x00\x00abc"),)),
        ((chunk(b"bext", b"odd"),), ()),
    ],
)
def test_plain_files_are_read_as_by_the_library(before, after, loud, monkeypatch):
    samples = chunk(b"data", noise(9_000, loud).tobytes())
    data = riff(*before, fmt(), samples, *after)

    found = decode(data, None, LIMITS)

    assert plain_samples(data) is not None
    same(found, by_library(data, monkeypatch))


def test_what_the_library_writes_is_plain(monkeypatch):
    file = io.BytesIO()
    soundfile.write(file, noise(16_000), 16_000, format="WAV", subtype="PCM_16")

    assert plain_samples(file.getvalue()) is not None
    same(decode(file.getvalue(), AUTO, LIMITS), by_library(file.getvalue(), monkeypatch, AUTO))


SAMPLES = chunk(b"data", noise(8_000).tobytes())


@pytest.mark.parametrize(
    "data",
    [
        riff(fmt(channels=2), SAMPLES),
        riff(fmt(rate=8_000), SAMPLES),
        riff(fmt(bits=8), SAMPLES),
        riff(fmt(tag=3, bits=32), SAMPLES),
        riff(chunk(b"fmt ", fmt()[8:] + bytes(2)), SAMPLES),  # WAVEFORMATEX
        riff(fmt(), SAMPLES)[:-2_000],  # breaks off
        riff(fmt(), SAMPLES[:4] + struct.pack("<I", 0) + SAMPLES[8:]),  # a writer that streamed
        riff(fmt(), SAMPLES[:4] + struct.pack("<I", 0xFFFF_FFFF) + SAMPLES[8:]),
        riff(fmt(), SAMPLES[:4] + struct.pack("<I", 15_999) + SAMPLES[8:]),
        b"RIFX" + riff(fmt(), SAMPLES)[4:],
        b"RIFF\xff\xff\xff\xff" + riff(fmt(), SAMPLES)[8:],
        riff(SAMPLES, fmt()),
        riff(fmt()),
    ],
)
def test_anything_else_is_left_to_the_library(data):
    assert plain_samples(data) is None


@given(st.binary(max_size=80), st.integers(0, 60), st.integers(0, 200))
def test_broken_headers_break_nothing(junk, at, length):
    whole = riff(fmt(), SAMPLES[:100])
    data = (whole[:at] + junk + whole[at + len(junk) :])[:length]

    found = plain_samples(data)

    assert found is None or len(found) <= len(data)


def test_a_file_at_an_odd_place_in_memory_is_read_all_the_same():
    samples = noise(9_000)
    data = memoryview(b"x" + riff(fmt(), chunk(b"data", samples.tobytes())))[1:]

    assert np.array_equal(decode(data, None, LIMITS).waveform, samples / np.float32(32_768))


@pytest.mark.parametrize(
    ("samples", "described", "reason"),
    [
        (100, None, "AUDIO_TOO_SHORT"),
        (16_000 * 61, None, "AUDIO_TOO_LONG"),
        (9_000, RawFormat(encoding=None, channel_index=2), "CHANNEL_OUT_OF_RANGE"),
    ],
)
def test_plain_files_are_refused_as_by_the_library(samples, described, reason, monkeypatch):
    data = riff(fmt(), chunk(b"data", noise(samples).tobytes()))

    with pytest.raises(InvalidInput) as ours:
        decode(data, described, LIMITS)
    with pytest.raises(InvalidInput) as theirs:
        by_library(data, monkeypatch, described)

    assert ours.value.reason == theirs.value.reason == reason
    assert ours.value.field == theirs.value.field
