"""Runs the model on a batch of utterances. The only package that may import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from server.speech import Model, Prediction, Utterance


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What batches an engine runs best, and what they cost; measured while it warms up."""

    batch_size: int = 1  # the most that pay; where a batch is only a list, 1
    preferred_sizes: tuple[int, ...] = ()  # run without empty rows; none: all are equal
    batch_seconds: float = inf  # padded audio that fits into the device's memory
    per_batch: float = 0.0  # seconds of computing, whatever is in it
    per_audio_second: float = 0.0  # and for each second of padded audio
    slots: int = 1  # calls of `infer` at a time
    memory_bytes: int = 0  # of the device, when ready
    bytes_per_audio_second: float = 0.0  # of the device, beside that, while a batch runs


class Engine(Protocol):
    """One model on one device. Blocking; `infer` is called by at most `capacity.slots` threads.

    `infer` may raise anything: the batch then fails as a whole, and the engine must be able to go
    on with the next one. What a smaller batch can repair is a `MemoryError`, what no batch can
    repair is a `DeviceLost`.
    """

    @property
    def model(self) -> Model: ...

    @property
    def capacity(self) -> Capacity:
        """Final once `warm_up` has returned."""
        ...

    def warm_up(self) -> None:
        """Runs every shape once, so that the first request is as fast as the hundredth."""

    def infer(self, batch: Sequence[Utterance]) -> Sequence[Prediction]: ...


class DeviceLost(Exception):
    """The device answers no more (a sticky CUDA error): only a new process can help."""


class CannotLoad(Exception):
    """No engine can be made of these settings on this machine; the text says what to change."""


class CheckpointError(CannotLoad):
    """The checkpoint is not there, or is not an emotion2vec that this engine computes exactly."""
