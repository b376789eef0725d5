"""Runs the model on a batch of utterances. The only package that may import torch."""

from collections.abc import Sequence
from typing import Protocol

from server.speech import Model, Prediction, Utterance


class Engine(Protocol):
    """One model on one device. Blocking; every call comes from the same thread.

    `infer` may raise anything: the batch then fails as a whole, and the engine must be able to go
    on with the next one. What a smaller batch can repair is a `MemoryError`, what no batch can
    repair is a `DeviceLost`.
    """

    @property
    def model(self) -> Model: ...

    def warm_up(self) -> None:
        """Runs every shape once, so that the first request is as fast as the hundredth."""

    def infer(self, batch: Sequence[Utterance]) -> Sequence[Prediction]: ...


class DeviceLost(Exception):
    """The device answers no more (a sticky CUDA error): only a new process can help."""


class CannotLoad(Exception):
    """No engine can be made of these settings on this machine; the text says what to change."""


class CheckpointError(CannotLoad):
    """The checkpoint is not there, or is not an emotion2vec that this engine computes exactly."""
