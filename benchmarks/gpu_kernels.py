"""The choices inside the engine on a GPU, each beside its alternatives; knows no server.

A way that fails (no compiler, no kernel for the shape) is a row that says so, and costs no other.
"""

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.engine_report import Row
from server.engine import checkpoint, convolution, native
from server.engine.attention import alibi_slopes
from server.engine.cuda import CudaDevice
from server.engine.kernels import ways
from server.engine.model import Emotion2vec
from server.engine.position import Grouped, Unfolded
from server.speech import HOP, WINDOW

CLIPS, TOKENS, EXTRA, WIDTH, HEADS, CHANNELS = 32, 272, 10, 1024, 16, 512
ROWS = 128_000
"""Of the first convolution's output: 40 s of audio, which is what the front end takes at a time."""


def kernels(source: str, device: torch.device) -> Iterator[Row]:
    """Of the large model, 32 clips of 5 s."""
    CudaDevice(device)  # for what it sets in torch, such as which library computes attention
    network, _ = native.load(checkpoint.find(source), device, "float16")
    yield from _forward(network, device)
    yield from _attention(device)
    yield from _norms(device)
    yield from _convolutions(device)
    yield from _positions(network, device)


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


def timed(what: str, engine: str, run: Callable[[], object]) -> Row:
    """With the first call, which plans or compiles, in the note."""
    try:
        started_at = perf_counter()
        with torch.inference_mode():
            run()
        torch.cuda.synchronize()
        note = f"first call {perf_counter() - started_at:.2f} s"
        return Row(what, engine, 0, milliseconds(run), "ms", note)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:80].replace("|", "/")
        return Row(what, engine, 0, float("nan"), "", f"{type(error).__name__}: {reason}")


def _forward(network: Emotion2vec, device: torch.device) -> Iterator[Row]:
    """Launched from Python, all positions grouped; warm-up uses the faster kernels."""
    most = TOKENS - EXTRA
    waveforms = torch.randn(CLIPS, WINDOW + HOP * (most - 1), device=device)
    frames = torch.full((CLIPS,), most - 13, device=device)
    for kind in ways(device):
        network.compute_by(kind)
        what = f"forward pass, {CLIPS} x {TOKENS} tokens"
        yield timed(what, kind.__name__, lambda: network(waveforms, frames))


def _norms(device: torch.device) -> Iterator[Row]:
    """After the first convolution, the largest: 262 MB of reading and writing at the least."""
    x = torch.randn(1, ROWS, CHANNELS, device=device, dtype=torch.float16)
    weight, bias = torch.randn(2, CHANNELS, device=device, dtype=torch.float16)
    for kind in ways(device):
        norm = partial(kind().norm, x, (weight, bias), gelu=True)
        yield timed("norm and GELU, 40 s of audio", kind.__name__, norm)


def _attention(device: torch.device) -> Iterator[Row]:
    q, k, v = _queries(device)
    place = torch.arange(TOKENS, device=device)
    slopes = torch.tensor(alibi_slopes(HEADS), device=device)
    bias = -(place[:, None] - place).abs() * slopes[:, None, None]
    bias = bias.half().expand(CLIPS, -1, -1, -1).contiguous()
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        with sdpa_kernel(backend):
            yield timed(
                f"attention with a bias, {CLIPS} x {TOKENS}",
                f"SDPA, {backend.name}",
                lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias),
            )
    qkv = torch.randn(CLIPS, TOKENS, 3 * WIDTH, device=device, dtype=torch.float16)
    frames = torch.full((CLIPS,), TOKENS - EXTRA - 13, device=device)
    for kind in ways(device):
        found = kind().attention(slopes, EXTRA, qkv[..., :WIDTH], frames, native.GPU_NUMBERS)
        yield timed(
            f"attention with a bias, {CLIPS} x {TOKENS}",
            f"{kind.__name__} (the engine's)",
            partial(found.attend, qkv),
        )


def compiled(_: str, device: torch.device) -> Iterator[Row]:
    """Attention by a compiler: ALiBi and the clips' lengths are computed in its kernel."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = _queries(device)
    slopes = torch.tensor(alibi_slopes(HEADS), device=device)
    lengths = torch.full((CLIPS,), TOKENS - 13, device=device)

    def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        distance = torch.where((i >= EXTRA) & (j >= EXTRA), (i - j).abs(), 0)
        return torch.where(j < lengths[b], value - slopes[h] * distance, -torch.inf)

    flex = torch.compile(flex_attention)
    yield timed(
        f"attention with a bias, {CLIPS} x {TOKENS}",
        "FlexAttention",
        lambda: flex(q, k, v, score_mod=score),
    )


def _queries(device: torch.device) -> tuple[Tensor, ...]:
    """Queries, keys and values as the engine has them: views of what one product wrote."""
    shape = CLIPS, TOKENS, 3, HEADS, WIDTH // HEADS
    return torch.randn(shape, device=device, dtype=torch.float16).permute(2, 0, 3, 1, 4).unbind()


def _convolutions(device: torch.device) -> Iterator[Row]:
    """The second of the front end, which is the largest: kernel 3, stride 2."""
    x = torch.randn(1, ROWS, CHANNELS, device=device, dtype=torch.float16)
    weight = torch.randn(CHANNELS, CHANNELS, 3, device=device, dtype=torch.float16)
    convolve = convolution.prepare(weight, stride=2)
    pair, last = weight[..., :2].permute(2, 1, 0).reshape(-1, CHANNELS), weight[..., 2].t()

    def products() -> Tensor:
        pairs = x.view(-1, 2 * CHANNELS)
        return (pairs[:-1] @ pair).addmm_(pairs[1:, :CHANNELS], last)

    what = "second convolution, 40 s of audio"
    yield timed(what, "two products", products)
    yield timed(what, "library (in use)", lambda: convolve(x))


def _positions(network: Emotion2vec, device: torch.device) -> Iterator[Row]:
    """Both ways; warm-up uses the faster."""
    x = torch.randn(CLIPS, TOKENS - EXTRA, WIDTH, device=device, dtype=torch.float16)
    for kind in (Grouped, Unfolded):
        network.compute_positions_by(kind)
        yield timed("positions, 32 x 5 s", kind.__name__, lambda: network._position(x, None))
