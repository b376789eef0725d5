"""The steps that a GPU can do in one kernel or in several; `Plain` is torch's several."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine.attention import Attention, choose

EPS = 1e-5


class Kernels(Protocol):
    """How a network computes them. The answers of all differ by rounding."""

    def norm(
        self,
        x: Tensor,
        affine: tuple[Tensor, Tensor] | None = None,
        *,
        plus: Tensor | None = None,
        gelu: bool = False,
    ) -> Tensor:
        """Layer norm of x + `plus` over the last axis, then GELU. `affine` is weight and bias."""
        ...

    def attention(
        self, slopes: Tensor, extra: int, like: Tensor, frames: Tensor | None, numbers: int
    ) -> Attention:
        """As `attention.choose`."""
        ...


class Plain:
    """A kernel a step; torch keeps the statistics of half-precision input in float32."""

    def norm(
        self,
        x: Tensor,
        affine: tuple[Tensor, Tensor] | None = None,
        *,
        plus: Tensor | None = None,
        gelu: bool = False,
    ) -> Tensor:
        x = x if plus is None else x + plus
        weight, bias = affine or (None, None)
        x = F.layer_norm(x, x.shape[-1:], weight, bias, EPS)
        return F.gelu(x) if gelu else x

    def attention(
        self, slopes: Tensor, extra: int, like: Tensor, frames: Tensor | None, numbers: int
    ) -> Attention:
        return choose(slopes, extra, like, frames, numbers)


def ways(device: torch.device) -> list[type[Kernels]]:
    """What can be tried on a device, the one that always works first."""
    if device.type != "cuda":
        return [Plain]
    try:
        from server.engine.fused import Fused
    except ImportError:  # only builds of torch for GPUs bring the compiler
        return [Plain]
    return [Plain, Fused]
