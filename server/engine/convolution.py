"""Convolutions over rows of contiguous channels, prepared once for the device they run on."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine.linear import has_kernels

Convolution = Callable[[Tensor], Tensor]
"""(B, rows, in) -> (B, fewer rows, out)."""

# As in `linear.py`: torch.compile's operators, with the weight laid out beforehand; where a build
# lacks them, nothing but speed is lost.
_available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_CONVOLVE = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if _available else None
_PACK = getattr(torch.ops.mkldnn, "_reorder_convolution_weight", None) if _available else None


def prepare(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Convolution:
    """The convolution of a weight (out, in / groups, kernel) and a bias (out,), where they are.

    Libraries take rows of channels as images of height 1 in channels-last layout, without a copy.
    """
    image = weight[:, :, None].contiguous(memory_format=torch.channels_last)
    paddings, strides, dilations = (0, padding), (1, stride), (1, 1)
    convolve, pack = _CONVOLVE, _PACK
    if convolve is None or pack is None or not has_kernels(weight):
        return lambda x: _rows(F.conv2d(_image(x), image, bias, strides, paddings, groups=groups))
    packed = pack(image, paddings, strides, dilations, groups, None)
    options: tuple[object, ...] = (paddings, strides, dilations, groups, "none", [], "none")
    return lambda x: _rows(convolve(_image(x), packed, bias, *options))


def _image(x: Tensor) -> Tensor:
    """(B, rows, C) -> (B, C, 1, rows), the same memory."""
    return x.transpose(1, 2)[:, :, None]


def _rows(image: Tensor) -> Tensor:
    """(B, C, 1, rows) -> (B, rows, C), the same memory."""
    return image[:, :, 0].transpose(1, 2)
