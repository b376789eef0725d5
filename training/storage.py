"""Files that are there whole or not at all, so that a stopped run can trust what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a ``.npz``."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a ``.pt``."""
    partial = path.with_suffix(".partial")
    torch.save(dict(state), partial)
    partial.replace(path)
