"""Linear layers, prepared once for the device and the format that multiply their matrices."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Linear = Callable[[Tensor], Tensor]
"""(..., in) -> (..., out)."""

INT8_MAX = 127

# torch gives float32 products to MKL, which leaves AVX-512 unused on CPUs that are not Intel's;
# oneDNN uses it (measured on an AMD EPYC with AVX-512: 1.7 times as fast, and 2.1 times with the
# weights laid out beforehand). The operators are those that torch.compile emits; where a build
# lacks them, nothing but speed is lost.
_available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_MULTIPLY = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _available else None
_PACK = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None) if _available else None


def prepare(weight: Tensor, bias: Tensor, *, int8: bool = False, gelu: bool = False) -> Linear:
    """The layer of a weight (out, in) and a bias (out,), computed where they are; then GELU."""
    if _PACK is not None and not int8 and has_kernels(weight):
        return _Packed(_PACK(weight.contiguous()), bias, "gelu" if gelu else "none")
    linear = Int8(weight, bias) if int8 else _Plain(weight, bias)
    return (lambda x: F.gelu(linear(x))) if gelu else linear


def product(x: Tensor, weight: Tensor) -> Tensor:
    """(rows, in) and (out, in), both contiguous -> (rows, out), of a weight not known before."""
    if _MULTIPLY is None:
        return F.linear(x, weight)
    y: Tensor = _MULTIPLY(x, weight, None, "none", [], "none")
    return y


def has_kernels(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by it, which it does in the formats that this CPU computes."""
    if weight.device.type != "cpu" or weight.dtype == torch.float32:
        return weight.device.type == "cpu"
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[weight.dtype]
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")())


class _Plain:
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class _Packed:
    """Of oneDNN, in the order in which its kernel reads the weight."""

    def __init__(self, weight: Tensor, bias: Tensor, after: str) -> None:
        self._weight, self._bias, self._after = weight, bias, after

    def __call__(self, x: Tensor) -> Tensor:
        assert _MULTIPLY is not None
        y: Tensor = _MULTIPLY(x, self._weight, self._bias, self._after, [], "none")
        return y


class Int8:
    """Products of 8-bit integers, summed in 32 bits; a scale a row of the weight and a row of x.

    Dynamic: the scale of x is its own largest value, so nothing is calibrated, and a row's answer
    does not depend on its neighbours.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        quantised, scale = _quantise(weight.float())
        self._weight = quantised.t().contiguous()  # (in, out)
        self._scale = scale.flatten()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        rows, scale = _quantise(x.reshape(-1, x.shape[-1]))
        sums = torch._int_mm(rows, self._weight)
        y = torch.addcmul(self._bias, sums.to(x.dtype).mul_(scale), self._scale)
        return y.view(*x.shape[:-1], -1)


def _quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m) -> int8 of the same shape, and the scale (n, 1) that gives the numbers back."""
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / INT8_MAX
    return (rows / scale).round_().to(torch.int8), scale
