"""The student: emotion2vec's inference architecture, small, with exact padded batches.

The module names are FunASR's, so that the state dict is a FunASR checkpoint but for its prefix.
Baevski et al. 2022 (data2vec 2.0) and Ma et al. 2023 (emotion2vec) describe the design.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.layers import EPS, Block, ConvLayer

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # kernel, stride: samples
RECEPTIVE_FIELD = 400  # samples, 25 ms
HOP = 320  # samples, 20 ms
_POSITIONAL_KERNEL = 19
_POSITIONAL_LAYERS = 5
_POSITIONAL_GROUPS = 16
_EXTRA_TOKENS = 10


@dataclass(frozen=True)
class Size:
    """The dimensions of a model; ``width`` must divide by 16 and by ``heads``."""

    conv: int = 64
    width: int = 128
    heads: int = 4
    prenet: int = 2
    depth: int = 2
    classes: int = 9


def frame_counts(lengths: Tensor) -> Tensor:
    """Samples -> frames of 20 ms."""
    return (lengths - RECEPTIVE_FIELD) // HOP + 1


def alibi_slopes(heads: int) -> Tensor:
    """(heads,) geometric slopes for a power of two of heads (Press et al. 2022)."""
    if heads & (heads - 1):
        raise ValueError("the number of heads must be a power of two")
    first = 2.0 ** -(2.0 ** -(math.log2(heads) - 3))
    return torch.tensor([first ** (i + 1) for i in range(heads)])


class ContextEncoder(nn.Module):
    """The first blocks, with a norm before them."""

    def __init__(self, size: Size, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width, EPS)
        blocks = [Block(size.width, size.heads, dropout) for _ in range(size.prenet)]
        self.blocks = nn.ModuleList(blocks)


class AudioEncoder(nn.Module):
    """Everything before the last blocks: convolutions, positions, ALiBi, extra tokens."""

    _slopes: Tensor

    def __init__(self, size: Size, dropout: float) -> None:
        super().__init__()
        # Not learnt: a bias without a gradient lets torch use its fast attention on a CPU.
        scale = torch.ones(1, 1, size.heads, 1, 1)
        self.alibi_scale = nn.Parameter(scale, requires_grad=False)
        self.channels = size.conv
        self.extra_tokens = nn.Parameter(0.02 * torch.randn(1, _EXTRA_TOKENS, size.width))
        inputs = [1] + [size.conv] * (len(CONVOLUTIONS) - 1)
        layers = [
            ConvLayer(i, size.conv, *shape) for i, shape in zip(inputs, CONVOLUTIONS, strict=True)
        ]
        self.local_encoder = nn.ModuleDict({"conv_layers": nn.ModuleList(layers)})
        norm, linear = nn.LayerNorm(size.conv, EPS), nn.Linear(size.conv, size.width)
        self.project_features = nn.ModuleList([nn.Identity(), norm, linear])
        positional = [
            nn.ModuleList([self._positional(size.width)]) for _ in range(_POSITIONAL_LAYERS)
        ]
        self.relative_positional_encoder = nn.ModuleList([nn.Identity(), *positional])
        self.context_encoder = ContextEncoder(size, dropout)
        self.register_buffer("_slopes", alibi_slopes(size.heads), persistent=False)

    @staticmethod
    def _positional(width: int) -> nn.Conv1d:
        half = _POSITIONAL_KERNEL // 2
        return nn.Conv1d(width, width, _POSITIONAL_KERNEL, padding=half, groups=_POSITIONAL_GROUPS)

    def front_end(self, waves: Tensor) -> Tensor:
        """(B, samples) -> (B, T, conv)."""
        x = waves[..., None]
        for layer in cast(nn.ModuleList, self.local_encoder["conv_layers"]):
            x = layer(x)
        return x

    def project(self, features: Tensor, keep: Tensor) -> Tensor:
        """(B, T, conv) -> (B, T, width): projection plus positions; ``keep`` is (B, T)."""
        x = self.project_features[2](self.project_features[1](features))
        y = x
        for layer in list(self.relative_positional_encoder)[1:]:
            # Norm and GELU make padded frames non-zero again after each layer.
            convolution = cast(nn.ModuleList, layer)[0]
            y = convolution((y * keep[..., None]).transpose(1, 2)).transpose(1, 2)
            y = F.gelu(F.layer_norm(y, y.shape[-1:], eps=EPS))
        return cast(Tensor, x + y)

    def attention_bias(self, keep: Tensor) -> Tensor:
        """(B, T) -> (B, heads, T + 10, T + 10): ALiBi; no token looks at padding."""
        place = torch.arange(keep.shape[1])
        distance = (place[None] - place[:, None]).abs().float()
        slopes = self._slopes * self.alibi_scale.reshape(-1).clamp_min(0)
        bias = F.pad(-slopes[:, None, None] * distance, (_EXTRA_TOKENS, 0, _EXTRA_TOKENS, 0))
        visible = F.pad(keep, (_EXTRA_TOKENS, 0), value=True)
        return bias[None].masked_fill(~visible[:, None, None], -math.inf)


class Student(nn.Module):
    """Waveforms of zero mean and unit variance -> scores for the nine labels."""

    def __init__(self, size: Size, dropout: float = 0.0) -> None:
        super().__init__()
        self.size = size
        self.modality_encoders = nn.ModuleDict({"AUDIO": AudioEncoder(size, dropout)})
        blocks = [Block(size.width, size.heads, dropout) for _ in range(size.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.proj = nn.Linear(size.width, size.classes)

    def set_dropout(self, share: float) -> None:
        """Change how much of each block's output is dropped while training."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    @property
    def audio(self) -> AudioEncoder:
        encoder = self.modality_encoders["AUDIO"]
        assert isinstance(encoder, AudioEncoder)
        return encoder

    def encode(self, features: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, conv), (B,) -> frames (B, T, width) after the first and after all blocks."""
        keep = torch.arange(features.shape[1]) < counts[:, None]
        x = self.audio.project(features, keep)
        bias = self.audio.attention_bias(keep)
        x = torch.cat([self.audio.extra_tokens.expand(len(x), -1, -1), x], 1)
        x = self.audio.context_encoder.norm(x)
        for block in self.audio.context_encoder.blocks:
            x = block(x, bias)
        early = x
        for block in self.blocks:
            x = block(x, bias)
        return early[:, _EXTRA_TOKENS:], x[:, _EXTRA_TOKENS:]

    def pool(self, frames: Tensor, counts: Tensor) -> Tensor:
        """(B, T, width) -> (B, width): the mean over each clip's own frames."""
        keep = torch.arange(frames.shape[1]) < counts[:, None]
        return (frames * keep[..., None]).sum(1) / counts[:, None]

    def forward(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """(B, samples), (B,) -> logits (B, 9)."""
        counts = frame_counts(lengths)
        frames = self.encode(self.audio.front_end(waves), counts)[1]
        return cast(Tensor, self.proj(self.pool(frames, counts)))
