"""Where speech begins and ends, and what is said of a session at its end."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import speech_emotion_client
from hypothesis import given
from hypothesis import strategies as st

from server.streaming.decisions import SpeechEnded, SpeechStarted, Trigger
from server.streaming.pace import BURST, Pace
from server.streaming.plan import Speech, segmenter_for
from server.streaming.silero import Silero
from server.streaming.timeline import Timeline
from server.streaming.voice import FRAME, PADDING, VoiceRule

SAMPLE = Path(speech_emotion_client.__file__).with_name("samples") / "agitated.flac"
RULE = VoiceRule(threshold=0.5, min_speech=3 * FRAME, end_silence=6 * FRAME)


def listen(*frames: tuple[int, float], longest: int = 100 * FRAME, interval: int = 0):
    """Decisions about so many frames of each probability; the waveform is the probability."""
    audio = np.concatenate([np.full(n * FRAME, level, np.float32) for n, level in frames])
    segmenter = segmenter_for(
        Speech(RULE, longest), interval, lambda: lambda frame: float(frame[0])
    )
    return segmenter.push(audio) + segmenter.finish()


def test_speech_between_silences_is_one_segment_with_its_soft_edges():
    decided = listen((10, 0.0), (20, 0.9), (10, 0.0))

    started, segment, ended = decided
    assert started == SpeechStarted(10 * FRAME - PADDING)
    assert (segment.start, segment.end) == (10 * FRAME - PADDING, 30 * FRAME + PADDING)
    assert segment.trigger is Trigger.SPEECH_END
    assert ended == SpeechEnded(segment.end)


def test_a_click_is_not_speech():
    assert listen((10, 0.0), (2, 0.9), (10, 0.0)) == []


def test_a_short_pause_does_not_end_a_segment():
    decided = listen((5, 0.9), (5, 0.0), (5, 0.9), (8, 0.0))

    assert len(decided) == 3


def test_speech_that_grows_unsure_goes_on_until_it_is_well_below_the_threshold():
    decided = listen((5, 0.9), (20, 0.4), (8, 0.3))

    assert decided[1].end == 25 * FRAME + PADDING


def test_speech_at_the_end_of_the_audio_is_ended_with_it():
    decided = listen((10, 0.0), (20, 0.9))

    assert (decided[1].end, decided[1].trigger) == (30 * FRAME, Trigger.FINISH)
    assert decided[2] == SpeechEnded(30 * FRAME)


def test_a_pause_at_the_end_of_the_audio_is_not_analysed():
    decided = listen((20, 0.9), (5, 0.0))

    assert decided[1].end == 20 * FRAME + PADDING


def test_long_speech_is_cut_without_a_gap_and_without_a_second_start():
    decided = listen((50, 0.9), (10, 0.0), longest=20 * FRAME)

    segments = [one for one in decided if hasattr(one, "waveform")]
    assert [(one.start, one.end) for one in segments] == [
        (0, 20 * FRAME), (20 * FRAME, 40 * FRAME), (40 * FRAME, 50 * FRAME + PADDING),
    ]  # fmt: skip
    assert sum(isinstance(one, SpeechStarted) for one in decided) == 1
    assert [one.index for one in segments] == [0, 1, 2]


def test_neighbouring_segments_share_no_sample():
    decided = listen((5, 0.9), (6, 0.0), (5, 0.9), (6, 0.0))

    first, second = (one for one in decided if hasattr(one, "waveform"))
    assert first.end <= second.start


def test_an_interim_is_sent_while_speech_goes_on_and_not_in_its_pauses():
    decided = listen((20, 0.9), (5, 0.0), (1, 0.9), (10, 0.0), interval=4 * FRAME)

    interims = [one.end for one in decided if hasattr(one, "final") and not one.final]
    assert interims == [4 * FRAME * n for n in (1, 2, 3, 4, 5, 7)]  # 24 frames end in the pause


@given(st.lists(st.floats(0, 1), max_size=120))
def test_every_start_has_an_end_and_every_segment_lies_between(probabilities):
    audio = np.repeat(np.array(probabilities, np.float32), FRAME)
    segmenter = segmenter_for(
        Speech(RULE, 30 * FRAME), 2 * FRAME, lambda: lambda frame: float(frame[0])
    )

    decided = segmenter.push(audio) + segmenter.finish()

    begun, last = None, 0
    for one in decided:
        if isinstance(one, SpeechStarted):
            assert begun is None
            assert one.at >= last
            begun = one.at
        elif isinstance(one, SpeechEnded):
            assert begun is not None
            assert last <= one.at <= len(audio)
            begun = None
        elif one.final:
            assert begun is not None
            assert last <= one.start < one.end <= len(audio)
            last = one.end
    assert begun is None


def test_silero_hears_no_speech_in_silence_and_two_ears_hear_alike():
    noise = np.random.default_rng(1).normal(0, 1e-3, (20, FRAME)).astype(np.float32)
    one, other = Silero(), Silero()

    heard = [one(frame) for frame in noise]

    assert max(heard) < 0.5
    assert [other(frame) for frame in noise] == heard


def test_silero_says_what_its_authors_model_says():
    # silero_vad 6.2.3, data/silero_vad.jit, of every fourth frame
    official = [
        0.6814, 0.9251, 0.9, 0.0728, 0.9574, 0.9945, 0.9977, 0.9866, 0.9774, 0.9996, 0.9986,
        0.9374, 0.1822, 0.9963, 0.9999, 0.9987, 0.9998, 0.9999, 0.9999, 0.9999, 0.7851,
    ]  # fmt: skip
    audio, _ = soundfile.read(SAMPLE, dtype="float32")
    ear = Silero()

    heard = [ear(frame) for frame in audio[: 82 * FRAME].reshape(82, FRAME)]

    assert heard[::4] == pytest.approx(official, abs=0.01)


def test_an_ear_goes_on_with_the_state_of_another():
    noise = np.random.default_rng(1).normal(0, 0.1, (30, FRAME)).astype(np.float32)
    one, other = Silero(), Silero()
    for frame in noise[:15]:
        one(frame)

    other.state = one.state

    assert [other(frame) for frame in noise[15:]] == [one(frame) for frame in noise[15:]]


def test_the_whole_is_the_mean_of_the_segments_weighted_by_their_length():
    timeline = Timeline(2)
    timeline.add(0, 300, [0.9, 0.1])
    timeline.add(300, 400, [0.1, 0.9])

    assert timeline.overall() == pytest.approx([0.7, 0.3])
    assert timeline.segments == 2


def test_neighbours_of_one_emotion_are_one_span():
    timeline = Timeline(2)
    timeline.add(0, 100, [0.9, 0.1])
    timeline.add(100, 400, [0.6, 0.4])
    timeline.add(500, 600, [0.6, 0.4])

    assert [(one.start, one.end) for one in timeline.spans] == [(0, 400), (500, 600)]
    assert timeline.spans[0].confidence == pytest.approx(0.675)


def test_where_windows_overlap_the_later_one_counts():
    timeline = Timeline(2)
    timeline.add(0, 200, [1.0, 0.0])
    timeline.add(100, 300, [0.0, 1.0])

    assert [(one.start, one.end, one.emotion) for one in timeline.spans] == [
        (0, 100, 0), (100, 300, 1),
    ]  # fmt: skip
    assert timeline.speech() == 300


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 200), st.integers(0, 2)), min_size=1))
def test_shares_sum_to_one_and_spans_never_overlap(steps):
    timeline, start = Timeline(3), 0
    for hop, length, emotion in steps:
        timeline.add(start, start + length, np.eye(3)[emotion].tolist())
        start += hop

    assert sum(timeline.shares().values()) == pytest.approx(1)
    edges = [edge for span in timeline.spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)


def test_no_segments_have_no_whole():
    assert Timeline(2).overall() is None
    assert Timeline(2).shares() == {}


def test_a_live_sender_is_never_held_up():
    pace = Pace(2.0, now=0.0)

    assert all(pace.spend(0.1, now=0.1 * n) == 0 for n in range(1_000))


def test_a_fast_sender_is_slowed_down_to_the_limit_after_a_burst():
    pace, now, sent = Pace(2.0, now=0.0), 0.0, 0.0

    while sent < 100:
        now += pace.spend(1.0, now)
        sent += 1.0

    assert now == pytest.approx((100 - BURST) / 2)


def test_a_sender_that_is_behind_may_catch_up_at_once_and_only_once():
    pace = Pace(2.0, now=0.0, behind=20.0)

    assert pace.spend(BURST + 20, now=0.0) == 0
    assert pace.spend(BURST, now=1_000.0) == 0
    assert pace.spend(1.0, now=1_000.0) == pytest.approx(0.5)


def test_a_pause_earns_no_more_than_the_burst():
    pace = Pace(2.0, now=0.0)

    assert pace.spend(BURST, now=1_000.0) == 0
    assert pace.spend(1.0, now=1_000.0) == pytest.approx(0.5)
