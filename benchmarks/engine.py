"""Our engine beside FunASR on the CPU, in one run; prints Markdown and draws a plot.

    python -m benchmarks.engine [--out build/engine] [--clips FOLDER] [--long 600] [--threads 1 2]

Without FunASR (`pip install -e '.[funasr]'`) its rows are left out. Engines take turns clip by
clip, so that a machine whose speed drifts is as unfair to all. Times are the least of a few, and
sums are of CPU time beside wall time, since neighbours take the machine but not our seconds.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from benchmarks import clips, large
from benchmarks.engine_report import Row, draw, table
from server.engine import CannotLoad, cores
from server.engine.linear import prepare
from server.engine.loading import load
from server.speech import Utterance, Waveform, softmax

GFLOP = 109.4  # of the large model for five seconds, by the shapes of its layers
SIDE = 2048
Run = Callable[[Waveform], object]


def main() -> None:
    arguments = parse()
    source = str(large.write(arguments.model))
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for part in parts(source, arguments):
        rows += part()
        (arguments.out / "engine.json").write_text(json.dumps([row._asdict() for row in rows]))
        (arguments.out / "engine.md").write_text(table(rows))
    print(table(rows))
    draw(rows, arguments.out / "engine.svg")


def parts(source: str, arguments: Namespace) -> Iterator[Callable[[], list[Row]]]:
    """What is measured, one after another, so that what is done is never lost."""
    for threads in arguments.threads:
        yield partial(speed, source, threads)
    yield partial(processes, source, arguments.long)
    if arguments.clips:
        yield partial(accuracy, source, arguments.clips)


def parse() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("build/large"))
    parser.add_argument("--out", type=Path, default=Path("build/engine"))
    parser.add_argument("--clips", type=Path, help="folder of real speech, for label flips")
    parser.add_argument("--long", type=float, default=600, help="seconds of the long clip, or 0")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=sorted({1, cores.available()}), help="to try"
    )
    return parser.parse_args()


def speed(source: str, threads: int) -> list[Row]:
    """A five-second clip and a mixture, with so many threads."""
    runs = ours(source, threads)
    raw, generate = funasr(source, threads)
    five = clips.noise(5)
    forward = {**runs, **({"FunASR forward": raw} if raw else {})}
    best = turns(forward, [five], repeats=7, least=True)
    roof = roofline()
    rows = [
        Row(
            "5 s clip",
            name,
            threads,
            1000 * wall,
            "ms",
            f"{GFLOP / wall / roof:.0%} of {roof:.0f} GFLOP/s",
        )
        for name, (wall, _) in best.items()
    ]
    users = {"ours float32": runs["ours float32"]}
    if generate:
        users |= {
            "generate(), as users call it": partial(generate, ncpu=4),
            "generate(), threads set": partial(generate, ncpu=threads),
        }
    mixed = clips.mixture()
    for name, (wall, cpu) in turns(users, mixed, repeats=1, least=False, threads=threads).items():
        note = f"{len(mixed) / cpu:.2f} clips per CPU second"
        rows.append(Row("32 clips of 1-10 s", name, threads, len(mixed) / wall, "clips/s", note))
    return rows


def ours(source: str, threads: int) -> dict[str, Run]:
    """A run of one clip, in every precision that this CPU computes."""
    runs: dict[str, Run] = {}
    for precision in ("float32", "int8", "bfloat16"):
        try:
            engine = load(source, precision=precision, threads=threads)
        except CannotLoad:
            continue
        engine.warm_up()
        runs["ours " + precision] = lambda clip, engine=engine: engine.infer([Utterance(clip)])
    return runs


def funasr(source: str, threads: int) -> tuple[Run | None, Callable[..., object] | None]:
    """FunASR's forward pass by itself, and `AutoModel.generate`; None if it is not installed."""
    try:
        from funasr import AutoModel
    except ImportError:
        return None, None
    model = AutoModel(
        model=source, device="cpu", ncpu=threads, disable_update=True, disable_pbar=True
    )

    def forward(clip: Waveform) -> object:
        network = model.model
        with torch.inference_mode():
            x = torch.from_numpy(clip)[None]
            x = torch.nn.functional.layer_norm(x, x.shape)
            return network.proj(network.extract_features(x, padding_mask=None)["x"].mean(1))

    def generate(clip: Waveform, ncpu: int) -> object:
        return model.generate(clip, granularity="utterance", extract_embedding=False, ncpu=ncpu)

    return forward, generate


