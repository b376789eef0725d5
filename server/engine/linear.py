"""Linear layers at the CPU's speed: chooses the library that multiplies the matrices."""

import torch
import torch.nn.functional as F
from torch import Tensor

# torch gives float32 products to MKL, which leaves AVX-512 unused on CPUs that are not Intel's;
# oneDNN uses it (measured on an AMD EPYC with AVX-512: 1.7 times as fast). The operator is the one
# that torch.compile emits; where a build lacks it, nothing but speed is lost.
_available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _available else None


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(..., in), (out, in), (out,) -> (..., out), on any device and in any precision."""
    if _ONEDNN is None or x.device.type != "cpu":
        return F.linear(x, weight, bias)
    y: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
    return y
