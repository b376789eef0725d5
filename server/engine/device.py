"""What a batch engine asks of the device it computes on; knows no model and no CUDA."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

Copy = tuple[Tensor, Tensor]
"""To the first, from the second."""

Wait = Callable[[], None]


class Device(Protocol):
    """A device that computes by itself. Every method may be called from any thread."""

    name: torch.device

    def host_memory(self, numbers: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device reads and writes without its help."""
        ...

    def upload(self, copies: Sequence[Copy]) -> Wait:
        """Starts copies to the device. The result, called in `computing`, orders them before."""
        ...

    def computing(self) -> AbstractContextManager[None]:
        """One thread at a time. What runs in it runs in order, after all that came before."""
        ...

    def mark(self) -> Wait:
        """In `computing`. The result, called outside, waits until all that came before is done."""
        ...

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """In `computing`. Runs it, then records it; the result repeats it on the same memory."""
        ...

    def errors(self) -> AbstractContextManager[None]:
        """Turns what the device raises into MemoryError and DeviceLost."""
        ...

    def free_bytes(self) -> int:
        """That this process may still take."""
        ...

    def used_bytes(self) -> int:
        """Of the device, by this process, its libraries included where that is known."""
        ...

    def bytes_of(self, run: Callable[[], None]) -> int:
        """In `computing`. Most memory that running it takes beside what is in use already."""
        ...
