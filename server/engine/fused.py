"""Triton kernels: a norm with what stands around it, and attention that makes its own bias.

The norm is bound by memory, so what is not written between two steps is time saved. Compiled where
it runs, at the first call of each kind, which takes a second and a C compiler.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from server.engine.attention import Attention
from server.engine.kernels import EPS, Plain

NUMBERS = 2048
"""Of a program of the norm: two rows of the large model, four of its front end."""

QUERIES = KEYS = 64
"""Of a program of the attention at a time, in clips of 150 to 300 tokens."""

LOG2_E = math.log2(math.e)


class Fused(Plain):
    """Where there is no kernel of its own, as `Plain`."""

    def norm(
        self,
        x: Tensor,
        affine: tuple[Tensor, Tensor] | None = None,
        *,
        plus: Tensor | None = None,
        gelu: bool = False,
    ) -> Tensor:
        x = x.contiguous()
        width, y = x.shape[-1], torch.empty_like(x)
        rows, columns = x.numel() // width, triton.next_power_of_2(width)
        together = max(1, NUMBERS // columns)
        _norm[triton.cdiv(rows, together),](
            *(x, x if plus is None else plus.contiguous(), *(affine or (x, x)), y, rows, EPS),
            *(width, columns, together, plus is not None, affine is not None, gelu),
        )
        return y

    def attention(
        self, slopes: Tensor, extra: int, like: Tensor, frames: Tensor | None, numbers: int
    ) -> Attention:
        """Tensor cores multiply float32 with fewer digits, so that is left to the library."""
        head = like.shape[2] // len(slopes)
        if frames is None or like.element_size() != 2 or head not in (32, 64, 128):
            return super().attention(slopes, extra, like, frames, numbers)
        return FusedAttention(slopes, extra, frames)


class FusedAttention:
    """As `attention.AttentionBias`, with nothing in memory but queries, keys, values, answers."""

    def __init__(self, slopes: Tensor, extra: int, frames: Tensor) -> None:
        self._slopes, self._extra, self._frames = slopes * LOG2_E, extra, frames

    def attend(self, qkv: Tensor) -> Tensor:
        batch, tokens, width = qkv.shape
        heads, width = len(self._slopes), width // 3
        y = qkv.new_empty(batch, tokens, width)
        scale = LOG2_E / math.sqrt(width // heads)
        _attend[triton.cdiv(tokens, QUERIES), batch * heads](
            *(qkv.contiguous(), self._slopes, self._frames, y, tokens, scale),
            *(self._extra, heads, width // heads, QUERIES, KEYS),
        )
        return y


@triton.jit(do_not_specialize=["rows"])
def _norm(
    x, plus, weight, bias, y, rows, eps,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    PLUS: tl.constexpr, AFFINE: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    here = (row < rows)[:, None] & (column < WIDTH)[None, :]
    at = row[:, None] * WIDTH + column[None, :]
    v = tl.load(x + at, mask=here, other=0).to(tl.float32)
    if PLUS:
        v += tl.load(plus + at, mask=here, other=0).to(tl.float32)
    v = tl.where(here, v - (tl.sum(v, 1) / WIDTH)[:, None], 0)
    v *= tl.rsqrt(tl.sum(v * v, 1) / WIDTH + eps)[:, None]
    if AFFINE:
        v *= tl.load(weight + column, mask=column < WIDTH, other=0).to(tl.float32)[None, :]
        v += tl.load(bias + column, mask=column < WIDTH, other=0).to(tl.float32)[None, :]
    if GELU:
        v = 0.5 * v * (1 + tl.erf(v * 0.7071067811865476))
    tl.store(y + at, v.to(y.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["tokens"])
def _attend(
    qkv, slopes, frames, y, tokens, scale,
    EXTRA: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    clip, head = tl.program_id(1).to(tl.int64) // HEADS, tl.program_id(1) % HEADS
    own = tl.minimum(tl.load(frames + clip).to(tl.int32) + EXTRA, tokens)
    i, column = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, HEAD)
    first = qkv + clip * tokens * (3 * HEADS * HEAD) + head * HEAD
    at = first + i[:, None] * (3 * HEADS * HEAD) + column[None, :]
    q = tl.load(at, mask=i[:, None] < tokens, other=0)
    slope = tl.load(slopes + head)
    largest = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, HEAD), tl.float32)
    for start in range(0, own, KEYS):  # softmax as it goes, in powers of two (flash attention)
        j = start + tl.arange(0, KEYS)
        at = first + j[:, None] * (3 * HEADS * HEAD) + column[None, :]
        k = tl.load(at + HEADS * HEAD, mask=j[:, None] < own, other=0)
        v = tl.load(at + 2 * HEADS * HEAD, mask=j[:, None] < own, other=0)
        between_frames = (i[:, None] >= EXTRA) & (j[None, :] >= EXTRA)
        distance = tl.where(between_frames, tl.abs(i[:, None] - j[None, :]), 0).to(tl.float32)
        s = tl.dot(q, tl.trans(k)) * scale - slope * distance
        s = tl.where(j[None, :] < own, s, -float("inf"))
        larger = tl.maximum(largest, tl.max(s, 1))
        p, shrunk = tl.exp2(s - larger[:, None]), tl.exp2(largest - larger)
        total = total * shrunk + tl.sum(p, 1)
        sums = sums * shrunk[:, None] + tl.dot(p.to(v.dtype), v)
        largest = larger
    at = y + (clip * tokens + i[:, None]) * (HEADS * HEAD) + head * HEAD + column[None, :]
    tl.store(at, (sums / total[:, None]).to(y.dtype.element_ty), mask=i[:, None] < tokens)
