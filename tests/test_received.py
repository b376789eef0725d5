"""The audio of a request is parted from it without a copy, and nothing else is changed by that."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2 import AnalyzeOptions, AnalyzeRequest

from server.audio import AudioLimits, Encoding, RawFormat, decode
from server.service.received import SMALL, receive
from server.speech import Utterance

requests = st.builds(
    AnalyzeRequest,
    audio_data=st.sampled_from((0, 1, SMALL - 1, SMALL, 20_000, 2_200_000)).map(bytes),
    model=st.text(max_size=5),
    request_id=st.text(max_size=5),
    extract_embedding=st.booleans(),
    audio_format=st.builds(AudioFormat, sample_rate_hz=st.integers(0, 2**32 - 1)),
    options=st.builds(AnalyzeOptions, frame_stride=st.integers(0, 2**32 - 1)),
)


def put_together(data):
    received = receive(data)
    request = AnalyzeRequest()
    request.CopyFrom(received.request)
    request.audio_data = bytes(received.audio)
    return request


@given(requests)
def test_a_request_says_the_same_with_its_audio_beside_it(request):
    assert put_together(request.SerializeToString()) == request


@given(st.lists(requests, min_size=2, max_size=3))
def test_of_fields_that_come_twice_the_last_one_wins(several):
    data = b"".join(one.SerializeToString() for one in several)

    assert put_together(data) == AnalyzeRequest.FromString(data)


def test_large_audio_is_not_copied():
    data = AnalyzeRequest(audio_data=bytes(100_000), model="m").SerializeToString()

    received = receive(data)

    assert isinstance(received.audio, memoryview)
    assert received.audio.obj is data
    assert not received.request.audio_data


def test_audio_that_does_not_come_first_is_found():
    audio = AnalyzeRequest(audio_data=b"a" * 100_000)
    data = AnalyzeRequest(model="m").SerializeToString() + audio.SerializeToString()

    received = receive(data)

    assert received.request.model == "m"
    assert received.audio == b"a" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a" + b"\x80" * 100_000,  # a length that never ends
        b"\x0a\xff\xff\xff\xff\x7f" + bytes(10_000),  # a length beyond 32 bits
        b"\x0a\x80\x80\x01" + bytes(10_000),  # longer than the message
        b"\x0a\x88\x27" + bytes(5_000) + b"\x2a\x05\xff",  # what follows does not parse
    ],
)
def test_bytes_that_are_no_message_are_refused_as_before(data):
    with pytest.raises(DecodeError):
        AnalyzeRequest.FromString(data)

    with pytest.raises(DecodeError):
        receive(data)


def test_sixteen_bits_stay_what_they_are_until_the_engine_wants_them():
    samples = np.arange(-16_000, 16_000, dtype=np.int16)
    received = receive(AnalyzeRequest(audio_data=samples.tobytes()).SerializeToString())
    described = RawFormat(encoding=Encoding.PCM_S16LE, sample_rate_hz=16_000)

    audio = decode(received.audio, described, AudioLimits())

    utterance = Utterance(audio.samples)
    assert utterance.samples.dtype == np.int16
    assert np.shares_memory(utterance.samples, np.frombuffer(received.audio, np.uint8))
    assert np.array_equal(utterance.waveform, samples / np.float32(32768))
