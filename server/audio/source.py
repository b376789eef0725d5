"""What every reader of bytes looks like from the outside; knows no format."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]
"""Consecutive frames of a file, shape (frames, channels); valid until the next one is read."""

BLOCK_FRAMES = 4096
"""The usual FLAC frame: a damaged file then loses no more than the frame that is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An opened file.

    `blocks` may raise anything once the bytes are damaged. Nothing in the header limits how much
    it yields, so whoever reads it has to stop.
    """

    container: str
    rate_hz: int
    channels: int
    blocks: Iterator[Block]
    announced_frames: int | None = None  # what the header says; for comparing, never for allocating
