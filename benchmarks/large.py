"""Writes a checkpoint as large as emotion2vec_plus_large, with random weights; needs no download.

Speed and memory depend on the shapes alone. The configuration is the demo model's, made large.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from server.engine import architecture
from server.engine.architecture import KERNELS, STRIDES, Architecture
from server.speech import SAMPLE_RATE, frame_count

DEMO = Path(architecture.__file__).parent / "demo"


def write(folder: Path) -> Path:
    """Writes config.yaml, model.pt (650 MB) and tokens.txt, unless they are there already."""
    if not (folder / "model.pt").exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = configuration()
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        shutil.copy(DEMO / "tokens.txt", folder)
        torch.save({"model": weights(config)}, folder / "model.part")
        (folder / "model.part").rename(folder / "model.pt")
    return folder


def configuration() -> dict[str, Any]:
    """FunASR's config.yaml of the large model, as far as inference reads it."""
    config: dict[str, Any] = yaml.safe_load((DEMO / "config.yaml").read_text(encoding="utf-8"))
    model = config["model_conf"]
    model |= {"depth": 8, "num_heads": 16, "embed_dim": 1024, "average_top_k_layers": 8}
    model["modalities"]["audio"] |= {
        "prenet_depth": 4,
        "num_alibi_heads": 16,
        "conv_pos_width": 95,
        "conv_pos_groups": 16,
        "conv_pos_depth": 5,
        "feature_encoder_spec": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
    }
    return config


def weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The file's name -> a tensor, such that activations stay near one."""
    generator = torch.Generator().manual_seed(0)
    shapes = architecture.parse(config).shapes(classes=9)
    return {
        name if name.startswith("proj.") else "d2v_model." + name: _random(name, shape, generator)
        for name, shape in shapes.items()
    }


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    centred = 2 * torch.rand(shape, generator=generator) - 1
    if len(shape) == 1:
        return 0.1 * centred + (1.0 if name.endswith("weight") else 0.0)
    if name.endswith("alibi_scale"):
        return centred + 1
    return centred * (8 if name.startswith("proj.") else 1.5) / math.sqrt(math.prod(shape[1:]))


def gflop(found: Architecture, seconds: float) -> float:
    """Of matrix products and convolutions for one clip, two for a multiplication and addition."""
    rows = samples = round(seconds * SAMPLE_RATE)
    total, width = 0, 1
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        rows = (rows - kernel) // stride + 1
        total += rows * kernel * width * found.channels
        width = found.channels
    frames, d = frame_count(samples), found.dimension
    tokens, blocks = frames + found.extra_tokens, found.prenet_blocks + found.blocks
    total += frames * width * d
    total += frames * found.position_layers * d * d // found.position_groups * found.position_kernel
    total += blocks * tokens * (4 * d * d + 2 * d * found.hidden + 2 * tokens * d)
    return 2 * total / 1e9
