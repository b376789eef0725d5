"""AnalyzeUpload: files in pieces, and files that are longer than one analysis."""

import asyncio
import hashlib
import io
from collections.abc import Iterator

import av
import grpc
import numpy as np
import pytest
import soundfile
from google.api.httpbody_pb2 import HttpBody
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat

from server.config import Settings

FRAME = pb.AnalyzeRequest.GRANULARITY_FRAME
MULAW = AudioFormat(encoding=AudioFormat.ENCODING_MULAW, sample_rate_hz=8_000)
CACHED_ONLY = pb.AnalyzeOptions(cache_mode=pb.AnalyzeOptions.CACHE_MODE_ONLY)
PIECE = 10_000
WAV_HEAD = (
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data"
    b"\xff\xff\xff\xff"
)


@pytest.fixture
def settings() -> Settings:
    """An analysis takes 2 s or 100 kB; what is more is cut into windows of 1 s, one each 0.5 s.

    Of these more are under way at a time than the queue takes.
    """
    return Settings(
        port=0,
        max_audio_seconds=2,
        max_audio_bytes=100_000,
        max_upload_bytes=1_000_000,
        max_long_uploads=1,
        stream_window_ms=1000,
        stream_hop_ms=500,
        stream_idle_seconds=1,
        max_frame_embedding_seconds=2,
        max_stream_seconds=124,
        max_stream_pending=8,
        max_queue_size=4,
        max_batch_size=1,
        queue_delay_ms=1,
    )


@pytest.fixture
def speech():
    """Makes a WAV file that sounds different every quarter of a second."""

    def make(seconds: float, *, kind: str = "WAV") -> bytes:
        times = np.arange(round(16_000 * seconds)) / 16_000
        wave = np.sin(2 * np.pi * 220 * times) * (0.1 + 0.8 * (np.floor(4 * times) % 7) / 7)
        file = io.BytesIO()
        soundfile.write(file, wave, 16_000, format=kind, subtype="PCM_16")
        return file.getvalue()

    return make


@pytest.fixture
def m4a(tmp_path):
    """Makes a file of 5 s, with its index behind the audio, as FFmpeg does, or in front."""

    def make(*, in_front: bool = False) -> bytes:
        path = tmp_path / "speech.m4a"
        options = {"movflags": "faststart"} if in_front else {}
        with av.open(path, "w", format="mp4", options=options) as out:
            track = out.add_stream("aac", rate=16_000, layout="mono")
            wave = np.sin(np.arange(80_000) / 20).astype(np.float32).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
            frame.sample_rate = 16_000
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
        return path.read_bytes()

    return make


def upload(data: bytes, piece: int = PIECE, **options) -> Iterator[pb.AnalyzeUploadRequest]:
    """The messages of a file; the first has the options."""
    for at in range(0, max(1, len(data)), piece):
        audio = HttpBody(data=data[at : at + piece])
        yield pb.AnalyzeUploadRequest(audio=audio, **(options if at == 0 else {}))


def without_metadata(answer: pb.AnalyzeResponse) -> pb.AnalyzeResponse:
    copy = pb.AnalyzeResponse()
    copy.CopyFrom(answer)
    copy.ClearField("metadata")
    return copy


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


@pytest.mark.parametrize("piece", [1000, 10**6])
async def test_what_analyze_would_take_gets_the_answer_of_analyze(client, speech, piece):
    data = speech(1.9)
    options = {"granularity": FRAME, "extract_embedding": True}

    answer = await client.AnalyzeUpload(upload(data, piece, **options))
    whole = await client.Analyze(pb.AnalyzeRequest(audio_data=data, **options))

    assert without_metadata(answer) == without_metadata(whole)
    assert answer.metadata.audio == whole.metadata.audio
    assert not answer.HasField("windowed")


