"""Finds a FunASR checkpoint and reads all of it but the weights; knows no tensor library."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from server.engine import CheckpointError, architecture, hub, labels
from server.engine.architecture import Architecture
from server.engine.labels import Labels
from server.speech import Model, Notice

DEMO = "demo"

_DEMO_NOTICE = Notice(
    "DEMO_MODEL",
    "these are scores of the small bundled demo model; serve emotion2vec+ large for real work",
)

_DEFAULT_FILES = {"config": "config.yaml", "weights": "model.pt", "labels": "tokens.txt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint folder, checked except for its weights."""

    name: str
    folder: Path
    weights: Path
    architecture: Architecture
    labels: Labels
    scope_map: tuple[str, ...]  # pairs of prefixes, (in the file, in FunASR's model)
    license: str
    notices: tuple[Notice, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers the inference model has."""
        shapes = self.architecture.shapes(self.labels.classes).values()
        return sum(math.prod(shape) for shape in shapes)

    def digest(self) -> str:
        """'sha256:HEX' over the whole weights file, so that it equals what hubs publish of it."""
        with self.weights.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    def describe(self, digest: str, *, precision: str, runtime: str, device: str) -> Model:
        """What an engine says of itself; the version is the beginning of the digest."""
        return Model(
            name=self.name,
            version=digest.removeprefix("sha256:")[:12],
            digest=digest,
            labels=self.labels.names,
            dimension=self.architecture.dimension,
            parameters=self.parameters,
            precision=precision,
            runtime=runtime,
            device=device,
            license=self.license,
            notices=self.notices,
        )


def find(source: str) -> Checkpoint:
    """The checkpoint that `source` names: "demo", a folder, or a hub id.

    Raises `CheckpointError`.
    """
    folder = Path(source)
    if source == DEMO:
        folder = Path(str(resources.files("server.engine") / DEMO))
    elif not folder.is_dir() and hub.is_id(source):
        folder = hub.download(source)
    name = source.rpartition("/")[2] if hub.is_id(source) else folder.resolve().name
    return read(folder, name, notices=(_DEMO_NOTICE,) if source == DEMO else ())


def read(folder: Path, name: str, *, notices: tuple[Notice, ...] = ()) -> Checkpoint:
    """Reads a folder as FunASR lays it out.

    `configuration.json`, if there, names the other files in `file_path_metas`; else they are
    `config.yaml`, `model.pt` and `tokens.txt`. Source: FunASR `download_model_from_hub.py`.
    Raises `CheckpointError`.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder; give a FunASR checkpoint folder or a hub id such as "
            "iic/emotion2vec_plus_large"
        )
    files = {role: folder / file for role, file in _file_names(folder).items()}
    config = _mapping(files["config"], _text(files["config"]))
    parsed = architecture.parse(config)
    _require(files["weights"])
    return Checkpoint(
        name=name,
        folder=folder,
        weights=files["weights"],
        architecture=parsed,
        labels=labels.read(files["labels"]),
        scope_map=_scope_map(config),
        license=_license(folder),
        notices=notices,
    )


def _file_names(folder: Path) -> Mapping[str, str]:
    path = folder / "configuration.json"
    if not path.exists():
        return _DEFAULT_FILES
    try:
        metas = json.loads(_text(path)).get("file_path_metas", {})
        named = {
            "config": metas.get("config"),
            "weights": metas.get("init_param"),
            "labels": metas.get("tokenizer_conf", {}).get("token_list"),
        }
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: is not a FunASR configuration: {error}") from error
    return _DEFAULT_FILES | {role: file for role, file in named.items() if file}


def _require(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")


def _text(path: Path) -> str:
    _require(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _mapping(path: Path, text: str) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path}: is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is not a mapping")
    return content


def _scope_map(config: Mapping[str, Any]) -> tuple[str, ...]:
    """FunASR's prefixes, "none" meaning no prefix, and "module." as it always adds."""
    given = config.get("scope_map") or []
    pairs = given.split(",") if isinstance(given, str) else given
    return tuple("" if str(p).lower() == "none" else str(p) for p in [*pairs, "module.", "none"])


def _license(folder: Path) -> str:
    """What the front matter of the model card says, else "unknown"."""
    for card in ("MODEL_CARD.md", "README.md"):
        if (folder / card).is_file():
            start, _, rest = _text(folder / card).partition("---\n")
            front = rest.partition("\n---")[0]
            if not start.strip() and front:
                matter = _mapping(folder / card, front)
                stated = matter.get("license")
                if stated == "other":
                    stated = matter.get("license_name", stated)
                return str(stated or "unknown")
    return "unknown"
