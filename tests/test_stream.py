"""A stream from its first message to its last, over a real socket."""

import asyncio
import base64
import io
import json
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from speech_emotion_client.samples import samples
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from streams import MARKS, PCM, WINDOWS, Server, Talk, cut, pcm, plain

from server.audio import AudioLimits, Encoding, RawFormat, decode
from server.audio.incremental import open_intake
from server.speech import InvalidInput

LIMITS = AudioLimits()


def encoded(container: str, subtype: str, seconds: float = 2.0, rate: int = 44_100) -> bytes:
    """A file of noise under a low pass, as codecs expect it."""
    noise = np.random.default_rng(2).normal(0, 1, round(rate * seconds))
    wave = np.convolve(noise, np.hanning(64) / 32, "same") * 0.2
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=container, subtype=subtype)
    return file.getvalue()


def drain(intake) -> list:
    pieces = []
    while (piece := intake.take()) is not None:
        pieces.append(piece)
    return pieces


def poured(described, data: bytes, sizes) -> np.ndarray:
    """What comes out of an intake that gets `data` in pieces."""
    intake, pieces, at = open_intake(described, LIMITS), [], 0
    for size in sizes:
        intake.offer(data[at : at + size])
        at += size
        pieces += drain(intake)
    intake.offer(data[at:])
    pieces += drain(intake)
    intake.finish()
    pieces += [*drain(intake), intake.cut()]
    intake.close()
    return np.concatenate(pieces)


async def test_a_stream_tells_its_limits_its_segments_and_a_summary_without_gaps(client):
    talk = Talk(client, fixed_window=WINDOWS)

    summary = await talk.whole(*cut(pcm(2), 3200))

    assert [event.sequence for event in talk.events] == list(range(1, len(talk.events) + 1))
    assert talk.kinds() == ["session_started", *["segment"] * 7, "summary"]
    assert await talk.call.code() is grpc.StatusCode.OK
    assert [(one.start_ms, one.end_ms) for one in talk.finals()] == [
        (250 * n, 250 * n + 500) for n in range(7)
    ]
    assert (summary.segment_count, summary.audio_ms, summary.speech_ms) == (7, 2000, 2000)
    assert summary.metadata.audio.container == "raw"


async def test_the_defaults_are_filled_in_and_told(client):
    started = await Talk(client).open()

    assert started.effective_config.fixed_window == pb.FixedWindow(window_ms=2000, hop_ms=1000)
    assert started.effective_config.pacing == pb.StreamConfig.PACING_REALTIME
    assert started.limits.max_chunk_bytes == 256 * 1024
    assert (started.limits.idle_timeout_ms, started.limits.resume_window_ms) == (30_000, 60_000)
    assert started.next_sample == 0


