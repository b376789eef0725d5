"""Attention with ALiBi over padded batches, in bounded memory; knows no weights but the slopes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NUMBERS = 2**22
"""In a temporary tensor of the front end; 16 MiB of float32, 2.5 s of the large model."""

BIASES = 4
"""Times as many in one of attention: what is not kept whole is made again in every block."""


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


class AttentionBias:
    """ALiBi, and -inf for padded keys, of N tokens: the E extra tokens, then the frames.

    -slope * |i - j| between frames, 0 to and from the extra tokens. Made whole and shared by all
    blocks if it is small; else made again for some rows of queries at a time, so that memory grows
    with the length and not with its square. Both are exact.
    """

    def __init__(
        self, slopes: Tensor, extra: int, like: Tensor, frames: Tensor | None, numbers: int
    ) -> None:
        """`like` (B, N, D) gives shape, type and device; `frames` (B,) or None without padding."""
        batch, self._tokens, _ = like.shape
        self._slopes = slopes[:, None, None]
        self._extra = extra
        self._dtype = like.dtype
        self._columns = torch.arange(self._tokens, device=like.device)
        self._keys = None if frames is None else self._mask(frames)
        copies = 1 if frames is None else batch
        self._step = max(1, BIASES * numbers // (copies * len(slopes) * self._tokens))
        self._whole = self._rows(0, self._tokens) if self._step >= self._tokens else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
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
