"""MP4 files are streamed with their index in front, wherever it is in the file."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from speech_emotion_client.streaming import inorder
from speech_emotion_client.streaming.inorder import pieces

Make = Callable[..., Path]


@pytest.fixture
def m4a(tmp_path: Path) -> Make:
    """Makes a file of 5 s of sound, as FFmpeg writes it with these `movflags`."""

    def make(movflags: str = "") -> Path:
        path = tmp_path / "speech.m4a"
        options = {"movflags": movflags} if movflags else {}
        with av.open(path, "w", format="mp4", options=options) as out:
            track: Any = out.add_stream("aac", rate=16_000, layout="mono")
            wave = np.sin(np.arange(80_000) / 20).astype(np.float32).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
            frame.sample_rate = 16_000
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
        return path

    return make


def heard(data: bytes) -> NDArray[Any]:
    with av.open(io.BytesIO(data)) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)


def test_an_index_behind_the_audio_comes_first_and_leads_to_the_same_samples(m4a: Make) -> None:
    path = m4a()

    sent = b"".join(pieces(path))

    assert sent.index(b"moov") < sent.index(b"mdat")
    assert len(sent) == path.stat().st_size
    np.testing.assert_array_equal(heard(sent), heard(path.read_bytes()))


def test_places_of_eight_bytes_are_moved_as_those_of_four() -> None:
    def index(kind: bytes, places: NDArray[Any]) -> bytes:
        data = bytes(4) + len(places).to_bytes(4, "big") + places.tobytes()
        for name in (kind, *reversed(inorder.PATH)):
            data = (8 + len(data)).to_bytes(4, "big") + name + data
        return data

    for kind, number in ((b"stco", ">u4"), (b"co64", ">u8")):
        before = index(kind, np.array([8, 40, 99], number))

        moved = inorder.moved(before, audio=32)

        after = np.array([8, 40 + len(before), 99 + len(before)], number)
        assert moved == index(kind, after)


@pytest.mark.parametrize("movflags", ["faststart", "frag_keyframe+empty_moov"])
def test_a_file_in_order_is_sent_as_it_is(m4a: Make, movflags: str) -> None:
    path = m4a(movflags)

    assert b"".join(pieces(path)) == path.read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        bytes(range(256)) * 1000,
        b"\0\0\0\x08ftyp\0\0\0\x08mdat",
        b"\0\0\0\x08ftyp\0\0\0\x08mdat\xff\xff\xff\xffmoov",
        b"\0\0\0\x08ftyp\0\0\0\0mdat" + bytes(100),
    ],
)
def test_other_files_and_broken_ones_are_sent_as_they_are(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)

    assert b"".join(pieces(path)) == data