def turns(
    runs: dict[str, Run],
    waveforms: list[Waveform],
    *,
    repeats: int,
    least: bool,
    threads: int = 0,
) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each run, all clips together, or the least of all repeats."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for clip in waveforms * repeats:
        for name, run in runs.items():
            torch.set_num_threads(threads or torch.get_num_threads())  # generate() sets them anew
            wall, cpu = perf_counter(), process_time()
            run(clip)
            taken[name].append((perf_counter() - wall, process_time() - cpu))
    join = min if least else sum
    return {
        name: tuple(join(part) for part in zip(*times, strict=True))
        for name, times in taken.items()
    }  # type: ignore[misc]


def roofline() -> float:
    """GFLOP/s of the fastest float32 product of two large matrices that torch has."""
    a, b, zero = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE), torch.zeros(SIDE)
    products: list[Callable[[torch.Tensor], object]] = [prepare(b, zero), b.matmul]
    times = []
    with torch.inference_mode():
        for product in products * 8:
            started_at = perf_counter()
            product(a)
            times.append(perf_counter() - started_at)
    return 2 * SIDE**3 / min(times) / 1e9


def processes(source: str, long: float) -> list[Row]:
    """Start and memory, each in a process of its own."""
    rows = []
    every = cores.available()
    for precision in ("float32", "int8"):
        found = process(source, precision, every, 0)
        if found:
            rows.append(
                Row("start to ready", "ours " + precision, every, found["ready_s"], "s", "")
            )
            peak = found["ready_peak_mib"] * 2**20 / 1e9
            rows.append(Row("peak memory when ready", "ours " + precision, every, peak, "GB", ""))
    if long:
        found = process(source, "float32", every, long)
        peak = found["run_peak_mib"] * 2**20 / 1e9
        note = f"took {found['run_s']:.0f} s"
        rows.append(
            Row(f"peak memory, one clip of {long:.0f} s", "ours float32", every, peak, "GB", note)
        )
    return rows


def process(source: str, precision: str, threads: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.engine_process", source, precision]
    finished = subprocess.run(
        [*command, str(threads), str(seconds)], capture_output=True, text=True, check=False
    )
    found: dict[str, Any] = json.loads(finished.stdout) if finished.returncode == 0 else {}
    return found


def accuracy(source: str, folder: Path) -> list[Row]:
    """How far reduced precisions move real clips' scores, and how many labels they flip."""
    waveforms = list(clips.read(folder))
    rows = []
    for model in ("demo", source):
        exact = scores(model, "float32", waveforms)
        for precision in ("int8", "bfloat16"):
            try:
                found = scores(model, precision, waveforms)
            except CannotLoad:
                continue
            flips = int((found.argmax(1) != exact.argmax(1)).sum())
            note = f"largest change of a score {np.abs(found - exact).max():.1e}; {flips} flips"
            name = f"{Path(model).name}, {precision}"
            rows.append(
                Row("labels flipped", name, 0, 100 * flips / len(exact), f"% of {len(exact)}", note)
            )
    return rows


def scores(source: str, precision: str, waveforms: list[Waveform]) -> np.ndarray[Any, Any]:
    engine = load(source, precision=precision, threads=1)
    found = [engine.infer([Utterance(waveform)])[0].logits for waveform in waveforms]
    return softmax(np.stack(found))


if __name__ == "__main__":
    main()
