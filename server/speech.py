"""What flows through the server: audio in, predictions out, and what is known of the model.

Knows no transport, no codec and no tensor library; everything else may import it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Hz; the only rate the emotion2vec family knows."""

WINDOW = 400
"""Samples in the receptive field of the model's front end (25 ms): nothing shorter has a frame."""

HOP = 320
"""Samples from one frame to the next (20 ms)."""

Waveform = NDArray[np.float32]
"""Mono samples in [-1, 1] at SAMPLE_RATE; shape (samples,)."""

Samples = NDArray[np.float32] | NDArray[np.int16]
"""A Waveform, or the 16 bits that were sent, of which 32768 would be 1: half the memory."""

ONE_STEP = np.float32(1 / 32768)
"""Of 16 bits."""

Matrix = NDArray[np.float32]
"""A row for each frame."""

Vector = NDArray[np.float32]


def scaled(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """16 bits to [-1, 1), a new array of the same shape."""
    wide = samples.astype(np.float32)
    wide *= ONE_STEP  # in two steps: numpy multiplies mixed types in small buffers
    return wide


def as_waveform(samples: Samples) -> Waveform:
    """The same samples; a new array if they were 16 bits."""
    return scaled(samples) if samples.dtype == np.int16 else samples  # type: ignore[arg-type,return-value]  # numpy has no such guard


def frame_count(samples: int) -> int:
    """How many 20 ms frames the model makes of a clip: T = (n - 400) // 320 + 1, 0 below 400.

    Source: FunASR `emotion2vec/audio.py`, the nested floors of its seven strided convolutions.
    """
    return 0 if samples < WINDOW else (samples - WINDOW) // HOP + 1


class InvalidInput(Exception):
    """The caller sent something that cannot be analysed; it is never the server's fault.

    `reason` is UPPER_SNAKE and stable, `field` the path in the request as JSON spells it, the text
    is for people, and `metadata` holds every variable part of the text (limits, actual values).
    """

    def __init__(
        self, reason: str, text: str, *, field: str = "audio_data", **metadata: object
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.field = field
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in metadata.items()}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the caller should know that did not prevent an answer."""

    code: str  # UPPER_SNAKE, stable
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """One decoded request: what the model will hear, and where it came from."""

    samples: Samples
    source_rate_hz: int
    source_channels: int
    container: str  # "wav", "flac", "ogg/opus", ...; "raw" if the caller described it
    notices: tuple[Notice, ...] = ()

    @property
    def duration_ms(self) -> int:
        return round(1000 * len(self.samples) / SAMPLE_RATE)

    @property
    def waveform(self) -> Waveform:
        return as_waveform(self.samples)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One place in a batch."""

    samples: Samples
    frames: bool = False  # also wants logits and embeddings of every frame

    @property
    def waveform(self) -> Waveform:
        """Made for the engine, in its thread: while it waits, an utterance stays small."""
        return as_waveform(self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the model says about one utterance; float32, columns in the order of `Model.labels`."""

    logits: Vector  # (labels,)
    embedding: Vector  # (dimension,), the mean over the utterance's own frames
    frame_logits: Matrix | None = None  # (frames, labels), only if asked for
    frame_embeddings: Matrix | None = None  # (frames, dimension), only if asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is known of the weights that an engine serves."""

    name: str  # the last part of the resource name: "demo", "emotion2vec_plus_large"
    version: str  # changes whenever the weights do
    digest: str  # "sha256:HEX" over the weights file
    labels: tuple[str, ...]  # in the order of the outputs; labels masked as `unuse*` are left out
    dimension: int  # of an embedding
    parameters: int
    precision: str  # "fp32", "fp16"
    runtime: str  # "torch-cpu", "torch-cuda-graph", "funasr", "fake"
    device: str  # "cpu", "cuda:0"
    license: str  # SPDX expression, or what the checkpoint says
    notices: tuple[Notice, ...] = field(default=())  # go into every response's warnings


def probabilities(logits: Vector) -> list[float]:
    """`softmax` of one vector: for nine labels, Python is five times faster than numpy.

    Raises ArithmeticError if that is not a number, which is no answer.
    """
    values = logits.tolist()
    most = max(values)
    powers = [exp(value - most) for value in values]
    total = sum(powers)
    if not total >= 1:  # the largest power is 1, unless there is a NaN
        raise ArithmeticError("the model answered with logits that are no numbers")
    return [power / total for power in powers]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores along the last axis, each row summing to 1; -inf gets 0."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return scores
