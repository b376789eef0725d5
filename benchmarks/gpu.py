"""Our engine on a GPU, by itself and behind the server; writes gpu.json, gpu.md and profile.txt.

    python -m benchmarks.gpu [--out build/gpu] [--device cuda:0]

`make gpu` runs it. Rows that compare were measured in the same run on the same GPU.
"""

import asyncio
import json
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import clips, large
from benchmarks.engine_report import Row, table
from benchmarks.gpu_kernels import compiled, kernels, milliseconds
from benchmarks.gpu_server import serve
from server.engine import architecture, checkpoint, native
from server.engine.batched import BatchEngine
from server.engine.loading import load
from server.speech import HOP, SAMPLE_RATE, Utterance, Waveform, frame_count, softmax

SIDE = 8192
CALLS = 400
OURS = "ours float16"

Part = Callable[[str, torch.device], Iterator[Row]]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("build/large"))
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--device", default="cuda:0")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    source, device = str(large.write(chosen.model)), torch.device(chosen.device)
    engine = partial(alone, out=chosen.out)
    parts: list[Part] = [machine, kernels, engine, behind_the_server, compiled]
    rows, failed = measure([partial(part, source, device) for part in parts], chosen.out)
    print(table(rows))
    sys.exit(failed)


def measure(parts: Sequence[Callable[[], Iterator[Row]]], out: Path) -> tuple[list[Row], bool]:
    """Every row is written as it comes: what has been measured must not be lost to what has not."""
    rows: list[Row] = []
    failed = False
    for part in parts:
        try:
            for row in part():
                rows.append(row)
                write(rows, out)
        except Exception as error:
            traceback.print_exc()
            failed = True
            rows.append(Row("a part that failed", "", 0, float("nan"), "", repr(error)[:80]))
            write(rows, out)
    return rows, failed


def write(rows: Sequence[Row], out: Path) -> None:
    print(*rows[-1], sep=" | ")
    (out / "gpu.json").write_text(json.dumps([row._asdict() for row in rows]))
    (out / "gpu.md").write_text(table(rows))


def machine(_: str, device: torch.device) -> Iterator[Row]:
    name, note = torch.cuda.get_device_name(device), f"torch {torch.__version__}"
    yield Row("device", name, 0, torch.cuda.device_count(), "", note)
    yield Row("float16 matrix product", f"{SIDE} cubed", 0, peak(device) / 1000, "TFLOP/s", "")


def alone(source: str, device: torch.device, *, out: Path) -> Iterator[Row]:
    """Start, throughput, latency and accuracy of the engine itself, and where its time goes."""
    before, most = outside_the_allocator(device), peak(device)
    started_at = perf_counter()
    engine = load(source, device=str(device))
    assert isinstance(engine, BatchEngine)
    loaded_at = perf_counter()
    engine.warm_up()
    count = len(engine._graphs)
    yield Row("load", OURS, 0, loaded_at - started_at, "s", "")
    yield Row("capture all graphs", OURS, 0, perf_counter() - loaded_at, "s", f"{count} graphs")
    chosen = type(engine._network._kernels).__name__, type(engine._network._positions[0]).__name__
    yield Row("kernels, positions", OURS, 0, float("nan"), "", ", ".join(chosen))
    yield Row("memory when ready", OURS, 0, engine.capacity.memory_bytes / 1e9, "GB", "")
    reserved, others = torch.cuda.memory_reserved(device), outside_the_allocator(device)
    yield Row("of which the allocator's", OURS, 0, reserved / 1e9, "GB", "")
    yield Row("of which graphs and kernels", OURS, 0, (others - before) / 1e9, "GB", "")
    yield from replayed(engine, most)
    found = architecture.parse(large.configuration())
    for what, waveforms in (("mixture of 1-10 s", mixture(1024)), ("5 s clips", [five()] * 1024)):
        speed = throughput(engine, waveforms)
        work = np.mean([large.gflop(found, len(one) / SAMPLE_RATE) for one in waveforms])
        note = f"{speed * work / most:.0%} of the measured peak"
        yield Row(what, OURS, 0, speed, "clips/s", note)
    yield from latency(engine)
    eager = one_by_one(source, device, mixture(64))
    yield Row("mixture of 1-10 s", "float32, eager, one by one", 0, eager, "clips/s", "")
    yield from accuracy(engine, source)
    yield inside(engine, out)


