"""The command `speech-emotion`, run in this process against a real gRPC server."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from speech_emotion_client import (
    Outcome,
    Overloaded,
    ServerError,
    SpeechEmotionError,
    samples,
)
from speech_emotion_client.cli import display, main, palette, plot
from speech_emotion_client.cli.analyze import bar_console, with_progress
from speech_emotion_client.cli.inputs import Input, outputs
from speech_emotion_client.testing import FRAMES, MODEL, FakeServer, Refusal, happy
from speech_emotion_client.v1 import audio_pb2, emotion_service_pb2, result_pb2

Run = Callable[..., Result]
ERASE_LINE = "\x1b[2K"


def answer(request: emotion_service_pb2.AnalyzeRequest) -> emotion_service_pb2.AnalyzeResponse:
    """Refuses b"bad", warns of the demo model otherwise."""
    if request.audio_data == b"bad":
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "This is no audio.",
            reason="AUDIO_UNDECODABLE",
            field="audio_data",
            metadata={"bytes": "3"},
        )
    response = happy(request)
    response.metadata.warnings.add(code="DEMO_MODEL", message="Only a demo model.")
    return response


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(answer) as server:
        yield server


@pytest.fixture
def run(server: FakeServer) -> Run:
    """Runs a command line; stdout and stderr are no terminals, as in a pipe."""

    def invoke(*arguments: object, **settings: object) -> Result:
        environment = {"SPEECH_EMOTION_SERVER": server.target, "COLUMNS": "100"}
        words = [str(each) for each in arguments]
        return CliRunner(env=environment).invoke(main, words, **settings)  # type: ignore[arg-type]

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good files of the same name, one bad one, and one that is no audio by its name."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.wav").write_bytes(b"first")
    (tmp_path / "bad.flac").write_bytes(b"bad")
    (tmp_path / "deep" / "a.wav").write_bytes(b"second")
    (tmp_path / "notes.txt").write_bytes(b"text")
    return tmp_path


def test_one_file_is_shown_in_full(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "a.wav")

    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    ranks = [line[0] for line in lines if len(line) > 1 and line[-1].endswith("%")]
    assert ranks == ["happy", "neutral", "angry", "sad"]
    for fact in ("1.5 s · wav · 16 kHz · mono", "62.5%", "Only a demo model.", MODEL, "cache miss"):
        assert fact in result.stdout
    assert (
        "3.0 ms in the server: queue 0.0 · decode 0.0 · preprocess 0.0 · inference 2.0"
        in result.stdout
    )
    assert result.stderr == ""


def test_frames_become_a_strip_of_letters(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "a.wav", "--granularity", "frame")

    assert "H" * FRAMES in result.stdout


def test_a_failed_single_file_is_one_line_on_stderr(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "bad.flac")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"{folder}/bad.flac: This is no audio (AUDIO_UNDECODABLE)\n"


def test_a_bad_file_is_a_row_and_costs_the_others_nothing(run: Run, folder: Path) -> None:
    result = run("analyze", folder)

    assert result.exit_code == 1
    rows = [line for line in result.stdout.splitlines() if line.startswith(("a.", "bad", "deep"))]
    assert [row.split()[:2] for row in rows] == [
        ["a.wav", "happy"],
        ["bad.flac", "failed:"],
        ["deep/a.wav", "happy"],
    ]
    assert "neutral 19%" in rows[0]
    assert "This is no audio (AUDIO_UNDECODABLE)" in rows[1]
    assert "2 analysed, 1 failed:  happy 2" in result.stdout
    assert "Only a demo model. (2 files)" in result.stdout


def test_json_is_an_object_a_line(run: Run, folder: Path) -> None:
    result = run("analyze", folder, "--json")

    good, bad, _ = (json.loads(line) for line in result.stdout.splitlines())
    assert (good["file"], good["emotion"], good["confidence"]) == (
        f"{folder}/a.wav",
        "happy",
        0.625,
    )
    assert good["frames"] is None
    assert good["warnings"] == [{"code": "DEMO_MODEL", "message": "Only a demo model."}]
    assert good["provenance"]["model"] == MODEL
    assert bad["error"]["type"] == "InvalidAudio"
    assert bad["error"]["reason"] == "AUDIO_UNDECODABLE"
    assert bad["error"]["metadata"] == {"bytes": "3"}
    assert result.stderr == ""


def test_json_frames_are_a_matrix(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "a.wav", "--json", "--granularity", "frame")

    frames = json.loads(result.stdout)["frames"]
    assert frames["labels"] == ["angry", "happy", "neutral", "sad"]
    assert frames["times"][:2] == [0.0125, 0.0325]
    assert frames["scores"] == [[0.125, 0.625, 0.1875, 0.0625]] * FRAMES


def test_a_file_that_cannot_be_read_says_why(run: Run, tmp_path: Path) -> None:
    result = run("analyze", tmp_path / "missing.wav", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == {
        "type": "Unreadable",
        "message": "No such file or directory",
    }


def test_csv_is_a_row_a_file_with_a_column_for_each_label(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "bad.flac", folder / "a.wav", "--csv")

    bad, good = csv.DictReader(io.StringIO(result.stdout))
    assert list(bad)[:3] == ["file", "emotion", "confidence"]
    assert (good["emotion"], good["happy"], good["duration_s"]) == ("happy", "0.625", "1.5")
    assert (bad["error"], bad["emotion"]) == ("This is no audio.", "")


def test_csv_of_frames_is_a_row_a_frame(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "a.wav", "--csv", "--granularity", "frame")

    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["time_s"] for row in rows] == ["0.0125", "0.0325", "0.0525", "0.0725", "0.0925"]
    assert rows[0]["neutral"] == "0.1875"


def test_stdin_and_raw_samples_are_sent_as_described(run: Run, server: FakeServer) -> None:
    raw = ("--raw-rate", 8000, "--raw-encoding", "mulaw", "--raw-channels", 2, "--channel", 2)
    result = run("analyze", "-", *raw, input=b"samples")

    assert result.exit_code == 0
    sent = server.requests[0]
    assert sent.audio_data == b"samples"
    assert sent.audio_format == audio_pb2.AudioFormat(
        encoding=audio_pb2.AudioFormat.ENCODING_MULAW,
        sample_rate_hz=8000,
        channel_count=2,
        channel_index=2,
    )


def test_patterns_are_expanded_and_no_file_comes_twice(
    run: Run, server: FakeServer, folder: Path
) -> None:
    result = run("analyze", folder / "*.wav", folder / "a.wav", "--csv")

    assert result.exit_code == 0
    assert [each.audio_data for each in server.requests] == [b"first"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["{folder}/*.mp3"],
        ["{folder}/deep", "--raw-encoding", "opus"],
        ["{folder}/empty"],
        ["{folder}", "--embedding", "out.npy"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    run: Run, server: FakeServer, folder: Path, arguments: list[str]
) -> None:
    (folder / "empty").mkdir()

    result = run("analyze", *(each.format(folder=folder) for each in arguments))

    assert result.exit_code == 2
    assert not server.requests


def test_the_bundled_samples_can_be_analysed(run: Run, server: FakeServer) -> None:
    result = run("analyze", "--sample", "--json")

    assert result.exit_code == 0
    assert {each.audio_data for each in server.requests} == {p.read_bytes() for p in samples()}
    assert sum(path.stat().st_size for path in samples()) < 120_000
    assert all(path.read_bytes().startswith(b"fLaC") for path in samples())


def test_an_embedding_is_saved_under_the_very_name(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "a.wav", "--embedding", folder / "vector", "--json")

    assert np.load(folder / "vector").tolist() == [0, 1, 2, 3]
    assert json.loads(result.stdout)["embedding_file"] == f"{folder}/vector"


def test_files_of_the_same_name_get_embeddings_of_their_own(run: Run, folder: Path) -> None:
    out = folder / "out"
    result = run("analyze", folder, "--embedding", out, "--json")

    answers = [json.loads(line) for line in result.stdout.splitlines()]
    saved = {each["embedding_file"] for each in answers if "error" not in each}
    assert len(saved) == 2
    assert saved == {str(path) for path in out.iterdir()}


def test_names_that_collide_even_as_paths_are_numbered(tmp_path: Path) -> None:
    inputs = [
        Input("a/b.wav", b""),
        Input("a_b.wav", b""),
        Input("a b.wav", b""),
        *(Input(name, b"") for name in ("x/c.wav", "x_c.wav", "y/c.wav", "x/c .wav")),
    ]

    paths = outputs(tmp_path, inputs, ".npy")

    assert len(set(paths)) == len(inputs)


def test_a_plot_is_drawn_from_frames(run: Run, server: FakeServer, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    image = folder / "timeline.png"

    result = run("analyze", folder / "a.wav", "--plot", image)

    assert result.exit_code == 0
    assert image.read_bytes().startswith(b"\x89PNG")
    assert server.requests[0].granularity == emotion_service_pb2.AnalyzeRequest.GRANULARITY_FRAME


def test_audio_too_short_for_a_frame_breaks_no_output(
    run: Run, server: FakeServer, folder: Path
) -> None:
    def frameless(
        request: emotion_service_pb2.AnalyzeRequest,
    ) -> emotion_service_pb2.AnalyzeResponse:
        response = happy(request)
        response.frames.CopyFrom(result_pb2.FrameScores(labels=response.frames.labels))
        return response

    server.answer = frameless
    arguments = ("analyze", folder / "a.wav", "--granularity", "frame")

    results = [run(*arguments, *form) for form in ([], ["--csv"], ["--json"])]

    assert [each.exit_code for each in results] == [0, 0, 0]
    assert json.loads(results[2].stdout)["frames"]["scores"] == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file"), "No such file"),
        (
            Overloaded("Full.", reason="QUEUE_FULL", retry_after=0.5),
            "Full (QUEUE_FULL), try again in 0.5 s",
        ),
        (ServerError("Sorry.", request_id="f00"), "Sorry [id f00]"),
    ],
)
def test_a_reason_is_one_line(error: OSError | SpeechEmotionError, line: str) -> None:
    assert display.reason(error) == line


def test_without_matplotlib_a_plot_is_refused_before_anything_is_sent(
    run: Run, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "available", lambda: False)

    result = run("analyze", folder / "a.wav", "--plot", "out.png")

    assert result.exit_code == 1
    assert "pip install 'speech-emotion-client[plot]'" in result.stderr
    assert not server.requests


@pytest.mark.parametrize("command", [["analyze", "--sample"], ["info"], ["health"]])
def test_nobody_there_is_one_line_that_says_what_to_do(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--server", "localhost:1"])

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "Error: No server answers at localhost:1. "
        "Start one with: make run, or name yours with --server.\n"
    )


def test_health_waits_no_longer_than_it_was_told_to(run: Run) -> None:
    there = run("health", "--wait", "5")
    nowhere = run("health", "--wait", "0.1", "--server", "localhost:1")

    assert there.exit_code == 0
    assert (nowhere.exit_code, "not ready within" in nowhere.stderr) == (1, True)


def test_health_is_an_exit_code(run: Run, server: FakeServer) -> None:
    healthy = run("health")
    server.serve(False)
    ill = run("health")

    assert (healthy.exit_code, healthy.stdout) == (0, "SERVING\n")
    assert (ill.exit_code, ill.stdout) == (1, "NOT_SERVING\n")


def test_info_tells_limits_and_models(run: Run) -> None:
    result = run("info")

    assert result.exit_code == 0
    for fact in (
        "SERVING",
        "16 MiB",
        "100 MiB an upload",
        "0.2 to 60 s",
        "32 items",
        MODEL,
        "ready",
    ):
        assert fact in result.stdout


def test_info_as_json_is_one_object(run: Run) -> None:
    about = json.loads(run("info", "--json").stdout)

    assert about["health"] == "SERVING"
    assert about["limits"]["max_audio_ms"] == 60_000
    assert about["models"][0]["name"] == MODEL


def test_every_command_shows_how_to_use_it(run: Run) -> None:
    assert "speech-emotion analyze speech.wav --plot timeline.png" in run("analyze", "-h").stdout
    assert "speech-emotion analyze --sample" in run("--help").stdout


def test_a_bar_shares_the_terminal_with_rows_and_never_with_data() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True)

    assert bar_console(terminal, None, 3) is terminal
    assert bar_console(terminal, "json", 3) is None
    assert bar_console(terminal, None, 1) is None


def test_a_bar_is_drawn_over_and_erased_while_the_outcomes_pass() -> None:
    out = io.StringIO()
    outcomes = [Outcome(index, b"") for index in range(3)]

    passed = list(with_progress(iter(outcomes), 3, Console(file=out, force_terminal=True)))

    assert passed == outcomes
    assert "3/3" in out.getvalue()
    assert out.getvalue().endswith(ERASE_LINE)


def test_a_label_keeps_its_colour() -> None:
    assert palette.colour("生气/angry") == palette.COLOURS["angry"]
    assert palette.colour("bored") == palette.colour("bored")


@pytest.mark.parametrize(
    ("names", "brief"),
    [
        (["/r/a.wav", "/r/deep/b.wav"], ["a.wav", "deep/b.wav"]),
        (["r/a.wav"], ["r/a.wav"]),
        (["a.wav", "/r/b.wav"], ["a.wav", "/r/b.wav"]),
        (["a.wav", "r/b.wav", "stdin"], ["a.wav", "r/b.wav", "stdin"]),
    ],
)
def test_the_folder_that_all_files_share_is_left_out(names: list[str], brief: list[str]) -> None:
    assert display.brief(names) == brief
