"""Reads a checkpoint's label file and says which outputs are emotions, and their English names."""

import json
from dataclasses import dataclass
from pathlib import Path

from server.engine import CheckpointError


@dataclass(frozen=True, slots=True)
class Labels:
    """The rows of the classification head."""

    classes: int  # rows of the head, masked ones included
    columns: tuple[int, ...]  # the rows that are emotions
    names: tuple[str, ...]  # one for each of `columns`: "angry", ..., "unknown"


def read(path: Path) -> Labels:
    """Reads `tokens.txt` (one label a line) or `tokens.json` (a list of them).

    Rows whose label begins with `unuse` have no name: FunASR sets their logits to -inf before the
    softmax (`emotion2vec/model.py`), which is the same as leaving them out.
    """
    tokens = _tokens(path)
    used = [(i, _english(token)) for i, token in enumerate(tokens) if not token.startswith("unuse")]
    names = tuple(name for _, name in used)
    if not all(names) or len(set(names)) != len(names) or not names:
        raise CheckpointError(f"{path.name}: labels must be unique and not empty, found {names}")
    return Labels(len(tokens), tuple(i for i, _ in used), names)


def _tokens(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            if path.suffix == ".json":
                return [str(token) for token in json.load(file)]
            return [line.rstrip() for line in file]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot read the labels: {error}") from error


def _english(token: str) -> str:
    """'生气/angry' -> 'angry'; FunASR's '<unk>' is its class for none of the others."""
    return "unknown" if token == "<unk>" else token.rpartition("/")[2]
