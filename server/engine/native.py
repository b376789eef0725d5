"""The engine of choice: our own emotion2vec on one device; knows no FunASR."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from server.engine import CannotLoad, DeviceLost, weights
from server.engine.attention import NUMBERS
from server.engine.checkpoint import Checkpoint
from server.engine.model import Emotion2vec, Output, normalise
from server.engine.precision import choose
from server.speech import HOP, SAMPLE_RATE, WINDOW, Model, Prediction, Utterance, frame_count

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_WARM_UP_S = (1, 5)


class NativeEngine:
    """emotion2vec in plain torch.

    On a CPU a batch is a list: clips run one after the other, because padding costs more than
    company saves. On a GPU they run as one padded batch. The answers are the same.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
    ) -> None:
        """Reads the weights. `threads` is the size of torch's one thread pool, 0 a thread a core.

        Raises `CheckpointError`, or `CannotLoad` for a device or precision that is not here.
        """
        self._device = _device(device)
        chosen = choose(precision, self._device.type)
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(1) as pool:  # hashing takes as long as reading, on another core
            digest = pool.submit(checkpoint.digest)
            self._network = network(checkpoint, self._device, _DTYPES[chosen])
            self._model = checkpoint.describe(
                digest.result(),
                precision=_SHORT[chosen],
                runtime=f"torch-{self._device.type}",
                device=str(self._device),
            )
        self._normalise = checkpoint.architecture.normalise

    @property
    def model(self) -> Model:
        """What was loaded, and where it runs."""
        return self._model

    def warm_up(self) -> None:
        """Runs silence of two lengths, so that the pool exists and the weights are in memory."""
        for seconds in _WARM_UP_S:
            self.infer([Utterance(np.zeros(seconds * SAMPLE_RATE, np.float32), frames=True)])

    def infer(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """Answers in the order of the batch; every waveform needs at least 400 samples.

        Raises `MemoryError` if the batch is too large for the GPU, `DeviceLost` if it answers no
        more, and whatever torch raises.
        """
        if self._device.type == "cpu":
            return [prediction for one in batch for prediction in self._run([one])]
        with device_errors():
            return self._run(batch)

    def _run(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """One forward pass over a batch of any lengths."""
        clips = [torch.tensor(one.waveform) for one in batch]
        waveforms, frames = pack(clips, normalised=self._normalise)
        counts = frames.tolist()
        padded = frames.to(self._device) if len(set(counts)) > 1 else None
        output = self._network(waveforms.to(self._device), padded)
        return self._predictions(batch, counts, output)

    def _predictions(
        self, batch: Sequence[Utterance], frames: Sequence[int], output: Output
    ) -> list[Prediction]:
        logits, embeddings = output.logits.cpu().numpy(), output.embeddings.cpu().numpy()
        predictions = []
        for i, one in enumerate(batch):
            own = output.frames[i, : frames[i]].float() if one.frames else None
            predictions.append(
                Prediction(
                    logits=logits[i].copy(),
                    embedding=embeddings[i].copy(),
                    frame_logits=None if own is None else self._network.classify(own).cpu().numpy(),
                    frame_embeddings=None if own is None else own.cpu().numpy().copy(),
                )
            )
        return predictions


def pack(clips: Sequence[Tensor], *, normalised: bool = True) -> tuple[Tensor, Tensor]:
    """Clips of any length -> waveforms (B, N) as `Emotion2vec` wants them, and frames (B,).

    Each clip is normalised over all its samples, then cut to whole frames and zero-padded.
    """
    frames = [frame_count(len(clip)) for clip in clips]
    if min(frames) < 1:
        raise ValueError(f"a clip needs at least {WINDOW} samples")
    rows = torch.zeros(len(clips), WINDOW + HOP * (max(frames) - 1))
    for row, clip, count in zip(rows, clips, frames, strict=True):
        own = WINDOW + HOP * (count - 1)
        row[:own] = (normalise(clip) if normalised else clip)[:own]
    return rows, torch.tensor(frames)


def _device(name: str) -> torch.device:
    wanted = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.partition(":")[0] not in ("cpu", "cuda"):
        raise CannotLoad(f"device {name!r} is unknown; it is auto, cpu, cuda or cuda:N")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise CannotLoad(
            f"device {name!r}: torch {torch.__version__} finds no GPU; use cpu or auto"
        )
    return torch.device(wanted if wanted != "cuda" else "cuda:0")


def network(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype = torch.float32
) -> Emotion2vec:
    """The weights of a checkpoint on a device. Raises `CheckpointError`."""
    shapes = checkpoint.architecture.shapes(checkpoint.labels.classes)
    tensors = weights.read(checkpoint.weights, shapes, checkpoint.scope_map)
    on_device = {name: tensors.pop(name).to(device) for name in shapes}
    return Emotion2vec(
        on_device,
        checkpoint.architecture,
        checkpoint.labels.columns,
        dtype=dtype,
        numbers=NUMBERS if device.type == "cpu" else 16 * NUMBERS,
    )


@contextmanager
def device_errors() -> Iterator[None]:
    """Translates a full device to `MemoryError`, which passes, and its other errors to lost."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error)) from error