def outside_the_allocator(device: torch.device) -> int:
    """Bytes: the context, kernels, libraries and graphs."""
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def replayed(engine: BatchEngine, most: float) -> Iterator[Row]:
    """Graphs by themselves, by the device's clock: the smallest, the largest, 3 s and 5 s."""
    found = architecture.parse(large.configuration())
    buckets = engine._grid.buckets()
    chosen = [buckets[-1], buckets[0]]
    for seconds, size in ((3, 1), (5, 8), (5, 24), (5, 32)):
        frames = frame_count(seconds * SAMPLE_RATE)
        chosen.append(engine._grid.divide([frames] * size)[0].bucket)
    for bucket in chosen:
        with engine._device.computing():
            engine._static.waveforms.normal_()
            engine._static.samples.fill_(bucket.samples - HOP)
            spent = milliseconds(engine._graphs[bucket])
        work = bucket.size * large.gflop(found, bucket.seconds / bucket.size)
        what = f"graph of {bucket.size} x {bucket.frames} frames"
        yield Row(what, OURS, 0, spent, "ms", f"{1000 * work / spent / most:.0%} of the peak")


def five() -> Waveform:
    return clips.noise(5)


def mixture(count: int) -> list[Waveform]:
    return (clips.mixture() * (count // len(clips.LENGTHS)))[:count]


def throughput(engine: BatchEngine, waveforms: Sequence[Waveform]) -> float:
    """Clips a second, in full shapes, as many in flight as there are slots."""
    pieces = engine._grid.divide([frame_count(len(waveform)) for waveform in waveforms])
    batches = [[Utterance(waveforms[i]) for i in piece.clips] for piece in pieces]
    with ThreadPoolExecutor(engine.capacity.slots) as threads:
        list(threads.map(engine.infer, batches[:4]))
        started_at = perf_counter()
        list(threads.map(engine.infer, batches))
    return len(waveforms) / (perf_counter() - started_at)


def one_by_one(source: str, device: torch.device, waveforms: Sequence[Waveform]) -> float:
    """Clips a second as FunASR does it: float32, no batches, a launch a kernel."""
    network, _ = native.load(checkpoint.find(source), device, "float32")
    torch.backends.cudnn.allow_tf32 = True  # as torch has it before our engine is loaded

    def run() -> None:
        for waveform in waveforms:
            packed, _ = native.pack([torch.from_numpy(waveform)])
            network(packed.to(device)).logits.cpu()

    run()
    started_at = perf_counter()
    run()
    spent = perf_counter() - started_at
    torch.backends.cudnn.allow_tf32 = False
    return len(waveforms) / spent


def latency(engine: BatchEngine) -> Iterator[Row]:
    """Of one clip of three seconds, from the caller's memory and back."""
    one, times = [Utterance(clips.noise(3))], []
    for _ in range(CALLS):
        started_at = perf_counter()
        engine.infer(one)
        times.append(1000 * (perf_counter() - started_at))
    steady = np.percentile(times[CALLS // 10 :], (50, 99))
    for q, value in zip((50, 99), steady, strict=True):
        yield Row(f"3 s clip, p{q}", OURS, 0, float(value), "ms", "")


def accuracy(engine: BatchEngine, source: str) -> Iterator[Row]:
    """Half precision beside float32 on the CPU."""
    batch = [Utterance(waveform) for waveform in clips.mixture()]
    reference = load(source, device="cpu")
    reference.warm_up()  # which also takes all cores
    exact = reference.infer(batch)
    found, expected = (
        softmax(np.stack([one.logits for one in p])) for p in (engine.infer(batch), exact)
    )
    flips = int((found.argmax(1) != expected.argmax(1)).sum())
    change = float(np.abs(found - expected).max())
    yield Row("largest change of a score", OURS, 0, change, "", f"{flips} labels flip")


def inside(engine: BatchEngine, out: Path) -> Row:
    """Where the time of full batches goes, kernel by kernel, into profile.txt."""
    batch = [Utterance(five())] * 32
    engine.infer(batch)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(10):
            engine.infer(batch)
        torch.cuda.synchronize()
    events = profiler.key_averages()
    text = events.table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=120)
    (out / "profile.txt").write_text(text)
    spent = sum(event.self_device_time_total for event in events) / 10_000
    return Row("32 clips of 5 s, all kernels", OURS, 0, spent, "ms", "see profile.txt")


def peak(device: torch.device) -> float:
    """GFLOP/s of a large float16 product of random numbers."""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.float16) for _ in range(2))
    return 2 * SIDE**3 / milliseconds(lambda: a @ b) / 1e6


def behind_the_server(source: str, device: torch.device) -> Iterator[Row]:
    """Clips a second over gRPC; its Python callers share the host with the server."""
    speed, quantiles = asyncio.run(serve(source, str(device), [clips.noise(5), clips.noise(3)]))
    note = ", ".join(f"p{q} {1000 * value:.1f} ms" for q, value in quantiles.items())
    yield Row("5 s and 3 s clips over gRPC", "server, 64 callers", 0, speed, "clips/s", note)


if __name__ == "__main__":
    main()