@given(sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=30))
@effort(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_the_bytes_are_cut_the_events_are_the_same(client, sizes):
    data = pcm(1.3)
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    config = {"fixed_window": WINDOWS, "pacing": pb.StreamConfig.PACING_BULK}
    config["interim_interval_ms"] = 100
    one, other = Talk(client, **config), Talk(client, **config)

    await one.whole(data)
    await other.whole(*filter(None, chunks), data[at:])

    said = [[plain(event) for event in talk.events[1:-1]] for talk in (one, other)]
    for event in said[0] + said[1]:
        event.ClearField("sequence")
    assert said[0] == said[1]
    assert one.of("summary")[0].timeline == other.of("summary")[0].timeline


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("segmentation", [{"client_marks": MARKS}, {"fixed_window": {}}])
async def test_one_segment_over_the_whole_clip_is_the_answer_of_analyze(client, rate, segmentation):
    data, described = pcm(1.5, rate=rate), AudioFormat()
    described.CopyFrom(PCM)
    described.sample_rate_hz = rate
    options = {"granularity": AnalyzeRequest.GRANULARITY_FRAME, "extract_embedding": True}

    talk = Talk(client, audio_format=described, **segmentation, **options)
    await talk.whole(*cut(data, 3200))
    unary = await client.Analyze(AnalyzeRequest(audio_data=data, audio_format=described, **options))

    [final] = talk.finals()
    assert final.result.emotion == unary.emotion
    assert final.result.embedding == unary.embedding
    np.testing.assert_allclose(final.result.frames.scores, unary.frames.scores, atol=1e-6)
    for label, score in unary.scores.items():
        assert final.result.scores[label] == pytest.approx(score, abs=1e-6)


async def test_a_marked_segment_is_the_answer_of_analyze_for_its_own_samples(client):
    described = AudioFormat(encoding=PCM.encoding, sample_rate_hz=22_050)
    first, second = pcm(0.7, rate=22_050), pcm(0.9, rate=22_050, seed=3)
    talk = Talk(client, audio_format=described, client_marks=MARKS)
    await talk.open()

    await talk.audio(first)
    await talk.control("end_segment")
    await talk.until("segment")  # at once: no later audio is needed
    await talk.audio(second)
    await talk.control("finish")
    await talk.until("summary")

    triggers = [one.trigger for one in talk.finals()]
    assert triggers == [pb.SegmentResult.TRIGGER_CLIENT_MARK, pb.SegmentResult.TRIGGER_FINISH]
    for data, segment in zip((first, second), talk.finals(), strict=True):
        unary = await client.Analyze(AnalyzeRequest(audio_data=data, audio_format=described))
        assert dict(segment.result.scores) == pytest.approx(dict(unary.scores), abs=1e-6)


async def test_interims_come_while_a_segment_grows_and_never_after_its_final(client):
    talk = Talk(client, client_marks=MARKS, interim_interval_ms=300)
    await talk.open()

    await talk.audio(pcm(1.0))
    await talk.until("segment", 3)
    await talk.control("finish")
    await talk.until("summary")

    told = [(one.revision, one.is_final, one.end_ms) for one in talk.of("segment")]
    assert told == [(0, False, 300), (1, False, 600), (2, False, 900), (3, True, 1000)]


async def test_silence_is_never_sent_to_the_engine(client, engine):
    voice = pb.VoiceActivity(min_speech_ms=100)

    summary = await (talk := Talk(client, voice_activity=voice)).whole(*cut(bytes(160_000), 8_000))

    assert talk.kinds() == ["session_started", "summary"]
    assert (summary.segment_count, summary.audio_ms, summary.speech_ms) == (0, 5000, 0)
    assert not summary.HasField("overall")
    assert engine.batches == []


async def test_speech_is_told_from_silence_and_each_stretch_is_a_segment_of_its_own(client):
    silence = bytes(2 * 32_000)
    clips = [decode(path.read_bytes(), None, LIMITS).waveform for path in samples()]
    spoken = [(32_767 * clip).astype("<i2").tobytes() for clip in clips]
    audio = silence + spoken[0] + silence + spoken[1] + silence
    voice = pb.VoiceActivity(end_silence_ms=1_000)
    talk = Talk(client, voice_activity=voice, pacing=pb.StreamConfig.PACING_BULK)

    summary = await talk.whole(*cut(audio, 32_000))

    assert talk.kinds()[1:-1] == ["speech_started", "segment", "speech_ended"] * 2
    begin = 2_000
    for clip, segment in zip(clips, talk.finals(), strict=True):
        end = begin + len(clip) // 16
        assert begin - 200 < segment.start_ms < segment.end_ms < end + 200
        assert segment.end_ms - segment.start_ms > 0.75 * (end - begin)
        begin = end + 2_000
    starts = [one.offset_ms for one in talk.of("speech_started")]
    assert starts == [one.start_ms for one in talk.finals()]
    assert summary.speech_ms == sum(one.end_ms - one.start_ms for one in talk.finals())


async def test_the_summary_is_the_mean_of_the_finals_weighted_by_their_length(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.open()
    for seconds in (0.3, 0.9):
        await talk.audio(pcm(seconds, seed=int(10 * seconds)))
        await talk.control("end_segment")
    await talk.control("finish")

    summary = (await talk.until("summary")).summary

    one, other = (segment.result.scores for segment in talk.finals())
    for label, score in summary.overall.scores.items():
        assert score == pytest.approx((one[label] * 300 + other[label] * 900) / 1200)
    assert sum(summary.speech_share.values()) == pytest.approx(1)
    assert summary.timeline[-1].end_ms == 1200


async def test_cursors_never_go_back_and_end_where_the_audio_ends(client):
    described = AudioFormat(encoding=PCM.encoding, sample_rate_hz=8_000, channel_count=2)
    talk = Talk(client, audio_format=described, fixed_window=WINDOWS)

    await talk.whole(*cut(pcm(3.0), 3200))  # 24 000 frames of two channels

    cursors = [event.cursors for event in talk.events]
    for name in ("accepted_sample", "processed_sample", "final_sample"):
        values = [getattr(one, name) for one in cursors]
        assert values == sorted(values)
        assert values[-1] == 24_000
    assert all(one.final_sample <= one.processed_sample <= one.accepted_sample for one in cursors)


async def test_a_file_sent_at_once_has_the_segments_of_a_live_one(client):
    data = pcm(3)
    live = Talk(client, fixed_window=WINDOWS)
    bulk = Talk(client, fixed_window=WINDOWS, pacing=pb.StreamConfig.PACING_BULK)

    await live.whole(*cut(data, 1_600))
    await bulk.whole(data)

    assert [str(one.result) for one in live.finals()] == [str(one.result) for one in bulk.finals()]


async def test_buf_curl_holds_a_whole_session_from_its_standard_input():
    audio = base64.b64encode(pcm(1)).decode()
    described = {"encoding": "ENCODING_PCM_S16LE", "sampleRateHz": 16_000}
    lines = [
        {"config": {"audioFormat": described, "clientMarks": {}}},
        {"audio": {"data": audio}},
        {"control": {"endSegment": {}}},
        {"control": {"finish": {}}},
    ]
    method = "speechemotion.v1.EmotionService/AnalyzeStream"
    async with Server() as server:
        buf = await asyncio.create_subprocess_exec(
            *(Path(sys.executable).parent / "buf", "curl", "--protocol", "grpc"),
            *("--http2-prior-knowledge", "-d", "@-"),
            f"http://{server.address}/{method}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await buf.communicate("\n".join(map(json.dumps, lines)).encode())

    assert buf.returncode == 0
    assert printed.count(b'"sessionStarted"') == printed.count(b'"summary"') == 1
    assert b"TRIGGER_CLIENT_MARK" in printed


async def test_a_half_close_without_finish_is_a_finish_too(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.open()

    await talk.audio(pcm(0.5))
    await talk.call.done_writing()

    assert (await talk.until("summary")).summary.segment_count == 1


async def test_a_mark_too_close_to_the_last_is_a_warning_and_no_error(client):
    talk = Talk(client, client_marks=MARKS)
    await talk.open()

    await talk.audio(pcm(0.02))
    await talk.control("end_segment")

    assert (await talk.until("warning")).warning.code == "AUDIO_TOO_SHORT"


@pytest.mark.parametrize(
    ("container", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
)
async def test_a_file_in_pieces_is_analysed_as_it_comes(client, container, subtype):
    data = encoded(container, subtype)
    talk = Talk(client, audio_format=None, fixed_window=WINDOWS)

    summary = await talk.whole(*cut(data, 1000))

    assert summary.metadata.audio.container.startswith(("flac", "ogg", "mp3"))
    assert summary.audio_ms == pytest.approx(2000, abs=100)
    assert summary.segment_count >= 7


@given(
    st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    st.integers(1, 3),
    st.lists(st.integers(0, 5_000), max_size=20),
)
@effort(max_examples=30)
def test_raw_samples_in_pieces_are_those_of_the_unary_decoder(rate, channels, sizes):
    described = RawFormat(encoding=Encoding.PCM_S16LE, sample_rate_hz=rate, channel_count=channels)
    data = pcm(0.6, rate=rate)
    data = data[: len(data) // (2 * channels) * 2 * channels]

    waveform = poured(described, data, sizes)

    np.testing.assert_array_equal(waveform, decode(data, described, LIMITS).waveform)


@pytest.mark.parametrize(
    ("container", "subtype", "exact"),
    [("FLAC", "PCM_16", True), ("WAV", "PCM_16", True), ("OGG", "VORBIS", False)],
)
@pytest.mark.parametrize("size", [37, 1_000, 100_000])
def test_a_container_in_pieces_is_the_waveform_of_the_unary_decoder(
    container, subtype, exact, size
):
    data = encoded(container, subtype, seconds=1.0)

    waveform = poured(None, data, [size] * (len(data) // size))

    expected = decode(data, None, LIMITS).waveform
    np.testing.assert_allclose(waveform, expected, atol=0 if exact else 1e-4)


def test_a_frame_that_is_cut_in_two_is_put_together_again_and_a_last_half_is_left_out():
    described = RawFormat(encoding=Encoding.PCM_S16LE, sample_rate_hz=16_000, channel_count=2)
    data = pcm(0.1)

    whole = poured(described, data, [])
    odd = poured(described, data + b"\x01", [1, 2, 3])

    np.testing.assert_array_equal(whole, odd)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no audio at all " * 5_000, "FORMAT_REQUIRED"),
        (b"short", "FORMAT_REQUIRED"),
        (b"fLaC" + bytes(300), "AUDIO_UNDECODABLE"),
        (b"\0\0\0\x0cftypM4A \0\0\1\0mdat", "AUDIO_NOT_STREAMABLE"),
    ],
)
def test_what_is_no_audio_is_refused(data, reason):
    with pytest.raises(InvalidInput) as refused:
        poured(None, data, [])

    assert refused.value.reason == reason


def test_a_small_file_that_holds_minutes_is_decoded_no_further_than_it_is_taken():
    file = io.BytesIO()
    soundfile.write(file, np.zeros(44_100 * 120), 44_100, format="FLAC")
    intake = open_intake(None, LIMITS)
    intake.offer(file.getvalue())

    assert intake.take() is not None
    assert intake.frames < 44_100
    intake.close()
    assert intake.take() is None


def test_samples_that_are_no_numbers_are_refused():
    described = RawFormat(encoding=Encoding.PCM_F32LE, sample_rate_hz=16_000)

    with pytest.raises(InvalidInput) as refused:
        poured(described, np.full(100, np.nan, "<f4").tobytes(), [])

    assert refused.value.reason == "AUDIO_NOT_FINITE"
