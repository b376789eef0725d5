"""What the client and its command refuse, and how the command ends when it cannot write."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import speech_emotion_client
from click.testing import CliRunner, Result
from speech_emotion_client import Client, FixedWindow, InvalidAudio, InvalidRequest, RawFormat
from speech_emotion_client.cli import main, records
from speech_emotion_client.testing import FakeServer

ROOT = Path(speech_emotion_client.__file__).parents[1]
COMMAND = "from speech_emotion_command import main; main()"
Run = Callable[..., Result]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def run(server: FakeServer, tmp_path: Path) -> Run:
    """Runs `speech-emotion VERB FILE ...` in this process."""
    speech = tmp_path / "speech.wav"
    speech.write_bytes(b"speech")

    def invoke(verb: str, *arguments: object) -> Result:
        words = [verb, str(speech), *map(str, arguments)]
        return CliRunner().invoke(main, words, env={"SPEECH_EMOTION_SERVER": server.target})

    return invoke


@pytest.fixture
def start(server: FakeServer, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `speech-emotion ...` as a process."""
    (tmp_path / "speech.wav").write_bytes(b"speech")

    def popen(*words: str, **settings: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words],
            env=os.environ | {"PYTHONPATH": str(ROOT), "SPEECH_EMOTION_SERVER": server.target},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )

    return popen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyze", "--window", "nan"], "not a number of seconds"),
        (["analyze", "--window", "inf"], "not in the range"),
        (["stream", "--hop", "nan"], "not a number of seconds"),
        (["stream", "--interim", "1e300"], "not in the range"),
        (["analyze", "--timeout", "-3"], "not in the range"),
        (["analyze", "--json", "--csv"], "Either --json or --csv"),
        (["analyze", "--server", ""], "HOST:PORT"),
        (["analyze", "--plot", "x.zzz"], "--plot is one of"),
        (["analyze", "--plot", "/nonexistent/x.png"], "no folder /nonexistent"),
        (["analyze", "--embedding", "/nonexistent/x.npy"], "no folder /nonexistent"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_before_anything_is_sent(
    run: Run, server: FakeServer, words: list[str], said: str
) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert not server.requests


def test_a_file_that_cannot_be_written_is_said_in_a_line(run: Run) -> None:
    result = run("analyze", "--embedding", "/proc/x.npy")

    assert result.exit_code == 1
    assert result.stderr == "Error: /proc/x.npy: No such file or directory\n"


@pytest.mark.parametrize("words", [["analyze", "speech.wav", "--json"], ["info"]])
def test_a_full_disk_is_said_in_a_line(
    start: Callable[..., subprocess.Popen[str]], words: list[str]
) -> None:
    with open("/dev/full", "w") as full, start(*words, stdout=full) as process:
        _, said = process.communicate()

    assert said == "Error: stdout: No space left on device\n"
    assert process.returncode == 1


@pytest.mark.parametrize("words", [["analyze", "speech.wav", "--json"], ["info"]])
def test_who_closes_the_pipe_hears_nothing_of_it(
    start: Callable[..., subprocess.Popen[str]], words: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    with start(*words, stdout=writer) as process:
        os.close(writer)
        _, said = process.communicate()

    assert said == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_ctrl_c_while_it_is_imported_leaves_no_traceback() -> None:
    code = """
import sys, time
class Slow:
    def find_spec(self, name, *_):
        if name == "speech_emotion_client":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from speech_emotion_command import main
main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()

    assert said == ""
    assert process.returncode == -signal.SIGINT


def test_json_has_no_nan_and_no_infinity() -> None:
    text = records.dumps({"a": math.nan, "b": [math.inf, -math.inf, 0.5], "c": "NaN"})

    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None, "b": [None, None, 0.5], "c": "NaN",
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"channel": -1},
        {"channel": 2**40},
        {"frame_stride": -1},
        {"timeout": math.nan},
        {"timeout": -1.0},
    ],
)
def test_numbers_that_make_no_sense_are_named(server: FakeServer, options: dict[str, Any]) -> None:
    with Client(server.target) as client, pytest.raises(InvalidRequest) as refused:
        client.analyze(b"speech", **options)

    assert refused.value.field in options
    assert not server.requests


@pytest.mark.parametrize("window", [math.nan, math.inf, -1.0, 1e300])
def test_a_window_of_no_length_is_refused(server: FakeServer, window: float) -> None:
    with Client(server.target) as client, pytest.raises(InvalidRequest):
        client.stream(b"", segmentation=FixedWindow(window))  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_a_timeout_without_end_is_a_long_one(server: FakeServer, timeout: float) -> None:
    with Client(server.target, timeout=timeout) as client:
        analysis = client.analyze(b"speech")

    assert analysis.scores


@pytest.mark.parametrize("settings", [{"target": " "}, {"timeout": math.nan}])
def test_a_client_that_makes_no_sense_is_not_made(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Client(**settings)


@pytest.mark.parametrize("raw", [(-1, "s16le"), (2**40, "s16le"), (8000, "mp3")])
def test_a_format_that_makes_no_sense_is_not_made(raw: Any) -> None:
    with pytest.raises(InvalidRequest):
        RawFormat(*raw)


def test_what_is_no_audio_is_refused(server: FakeServer, tmp_path: Path) -> None:
    text = tmp_path / "speech.txt"
    text.write_text("speech")

    with Client(server.target) as client, text.open() as file:
        for audio in (None, 5, file):
            with pytest.raises(InvalidAudio):
                client.analyze(audio)  # type: ignore[arg-type]
        outcomes = client.batch([b"speech", None])  # type: ignore[list-item]

    assert [outcome.error is None for outcome in outcomes] == [True, False]


@pytest.mark.parametrize("verb", ["analyze", "stream"])
def test_a_server_without_tls_is_not_said_to_be_missing(run: Run, verb: str) -> None:
    result = run(verb, "--tls")

    assert result.exit_code == 1
    assert "it speaks no TLS" in result.stderr
