"""An engine without a model, for tests and for benchmarks of what surrounds it."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from server.engine import Capacity
from server.speech import HOP, SAMPLE_RATE, WINDOW, Matrix, Model, Prediction, Utterance, Waveform

LABELS = (
    "angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown",
)  # fmt: skip
DIMENSION = 8

_PHASES = np.outer(np.arange(DIMENSION), np.arange(len(LABELS)))
_HEAD = np.cos(_PHASES).astype(np.float32)  # (DIMENSION, labels)


class FakeEngine:
    """Answers from how loud and how sharp a waveform is, and remembers its batches.

    Takes `delay_s_per_batch` plus `delay_s_per_second` for each second of audio. `fail_when` sees
    each batch first and returns what to raise, or None.
    """

    def __init__(
        self,
        *,
        delay_s_per_batch: float = 0,
        delay_s_per_second: float = 0,
        fail_when: Callable[[Sequence[Utterance]], Exception | None] | None = None,
        device: str = "cpu",
        batch_size: int = 32,
    ) -> None:
        self._delay_s_per_batch = delay_s_per_batch
        self._delay_s_per_second = delay_s_per_second
        self._fail_when = fail_when
        self._device = device
        self._batch_size = batch_size
        self.batches: list[int] = []  # sizes, oldest first, failed ones included
        self.warmed_up = False

    @property
    def model(self) -> Model:
        """Nine labels and eight dimensions."""
        return Model(
            name="fake",
            version="000000000000",
            digest="sha256:" + 64 * "0",
            labels=LABELS,
            dimension=DIMENSION,
            parameters=_HEAD.size,
            precision="fp32",
            runtime="fake",
            device=self._device,
            license="Apache-2.0",
        )

    @property
    def capacity(self) -> Capacity:
        """Large batches, at the costs it was made with."""
        return Capacity(
            batch_size=self._batch_size,
            per_batch=self._delay_s_per_batch,
            per_audio_second=self._delay_s_per_second,
        )

    def warm_up(self) -> None:
        """Only remembers that it was called."""
        self.warmed_up = True

    def infer(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """Answers in the order of the batch, or raises what `fail_when` returned."""
        self.batches.append(len(batch))
        error = self._fail_when(batch) if self._fail_when else None
        if error is not None:
            raise error
        seconds = sum(len(one.samples) for one in batch) / SAMPLE_RATE
        time.sleep(self._delay_s_per_batch + self._delay_s_per_second * seconds)
        return [_predict(one) for one in batch]


def _predict(one: Utterance) -> Prediction:
    frames = _frames(one.waveform)
    logits = frames @ _HEAD
    return Prediction(
        logits=logits.mean(0),
        embedding=frames.mean(0),
        frame_logits=logits if one.frames else None,
        frame_embeddings=frames if one.frames else None,
    )


def _frames(waveform: Waveform) -> Matrix:
    """(samples,) -> (frames, DIMENSION): powers of each frame's loudness, then of its sharpness."""
    windows = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    loudness = np.sqrt((windows**2).mean(1))
    sharpness = np.abs(np.diff(windows)).mean(1)
    powers = np.arange(1, 1 + DIMENSION // 2)
    columns = [loudness[:, None] ** powers, sharpness[:, None] ** powers]
    return np.concatenate(columns, 1).astype(np.float32)
