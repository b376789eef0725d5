"""Fetches a checkpoint by its hub id, with the tools that FunASR brings."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from server.engine import CheckpointError

_ID = re.compile(r"[\w-]+/[\w.-]+")


def is_id(source: str) -> bool:
    """Whether `source` looks like `owner/name`, and no such folder is here."""
    return bool(_ID.fullmatch(source)) and not Path(source).exists()


def download(source: str) -> Path:
    """The folder with the files of a ModelScope id, downloaded unless they are in its cache.

    The same call that FunASR's `AutoModel(model=source)` makes (`download_model_from_hub.py`), so
    both share a cache; without a network the cached copy is taken. Raises `CheckpointError`.
    """
    try:
        # By name: an optional dependency. FunASR brings it; importing FunASR takes 15 s more.
        snapshot = import_module("modelscope.hub.snapshot_download").snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{source}: is no folder here, and downloading needs FunASR. Install the extra: "
            "pip install -e '.[funasr]'. Or " + _elsewhere(source)
        ) from error
    try:
        return Path(snapshot(source, revision="master"))
    except Exception as error:  # the hub's client raises many kinds; each means the same here
        return _cached(source, snapshot, error)


def _cached(source: str, snapshot: Callable[..., str], cause: Exception) -> Path:
    try:
        return Path(snapshot(source, revision="master", local_files_only=True))
    except Exception as error:
        raise CheckpointError(
            f"{source}: cannot be downloaded ({cause!r:.200}), and no copy is cached. Without a "
            "network, " + _elsewhere(source)
        ) from error


def _elsewhere(source: str) -> str:
    return (
        f"download {source} on another machine, copy the folder with config.yaml, model.pt and "
        "tokens.txt here, and give the path of that folder instead."
    )
