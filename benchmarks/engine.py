"""Our engine beside FunASR on the CPU, section by section; prints Markdown and draws a plot.

    python -m benchmarks.engine [--only clip mixture precisions start memory] [--threads 1 2]
        [--out build/engine] [--clips FOLDER] [--long 60 300 600]

Each section writes a file of its own, so one can be measured again by itself; the table and the
plot are of all that have been, and `--only` without a name measures nothing. Without FunASR
(`pip install -e '.[funasr]'`) its rows are left out.
"""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import clips, engine_speed, large
from benchmarks.engine_report import Row, draw, table
from server.engine import CannotLoad, cores
from server.engine.loading import load
from server.speech import Utterance, Waveform, softmax

Scores = np.ndarray[Any, Any]

RANDOM = 32
"""Clips for random weights, which give nearly all clips one label: more would show no more."""


def main() -> None:
    arguments = parse()
    source = str(large.write(arguments.model))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        began = os.getloadavg()[0]
        rows = SECTIONS[name](source, arguments)
        load = f"{began:.1f} to {os.getloadavg()[0]:.1f}"
        found = {"load": load, "rows": [row._asdict() for row in rows]}
        (arguments.out / f"{name}.json").write_text(json.dumps(found))
        print(f"{name}, load average {load}:\n{table(rows)}", flush=True)
    report(arguments.out)


def report(out: Path) -> None:
    """Of every section that has been measured, in this run or before."""
    files = [out / f"{name}.json" for name in SECTIONS if (out / f"{name}.json").exists()]
    rows = [Row(**row) for file in files for row in json.loads(file.read_text())["rows"]]
    (out / "engine.md").write_text(table(rows))
    draw(rows, out / "engine.svg")


def parse() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("build/large"))
    parser.add_argument("--out", type=Path, default=Path("build/engine"))
    parser.add_argument("--clips", type=Path, help="folder of real speech, for label flips")
    parser.add_argument("--long", type=float, nargs="*", default=[60, 300, 600], help="seconds")
    parser.add_argument("--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument(
        "--threads", type=int, nargs="+", default=sorted({1, cores.available()}), help="to try"
    )
    return parser.parse_args()


def by_threads(
    section: Callable[[str, int], list[Row]], source: str, arguments: Namespace
) -> list[Row]:
    """Measured with one number of threads after another."""
    return [row for threads in arguments.threads for row in section(source, threads)]


def start(source: str, arguments: Namespace) -> list[Row]:
    """From nothing to ready, in a process of its own."""
    rows = []
    threads = max(arguments.threads)
    for precision in ("float32", "int8"):
        found = process(source, precision, threads, 0)
        if found:
            name, peak = "ours " + precision, found["ready_peak_mib"] * 2**20 / 1e9
            rows.append(Row("start to ready", name, threads, found["ready_s"], "s", ""))
            rows.append(Row("peak memory when ready", name, threads, peak, "GB", ""))
    return rows


def memory(source: str, arguments: Namespace) -> list[Row]:
    """Of long clips with attention over all of it, each in a process of its own."""
    rows = []
    threads = max(arguments.threads)
    for seconds in arguments.long:
        found = process(source, "float32", threads, seconds)
        what, note = f"peak memory, one clip of {seconds:.0f} s", f"took {found['run_s']:.0f} s"
        peak = found["run_peak_mib"] * 2**20 / 1e9
        rows.append(Row(what, "ours float32", threads, peak, "GB", note))
    return rows


def process(source: str, precision: str, threads: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.engine_process", source, precision]
    finished = subprocess.run(
        [*command, str(threads), str(seconds)], capture_output=True, text=True, check=False
    )
    found: dict[str, Any] = json.loads(finished.stdout) if finished.returncode == 0 else {}
    return found


def precisions(source: str, arguments: Namespace) -> list[Row]:
    """How far reduced precisions move real clips' scores, and how many labels they flip."""
    waveforms = list(clips.read(arguments.clips)) if arguments.clips else clips.mixture()
    rows = []
    for model, some in (("demo", waveforms), (source, waveforms[:RANDOM])):
        exact = scores(model, "float32", some)
        for precision in ("int8", "bfloat16"):
            try:
                rows.append(flips(exact, scores(model, precision, some), model, precision))
            except CannotLoad:
                continue
    return rows


def flips(exact: Scores, found: Scores, model: str, precision: str) -> Row:
    """With the margin of the surest label that flipped: below it nothing is said of the others."""
    flipped = found.argmax(1) != exact.argmax(1)
    margins = np.diff(np.sort(exact, axis=1)[:, -2:], axis=1)[:, 0]
    used = len(np.unique(exact.argmax(1)))
    note = (
        f"{flipped.sum()} of {len(exact)}; surest by {margins[flipped].max(initial=0):.1e}; largest"
        f" change of a score {np.abs(found - exact).max():.1e}; {used} labels occur"
    )
    name = f"{Path(model).name}, {precision}"
    return Row("labels flipped", name, 0, 100 * float(flipped.mean()), "%", note)


def scores(source: str, precision: str, waveforms: list[Waveform]) -> Scores:
    engine = load(source, precision=precision, threads=1)
    found = [engine.infer([Utterance(waveform)])[0].logits for waveform in waveforms]
    return softmax(np.stack(found))


SECTIONS = {
    "clip": partial(by_threads, engine_speed.five_seconds),
    "mixture": partial(by_threads, engine_speed.mixture),
    "precisions": precisions,
    "start": start,
    "memory": memory,
}

if __name__ == "__main__":
    main()
