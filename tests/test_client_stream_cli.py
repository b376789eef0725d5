"""`speech-emotion stream`, and `analyze` of recordings that are too long for one call."""

import asyncio
import csv
import io
import json
import sys
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from rich.console import Console
from speech_emotion_client import FixedWindow, RawFormat, Span
from speech_emotion_client.cli import display, main, microphone, pace, recordings, timeline
from speech_emotion_client.cli.live import SHOWN, LiveView
from speech_emotion_client.result import Notice, Timing
from speech_emotion_client.server import to_stream_limits
from speech_emotion_client.streaming.events import (
    Cursors,
    Draining,
    Heartbeat,
    Segment,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    StreamWarning,
)
from speech_emotion_client.testing import FakeServer, Refusal, Request, Response, happy
from speech_emotion_client.testing.streams import LIMITS
from speech_emotion_client.v1 import audio_pb2
from speech_emotion_client.v1 import emotion_service_pb2 as pb

Run = Callable[..., Result]
AT = Cursors(0, 0, 0)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def run(server: FakeServer) -> Run:
    def invoke(*arguments: object, **settings: Any) -> Result:
        environment = {"SPEECH_EMOTION_SERVER": server.target, "COLUMNS": "100"}
        return CliRunner(env=environment).invoke(main, [str(a) for a in arguments], **settings)

    return invoke


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """3.2 s, as the scripted server counts."""
    path = tmp_path / "speech.ogg"
    path.write_bytes(np.random.default_rng(1).bytes(3200 * 32))
    return path


