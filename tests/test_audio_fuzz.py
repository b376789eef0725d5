"""Whatever the bytes are, the answer is a bounded waveform or InvalidInput."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_audio import FILES

from server.audio import CONTAINERS, AudioLimits, Encoding, RawFormat, decode
from server.audio.sniff import is_cut_short, recognise
from server.speech import InvalidInput

LIMITS = AudioLimits(max_seconds=2)
REASONS = {
    "AUDIO_EMPTY",
    "AUDIO_UNDECODABLE",
    "AUDIO_TOO_SHORT",
    "AUDIO_TOO_LONG",
    "AUDIO_NOT_FINITE",
    "AUDIO_OUT_OF_RANGE",
    "FORMAT_REQUIRED",
    "FORMAT_UNSUPPORTED",
    "FIELD_INVALID",
    "SAMPLE_RATE_OUT_OF_RANGE",
    "CHANNEL_OUT_OF_RANGE",
}
MAGIC = [data[:16] for data in FILES.values()]
quick = settings(max_examples=60, suppress_health_check=list(HealthCheck))


def outcome(data, described):
    try:
        return None, decode(data, described, LIMITS).waveform
    except InvalidInput as refused:
        return refused.reason, np.empty(0, np.float32)


def assert_bounded(data, described=None):
    reason, waveform = outcome(data, described)

    assert reason in REASONS or 400 <= len(waveform) <= 32_000
    assert np.isfinite(waveform).all()


@quick
@given(st.sampled_from([b"", *MAGIC]), st.binary(max_size=2000))
def test_random_bytes_are_bounded(magic, noise):
    assert_bounded(magic + noise)


@quick
@given(
    st.binary(max_size=4000),
    st.sampled_from(Encoding),
    st.integers(-1, 200_000),
    st.integers(-1, 20),
    st.integers(-1, 20),
)
def test_random_samples_are_bounded(data, encoding, rate_hz, channels, index):
    described = RawFormat(
        encoding=encoding, sample_rate_hz=rate_hz, channel_count=channels, channel_index=index
    )

    assert_bounded(data, described)


@pytest.mark.parametrize("container", CONTAINERS)
@quick
@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.one_of(st.integers(0, 80), st.integers(0)), st.integers(0, 255))),
    st.binary(max_size=40),
)
def test_a_damaged_file_is_bounded(container, kept, changes, inserted):
    data = bytearray(FILES[container])
    for at, byte in changes:
        data[at % len(data)] = byte
    middle = len(data) // 3
    data[middle:middle] = inserted

    assert_bounded(bytes(data[: int(len(data) * kept)]))


@given(st.one_of(st.binary(max_size=64), st.sampled_from(MAGIC)), st.sampled_from(CONTAINERS))
def test_sniffing_takes_any_bytes(data, container):
    assert recognise(data) in (None, *CONTAINERS)
    assert is_cut_short(container, data) in (True, False)
