"""The positional convolution: two ways to compute it, for the device to choose from."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine.convolution import prepare

Position = Callable[[Tensor], Tensor]
"""(B, T, D) -> (B, T, D): a grouped convolution over T that keeps its length."""


class Grouped:
    """By the library's grouped convolution; the faster way on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor, groups: int) -> None:
        """`weight` is (D, D / groups, kernel), the kernel odd."""
        self._convolve = prepare(weight, bias, padding=weight.shape[2] // 2, groups=groups)

    def __call__(self, x: Tensor) -> Tensor:
        return self._convolve(x)


class Unfolded:
    """By one matrix product a group, of every window written out.

    Writes `kernel` times the input, but the products run on tensor cores, which grouped
    convolutions of few channels may not.
    """

    def __init__(self, weight: Tensor, bias: Tensor, groups: int) -> None:
        """`weight` is (D, D / groups, kernel), the kernel odd."""
        dimension, width, self._kernel = weight.shape
        self._groups = groups
        columns = weight.view(groups, dimension // groups, width, self._kernel)
        self._weight = columns.permute(0, 3, 2, 1).reshape(groups, -1, dimension // groups)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        batch, frames, dimension = x.shape
        side = self._kernel // 2
        windows = F.pad(x, (0, 0, side, side)).unfold(1, frames, 1)  # (B, kernel, D, T)
        windows = windows.view(batch, self._kernel, self._groups, -1, frames)
        rows = windows.permute(2, 0, 4, 1, 3).reshape(self._groups, batch * frames, -1)
        y = torch.bmm(rows, self._weight).view(self._groups, batch, frames, -1)
        return y.permute(1, 2, 0, 3).reshape(batch, frames, dimension) + self._bias
