"""Attention with ALiBi, in bounded memory; knows no weights but the slopes."""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine.linear import product

NUMBERS = 2**21
"""In a temporary tensor of the front end; 8 MiB of float32, 1.3 s of the large model. With twice as
many, the C library gave the memory back after each layer, and faulted it in for the next."""

BIASES = 8
"""Times as many in one of attention: what is not kept whole is made again in every block."""

SCORES, QUERIES = 2**18, 128
"""Of a head at a time on a CPU: numbers that stay in a core's cache (1 MiB), and of long clips at
least so many rows, which a product needs to be fast."""


def alibi_slopes(heads: int) -> list[float]:
    """ALiBi's fixed slope of each head; without a power of two, every other one of the next.

    Press et al. 2022, "Train Short, Test Long"; FunASR `emotion2vec/base.py:get_slopes`.
    """
    power: int = 2 ** int(math.log2(heads))
    ratio = 2.0 ** -(2.0 ** -(math.log2(power) - 3))
    slopes = [ratio ** (i + 1) for i in range(power)]
    if power < heads:
        slopes += alibi_slopes(2 * power)[0::2][: heads - power]
    return slopes


class Attention(Protocol):
    """Of N tokens, the E extra tokens and then the frames, for all blocks of one forward pass.

    The bias is -slope * |i - j| between frames, 0 to and from the extra tokens, -inf to padding.
    """

    def attend(self, qkv: Tensor) -> Tensor:
        """(B, N, 3 * D), queries, keys and values of all heads beside each other -> (B, N, D)."""
        ...


def choose(
    slopes: Tensor, extra: int, like: Tensor, frames: Tensor | None, numbers: int
) -> Attention:
    """`like` (B, N, D) gives shape, type and device; `frames` (B,) or None without padding."""
    if len(like) == 1 and like.device.type == "cpu" and like.dtype == torch.float32:
        own = like.shape[1] if frames is None else extra + int(frames)
        return HeadByHead(slopes, extra, like.shape[1], own)
    return AttentionBias(slopes, extra, like, frames, numbers)


class HeadByHead:
    """For one clip on a CPU: a head's scores at a time, some queries at a time.

    They stay in the cache, oneDNN multiplies (SDPA's kernel asks MKL, see `linear.py`), and no
    bias is ever written out. Memory grows with the length and not with its square.
    """

    def __init__(self, slopes: Tensor, extra: int, tokens: int, own: int) -> None:
        """The first `own` of the tokens are not padding."""
        self._slopes: list[float] = slopes.tolist()
        self._extra = extra
        self._places = torch.arange(own, dtype=torch.float32)
        pieces = math.ceil(tokens / max(QUERIES, SCORES // own))
        self._step = math.ceil(tokens / pieces)
        self._whole = self._distances(0, tokens) if self._step == tokens else None

    def attend(self, qkv: Tensor) -> Tensor:
        tokens, heads = qkv.shape[1], len(self._slopes)
        q, k, v = qkv.view(tokens, 3, heads, -1).unbind(1)
        q = q.transpose(0, 1).contiguous().div_(math.sqrt(q.shape[2]))  # (H, N, head)
        k, v = (x[: len(self._places)].transpose(0, 1).contiguous() for x in (k, v))
        columns = [rows.t().contiguous() for rows in v]  # (head, own); together it takes longer
        y = torch.empty(tokens, heads, q.shape[2])
        for start in range(0, tokens, self._step):
            stop = min(start + self._step, tokens)
            distances = self._distances(start, stop) if self._whole is None else self._whole
            for head, slope in enumerate(self._slopes):
                scores = product(q[head, start:stop], k[head]).sub_(distances, alpha=slope)
                y[start:stop, head] = product(scores.softmax(1), columns[head])
        return y.view(1, tokens, -1)

    def _distances(self, start: int, stop: int) -> Tensor:
        """(stop - start, own): of some queries from all keys."""
        places = torch.arange(start, stop, dtype=torch.float32)
        distances = (places[:, None] - self._places).abs_()
        distances[:, : self._extra] = 0
        distances[: max(0, self._extra - start)] = 0
        return distances


class AttentionBias:
    """For padded batches, and for the formats that a GPU or a CPU has fused kernels for.

    Made whole and shared by all blocks if it is small; else made again for some rows of queries at
    a time, so that memory grows with the length and not with its square. Both are exact.
    """

    def __init__(
        self, slopes: Tensor, extra: int, like: Tensor, frames: Tensor | None, numbers: int
    ) -> None:
        """As `choose`."""
        batch, self._tokens, _ = like.shape
        self._slopes = slopes[:, None, None]
        self._extra = extra
        self._dtype = like.dtype
        self._columns = torch.arange(self._tokens, device=like.device)
        self._keys = None if frames is None else self._mask(frames)
        copies = 1 if frames is None else batch
        self._step = max(1, BIASES * numbers // (copies * len(slopes) * self._tokens))
        self._whole = self._rows(0, self._tokens) if self._step >= self._tokens else None

    def attend(self, qkv: Tensor) -> Tensor:
        batch, tokens, _ = qkv.shape
        q, k, v = qkv.view(batch, tokens, 3, len(self._slopes), -1).permute(2, 0, 3, 1, 4)
        return self._attend(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, N, head) three times -> (B, H, N, head)."""
        if self._whole is not None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self._whole)
        parts = [
            F.scaled_dot_product_attention(
                q[:, :, start : start + self._step], k, v, attn_mask=self._rows(start, self._step)
            )
            for start in range(0, self._tokens, self._step)
        ]
        return torch.cat(parts, 2)

    def _rows(self, start: int, count: int) -> Tensor:
        """(1 or B, H, count, N): the bias of some queries to all keys."""
        rows = self._columns[start : start + count, None]
        between_frames = (rows >= self._extra) & (self._columns >= self._extra)
        distance = (rows - self._columns).abs() * between_frames
        bias = (distance * -self._slopes)[None].to(self._dtype)
        return bias if self._keys is None else bias + self._keys

    def _mask(self, frames: Tensor) -> Tensor:
        """(B, 1, 1, N): 0 for a clip's own keys, -inf for its padding."""
        padding = self._columns >= (frames + self._extra)[:, None]
        zeros = torch.zeros(padding.shape, dtype=self._dtype, device=frames.device)
        return zeros.masked_fill(padding, -torch.inf)[:, None, None]
