"""`make gpu`: a lent GPU is gone after some minutes, and what was measured until then must stay."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.engine_report import Row
from benchmarks.gpu import measure
from benchmarks.gpu_kernels import timed
from benchmarks.gpu_server import serve

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"

PYTHON = """#!/bin/bash
case "$*" in
  *"pip install"*) ;;
  *"-m pytest"*) echo "a test hangs"; {test} ;;
  *"-m benchmarks.gpu"*) echo "measured"; {measure} ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """The script of a copy of the project, where python3 does as told."""
    for folder in ("bin", "project/benchmarks", "project/.whl", "out"):
        (tmp_path / folder).mkdir(parents=True)
    script = tmp_path / "project" / "benchmarks" / "gpu.sh"
    script.write_text(SCRIPT.read_text())

    def run(test, measure):
        python = tmp_path / "bin" / "python3"
        python.write_text(PYTHON.format(test=test, measure=measure))
        python.chmod(0o755)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        limits = {"TEST_SECONDS": "0.5", "MEASURE_SECONDS": "0.5", "OUT": str(tmp_path / "out")}
        command = ["bash", str(script)]
        env = {"PATH": path, **limits}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_tests_that_hang_do_not_eat_the_time_of_the_measures(run, tmp_path):
    finished = run(test="sleep 30", measure="true")

    assert finished.returncode != 0
    assert (tmp_path / "out" / "tests.txt").read_text() == "a test hangs\n"
    assert (tmp_path / "out" / "gpu.txt").read_text() == "measured\n"
    assert "measured" in finished.stdout


@pytest.mark.parametrize(("test", "measure"), [("exit 3", "true"), ("true", "exit 3")])
def test_a_stage_that_fails_is_the_scripts_failure(run, test, measure):
    assert run(test, measure).returncode == 3


def test_what_comes_back_is_little_and_all_went_well(run, tmp_path):
    finished = run(test="true", measure="true")

    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "out").iterdir())) + len(["tests.xml", "json", "md", "profile"]) < 8


def test_rows_are_written_as_they_come_and_a_part_that_fails_costs_its_own_only(tmp_path):
    seen = []

    def first():
        yield Row("one", "ours", 0, 1.0, "ms", "")
        seen.extend(json.loads((tmp_path / "gpu.json").read_text()))
        raise RuntimeError("no kernel for this")

    def second():
        yield Row("two", "ours", 0, 2.0, "ms", "")

    rows, failed = measure([first, second], tmp_path)

    assert failed
    assert [row["what"] for row in seen] == ["one"]
    assert [row.what for row in rows] == ["one", "a part that failed", "two"]
    assert "no kernel for this" in (tmp_path / "gpu.md").read_text()
    assert len(json.loads((tmp_path / "gpu.json").read_text())) == 3


def test_an_alternative_that_does_not_run_is_a_row():
    def fails():
        raise RuntimeError("no compiler\nand a long explanation | with bars")

    row = timed("attention", "ours", fails)

    assert math.isnan(row.value)
    assert row.note == "RuntimeError: no compiler"


async def test_a_server_that_cannot_start_is_not_waited_for(tmp_path, monkeypatch):
    """It would be, for as long as a start may take; the lease runs on meanwhile."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))

    with pytest.raises(RuntimeError, match="did not start; exit code 1"):
        await serve(str(tmp_path / "no-such-model"), "cpu", [np.zeros(8_000, np.float32)])
