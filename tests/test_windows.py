"""Cutting audio into segments: however it is cut into pieces, the segments are the same."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.streaming.decisions import Segment, TooShort, Trigger
from server.streaming.plan import Marks, Speech, Windows, segmenter_for
from server.streaming.tape import Tape
from server.streaming.voice import FRAME, VoiceRule

RULE = VoiceRule(threshold=0.5, min_speech=1024, end_silence=2048)


def ramp(samples: int) -> np.ndarray:
    """No two samples are alike, so that a segment shows where it is from."""
    return np.arange(samples, dtype=np.float32)


def loudness(frame: np.ndarray) -> float:
    """An ear that takes what is loud for speech."""
    return float(np.abs(frame).max() > 0.5)


def bursts(*frames: tuple[int, float]) -> np.ndarray:
    """So many frames of each level."""
    return np.concatenate([np.full(count * FRAME, level, np.float32) for count, level in frames])


def decide(segmenter, audio, cuts=()):
    """Every decision, with the waveform as bytes so that they compare."""
    decided = []
    edges = [0, *sorted(cut % (len(audio) + 1) for cut in cuts), len(audio)]
    for start, end in pairwise(edges):
        decided += segmenter.push(audio[start:end])
    return [plain(one) for one in decided + segmenter.finish()]


def plain(decision):
    if not isinstance(decision, Segment):
        return decision
    return (
        decision.index, decision.revision, decision.final, decision.trigger, decision.start,
        decision.end, decision.waveform.tobytes(),
    )  # fmt: skip


def spans(decided, *, final: bool = True):
    return [one[4:6] for one in decided if isinstance(one, tuple) and one[2] is final]


cuts = st.lists(st.integers(0, 40_000), max_size=12)


@given(cuts, st.sampled_from([0, 1600, 3000]))
def test_windows_do_not_depend_on_how_the_audio_was_cut(cuts, interval):
    audio = ramp(20_123)
    plan = Windows(8_000, 3_000)

    whole = decide(segmenter_for(plan, interval, lambda: loudness), audio)
    pieces = decide(segmenter_for(plan, interval, lambda: loudness), audio, cuts)

    assert pieces == whole


@given(cuts, st.sampled_from([0, 1600]))
def test_speech_segments_do_not_depend_on_how_the_audio_was_cut(cuts, interval):
    audio = bursts((5, 0), (9, 0.9), (2, 0), (4, 0.9), (8, 0), (20, 0.9), (3, 0))[:-100]
    plan = Speech(RULE, 12 * FRAME)

    whole = decide(segmenter_for(plan, interval, lambda: loudness), audio)
    pieces = decide(segmenter_for(plan, interval, lambda: loudness), audio, cuts)

    assert pieces == whole


@given(cuts, st.integers(0, 20_000), st.integers(0, 20_000))
def test_marked_segments_do_not_depend_on_how_the_audio_was_cut(cuts, one, other):
    audio = ramp(20_000)
    plan = Marks(7_000)

    def run(pieces):
        segmenter, decided, at = segmenter_for(plan, 1_500, lambda: loudness), [], 0
        for mark in sorted((one, other)):
            for cut in [*(c for c in sorted(pieces) if at < c < mark), mark]:
                decided += segmenter.push(audio[at:cut])
                at = cut
            decided += segmenter.mark()
        return [plain(d) for d in [*decided, *segmenter.push(audio[at:]), *segmenter.finish()]]

    assert run(cuts) == run([])


@given(st.integers(1, 60_000), st.integers(400, 9_000), st.integers(400, 9_000))
def test_windows_cover_every_sample_that_the_model_can_hear(samples, window, hop):
    hop = min(hop, window)

    decided = decide(segmenter_for(Windows(window, hop), 0, lambda: loudness), ramp(samples))

    covered = np.zeros(samples, bool)
    for start, end in spans(decided):
        covered[start:end] = True
    missed = [one for one in decided if isinstance(one, TooShort)]
    for one in missed:
        assert one.end - one.start < 400
        covered[one.start : one.end] = True
    assert covered.all()
    assert len(missed) <= 1


def test_a_window_holds_the_very_samples_of_its_span():
    audio = ramp(50_000)

    decided = decide(segmenter_for(Windows(4_000, 1_000), 0, lambda: loudness), audio, range(99))

    for start, end in spans(decided):
        [found] = [one[6] for one in decided if one[4:6] == (start, end)]
        assert found == audio[start:end].tobytes()


def test_the_last_window_is_shorter_and_says_that_the_audio_was_over():
    segmenter = segmenter_for(Windows(2_000, 1_000), 0, lambda: loudness)

    decided = decide(segmenter, ramp(3_500))

    assert [(one[4], one[5], one[3]) for one in decided] == [
        (0, 2_000, Trigger.WINDOW), (1_000, 3_000, Trigger.WINDOW), (2_000, 3_500, Trigger.FINISH),
    ]  # fmt: skip


def test_an_interim_shows_only_what_no_final_has_shown():
    segmenter = segmenter_for(Windows(2_000, 1_000), 500, lambda: loudness)

    decided = decide(segmenter, ramp(4_000))

    assert spans(decided, final=False) == [
        (0, 500), (0, 1_000), (0, 1_500), (1_000, 2_500), (2_000, 3_500),
    ]  # fmt: skip


def test_revisions_rise_within_a_segment_and_the_final_has_the_highest():
    segmenter = segmenter_for(Marks(60_000), 1_000, lambda: loudness)

    decided = segmenter.push(ramp(2_500)) + segmenter.mark()

    assert [(one.index, one.revision, one.final) for one in decided] == [
        (0, 0, False), (0, 1, False), (0, 2, True),
    ]  # fmt: skip


def test_a_mark_given_twice_at_one_place_ends_one_segment():
    segmenter = segmenter_for(Marks(60_000), 0, lambda: loudness)
    segmenter.push(ramp(2_000))

    assert len(segmenter.mark()) == 1
    assert segmenter.mark() == []


def test_without_a_mark_a_segment_is_cut_at_its_longest():
    decided = decide(segmenter_for(Marks(3_000), 0, lambda: loudness), ramp(7_000))

    assert spans(decided) == [(0, 3_000), (3_000, 6_000), (6_000, 7_000)]
    assert [one[3] for one in decided[:2]] == [Trigger.MAX_LENGTH] * 2


def test_a_stretch_in_which_the_model_hears_nothing_is_named_and_not_analysed():
    segmenter = segmenter_for(Marks(3_000), 0, lambda: loudness)
    segmenter.push(ramp(399))

    assert segmenter.mark() == [TooShort(0, 399)]


@pytest.mark.parametrize("plan", [Windows(800, 400), Marks(800), Speech(RULE, 16_000)])
def test_no_audio_makes_no_segment(plan):
    assert segmenter_for(plan, 400, lambda: loudness).finish() == []


@given(st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 30_000)), max_size=20))
def test_a_tape_returns_what_was_put_on_it(steps):
    tape, audio, at = Tape(), ramp(600_000), 0

    for count, back in steps:
        tape.append(audio[at : at + count])
        at += count
        tape.forget(at - back)
        start = max(tape.start, at - back)
        np.testing.assert_array_equal(tape.take(start, at), audio[start:at])