def recording(path: Path, seconds: float) -> Path:
    """A WAV file of 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.random.default_rng(2).bytes(int(16_000 * seconds)))
    return path


def segment(start: float, end: float, emotion: str = "happy", **changes: Any) -> Segment:
    facts: dict[str, Any] = {
        "cursors": AT, "index": 0, "revision": 0, "is_final": True, "trigger": "window",
        "start": start, "end": end, "emotion": emotion, "confidence": 0.75,
        "scores": {emotion: 0.75, "sad": 0.25}, "frames": None, "embedding": None,
        "timing": Timing(0, 0, 0, 0, 42), "replayed": False,
    }  # fmt: skip
    return Segment(**(facts | changes))


# stream


def test_a_file_is_a_line_a_segment_and_a_summary(run: Run, speech: Path) -> None:
    result = run("stream", speech, "--window", 1)

    assert result.exit_code == 0
    lines = [line.split()[:2] for line in result.stdout.splitlines()[:4]]
    assert lines == [["0.00", "1.00"], ["1.00", "2.00"], ["2.00", "3.00"], ["3.00", "3.20"]]
    assert "3.2 s heard, 3.2 s analysed in 4 segments" in result.stdout
    assert result.stderr == ""


def test_json_is_an_object_an_event(run: Run, server: FakeServer, speech: Path) -> None:
    server.streams.breaks.append(1)

    result = run("stream", speech, "--json", "--interim", 0.5)

    events = [json.loads(line) for line in result.stdout.splitlines()]
    kinds = [each["event"] for each in events]
    assert (kinds[0], kinds[-1], kinds.count("session_started")) == (
        "session_started",
        "summary",
        2,
    )
    first, last = events[0], events[-1]
    assert first["segmentation"] == "windows of 2 s, one every 2 s"
    assert first["limits"]["max_chunk_bytes"] == 2**18
    finals = [each for each in events if each["event"] == "segment"]
    assert [(each["start"], each["end"]) for each in finals] == [(0, 2), (2, 3.2)]
    assert finals[0]["cursors"].keys() == {"accepted", "processed", "final"}
    assert last["timeline"][0]["end"] == 2
    assert server.streams.configs[0].interim_interval_ms == 500
    assert server.streams.configs[0].pacing == pb.StreamConfig.PACING_BULK


def test_what_comes_from_stdin_is_live(run: Run, server: FakeServer) -> None:
    raw = ("--raw-rate", 16_000, "--raw-channels", 2, "--channel", 1)

    result = run("stream", "-", "--vad", *raw, input=bytes(32_000))

    assert result.exit_code == 0
    config = server.streams.configs[0]
    assert (config.audio_format.sample_rate_hz, config.audio_format.channel_index) == (16_000, 1)
    assert config.HasField("voice_activity")
    assert config.pacing == pb.StreamConfig.PACING_REALTIME


def test_a_file_can_be_sent_no_faster_than_it_is_heard(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    result = run("stream", recording(tmp_path / "a.wav", 0.35), "--realtime", "--json")

    assert result.exit_code == 0
    config = server.streams.configs[0]
    assert config.audio_format.encoding == audio_pb2.AudioFormat.ENCODING_PCM_S16LE
    assert config.audio_format.sample_rate_hz == 8000
    assert config.pacing == pb.StreamConfig.PACING_REALTIME
    assert len(server.streams.sessions["session-0"].audio) == 2 * 2800


@pytest.mark.looptime
async def test_each_chunk_comes_when_its_last_sample_was_heard() -> None:
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    chunks = iter([bytes(1600), bytes(800)])

    tape = pace.Tape(RawFormat(8000), chunks, bytes_per_second=16_000)
    times = [loop.time() - began async for _ in pace.paced(tape)]

    assert times == pytest.approx([0.1, 0.15])


def test_raw_samples_are_cut_by_their_rate(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1000))

    tape = pace.tape(tmp_path / "a.raw", RawFormat(4000, "mulaw"))

    assert [len(chunk) for chunk in tape.chunks] == [400, 400, 200]


def test_a_compressed_file_is_cut_by_its_length_and_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.random.default_rng(3).uniform(-0.5, 0.5, 16_000), 8000)

    tape = pace.tape(path, None)
    chunks = list(tape.chunks)

    assert tape.described is None
    assert b"".join(chunks) == path.read_bytes()
    assert sum(map(len, chunks)) / tape.bytes_per_second == pytest.approx(2)
    assert len(chunks) in (20, 21)


async def test_a_stop_ends_the_chunks_and_waits_for_none() -> None:
    stopped = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        yield 1
        stopped.set()
        await asyncio.Event().wait()

    assert [chunk async for chunk in pace.until(endless(), stopped)] == [1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name a FILE or -"),
        (["a.wav", "--microphone"], "Name a FILE or -"),
        (["a.wav", "--vad", "--window", "2"], "--vad has no --window"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(run: Run, arguments: list[str], words: str) -> None:
    result = run("stream", *arguments)

    assert (result.exit_code, words in result.stderr) == (2, True)


def test_what_cannot_be_streamed_is_one_line(
    run: Run, server: FakeServer, speech: Path, tmp_path: Path
) -> None:
    server.streams.refusals.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "This is no audio."))

    refused = run("stream", speech)
    missing = run("stream", tmp_path / "missing.wav")
    opaque = run("stream", speech, "--realtime")
    nobody = run("stream", speech, "--server", "localhost:1")

    assert (refused.exit_code, refused.stderr) == (1, "Error: This is no audio.\n")
    assert missing.stderr == f"Error: {tmp_path}/missing.wav: No such file or directory\n"
    assert f"--realtime cannot decode {speech}" in opaque.stderr
    assert nobody.stderr.startswith("Error: No server answers at localhost:1.")


class Recorder:
    """A sound card whose microphone hears three blocks."""

    PortAudioError = RuntimeError

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.closed = False

    def RawInputStream(self, callback: Callable[..., None], **settings: Any) -> "Recorder":
        self.settings, self._callback = settings, callback
        return self

    def __enter__(self) -> None:
        for level in (b"a", b"b", b"c"):
            self._callback(bytearray(level * 2 * microphone.BLOCK), microphone.BLOCK, None, None)

    def __exit__(self, *exc: object) -> None:
        self.closed = True


async def test_a_microphone_gives_what_it_hears_and_is_closed() -> None:
    card = Recorder()
    heard = microphone.listen(card)

    blocks = [await anext(heard) for _ in range(3)]
    await heard.aclose()  # type: ignore[attr-defined]  # it is a generator

    assert blocks == [level * 2 * microphone.BLOCK for level in (b"a", b"b", b"c")]
    assert (card.settings["samplerate"], card.settings["dtype"]) == (16_000, "int16")
    assert card.closed


def test_without_sounddevice_a_microphone_says_what_to_install(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    result = run("stream", "--microphone")

    assert result.exit_code == 1
    assert "pip install 'speech-emotion-client[microphone]'" in result.stderr
    assert not server.streams.configs


def test_without_a_microphone_the_stream_does_not_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(**_: Any) -> None:
        raise ValueError("no default device")

    card = SimpleNamespace(RawInputStream=none, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", card)

    result = run("stream", "--microphone")

    assert result.exit_code == 1
    assert "No microphone can be opened: no default device" in result.stderr


def seen(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=90)
    console.print(view)
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO


def test_the_live_view_shows_label_bars_timeline_and_lag() -> None:
    view = LiveView("call.wav")
    started = SessionStarted(
        cursors=AT,
        session_id="s",
        segmentation=FixedWindow(2, 1),
        limits=to_stream_limits(LIMITS),
        resumed=True,
    )
    for event in (started, segment(0, 2), segment(1, 3, "angry")):
        view.update(event)

    shown = seen(view)

    for fact in ("call.wav  listening", "ANGRY  75%  1.0 to 3.0 s", "lag 42 ms", "2 segments"):
        assert fact in shown
    assert "HHHHHHHHHHHHHHHHHHHH" + "A" * 40 in shown
    assert "resumed 1 times" in shown


def test_the_live_view_says_what_happens() -> None:
    view = LiveView("call.wav")
    states = []
    for event in (
        SpeechStarted(cursors=AT, time=1),
        SpeechEnded(cursors=AT, time=2),
        Draining(cursors=AT, grace=1),
    ):
        view.update(event)
        states.append(seen(view).splitlines()[1].strip())
    view.update(Heartbeat(cursors=AT, lag=0.5))
    view.update(StreamWarning(cursors=AT, notice=Notice("INTERIMS_SKIPPED", "Late.")))
    view.update(segment(2, 2.5, is_final=False))

    assert [state.partition("  ")[2] for state in states] == [
        "speech",
        "silence",
        "the server stops; moving",
    ]
    assert "! Late." in seen(view)
    assert "2.0 to 2.5 s, still growing" in seen(view)


def test_the_live_view_keeps_no_more_than_it_shows() -> None:
    view = LiveView("call.wav")

    for second in range(1000):
        view.update(segment(second, second + 1))

    assert len(view._spans) <= SHOWN + 1


# Long recordings


def test_a_recording_that_is_too_long_for_one_call_is_streamed(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    path = recording(tmp_path / "lecture.wav", 61)

    result = run("analyze", path)

    assert result.exit_code == 0
    assert not server.requests
    assert server.streams.configs[0].pacing == pb.StreamConfig.PACING_BULK
    assert bytes(server.streams.sessions["session-0"].audio) == path.read_bytes()
    assert "Analysed in windows of 2 s, one every 2 s, not as a whole" in result.stdout


def test_without_soundfile_the_server_says_what_is_too_long(
    run: Run, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Request) -> Response:
        code = grpc.StatusCode.INVALID_ARGUMENT
        raise Refusal(code, "Too long.", reason="AUDIO_TOO_LONG")

    server.answer = refuse
    monkeypatch.setattr(recordings, "find_spec", lambda _: None)

    result = run("analyze", recording(tmp_path / "lecture.wav", 61), "--json")

    answer = json.loads(result.stdout)
    assert (result.exit_code, len(server.requests)) == (0, 1)
    assert answer["segmentation"] == "windows of 2 s, one every 2 s"
    assert answer["timeline"][-1]["end"] == pytest.approx(recording_ms(tmp_path) / 1000, abs=1e-3)


def recording_ms(folder: Path) -> float:
    """What the scripted server makes of the file's bytes."""
    return (folder / "lecture.wav").stat().st_size / 32


