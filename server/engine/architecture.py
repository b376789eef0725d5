"""The dimensions of an emotion2vec and the shape of every tensor of it; knows no tensor library."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.engine import CheckpointError

AUDIO = "modality_encoders.AUDIO."
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)

_LAYER = re.compile(r"\[\((\d+),(\d+),(\d+)\)\](?:\*(\d+))?")

# What this engine computes; another value is another model, even where the shapes are the same.
_SUPPORTED: Mapping[str, object] = {
    "model_conf.layer_norm_first": False,
    "model_conf.norm_affine": True,
    "model_conf.norm_eps": 1e-5,
    "audio.extractor_mode": "layer_norm",
    "audio.use_alibi_encoder": True,
    "audio.learned_alibi": False,
    "audio.learned_alibi_scale_per_layer": False,
    "audio.conv_pos_pre_ln": False,
    "audio.add_masks": False,
}

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Everything in which the members of the family differ."""

    dimension: int  # of a frame's embedding
    heads: int
    alibi_scales: int  # one for each head, or one for all
    prenet_blocks: int
    blocks: int  # after the prenet
    hidden: int  # width of the MLP in a block
    channels: int  # of the convolutional front end
    position_layers: int
    position_kernel: int  # frames; odd
    position_groups: int
    extra_tokens: int
    normalise: bool  # the waveform, over all its samples

    def block_names(self) -> list[str]:
        """FunASR's prefixes of the transformer blocks, in the order in which they run."""
        prenet = [f"{AUDIO}context_encoder.blocks.{i}." for i in range(self.prenet_blocks)]
        return prenet + [f"blocks.{i}." for i in range(self.blocks)]

    def shapes(self, classes: int) -> Shapes:
        """Name -> shape of the tensors of an inference checkpoint with FunASR's names; large: 185.

        Source: FunASR `emotion2vec/model.py`, `base.py`, `audio.py`, `modules.py`. Without the
        decoder, which only training uses.
        """
        shapes: Shapes = {
            **_affine("proj.", classes, self.dimension),
            AUDIO + "alibi_scale": (1, 1, self.alibi_scales, 1, 1),
            AUDIO + "extra_tokens": (1, self.extra_tokens, self.dimension),
            **_affine(AUDIO + "context_encoder.norm.", self.dimension),
            **_affine(AUDIO + "project_features.1.", self.channels),
            **_affine(AUDIO + "project_features.2.", self.dimension, self.channels),
        }
        for part in self._convolutions(), self._positions(), self._transformer():
            shapes.update(part)
        return shapes

    def _convolutions(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for i, kernel in enumerate(KERNELS):
            layer = f"{AUDIO}local_encoder.conv_layers.{i}."
            yield layer + "0.weight", (self.channels, self.channels if i else 1, kernel)
            yield from _affine(layer + "2.1.", self.channels).items()

    def _positions(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        group = self.dimension // self.position_groups
        for i in range(1, self.position_layers + 1):
            layer = f"{AUDIO}relative_positional_encoder.{i}.0."
            yield from _affine(layer, self.dimension, group, self.position_kernel).items()

    def _transformer(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        d = self.dimension
        for block in self.block_names():
            yield from _affine(block + "attn.qkv.", 3 * d, d).items()
            yield from _affine(block + "attn.proj.", d, d).items()
            yield from _affine(block + "mlp.fc1.", self.hidden, d).items()
            yield from _affine(block + "mlp.fc2.", d, self.hidden).items()
            yield from _affine(block + "norm1.", d).items()
            yield from _affine(block + "norm2.", d).items()


def _affine(prefix: str, *shape: int) -> Shapes:
    return {prefix + "weight": shape, prefix + "bias": shape[:1]}


def parse(config: Mapping[str, Any]) -> Architecture:
    """The architecture that a FunASR `config.yaml` describes.

    Raises `CheckpointError` for another model, a missing key, or an option that this engine does
    not compute.
    """
    if config.get("model") != "Emotion2vec":
        raise CheckpointError(f"config.yaml: model is {config.get('model')!r}, not 'Emotion2vec'")
    if not config.get("tokenizer"):
        raise CheckpointError(
            "config.yaml: no tokenizer, so this model only makes embeddings; choose a checkpoint "
            "with an emotion head, such as emotion2vec_plus_large"
        )
    try:
        model = config["model_conf"]
        return _parse(model, model["modalities"]["audio"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"config.yaml: model_conf lacks a key: {error}") from error


def _parse(model: Mapping[str, Any], audio: Mapping[str, Any]) -> Architecture:
    _check_options(model, audio)
    dimension, heads = model["embed_dim"], model["num_heads"]
    if dimension % heads or audio["num_alibi_heads"] != heads:
        raise CheckpointError(
            f"config.yaml: embed_dim {dimension}, num_heads {heads} and num_alibi_heads "
            f"{audio['num_alibi_heads']} do not go together"
        )
    layers = audio["conv_pos_depth"]
    return Architecture(
        dimension=dimension,
        heads=heads,
        alibi_scales=heads if audio["learned_alibi_scale_per_head"] else 1,
        prenet_blocks=audio["prenet_depth"],
        blocks=model["depth"],
        hidden=int(dimension * model["mlp_ratio"]),
        channels=_channels(audio["feature_encoder_spec"]),
        position_layers=layers,
        position_kernel=_position_kernel(audio["conv_pos_width"], layers),
        position_groups=audio["conv_pos_groups"],
        extra_tokens=audio["num_extra_tokens"],
        normalise=model["normalize"],
    )


def _check_options(model: Mapping[str, Any], audio: Mapping[str, Any]) -> None:
    sections = {"model_conf": model, "audio": audio}
    for option, wanted in _SUPPORTED.items():
        section, key = option.split(".")
        found = sections[section].get(key, wanted)
        if found != wanted:
            raise CheckpointError(f"config.yaml: {option} is {found!r}; only {wanted!r} is known")


def _position_kernel(width: int, layers: int) -> int:
    """`max(3, width // layers)`, FunASR `audio.py`; an even one would need its SamePad."""
    kernel = max(3, width // layers)
    if kernel % 2 == 0:
        raise CheckpointError(f"config.yaml: conv_pos_width {width} gives an even kernel, {kernel}")
    return kernel


def _channels(spec: str) -> int:
    """Channels of a front end such as `[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)]`.

    FunASR evaluates the text as Python; here only this grammar is read.
    """
    layers = [
        (int(channels), int(kernel), int(stride))
        for channels, kernel, stride, times in _LAYER.findall(spec.replace(" ", ""))
        for _ in range(int(times or 1))
    ]
    widths = {channels for channels, _, _ in layers}
    steps = [(kernel, stride) for _, kernel, stride in layers]
    if len(widths) != 1 or steps != list(zip(KERNELS, STRIDES, strict=True)):
        raise CheckpointError(
            f"config.yaml: feature_encoder_spec {spec!r}; only seven layers of equal width with "
            f"kernels {KERNELS} and strides {STRIDES} are known"
        )
    return widths.pop()
