"""Reads the tensors of a checkpoint, and nothing else of it, into memory."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from server.engine import CheckpointError
from server.engine.architecture import Shapes

MAPPED_AT_ONCE = 16_000_000
"""Numbers; 64 MB of float32."""


def read(
    path: Path,
    shapes: Shapes,
    scope_map: Sequence[str],
    *,
    mapped_at_once: int = MAPPED_AT_ONCE,
) -> dict[str, Tensor]:
    """The tensors named in `shapes` as float32 on the CPU, in memory of their own.

    The file is mapped, so the optimiser's state beside the weights (two thirds of a published
    file) is never read. It is mapped anew for every `mapped_at_once` numbers, because what was
    touched of a mapping counts as this process's memory until it closes. Keys that `shapes` does
    not name are ignored.

    Raises `CheckpointError` for a tensor that is missing, of another shape, or not finite.
    """
    names = _names(path, shapes, scope_map)
    weights: dict[str, Tensor] = {}
    for group in _groups(shapes, mapped_at_once):
        state = _open(path)
        for name in group:
            weights[name] = _own_copy(state[names[name]])
            if not bool(torch.isfinite(weights[name].sum())):
                raise CheckpointError(f"{path}: {name} holds a NaN or an infinity")
    return weights


def _names(path: Path, shapes: Shapes, scope_map: Sequence[str]) -> dict[str, str]:
    """Our name -> the file's name, for every tensor, after checking its shape."""
    state = _open(path)
    names = {}
    for name, shape in shapes.items():
        source = source_name(name, state, scope_map)
        if source is None:
            raise CheckpointError(f"{path}: lacks {name}, which should be {shape}")
        if tuple(state[source].shape) != shape:
            hint = "; do the labels belong to this model?" if name.startswith("proj.") else ""
            found = tuple(state[source].shape)
            raise CheckpointError(f"{path}: {name} is {found}, but should be {shape}{hint}")
        names[name] = source
    return names


def source_name(name: str, state: Mapping[str, object], scope_map: Sequence[str]) -> str | None:
    """The key in the file that FunASR takes for `name`; the last pair of prefixes that fits wins.

    Source: FunASR `train_utils/load_pretrained_model.py`.
    """
    found = name if name in state else None
    for theirs, ours in zip(scope_map[::2], scope_map[1::2], strict=True):
        candidate = theirs + name.removeprefix(ours)
        if name.startswith(ours) and candidate in state:
            found = candidate
    return found


def _open(path: Path) -> dict[str, Tensor]:
    """Every tensor of the model's part of the file, not yet read.

    The order of the wrappings is that of FunASR `load_pretrained_model.py`.
    """
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        text = "is no checkpoint: it holds other objects than tensors, which could run code"
        raise CheckpointError(f"{path}: {text}") from error
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: is no checkpoint that torch can map: {reason}") from error
    for wrapping in ("state_dict", "model_state_dict", "model"):
        state = state[wrapping] if isinstance(state, dict) and wrapping in state else state
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds no tensors by name")
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}


def _own_copy(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _groups(shapes: Shapes, limit: int) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name, shape in shapes.items():
        group.append(name)
        size += torch.Size(shape).numel()
        if size >= limit:
            yield group
            group, size = [], 0
    yield group