def test_what_is_too_long_on_stdin_stays_an_error(run: Run, server: FakeServer) -> None:
    def refuse(_: Request) -> Response:
        code = grpc.StatusCode.INVALID_ARGUMENT
        raise Refusal(code, "Too long.", reason="AUDIO_TOO_LONG")

    server.answer = refuse

    result = run("analyze", "-", input=b"speech")

    assert (result.exit_code, server.streams.configs) == (1, [])
    assert "AUDIO_TOO_LONG" in result.stderr


def test_short_and_long_ones_go_together(run: Run, server: FakeServer, tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 70)
    (tmp_path / "b.wav").write_bytes(b"short")

    result = run("analyze", tmp_path, "--csv")

    short, long = csv.DictReader(io.StringIO(result.stdout))
    assert (Path(short["file"]).name, short["segmentation"]) == ("b.wav", "")
    assert (Path(long["file"]).name, long["segmentation"]) == (
        "a.wav",
        "windows of 2 s, one every 2 s",
    )
    assert [each.audio_data for each in server.requests] == [b"short"]


def test_frames_of_a_recording_are_its_segments(run: Run, speech: Path) -> None:
    arguments = ("--window", 1, "--granularity", "frame", "--json")

    frames = json.loads(run("analyze", speech, *arguments).stdout)["frames"]

    assert frames["times"] == [0.5, 1.5, 2.5, 3.1]
    assert [sum(row) for row in frames["scores"]] == [1, 1, 1, 1]


