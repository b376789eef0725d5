"""A session goes on elsewhere as if nothing had been: what another replica gets is enough."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audio import AudioLimits, RawFormat
from server.audio.incremental import open_intake
from server.audio.raw import Encoding
from server.streaming.checkpoint import (
    Checkpoint,
    Final,
    Unreadable,
    read_checkpoint,
    read_final,
)
from server.streaming.decisions import Bookmark, Segment
from server.streaming.plan import Marks, Speech, Windows, segmenter_for
from server.streaming.voice import FRAME, VoiceRule

LIMITS = AudioLimits(max_bytes=2**20, max_seconds=60)
RULE = VoiceRule(threshold=0.5, min_speech=3 * FRAME, end_silence=6 * FRAME)
KINDS = {
    "windows": Windows(8_000, 3_000),
    "marks": Marks(20_000),
    "speech": Speech(RULE, 20 * FRAME),
}


class Loudness:
    """Hears the first sample of a frame, and whether the frame before was loud too."""

    def __init__(self) -> None:
        self.state = np.zeros(1, np.float32)

    def __call__(self, frame) -> float:
        before, self.state = self.state, frame[:1].copy()
        return float(0.8 * abs(frame[0]) + 0.2 * abs(before[0]))


def speech(frames: int, seed: int):
    """Stretches of loud and silent frames with faint differences."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.random(frames // 8 + 1) < 0.6, 8)[:frames]
    level = np.where(loud, 0.95, 0.02) + rng.uniform(-0.01, 0.01, frames)
    return np.repeat(level, FRAME).astype(np.float32)


def seen(decided: list) -> list[str]:
    """Decisions as text, so that waveforms can be compared."""
    return [
        f"{one} {one.trigger} {one.start} {one.end} {one.index} {one.revision} "
        f"{one.waveform.sum():.5f} {len(one.waveform)}"
        if isinstance(one, Segment)
        else str(one)
        for one in decided
    ]


@given(
    kind=st.sampled_from(sorted(KINDS)),
    interval=st.sampled_from([0, 1_700]),
    cut=st.integers(0, 120 * FRAME),
    seed=st.integers(0, 5),
)
def test_a_segmenter_that_goes_on_elsewhere_decides_what_the_first_would_have(
    kind, interval, cut, seed
):
    audio = speech(120, seed)
    first = segmenter_for(KINDS[kind], interval, Loudness)
    first.push(audio[:cut])
    bookmark = first.bookmark()

    other = segmenter_for(KINDS[kind], interval, Loudness)
    other.go_on(bookmark)
    went_on = other.push(audio[bookmark.needs :]) + other.finish()

    assert bookmark.needs <= cut
    assert seen(went_on) == seen(first.push(audio[cut:]) + first.finish())


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("sample", [0, 7_000, 15_999])
@pytest.mark.parametrize("marked", [False, True])
def test_samples_come_again_from_any_place_on(rate, sample, marked):
    described = RawFormat(encoding=Encoding.PCM_S16LE, sample_rate_hz=rate)
    data = np.random.default_rng(rate).integers(-9_000, 9_000, 2 * rate).astype("<i2").tobytes()
    first = open_intake(described, LIMITS)
    before = poured(first, data[: 2 * 1_234]) if marked else ""
    start = len(before) + len(first.cut()) if marked else 0  # the resampler starts afresh
    rest = poured(first, data[2 * 1_234 :] if marked else data)

    place = first.place(start + sample)
    other = open_intake(described, LIMITS)
    other.go_on(place, start + sample)
    again = np.concatenate([poured(other, data[2 * place.frame :]), other.cut()])

    assert other.frames == first.frames
    rest = np.concatenate([rest, first.cut()])
    np.testing.assert_allclose(again, rest[sample:], atol=2e-6)


def poured(intake, data: bytes):
    """All that comes of it."""
    intake.offer(data)
    samples = [np.empty(0, np.float32)]
    while (more := intake.take()) is not None:
        samples.append(more)
    return np.concatenate(samples)


def checkpoint(**changes) -> Checkpoint:
    values = {
        "identity": "a", "tenant": "b", "config": "c", "model": "d", "started_at": 1e9 + 0.25,
        "finals": 3, "processed": 900, "final": 800, "frame": 700, "sample": 600,
        "bookmark": Bookmark(650, (1, -1, 3), np.array([0.1, -2.5], np.float32)),
    }  # fmt: skip
    return Checkpoint(**values | changes)


def test_a_checkpoint_is_the_same_after_its_journey():
    sent = checkpoint()

    got = read_checkpoint(sent.to_bytes())

    assert got.to_bytes() == sent.to_bytes()
    assert (got.bookmark.needs, got.bookmark.numbers) == (650, (1, -1, 3))
    assert got.bookmark.ear.tolist() == sent.bookmark.ear.tolist()
    assert read_checkpoint(checkpoint(bookmark=Bookmark(0, ())).to_bytes()).bookmark.ear is None


def test_a_final_result_is_the_same_after_its_journey():
    scores = tuple(np.array([0.1, 0.7, 0.2], np.float32).tolist())
    sent = Final(5, 9_000_000_000, scores, b"answer")

    assert read_final(sent.to_bytes(), labels=3) == sent


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"no json", json.dumps({"version": 2}).encode(), b"[1]"]
)
def test_what_another_version_wrote_is_not_read(data):
    with pytest.raises(Unreadable):
        read_checkpoint(data)


def test_a_final_result_that_was_cut_short_is_not_read():
    with pytest.raises(Unreadable):
        read_final(b"x" * 20, labels=9)
