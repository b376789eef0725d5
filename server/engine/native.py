"""Our own emotion2vec on a CPU, and how its weights get to any device; knows no FunASR."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from server.engine import Capacity, cores, weights
from server.engine.attention import NUMBERS
from server.engine.checkpoint import Checkpoint
from server.engine.model import Emotion2vec, Output
from server.engine.normal import normalise
from server.engine.precision import choose
from server.speech import HOP, SAMPLE_RATE, WINDOW, Prediction, Utterance, frame_count
from server.speech import Model as Facts

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,  # only the products of the blocks' linear layers are integers
}
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}

_REPEATS, _PATIENCE_S = 5, 0.25

GPU_NUMBERS = 32 * NUMBERS
"""40 s of the large model at a time fill a GPU's front end, and attention keeps the whole bias of
every shape that is captured."""


class NativeEngine:
    """emotion2vec on the CPU, where a batch is a list.

    Clips run one after the other, because padding costs more than company saves.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, precision: str = "auto", threads: int = 0
    ) -> None:
        """Reads the weights. `threads` is the size of torch's one thread pool, 0 as many as pay.

        Raises `CheckpointError`, or `CannotLoad` for a precision that this CPU would crawl in.
        """
        chosen = choose(precision, "cpu")
        self._threads = threads or cores.worth_using(checkpoint.parameters)
        torch.set_num_threads(1)  # a pool of threads would not survive a fork
        self._network, self._model = load(checkpoint, torch.device("cpu"), chosen)
        self._normalise = checkpoint.architecture.normalise
        self._capacity = Capacity()

    @property
    def model(self) -> Facts:
        """What was loaded, and where it runs."""
        return self._model

    @property
    def capacity(self) -> Capacity:
        """A batch of one; a second clip would only make the first wait for its answer."""
        return self._capacity

    def warm_up(self) -> None:
        """Makes the thread pool, gets the weights into memory, and times two lengths."""
        torch.set_num_threads(self._threads)
        self.infer([Utterance(np.zeros(SAMPLE_RATE, np.float32), frames=True)])
        short, long = self._time(1), self._time(5)
        per_second = (long - short) / 4
        if per_second > 0:  # else something disturbed the measurement: say nothing
            per_batch = max(0.0, short - per_second)
            self._capacity = Capacity(per_batch=per_batch, per_audio_second=per_second)

    def infer(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """Answers in the order of the batch; every waveform needs at least 400 samples.

        Raises whatever torch raises.
        """
        return [self._predict(one) for one in batch]

    def _predict(self, one: Utterance) -> Prediction:
        clip = torch.tensor(one.waveform)
        odd = (frame_count(len(clip)) + self._network.extra) % 2
        waveforms, frames = pack([clip], normalised=self._normalise, padding=odd)
        output = self._network(waveforms, frames if odd else None)
        return self._answer(output, int(frames) if one.frames else 0)

    def _answer(self, output: Output, frames: int) -> Prediction:
        own = output.frames[0, :frames].float() if frames else None
        return Prediction(
            logits=output.logits[0].numpy(),
            embedding=output.embeddings[0].numpy(),
            frame_logits=None if own is None else self._network.classify(own).numpy(),
            frame_embeddings=None if own is None else own.contiguous().numpy(),
        )

    def _time(self, seconds: int) -> float:
        """Of one clip; the least of a few where that is quick, since neighbours disturb."""
        noise = np.random.default_rng(0).random(seconds * SAMPLE_RATE, np.float32)
        times: list[float] = []
        while len(times) < _REPEATS and sum(times) < _PATIENCE_S:
            started_at = perf_counter()
            self.infer([Utterance(noise, frames=True)])
            times.append(perf_counter() - started_at)
        return min(times)


def pack(
    clips: Sequence[Tensor], *, normalised: bool = True, padding: int = 0
) -> tuple[Tensor, Tensor]:
    """Clips of any length -> waveforms (B, N) as `Emotion2vec` wants them, and frames (B,).

    Each clip is normalised over all its samples, then cut to whole frames and zero-padded, by
    `padding` frames beyond the longest.
    """
    frames = [frame_count(len(clip)) for clip in clips]
    if min(frames) < 1:
        raise ValueError(f"a clip needs at least {WINDOW} samples")
    rows = torch.zeros(len(clips), WINDOW + HOP * (max(frames) - 1 + padding))
    for row, clip, count in zip(rows, clips, frames, strict=True):
        own = WINDOW + HOP * (count - 1)
        row[:own] = (normalise(clip) if normalised else clip)[:own]
    return rows, torch.tensor(frames)


def load(checkpoint: Checkpoint, device: torch.device, precision: str) -> tuple[Emotion2vec, Facts]:
    """The weights of a checkpoint on a device, and what they are. Raises `CheckpointError`."""
    with ThreadPoolExecutor(1) as pool:  # hashing takes as long as reading, on another core
        digest = pool.submit(checkpoint.digest)
        made = network(checkpoint, device, DTYPES[precision], int8=precision == "int8")
        runtime = "torch-cpu" if device.type == "cpu" else f"torch-{device.type}-graph"
        facts = checkpoint.describe(
            digest.result(), precision=SHORT[precision], runtime=runtime, device=str(device)
        )
    return made, facts


def network(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    int8: bool = False,
) -> Emotion2vec:
    """The weights of a checkpoint on a device. Raises `CheckpointError`."""
    shapes = checkpoint.architecture.shapes(checkpoint.labels.classes)
    tensors = weights.read(checkpoint.weights, shapes, checkpoint.scope_map)
    for name in shapes:
        tensors[name] = tensors[name].to(device)
    return Emotion2vec(
        tensors,
        checkpoint.architecture,
        checkpoint.labels.columns,
        dtype=dtype,
        int8=int8,
        numbers=NUMBERS if device.type == "cpu" else GPU_NUMBERS,
    )