def test_a_recording_can_be_plotted(run: Run, speech: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    result = run("analyze", speech, "--window", 1, "--plot", tmp_path / "out.png")

    assert result.exit_code == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def saved(run: Run, speech: Path, suffix: str) -> str:
    path = speech.with_suffix(suffix)
    result = run("analyze", speech, "--window", 1, "--timeline", path)
    assert result.exit_code == 0, result.output
    assert f"saved {path}" in result.stdout
    return path.read_text()


def test_a_timeline_as_json_says_how_it_was_made(run: Run, speech: Path) -> None:
    body = json.loads(saved(run, speech, ".json"))

    assert body["segmentation"] == "windows of 1 s, one every 1 s"
    assert [(each["start"], each["end"]) for each in body["timeline"]][-1] == (3, 3.2)
    assert sum(body["scores"].values()) == pytest.approx(1)


def test_a_timeline_as_csv_is_a_row_a_span(run: Run, speech: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(saved(run, speech, ".csv"))))

    assert [row["start_s"] for row in rows] == ["0.0", "1.0", "2.0", "3.0"]
    assert rows[0]["segmentation"] == "windows of 1 s, one every 1 s"


def test_a_timeline_as_subtitles_is_a_cue_a_span(run: Run, speech: Path) -> None:
    head, note, *cues = saved(run, speech, ".vtt").strip().split("\n\n")

    assert head == "WEBVTT"
    assert note == "NOTE speech.ogg: emotions of windows of 1 s, one every 1 s"
    assert [cue.splitlines()[0] for cue in cues][1:3] == [
        "00:00:01.000 --> 00:00:02.000",
        "00:00:02.000 --> 00:00:03.000",
    ]


def test_a_timeline_as_rttm_has_ten_fields_a_line(run: Run, speech: Path) -> None:
    comment, *lines = saved(run, speech, ".rttm").splitlines()

    assert comment == ";; emotions of windows of 1 s, one every 1 s"
    assert [len(line.split()) for line in lines] == [10] * 4
    assert lines[3].split()[:5] == ["SPEAKER", "speech", "1", "3.000", "0.200"]


def test_an_unknown_format_of_a_timeline_is_exit_code_2(run: Run, speech: Path) -> None:
    assert run("analyze", speech, "--timeline", "out.srt").exit_code == 2


def test_a_clock_has_hours() -> None:
    assert timeline.clock(3 * 3600 + 25 * 60 + 45.6789) == "03:25:45.679"


def test_a_strip_leaves_silence_open() -> None:
    spans = [Span(0, 1, "happy", 0.5), Span(3, 4, "sad", 0.5)]
    console = Console(file=io.StringIO(), width=40)

    console.print(display.span_strip(spans, 0, 4, width=8))

    assert console.file.getvalue().startswith("HH····SS")  # type: ignore[attr-defined]


def test_a_recording_that_breaks_off_is_an_outcome_like_others(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    recording(tmp_path / "a.wav", 70)
    (tmp_path / "b.wav").write_bytes(b"short")
    server.answer = happy
    server.streams.refusals.append(
        Refusal(grpc.StatusCode.ABORTED, "Enough.", reason="STREAM_MAX_DURATION")
    )

    result = run("analyze", tmp_path, "--json")

    good, bad = (json.loads(line) for line in result.stdout.splitlines())
    assert (result.exit_code, good["emotion"]) == (1, "happy")
    assert (bad["error"]["type"], bad["error"]["reason"]) == (
        "StreamAborted",
        "STREAM_MAX_DURATION",
    )