async def test_a_file_may_come_as_one_message_of_a_unary_call(channel, client, speech):
    data = speech(1.0)
    unary = channel.unary_unary(
        "/speechemotion.v1.EmotionService/AnalyzeUpload",
        pb.AnalyzeUploadRequest.SerializeToString,
        pb.AnalyzeResponse.FromString,
    )

    answer = await unary(next(upload(data, len(data))))

    assert answer.scores == (await client.Analyze(pb.AnalyzeRequest(audio_data=data))).scores


@pytest.mark.parametrize("seconds", [2.6, 5.3])  # too long; too large as well
async def test_a_longer_file_is_answered_as_a_stream_of_the_same_windows(client, speech, seconds):
    data = speech(seconds)
    config = pb.StreamConfig(pacing=pb.StreamConfig.PACING_BULK)

    answer = await client.AnalyzeUpload(upload(data))
    messages = [
        pb.AnalyzeStreamRequest(config=config),
        *(
            pb.AnalyzeStreamRequest(audio=pb.AudioChunk(data=data[at : at + PIECE]))
            for at in range(0, len(data), PIECE)
        ),
        pb.AnalyzeStreamRequest(control=pb.StreamControl(finish=pb.Finish())),
    ]
    events = [event async for event in client.AnalyzeStream(iter(messages))]
    summary = events[-1].summary

    assert answer.scores == pytest.approx(summary.overall.scores)
    assert answer.emotion == summary.overall.emotion
    assert list(answer.windowed.timeline) == list(summary.timeline)
    assert answer.windowed.window_count == summary.segment_count > 2
    assert answer.windowed.fixed_window == pb.FixedWindow(window_ms=1000, hop_ms=500)


async def test_how_the_bytes_are_cut_leaves_no_trace(client, speech):
    data = speech(5.0)

    answers = [await client.AnalyzeUpload(upload(data, piece)) for piece in (777, 10**6)]

    assert without_metadata(answers[0]) == without_metadata(answers[1])
    assert answers[0].metadata.audio == answers[1].metadata.audio


async def test_a_long_answer_says_what_was_heard(client, speech):
    data, wish = speech(3.0), pb.AnalyzeOptions(content_digest=True)

    audio = (await client.AnalyzeUpload(upload(data, options=wish))).metadata.audio

    assert (audio.duration_ms, audio.model_sample_count, audio.container) == (3000, 48_000, "wav")
    assert audio.content_sha256 == hashlib.sha256(data).hexdigest()


async def test_every_window_has_a_row_where_frames_are_asked_for(client, speech):
    options = {"granularity": FRAME, "extract_embedding": True}

    answer = await client.AnalyzeUpload(upload(speech(3.0), **options))
    mean = await client.AnalyzeUpload(upload(speech(3.0), extract_embedding=True))

    frames = answer.frames
    assert (frames.frame_count, frames.frame_period_ms, frames.first_frame_offset_ms) == (
        5, 500, 500,
    )  # fmt: skip
    assert list(answer.embedding.shape) == [5, 8]
    rows = np.frombuffer(answer.embedding.data, "<f4").reshape(5, 8)
    np.testing.assert_allclose(np.frombuffer(mean.embedding.data, "<f4"), rows.mean(0), rtol=1e-5)


async def test_more_rows_of_embeddings_than_fit_an_answer_are_refused(client, reports):
    data = bytes(range(256)) * 3750  # 120 s, 239 windows; 100 embeddings fit
    options = {"granularity": FRAME, "extract_embedding": True, "audio_format": MULAW}

    error = await refused(client.AnalyzeUpload(upload(data, **options)))
    stride = pb.AnalyzeOptions(frame_stride=3)
    answer = await client.AnalyzeUpload(upload(data, **options, options=stride))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reports[0].reason == "EMBEDDING_TOO_LARGE"
    assert list(answer.embedding.shape) == [80, 8]
    assert (answer.frames.frame_count, answer.frames.frame_period_ms) == (80, 1500)
    assert "RESAMPLED_FROM_LOW_RATE" in {one.code for one in answer.metadata.warnings}


