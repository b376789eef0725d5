"""Writes small emotion2vec checkpoints with random weights, laid out as FunASR's; needs no FunASR.

No parameter stays at a value that hides it: biases, extra tokens and ALiBi scales are all moved,
and the first scale is negative, so that an engine that forgets one of them, or the clamp, differs.
The numbers come from integers and single roundings, so they are the same on every machine.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from server.engine import architecture

NINE = (
    "生气/angry", "厌恶/disgusted", "恐惧/fearful", "开心/happy", "中立/neutral",
    "其他/other", "难过/sad", "吃惊/surprised", "<unk>",
)  # fmt: skip
# The first published tokens.txt: four of the nine rows of the head are masked by name.
FIVE = (
    "生气/angry", "unuse_0", "unuse_1", "开心/happy", "中立/neutral",
    "unuse_2", "难过/sad", "unuse_3", "<unk>",
)  # fmt: skip

CONFIGURATION = {
    "framework": "pytorch",
    "task": "emotion-recognition",
    "file_path_metas": {
        "init_param": "model.pt",
        "tokenizer_conf": {"token_list": "tokens.txt"},
        "config": "config.yaml",
    },
}


def config(
    *, dim: int = 64, heads: int = 4, depth: int = 2, prenet: int = 2, conv: int = 32
) -> dict[str, Any]:
    """The content of a config.yaml with the keys that FunASR reads; the defaults are tiny."""
    audio = {
        "type": "AUDIO", "prenet_depth": prenet, "prenet_layerdrop": 0.0, "prenet_dropout": 0.1,
        "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0, "num_extra_tokens": 10,
        "init_extra_token_zero": True, "mask_noise_std": 0.01, "mask_prob_min": None,
        "mask_prob": 0.5, "inverse_mask": False, "mask_prob_adjust": 0.05, "keep_masked_pct": 0.0,
        "mask_length": 5, "add_masks": False, "remove_masks": False, "mask_dropout": 0.0,
        "encoder_zero_mask": True, "mask_channel_prob": 0.0, "mask_channel_length": 64,
        "ema_local_encoder": False, "local_grad_mult": 1.0, "use_alibi_encoder": True,
        "alibi_scale": 1.0, "alibi_max_pos": None, "learned_alibi": False,
        "learned_alibi_scale": True, "learned_alibi_scale_per_head": True,
        "learned_alibi_scale_per_layer": False, "num_alibi_heads": heads, "model_depth": depth,
        "decoder": {
            "decoder_dim": 32, "decoder_groups": 16, "decoder_kernel": 7, "decoder_layers": 4,
            "input_dropout": 0.1, "add_positions_masked": False, "add_positions_all": False,
            "decoder_residual": True, "projection_layers": 1, "projection_ratio": 2.0,
        },
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": f"[({conv}, 10, 5)] + [({conv}, 3, 2)] * 4 + [({conv},2,2)] * 2",
        "conv_pos_width": 95, "conv_pos_groups": 16, "conv_pos_depth": 5, "conv_pos_pre_ln": False,
    }  # fmt: skip
    return {
        "model": "Emotion2vec",
        "model_conf": {
            "loss_beta": 0.0, "loss_scale": None, "depth": depth, "num_heads": heads,
            "embed_dim": dim, "mlp_ratio": 4.0, "start_drop_path_rate": 0.0,
            "end_drop_path_rate": 0.0, "norm_eps": 1e-5, "norm_affine": True,
            "layer_norm_first": False, "encoder_dropout": 0.1, "post_mlp_drop": 0.1,
            "attention_dropout": 0.1, "activation_dropout": 0.0, "dropout_input": 0.0,
            "layerdrop": 0.05, "average_top_k_layers": 8, "end_of_block_targets": False,
            "clone_batch": 8, "normalize": True, "modalities": {"audio": audio},
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "scope_map": ["d2v_model.", "none"],
    }  # fmt: skip


def random_weights(
    settings: dict[str, Any], classes: int = 9, seed: int = 0
) -> dict[str, torch.Tensor]:
    """FunASR's name -> tensor, none of them trivial."""
    generator = torch.Generator().manual_seed(seed)
    shapes = architecture.parse(settings).shapes(classes)
    return {name: _random(name, shapes[name], generator) for name in sorted(shapes)}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    uniform = torch.rand(shape, generator=generator)  # exact: 24 random bits
    if name.endswith("alibi_scale"):
        scale = 0.25 + 1.5 * uniform
        scale[:, :, 0] = -0.3
        return scale
    centred = 2 * uniform - 1
    if name.endswith("extra_tokens"):
        return centred
    if len(shape) == 1:
        is_norm = name.endswith("weight")
        return 0.2 * centred + (1 if is_norm else 0)
    spread = 8 if name.startswith("proj.") else 1.5
    return centred * (spread / math.sqrt(math.prod(shape[1:])))


def checksum(weights: dict[str, torch.Tensor]) -> str:
    """Over the numbers, not the file, whose bytes depend on torch's version."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].numpy().tobytes())
    return digest.hexdigest()


def write(
    folder: Path,
    *,
    settings: dict[str, Any] | None = None,
    labels: tuple[str, ...] = NINE,
    weights: dict[str, torch.Tensor] | None = None,
    wrapping: str | None = None,
    official_layout: bool = False,
    half: bool = False,
    configuration: bool = True,
    seed: int = 0,
) -> Path:
    """Writes the folder and returns it.

    `official_layout`: as published, the weights under "model" beside their Adam state. `wrapping`:
    the weights under another key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings or config()
    weights = random_weights(settings, seed=seed) if weights is None else weights
    state: dict[str, Any] = {
        name if name.startswith("proj.") else "d2v_model." + name: value.half() if half else value
        for name, value in weights.items()
    }
    if official_layout:
        moments = {i: {"exp_avg": torch.zeros_like(v)} for i, v in enumerate(state.values())}
        state = {"args": None, "model": state, "last_optimizer_state": {"state": moments}}
    torch.save({wrapping: state} if wrapping else state, folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "tokens.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    if configuration:
        (folder / "configuration.json").write_text(json.dumps(CONFIGURATION), encoding="utf-8")
    return folder


def speech_like(samples: int, seed: int = 0) -> np.ndarray:
    """A gliding triangle wave in noise; float32 in [-1, 1], exact on every machine."""
    i = np.arange(samples, dtype=np.int64)
    phase = (i * (110 + 17 * seed) + i * i // (4000 + 100 * seed)) % 16_000
    triangle = np.abs(phase - 8_000) / 4_000 - 1
    noise = ((i + 7919 * seed) * 2_654_435_761 % 2**32 * 40_503 % 2**31) / 2**30 - 1
    loudness = 0.25 + (i * 3 // 16_000 + seed) % 4 * 0.125
    return (loudness * triangle + 0.0625 * noise).astype(np.float32)
