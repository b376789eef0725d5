"""emotion2vec, inference only, on padded batches; knows no file and no setting.

Exact: a clip in a padded batch gets the numbers that it gets alone. Padding can leak at four places
and does at none: the waveform's norm (each clip over its own samples, `normalise`), the positional
convolution (padding zeroed before each layer), attention (padded keys masked) and pooling (each
clip's own frames). No step waits for a GPU or depends on a value in its memory.

Ma et al. 2023, "emotion2vec"; the numbers are those of FunASR `models/emotion2vec`.
"""

from collections.abc import MutableMapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine import convolution, linear
from server.engine.architecture import AUDIO, KERNELS, STRIDES, Architecture
from server.engine.attention import NUMBERS, Attention, alibi_slopes
from server.engine.convolution import Convolution
from server.engine.kernels import Kernels, Plain
from server.engine.linear import Linear
from server.engine.position import Grouped, Unfolded
from server.speech import HOP, WINDOW, frame_count


class Affine(NamedTuple):
    """Of a layer norm or a linear layer."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """One of the front end, of which the first is a product with every window."""

    convolve: Linear | Convolution
    norm: Affine


class Block(NamedTuple):
    """A post-norm transformer block."""

    qkv: Linear
    proj: Linear
    norm1: Affine
    fc1: Linear
    fc2: Linear
    norm2: Affine


class Output(NamedTuple):
    """Of B padded clips of at most T frames."""

    frames: Tensor  # (B, T, D); past a clip's own frames it means nothing
    embeddings: Tensor  # (B, D) float32, mean over a clip's own frames
    logits: Tensor  # (B, labels) float32


class Emotion2vec:
    """The weights, and the way from waveforms to logits."""

    def __init__(
        self,
        weights: MutableMapping[str, Tensor],
        architecture: Architecture,
        columns: tuple[int, ...],
        *,
        dtype: torch.dtype = torch.float32,
        int8: bool = False,
        numbers: int = NUMBERS,
    ) -> None:
        """`weights` has FunASR's names, `columns` are the rows of the head that are labels.

        Empties `weights`, so that none is in memory twice. The head and the ALiBi slopes stay
        float32 when `dtype` is another; `int8` is for the linear layers of the blocks. No
        temporary tensor of the front end holds more than `numbers`, and none of the attention
        more than `BIASES` times as many, however long a clip is.
        """
        self.dtype = dtype
        self._numbers = numbers
        rows = list(columns)
        head = _affine(weights, "proj.")
        self.head = Affine(head.weight[rows], head.bias[rows])  # (labels, D) and (labels,) float32
        # One learned scale a head for all blocks, which FunASR clamps at run time (`base.py`).
        scale = weights.pop(AUDIO + "alibi_scale").flatten().clamp_min(0)
        self._slopes = scale.new_tensor(alibi_slopes(architecture.heads)) * scale
        for name in list(weights):
            weights[name] = weights[name].to(dtype)
        self._extra = weights.pop(AUDIO + "extra_tokens")  # (1, E, D)
        self._channels = architecture.channels
        self._layers = [_layer(weights, i) for i in range(len(KERNELS))]
        self._project_norm = _affine(weights, AUDIO + "project_features.1.")
        self._project = linear.prepare(*_affine(weights, AUDIO + "project_features.2."))
        self._groups = architecture.position_groups
        self._position_weights = [
            _affine(weights, f"{AUDIO}relative_positional_encoder.{i}.0.")
            for i in range(1, architecture.position_layers + 1)
        ]
        self.compute_positions_by(Grouped)
        self.compute_by(Plain)
        self._norm = _affine(weights, AUDIO + "context_encoder.norm.")
        self._blocks = [_block(weights, name, int8) for name in architecture.block_names()]

    @property
    def extra(self) -> int:
        """Tokens beside the frames."""
        return self._extra.shape[1]

    def compute_positions_by(self, kind: type[Grouped | Unfolded]) -> None:
        """Chooses the way to compute the positional convolution; the answers are the same."""
        self._positions = [kind(*weight, self._groups) for weight in self._position_weights]

    def compute_by(self, kind: type[Kernels]) -> None:
        """Chooses the kernels; the answers are the same."""
        self._kernels = kind()

    @torch.inference_mode()
    def __call__(self, waveforms: Tensor, frames: Tensor | None = None) -> Output:
        """Runs a padded batch.

        `waveforms` (B, N) float32: normalised, cut to whole frames and zero-padded, so that
        N = 400 + 320 * (T - 1). `frames` (B,) int64 on the same device: how many of the T frames
        are each clip's own, at least 1; None says that all are.
        """
        own = None if frames is None else self._own(frames, frame_count(waveforms.shape[1]))
        x = self._front_end(waveforms.to(self.dtype))
        x = x + self._position(x, own)
        x = torch.cat([self._extra.expand(len(x), -1, -1), x], 1)
        attention = self._kernels.attention(self._slopes, self.extra, x, frames, self._numbers)
        x = self._kernels.norm(x, self._norm)
        for block in self._blocks:
            x = self._transform(x, block, attention)
        x = x[:, self.extra :]
        embeddings = _pool(x, own, frames)
        return Output(x, embeddings, self.classify(embeddings))

    @torch.inference_mode()
    def classify(self, embeddings: Tensor) -> Tensor:
        """(..., D) of utterances or of frames -> (..., labels) logits, in float32.

        The head is linear, so the mean of the frames' logits is the logits of the frames' mean.
        """
        return F.linear(embeddings.float(), *self.head)

    def _own(self, frames: Tensor, count: int) -> Tensor:
        """(B, T, 1): 1 for a clip's own frames, 0 for padding."""
        own = torch.arange(count, device=frames.device) < frames[:, None]
        return own[..., None].to(self.dtype)

    def _front_end(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, T, D); long clips in pieces, which is exact: no frame sees beyond 25 ms."""
        batch, samples = waveforms.shape
        count = frame_count(samples)
        most = max(1, self._numbers // (batch * self._channels * HOP // STRIDES[0]))  # frames
        step = -(-count // -(-count // most))  # pieces of one length need one plan of the library
        parts = [
            self._convolve(
                waveforms[:, HOP * start : HOP * min(start + step, count) + WINDOW - HOP]
            )
            for start in range(0, count, step)
        ]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _convolve(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, T, D): seven strided convolutions, then a projection.

        Frames stay rows of contiguous channels throughout: norm and GELU are at their fastest on
        those.
        """
        x = waveforms.unfold(1, KERNELS[0], STRIDES[0]).contiguous()
        for convolve, norm in self._layers:
            x = self._kernels.norm(convolve(x), norm, gelu=True)
        return self._project(self._kernels.norm(x, self._project_norm))

    def _position(self, x: Tensor, own: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D): grouped convolutions, each followed by LN and GELU.

        LN and GELU make padding non-zero again after each layer, so it is zeroed before each.
        """
        for convolve in self._positions:
            x = convolve(x if own is None else x * own)
            x = self._kernels.norm(x, gelu=True)
        return x

    def _transform(self, x: Tensor, block: Block, attention: Attention) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = self._kernels.norm(x, block.norm1, plus=block.proj(attention.attend(block.qkv(x))))
        return self._kernels.norm(x, block.norm2, plus=block.fc2(block.fc1(x)))


def _affine(weights: MutableMapping[str, Tensor], name: str) -> Affine:
    return Affine(weights.pop(name + "weight"), weights.pop(name + "bias"))


def _layer(weights: MutableMapping[str, Tensor], index: int) -> Layer:
    name = f"{AUDIO}local_encoder.conv_layers.{index}."
    weight, norm = weights.pop(name + "0.weight"), _affine(weights, name + "2.1.")
    if not index:
        return Layer(linear.prepare(weight.flatten(1), weight.new_zeros(len(weight))), norm)
    return Layer(convolution.prepare(weight, stride=STRIDES[index]), norm)


def _block(weights: MutableMapping[str, Tensor], name: str, int8: bool) -> Block:
    def layer(part: str, *, gelu: bool = False) -> Linear:
        return linear.prepare(*_affine(weights, f"{name}{part}."), int8=int8, gelu=gelu)

    return Block(
        qkv=layer("attn.qkv"),
        proj=layer("attn.proj"),
        norm1=_affine(weights, name + "norm1."),
        fc1=layer("mlp.fc1", gelu=True),
        fc2=layer("mlp.fc2"),
        norm2=_affine(weights, name + "norm2."),
    )


def _pool(x: Tensor, own: Tensor | None, frames: Tensor | None) -> Tensor:
    """(B, T, D) -> (B, D) float32: the mean over each clip's own frames."""
    if own is None or frames is None:
        return x.float().mean(1)
    return (x * own).sum(1, dtype=torch.float32) / frames[:, None]