async def test_raw_samples_are_cut_as_well(client, speech):
    wav = speech(3.0)
    described = AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=16_000)

    raw = await client.AnalyzeUpload(upload(wav[44:], audio_format=described))
    file = await client.AnalyzeUpload(upload(wav))

    assert raw.scores == file.scores


@pytest.mark.parametrize(
    ("data", "options", "code", "reason"),
    [
        (b"", {}, "INVALID_ARGUMENT", "AUDIO_EMPTY"),
        (b"no audio" * 20_000, {}, "INVALID_ARGUMENT", "FORMAT_REQUIRED"),
        (WAV_HEAD + bytes(1_000_000), {}, "INVALID_ARGUMENT", "AUDIO_TOO_LARGE"),
        (bytes(125 * 8_000), {"audio_format": MULAW}, "INVALID_ARGUMENT", "AUDIO_TOO_LONG"),
        (b"RIFF", {"options": CACHED_ONLY}, "FAILED_PRECONDITION", "CACHE_MISS"),
        (b"RIFF", {"model": "models/none"}, "NOT_FOUND", "MODEL_NOT_FOUND"),
    ],
)
async def test_what_cannot_be_answered_is_refused(client, reports, data, options, code, reason):
    error = await refused(client.AnalyzeUpload(upload(data, **options)))

    assert error.code() is grpc.StatusCode[code]
    assert reports[-1].reason == reason


async def test_a_file_that_breaks_off_is_answered_as_far_as_it_goes(client, speech):
    whole = speech(5.0, kind="FLAC")
    data = whole[: len(whole) // 2] + b"\x00" * 4000

    answer = await client.AnalyzeUpload(upload(data))

    assert "AUDIO_TRUNCATED" in {warning.code for warning in answer.metadata.warnings}
    assert 2000 < answer.metadata.audio.duration_ms < 3500


@pytest.mark.parametrize("where", ["behind", "in front"])
async def test_an_m4a_is_answered_wherever_its_index_is(client, m4a, where):
    data = m4a(in_front=where == "in front")

    answer = await client.AnalyzeUpload(upload(data, 1000))

    audio = answer.metadata.audio
    assert (audio.container, audio.source_sample_rate_hz) == ("m4a", 16_000)
    assert audio.duration_ms == pytest.approx(5000, abs=200)
    assert answer.windowed.window_count == pytest.approx(9, abs=1)
    assert not answer.metadata.warnings


async def test_a_disk_without_room_for_a_file_is_told_to_its_caller(
    client, m4a, speech, reports, monkeypatch
):
    def full(*args, **options):  # noqa: ARG001 - a disk is full for whoever writes
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr("server.audio.spool.TemporaryFile", full)

    error = await refused(client.AnalyzeUpload(upload(m4a())))
    answer = await client.AnalyzeUpload(upload(speech(3.0)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reports[0].reason == "DISK_FULL"
    assert answer.windowed.window_count == 5


async def test_who_goes_in_the_middle_frees_his_place(client, speech, engine, reports):
    data = speech(5.0)

    async def half():
        for message in list(upload(data))[:-2]:
            yield message
        await asyncio.Event().wait()

    call = client.AnalyzeUpload(half())
    while not engine.batches:
        await asyncio.sleep(0.01)
    refusal = await refused(client.AnalyzeUpload(upload(data)))  # of max_long_uploads there is one
    call.cancel()
    while "CANCELLED" not in {report.code for report in reports}:
        await asyncio.sleep(0.01)
    answer = await client.AnalyzeUpload(upload(data))

    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer.windowed.window_count == 9


async def test_who_only_holds_the_line_is_cut_off(client, speech, reports):
    async def half():
        yield next(upload(speech(1.0)))
        await asyncio.Event().wait()

    error = await refused(client.AnalyzeUpload(half()))

    assert error.code() is grpc.StatusCode.ABORTED
    assert reports[-1].reason == "STREAM_IDLE"
