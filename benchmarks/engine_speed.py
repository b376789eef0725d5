"""Our engine's speed beside FunASR's, in one run; knows nothing of tables and files.

Engines take turns clip by clip, so that a machine whose speed drifts is as unfair to all, and the
products that they are measured against take turns with them. CPU time stands beside wall time,
since neighbours take the machine but not our seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter, process_time

import torch
from torch import Tensor

from benchmarks import clips, large
from benchmarks.engine_report import Row
from server.engine import CannotLoad, architecture
from server.engine.linear import Linear, prepare
from server.engine.loading import load
from server.speech import Utterance, Waveform

GFLOP = 109.4  # of the large model for five seconds, by the shapes of its layers
SIDE = 2048
ROWS = 260  # five seconds: 249 frames, 10 extra tokens, 1 of padding
SQUARE, BLOCKS, FLOAT32 = "2048 cubed", "linear layers", "ours float32"

Run = Callable[[Waveform], object]
Spent = tuple[float, float]
"""Wall and CPU seconds."""


def five_seconds(source: str, threads: int) -> list[Row]:
    """One clip, and the products beside which it is measured."""
    side, largest = torch.rand(SIDE, SIDE), prepare(torch.rand(SIDE, SIDE), torch.zeros(SIDE))
    layers = blocks()
    runs: dict[str, Run] = {
        SQUARE: lambda _: largest(side),
        BLOCKS: lambda _: [layer(rows) for layer, rows in layers],
        **ours(source, threads),
    }
    raw, _ = funasr(source, threads)
    runs |= {"FunASR forward": raw} if raw else {}
    best = turns(runs, [clips.noise(5)], repeats=9, join=min, threads=threads)
    square, linear = best.pop(SQUARE)[0], best.pop(BLOCKS)[0]
    roof = 2 * SIDE**3 / square / 1e9
    work = sum(2 * rows.numel() * layer(rows).shape[1] for layer, rows in layers) / 1e9
    alone = f"; the linear layers alone {work / linear / roof:.0%}"
    return [
        Row(
            "5 s clip",
            name,
            threads,
            1000 * wall,
            "ms",
            f"{GFLOP / wall / roof:.0%} of {roof:.0f} GFLOP/s{alone if name == FLOAT32 else ''}; "
            f"{1000 * cpu:.0f} ms of CPU",
        )
        for name, (wall, cpu) in best.items()
    ]


def blocks() -> list[tuple[Linear, Tensor]]:
    """The linear layers of the twelve blocks, as the engine runs them, and random rows for each."""
    shapes = architecture.parse(large.configuration())
    d, hidden = shapes.dimension, shapes.hidden
    sizes = [(d, 3 * d), (d, d), (d, hidden), (hidden, d)] * len(shapes.block_names())
    return [
        (prepare(torch.randn(wide, deep) / deep**0.5, torch.zeros(wide)), torch.randn(ROWS, deep))
        for deep, wide in sizes
    ]


def mixture(source: str, threads: int) -> list[Row]:
    """32 clips of mixed lengths, one after another."""
    runs = ours(source, threads)
    _, generate = funasr(source, threads)
    if generate:
        runs |= {
            "generate(), as users call it": partial(generate, ncpu=4),
            "generate(), threads set": partial(generate, ncpu=threads),
        }
    waveforms = clips.mixture()
    spent = turns(runs, waveforms, repeats=1, join=sum, threads=threads)
    count = len(waveforms)
    return [
        Row(
            "32 clips of 1-10 s",
            name,
            threads,
            count / wall,
            "clips/s",
            f"{count / cpu:.2f} clips per CPU second",
        )
        for name, (wall, cpu) in spent.items()
    ]


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
        x = torch.from_numpy(clip)[None]
        x = torch.nn.functional.layer_norm(x, x.shape)
        return network.proj(network.extract_features(x, padding_mask=None)["x"].mean(1))

    def generate(clip: Waveform, ncpu: int) -> object:
        return model.generate(clip, granularity="utterance", extract_embedding=False, ncpu=ncpu)

    return forward, generate


def turns(
    runs: Mapping[str, Run],
    waveforms: Sequence[Waveform],
    *,
    repeats: int,
    join: Callable[[Sequence[float]], float],
    threads: int,
) -> dict[str, Spent]:
    """Of each run over all clips and repeats: `join` makes one number of them."""
    taken: dict[str, list[Spent]] = {name: [] for name in runs}
    for clip in [*waveforms] * repeats:
        for name, run in runs.items():
            torch.set_num_threads(threads)  # generate() sets them anew
            wall, cpu = perf_counter(), process_time()
            with torch.inference_mode():
                run(clip)
            taken[name].append((perf_counter() - wall, process_time() - cpu))
    return {
        name: (join([wall for wall, _ in times]), join([cpu for _, cpu in times]))
        for name, times in taken.items()
    }
