"""MP4 and M4A in pieces: the index may be in front or behind, and may lie about its size."""

import subprocess
import sys
import threading

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audio import AudioLimits
from server.audio.incremental import open_intake
from server.audio.isomedia import Boxes
from server.speech import InvalidInput

LIMITS = AudioLimits()
SECONDS = 5


@pytest.fixture
def m4a(tmp_path):
    """Makes a file as FFmpeg writes it: `movflags` say where it puts the index."""

    def make(movflags: str = "", layout: str = "mono", channels: int = 1) -> bytes:
        path = tmp_path / "speech.m4a"
        times = np.arange(48_000 * SECONDS) / 48_000
        wave = (0.3 * np.sin(2 * np.pi * 220 * times)).astype(np.float32)
        with av.open(
            path, "w", format="mp4", options={"movflags": movflags} if movflags else {}
        ) as out:
            track = out.add_stream("aac", rate=48_000, layout=layout)
            samples = np.repeat(wave, channels).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
            frame.sample_rate = 48_000
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
        return path.read_bytes()

    return make


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4, "big") + kind + data


def poured(data: bytes, piece: int = 10**9, **options) -> np.ndarray:
    """What comes out of an intake that gets `data` in pieces."""
    intake, taken = open_intake(None, LIMITS, **options), []
    try:
        for at in range(0, len(data), piece):
            intake.offer(data[at : at + piece])
            while (samples := intake.take()) is not None:
                taken.append(samples)
        intake.finish()
        while (samples := intake.take()) is not None:
            taken.append(samples)
        return np.concatenate([*taken, intake.cut()])
    finally:
        intake.close()


def refusal(data: bytes, piece: int = 10**9, **options) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        poured(data, piece, **options)
    return refused.value


@pytest.mark.parametrize("piece", [7, 5000, 10**9])
def test_a_file_whose_index_is_behind_is_decoded_once_it_is_whole(m4a, piece):
    streamed = poured(m4a("faststart"))

    waited = poured(m4a(), piece, may_wait=True)

    assert len(waited) == pytest.approx(16_000 * SECONDS, abs=1_600)
    np.testing.assert_array_equal(waited, streamed[: len(waited)])


def test_a_stream_cannot_wait_and_is_told_so_before_the_audio_has_come(m4a):
    data = m4a()

    refused = refusal(data[: data.index(b"mdat") + 4], piece=1)

    assert refused.reason == "AUDIO_NOT_STREAMABLE"
    assert "AnalyzeUpload" in str(refused)
    assert "faststart" in str(refused)


def test_a_file_that_ends_before_its_index_is_no_audio(m4a):
    data = m4a()

    refused = refusal(data[: data.index(b"moov")], may_wait=True)

    assert refused.reason == "AUDIO_UNDECODABLE"


def test_who_gives_up_while_a_file_is_spooled_leaves_no_thread(m4a):
    intake = open_intake(None, LIMITS, may_wait=True)
    intake.offer(m4a()[:5000])

    intake.close()
    intake.offer(bytes(1000))  # was under way
    decoders = [each for each in threading.enumerate() if each.name == "stream"]
    for each in decoders:
        each.join(timeout=10)

    assert not any(each.is_alive() for each in decoders)


@pytest.mark.parametrize("piece", [1, 7, 10**9])
@pytest.mark.parametrize("may_wait", [True, False])
def test_an_index_that_would_fill_the_memory_is_never_built_from_pieces_either(
    m4a, piece, may_wait
):
    data = m4a("frag_keyframe+empty_moov")
    head = data[: data.index(b"moof") - 4]
    track = box(b"tfhd", bytes(4), b"\0\0\0\1")
    lie = box(b"trun", b"\0\0\0\1", (10**8).to_bytes(4, "big"), bytes(4))
    fragment = box(b"moof", box(b"mfhd", bytes(8)), box(b"traf", track, lie))

    refused = refusal(head + fragment, piece, may_wait=may_wait)

    assert refused.reason == "AUDIO_UNDECODABLE"
    assert refused.metadata["actual"] == str(10**8)


def test_a_count_that_hides_behind_the_name_of_another_table_is_found(m4a):
    data = m4a("empty_moov+frag_keyframe")
    head = data[: data.index(b"moof") - 4]
    lie = box(b"stsz", bytes(4), b"\0\0\0\1", (10**8).to_bytes(4, "big"))

    refused = refusal(head + box(b"meta", b"trun\0\0\0", lie))

    assert refused.metadata["actual"] == str(10**8 + 0x1473)


def test_counts_in_the_audio_itself_mean_nothing(m4a):
    data = m4a("faststart")
    lie = box(b"trun", b"\0\0\0\1", (10**8).to_bytes(4, "big"))

    assert len(poured(data + box(b"mdat", lie))) == len(poured(data))


def test_eight_channels_in_pieces_are_refused_rather_than_crash_the_process(m4a):
    data = m4a("faststart", "7.1", 8)

    refused = refusal(data, 5000)

    assert refused.reason == "CHANNEL_OUT_OF_RANGE"


def test_chunks_that_claim_billions_of_samples_do_not_fill_the_memory(m4a, tmp_path):
    data = bytearray(m4a("faststart"))
    places, chunks = data.index(b"stco"), 40
    one = data[places + 12 : places + 16]
    data[places + 16 : places + 16] = one * chunks
    data[places + 8 : places + 12] = (1 + chunks).to_bytes(4, "big")
    for name in (b"stco", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        start = data.index(name) - 4
        size = int.from_bytes(data[start : start + 4], "big") + 4 * chunks
        data[start : start + 4] = size.to_bytes(4, "big")
    durations, samples = data.index(b"stts"), data.index(b"stsc")
    data[durations + 8 : durations + 12] = data[durations + 16 : durations + 20] = b"\0\0\0\1"
    data[samples + 8 : samples + 12] = b"\0\0\0\1"
    data[samples + 16 : samples + 20] = (2 * 10**9).to_bytes(4, "big")
    (tmp_path / "bomb").write_bytes(data)
    code = """
import resource, sys
from server.audio import AudioLimits, decode
from server.speech import InvalidInput
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(open(sys.argv[1], "rb").read(), None, AudioLimits())
except InvalidInput as error:
    print(error.reason, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""

    command = [sys.executable, "-c", code, tmp_path / "bomb"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert said[0] == "AUDIO_UNDECODABLE"
    assert int(said[1]) < 200_000  # KiB; 2 GB without the limit


CONTENT = st.lists(
    st.sampled_from(
        [b"stsz", b"stz2", b"trun", b"cmo", b"v", b"\0\0\0\1", b"\0\0\0\7", b"\0", b"t"]
    ),
    max_size=12,
).map(b"".join)
FILES = st.lists(
    st.tuples(st.sampled_from([b"moov", b"mdat", b"free", b"moof"]), CONTENT).map(
        lambda named: box(*named)
    ),
    max_size=4,
).map(b"".join)


@given(FILES, st.integers(1, 20))
def test_how_the_bytes_are_cut_makes_no_difference_to_what_the_boxes_say(data, piece):
    whole, cut = Boxes(), Boxes()

    whole.push(data)
    for at in range(0, len(data), piece):
        cut.push(data[at : at + piece])

    assert (cut.samples, cut.compressed, cut.index_first) == (
        whole.samples, whole.compressed, whole.index_first,
    )  # fmt: skip
