"""Writes a trained student as a FunASR checkpoint folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from training.data import LABELS
from training.layers import INPUT_GAIN
from training.model import Size, Student

PREFIX = "d2v_model."
_FIRST = "modality_encoders.AUDIO.local_encoder.conv_layers.0.0.weight"
_HEAD = ("proj.weight", "proj.bias")
_CONFIGURATION = {
    "framework": "pytorch",
    "task": "emotion-recognition",
    "pipeline": {"type": "funasr-pipeline"},
    "model": {"type": "funasr"},
    "file_path_metas": {
        "init_param": "model.pt",
        "tokenizer_conf": {"token_list": "tokens.txt"},
        "config": "config.yaml",
    },
    "model_name_in_hub": {"ms": "demo", "hf": "demo"},
}
# FunASR builds a decoder whatever it is for; inference does not use it, and model.pt has none.
_DECODER = {
    "decoder_dim": 32, "decoder_groups": 16, "decoder_kernel": 7, "decoder_layers": 4,
    "input_dropout": 0.1, "add_positions_masked": False, "add_positions_all": False,
    "decoder_residual": True, "projection_layers": 1, "projection_ratio": 2.0,
}  # fmt: skip


def _audio(size: Size) -> dict[str, Any]:
    c = size.conv
    return {
        "type": "AUDIO",
        "prenet_depth": size.prenet, "prenet_layerdrop": 0.0, "prenet_dropout": 0.1,
        "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0,
        "num_extra_tokens": 10, "init_extra_token_zero": True,
        "mask_noise_std": 0.01, "mask_prob_min": None, "mask_prob": 0.5, "inverse_mask": False,
        "mask_prob_adjust": 0.05, "keep_masked_pct": 0.0, "mask_length": 5, "add_masks": False,
        "remove_masks": False, "mask_dropout": 0.0, "encoder_zero_mask": True,
        "mask_channel_prob": 0.0, "mask_channel_length": 64,
        "ema_local_encoder": False, "local_grad_mult": 1.0,
        "use_alibi_encoder": True, "alibi_scale": 1.0, "alibi_max_pos": None,
        "learned_alibi": False, "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": True, "learned_alibi_scale_per_layer": False,
        "num_alibi_heads": size.heads, "model_depth": size.depth, "decoder": _DECODER,
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": f"[({c}, 10, 5)] + [({c}, 3, 2)] * 4 + [({c},2,2)] + [({c},2,2)]",
        "conv_pos_width": 95, "conv_pos_groups": 16, "conv_pos_depth": 5, "conv_pos_pre_ln": False,
    }  # fmt: skip


def config(size: Size) -> dict[str, Any]:
    """The content of config.yaml."""
    return {
        "model": "Emotion2vec",
        "model_conf": {
            "loss_beta": 0.0, "loss_scale": None,
            "depth": size.depth, "num_heads": size.heads, "embed_dim": size.width, "mlp_ratio": 4.0,
            "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0,
            "norm_eps": 1e-5, "norm_affine": True, "layer_norm_first": False,
            "encoder_dropout": 0.1, "post_mlp_drop": 0.1, "attention_dropout": 0.1,
            "activation_dropout": 0.0, "dropout_input": 0.0, "layerdrop": 0.0,
            "average_top_k_layers": size.depth, "end_of_block_targets": False, "clone_batch": 8,
            "normalize": True, "modalities": {"audio": _audio(size)},
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "scope_map": [PREFIX, "none"],
    }  # fmt: skip


def weights(model: Student, temperature: float = 1.0) -> dict[str, Tensor]:
    """Half-precision tensors under the published names; the temperature goes into the head."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state[_FIRST] *= INPUT_GAIN
    for name in _HEAD:
        state[name] /= temperature
    return {
        (name if name in _HEAD else PREFIX + name): value.half() for name, value in state.items()
    }


def write(folder: Path, model: Student, temperature: float) -> None:
    """Write the folder beside its place and then rename it, so that it is whole at any time."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    torch.save(weights(model, temperature), partial / "model.pt")
    text = yaml.safe_dump(config(model.size), sort_keys=False, allow_unicode=True)
    (partial / "config.yaml").write_text(text, encoding="utf-8")
    (partial / "tokens.txt").write_text("\n".join(LABELS), encoding="utf-8")
    settings = json.dumps(_CONFIGURATION, indent=2) + "\n"
    (partial / "configuration.json").write_text(settings, encoding="utf-8")
    card = folder / "MODEL_CARD.md"
    if card.exists():
        shutil.copy(card, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read(folder: Path) -> Student:
    """Read back a folder that ``write`` made, in single precision."""
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model_conf"]
    state = torch.load(folder / "model.pt", weights_only=True)
    state = {name.removeprefix(PREFIX): value.float() for name, value in state.items()}
    size = Size(
        conv=len(state["modality_encoders.AUDIO.local_encoder.conv_layers.0.2.1.weight"]),
        width=settings["embed_dim"],
        heads=settings["num_heads"],
        prenet=settings["modalities"]["audio"]["prenet_depth"],
        depth=settings["depth"],
        classes=len(state["proj.bias"]),
    )
    state[_FIRST] /= INPUT_GAIN
    model = Student(size)
    model.load_state_dict(state)
    return model.eval()
