"""emotion2vec, inference only, on padded batches; knows no file and no setting.

Exact: a clip in a padded batch gets the numbers that it gets alone. Padding can leak at four places
and does at none: the waveform's norm (each clip over its own samples, `normalise`), the positional
convolution (padding zeroed before each layer), attention (padded keys masked) and pooling (each
clip's own frames). No step waits for the device or depends on a value in a tensor.

Ma et al. 2023, "emotion2vec"; the numbers are those of FunASR `models/emotion2vec`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine.architecture import AUDIO, KERNELS, STRIDES, Architecture
from server.engine.attention import NUMBERS, AttentionBias, alibi_slopes
from server.engine.linear import linear
from server.speech import HOP, WINDOW, frame_count


class Affine(NamedTuple):
    """Of a layer norm or a linear layer."""

    weight: Tensor
    bias: Tensor


class Convolution(NamedTuple):
    """One layer of the front end; the weight is (out, in, 1, kernel), channels last."""

    weight: Tensor
    norm: Affine


class Block(NamedTuple):
    """A post-norm transformer block."""

    qkv: Affine
    proj: Affine
    norm1: Affine
    fc1: Affine
    fc2: Affine
    norm2: Affine


class Output(NamedTuple):
    """Of B padded clips of at most T frames."""

    frames: Tensor  # (B, T, D); past a clip's own frames it means nothing
    embeddings: Tensor  # (B, D) float32, mean over a clip's own frames
    logits: Tensor  # (B, labels) float32


def normalise(waveform: Tensor) -> Tensor:
    """(samples,) float32 -> with mean 0 and variance 1; silence stays finite (eps 1e-5)."""
    return F.layer_norm(waveform, waveform.shape)


class Emotion2vec:
    """The weights, and the way from waveforms to logits."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        architecture: Architecture,
        columns: tuple[int, ...],
        *,
        dtype: torch.dtype = torch.float32,
        numbers: int = NUMBERS,
    ) -> None:
        """`weights` has FunASR's names, `columns` are the rows of the head that are labels.

        The weights are used where they are; only the head and the ALiBi slopes stay float32
        when `dtype` is another. No temporary tensor of the front end or of the attention holds
        more than `numbers`, however long a clip is.
        """
        self._dtype = dtype
        self._numbers = numbers
        self._heads = architecture.heads
        cast = {name: weight.to(dtype) for name, weight in weights.items()}
        self._extra = cast[AUDIO + "extra_tokens"]  # (1, E, D)
        self._convolutions = [_convolution(cast, i) for i in range(len(KERNELS))]
        self._project_norm = _affine(cast, AUDIO + "project_features.1.")
        self._project = _affine(cast, AUDIO + "project_features.2.")
        self._groups = architecture.position_groups
        self._positions = [
            _affine(cast, f"{AUDIO}relative_positional_encoder.{i}.0.")
            for i in range(1, architecture.position_layers + 1)
        ]
        self._norm = _affine(cast, AUDIO + "context_encoder.norm.")
        self._blocks = [_block(cast, name) for name in architecture.block_names()]
        rows = list(columns)
        self._head = Affine(weights["proj.weight"][rows], weights["proj.bias"][rows])
        # One learned scale a head for all blocks, which FunASR clamps at run time (`base.py`).
        scale = weights[AUDIO + "alibi_scale"].flatten().clamp_min(0)
        self._slopes = scale.new_tensor(alibi_slopes(self._heads)) * scale

    @torch.inference_mode()
    def __call__(self, waveforms: Tensor, frames: Tensor | None = None) -> Output:
        """Runs a padded batch.

        `waveforms` (B, N) float32: normalised, cut to whole frames and zero-padded, so that
        N = 400 + 320 * (T - 1). `frames` (B,) int64 on the same device: how many of the T frames
        are each clip's own, at least 1; None says that all are.
        """
        own = None if frames is None else self._own(frames, frame_count(waveforms.shape[1]))
        x = self._front_end(waveforms.to(self._dtype))
        x = x + self._position(x, own)
        x = torch.cat([self._extra.expand(len(x), -1, -1), x], 1)
        extra = self._extra.shape[1]
        bias = AttentionBias(self._slopes, extra, x, frames, self._numbers)
        x = _layer_norm(x, self._norm)
        for block in self._blocks:
            x = self._transform(x, block, bias)
        x = x[:, extra:]
        embeddings = _pool(x, own, frames)
        return Output(x, embeddings, self.classify(embeddings))

    @torch.inference_mode()
    def classify(self, embeddings: Tensor) -> Tensor:
        """(..., D) of utterances or of frames -> (..., labels) logits, in float32.

        The head is linear, so the mean of the frames' logits is the logits of the frames' mean.
        """
        return F.linear(embeddings.float(), *self._head)

    def _own(self, frames: Tensor, count: int) -> Tensor:
        """(B, T, 1): 1 for a clip's own frames, 0 for padding."""
        own = torch.arange(count, device=frames.device) < frames[:, None]
        return own[..., None].to(self._dtype)

    def _front_end(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, T, D); long clips in pieces, which is exact: no frame sees beyond 25 ms."""
        batch, samples = waveforms.shape
        count = frame_count(samples)
        channels = len(self._convolutions[0].weight)
        step = max(1, self._numbers // (batch * channels * HOP // STRIDES[0]))  # frames
        parts = [
            self._convolve(
                waveforms[:, HOP * start : HOP * min(start + step, count) + WINDOW - HOP]
            )
            for start in range(0, count, step)
        ]
        return torch.cat(parts, 1)

    def _convolve(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, T, D): seven strided convolutions, then a projection.

        Frames stay rows of contiguous channels throughout: norm and GELU are at their fastest on
        those, and the convolutions take them as images of height 1 in channels-last layout.
        """
        first, *rest = self._convolutions
        x = F.linear(waveforms.unfold(1, KERNELS[0], STRIDES[0]), first.weight.flatten(1))
        x = F.gelu(_layer_norm(x, first.norm))
        for layer, stride in zip(rest, STRIDES[1:], strict=True):
            image = x.transpose(1, 2)[:, :, None]  # (B, C, 1, rows)
            x = F.conv2d(image, layer.weight, stride=(1, stride))[:, :, 0].transpose(1, 2)
            x = F.gelu(_layer_norm(x, layer.norm))
        return linear(_layer_norm(x, self._project_norm), *self._project)

    def _position(self, x: Tensor, own: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D): grouped convolutions, each followed by LN and GELU.

        LN and GELU make padding non-zero again after each layer, so it is zeroed before each.
        """
        for weight, bias in self._positions:
            x = x if own is None else x * own
            x = F.conv1d(
                x.transpose(1, 2), weight, bias, padding=weight.shape[2] // 2, groups=self._groups
            ).transpose(1, 2)
            x = F.gelu(F.layer_norm(x, x.shape[-1:]))
        return x

    def _transform(self, x: Tensor, block: Block, bias: AttentionBias) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        batch, tokens, dimension = x.shape
        qkv = linear(x, *block.qkv).view(batch, tokens, 3, self._heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = bias.attend(q, k, v).transpose(1, 2).reshape(batch, tokens, dimension)
        x = _layer_norm(x + linear(y, *block.proj), block.norm1)
        y = linear(F.gelu(linear(x, *block.fc1)), *block.fc2)
        return _layer_norm(x + y, block.norm2)


def _affine(weights: Mapping[str, Tensor], name: str) -> Affine:
    return Affine(weights[name + "weight"], weights[name + "bias"])


def _convolution(weights: Mapping[str, Tensor], index: int) -> Convolution:
    layer = f"{AUDIO}local_encoder.conv_layers.{index}."
    weight = weights[layer + "0.weight"][:, :, None]
    rows = weight.contiguous(memory_format=torch.channels_last)
    return Convolution(rows, _affine(weights, layer + "2.1."))


def _block(weights: Mapping[str, Tensor], name: str) -> Block:
    parts = "attn.qkv.", "attn.proj.", "norm1.", "mlp.fc1.", "mlp.fc2.", "norm2."
    return Block(*(_affine(weights, name + part) for part in parts))


def _layer_norm(x: Tensor, norm: Affine) -> Tensor:
    """Over the last axis; torch keeps the statistics of half-precision input in float32."""
    return F.layer_norm(x, x.shape[-1:], *norm)


def _pool(x: Tensor, own: Tensor | None, frames: Tensor | None) -> Tensor:
    """(B, T, D) -> (B, D) float32: the mean over each clip's own frames."""
    if own is None or frames is None:
        return x.float().mean(1)
    return (x * own).sum(1, dtype=torch.float32) / frames[:, None]
