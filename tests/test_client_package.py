"""What the client's distribution holds: stubs, README, metadata."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import speech_emotion_client
from click.testing import CliRunner
from speech_emotion_client.cli import main
from speech_emotion_client.testing import FakeServer

CLIENT = Path(speech_emotion_client.__file__).parents[1]
V1 = CLIENT / "speech_emotion_client" / "v1"
README = (CLIENT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.mark.parametrize("order", [1, -1])
def test_both_copies_of_the_stubs_live_in_one_process(order: int) -> None:
    packages = ["speechemotion", "speech_emotion_client"][::order]
    code = f"""
import importlib
first, second = (importlib.import_module(name + ".v1.emotion_service_pb2") for name in {packages})
for name in {packages}:
    importlib.import_module(name + ".v1.emotion_service_pb2_grpc")
    importlib.import_module(name + ".v1.model_service_pb2_grpc")
sent = first.AnalyzeRequest(audio_data=b"speech", granularity="frame", extract_embedding=True)
got = second.AnalyzeRequest.FromString(sent.SerializeToString())
assert got.audio_data == b"speech" and got.granularity == 2
batch = second.BatchAnalyzeRequest()
batch.requests.add().CopyFrom(first.AnalyzeRequest.FromString(got.SerializeToString()))
assert first.BatchAnalyzeRequest.FromString(batch.SerializeToString()).requests[0] == sent
"""
    paths = os.pathsep.join([str(CLIENT), str(CLIENT.parents[1] / "protos")])

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-200:]


def test_the_stubs_match_the_protos(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    (tmp_path / "gone_pb2.py").write_text("of a proto that was removed")
    generate = runpy.run_path(str(CLIENT / "generate_stubs.py"))["generate"]

    generate(tmp_path)

    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in V1.iterdir() if path.is_file()}
    assert fresh == committed


def test_the_client_needs_neither_torch_nor_the_server() -> None:
    about = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    code = """
import sys, speech_emotion_client, speech_emotion_client.cli
print([name for name in ("torch", "server", "batcher", "speechemotion", "matplotlib")
       if name in sys.modules])
"""

    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=CLIENT, capture_output=True, text=True
    )

    assert loaded.stdout.strip() == "[]", loaded.stderr
    assert not [need for need in about["dependencies"] if need.startswith(("torch", "speech"))]


def test_the_samples_are_explained() -> None:
    origin = (CLIENT / "speech_emotion_client" / "samples" / "README.md").read_text()

    assert "synthesised" in origin
    assert all(path.name in origin for path in speech_emotion_client.samples())


@pytest.mark.parametrize("code", blocks("python"))
def test_the_readmes_python_runs(code: str, server: FakeServer) -> None:
    namespace = {"__name__": "readme"}

    exec(compile(code.replace("localhost:50051", server.target), "README.md", "exec"), namespace)

    assert "Client" in namespace or "AsyncClient" in namespace


def commands() -> list[list[str]]:
    lines = "".join(blocks("sh")).splitlines()
    heads = [line.partition("#")[0].partition("|")[0] for line in lines]
    return [shlex.split(head)[1:] for head in heads if head.startswith("speech-emotion")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_readmes_commands_run(
    command: list[str], server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--plot" in command:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    for name in ("speech.wav", "recordings/a.wav", "calls/b.mp3"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"speech")

    result = CliRunner(env={"SPEECH_EMOTION_SERVER": server.target}).invoke(main, command)

    assert result.exit_code == 0, result.output
