"""Our engine on a GPU, by itself and behind the server; writes gpu.json and gpu.md.

    python -m benchmarks.gpu [--out build/gpu] [--device cuda:0]

`make gpu` runs it. Rows that compare were measured in the same run on the same GPU.
"""

import asyncio
import json
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import clips, large
from benchmarks.engine_report import Row, table
from benchmarks.gpu_server import serve
from server.engine import Engine, architecture, checkpoint, native
from server.engine.attention import alibi_slopes
from server.engine.loading import load
from server.engine.position import Grouped, Unfolded
from server.speech import SAMPLE_RATE, Utterance, Waveform, softmax

SIDE = 8192
CALLS = 400


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("build/large"))
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--device", default="cuda:0")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    source, device = str(large.write(chosen.model)), torch.device(chosen.device)
    rows = [Row("device", torch.cuda.get_device_name(device), 0, torch.cuda.device_count(), "", "")]
    failed = False
    for part in (alone, behind_the_server, kernels):
        try:
            rows += part(source, device)
        except Exception as error:  # what has been measured must not be lost, nor what comes next
            traceback.print_exc()
            failed = True
            rows.append(Row(part.__name__, "failed", 0, float("nan"), "", type(error).__name__))
        (chosen.out / "gpu.json").write_text(json.dumps([row._asdict() for row in rows]))
        (chosen.out / "gpu.md").write_text(table(rows))
    print(table(rows))
    sys.exit(failed)


def alone(source: str, device: torch.device) -> list[Row]:
    """Start, throughput, latency and accuracy of the engine itself."""
    peak = matmul_peak(device)
    started_at = perf_counter()
    engine = load(source, device=str(device))
    loaded_at = perf_counter()
    engine.warm_up()
    rows = [
        Row("float16 matrix product", f"{SIDE} cubed", 0, peak / 1000, "TFLOP/s", ""),
        Row("load", "ours float16", 0, loaded_at - started_at, "s", ""),
        Row("capture all graphs", "ours float16", 0, perf_counter() - loaded_at, "s", ""),
        Row("memory when ready", "ours float16", 0, engine.capacity.memory_bytes / 1e9, "GB", ""),
    ]
    found = architecture.parse(large.configuration())
    for what, waveforms in (("mixture of 1-10 s", mixture(1024)), ("5 s clips", [five()] * 1024)):
        speed = throughput(engine, waveforms)
        work = np.mean([large.gflop(found, len(one) / SAMPLE_RATE) for one in waveforms])
        note = f"{speed * work / peak:.0%} of the measured peak"
        rows.append(Row(what, "ours float16", 0, speed, "clips/s", note))
    eager = one_by_one(source, device, mixture(64))
    rows.insert(-1, Row("mixture of 1-10 s", "float32, eager, one by one", 0, eager, "clips/s", ""))
    return rows + latency(engine) + accuracy(engine, source)


def five() -> Waveform:
    return clips.noise(5)


def mixture(count: int) -> list[Waveform]:
    return (clips.mixture() * (count // len(clips.LENGTHS)))[:count]


def throughput(engine: Engine, waveforms: Sequence[Waveform]) -> float:
    """Clips a second, in batches of neighbours in length, as many in flight as there are slots."""
    batches = list(batched(engine, sorted(waveforms, key=len)))
    with ThreadPoolExecutor(engine.capacity.slots) as threads:
        list(threads.map(engine.infer, batches[:4]))
        started_at = perf_counter()
        list(threads.map(engine.infer, batches))
    return len(waveforms) / (perf_counter() - started_at)


def batched(engine: Engine, waveforms: Sequence[Waveform]) -> list[list[Utterance]]:
    """Full batches, by the engine's own limits."""
    capacity, batches = engine.capacity, [list[Utterance]()]
    for waveform in waveforms:
        seconds = (len(batches[-1]) + 1) * len(waveform) / SAMPLE_RATE
        if len(batches[-1]) == capacity.batch_size or seconds > 0.95 * capacity.batch_seconds:
            batches.append([])
        batches[-1].append(Utterance(waveform))
    return batches


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


def latency(engine: Engine) -> list[Row]:
    """Of one clip of three seconds, from the caller's memory and back."""
    one, times = [Utterance(clips.noise(3))], []
    for _ in range(CALLS):
        started_at = perf_counter()
        engine.infer(one)
        times.append(1000 * (perf_counter() - started_at))
    steady = np.percentile(times[CALLS // 10 :], (50, 99))
    return [
        Row(f"3 s clip, p{q}", "ours float16", 0, float(value), "ms", "")
        for q, value in zip((50, 99), steady, strict=True)
    ]


def accuracy(engine: Engine, source: str) -> list[Row]:
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
    return [Row("largest change of a score", "ours float16", 0, change, "", f"{flips} labels flip")]


def kernels(source: str, device: torch.device) -> list[Row]:
    """The choices inside: attention with a bias, and the positional convolution."""
    rows = []
    network, _ = native.load(checkpoint.find(source), device, "float16")
    x = torch.randn(32, 262, 1024, device=device, dtype=torch.float16)
    for kind in (Grouped, Unfolded):
        network.compute_positions_by(kind)
        spent = milliseconds(lambda: network._position(x, None))
        rows.append(Row("positions, 32 x 5 s", kind.__name__, 0, spent, "ms", ""))
    q = torch.randn(32, 16, 272, 64, device=device, dtype=torch.float16)
    place = torch.arange(272, device=device)
    slopes = torch.tensor(alibi_slopes(16), device=device)
    bias = (-(place[:, None] - place).abs() * slopes[:, None, None]).half().expand(32, -1, -1, -1)
    bias = bias.contiguous()
    fused = milliseconds(lambda: F.scaled_dot_product_attention(q, q, q, attn_mask=bias))
    rows.append(Row("attention, 32 x 5 s", "SDPA with a bias (in use)", 0, fused, "ms", ""))
    rows.append(Row("attention, 32 x 5 s", "FlexAttention", 0, flex(q, slopes), "ms", ""))
    return rows


def flex(q: torch.Tensor, slopes: torch.Tensor) -> float:
    """The alternative: compiled, with ALiBi computed in the kernel."""
    from torch.nn.attention.flex_attention import flex_attention

    def score(value, _, h, i, j):  # type: ignore[no-untyped-def]  # traced by the compiler
        return value - slopes[h] * (i - j).abs()

    compiled = torch.compile(flex_attention)
    return milliseconds(lambda: compiled(q, q, q, score_mod=score))


def matmul_peak(device: torch.device) -> float:
    """GFLOP/s of a large float16 product of random numbers."""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.float16) for _ in range(2))
    return 2 * SIDE**3 / milliseconds(lambda: a @ b) / 1e6


def milliseconds(run: Callable[[], object], repeats: int = 20) -> float:
    """Median, by the device's clock."""
    times = []
    with torch.inference_mode():
        for _ in range(3):
            run()
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    return float(np.median(times))


def behind_the_server(source: str, device: torch.device) -> list[Row]:
    """Clips a second over gRPC; its Python callers share the host with the server."""
    speed, quantiles = asyncio.run(serve(source, str(device), [clips.noise(5), clips.noise(3)]))
    note = ", ".join(f"p{q} {1000 * value:.1f} ms" for q, value in quantiles.items())
    return [Row("5 s and 3 s clips over gRPC", "server, 64 callers", 0, speed, "clips/s", note)]


if __name__ == "__main__":
    main()
