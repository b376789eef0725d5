"""FunASR itself behind the engine's interface: the reference, slow and without batches."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from server.engine import CannotLoad, Capacity, cores
from server.engine.checkpoint import Checkpoint
from server.speech import SAMPLE_RATE, Matrix, Model, Prediction, Utterance


class FunasrEngine:
    """One `AutoModel.generate` for each clip. Always float32, which is all that FunASR can."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        threads: int = 0,
    ) -> None:
        """Loads the folder; takes about 15 s and 2.5 times the file's size in memory.

        `threads` as in `NativeEngine`. Raises `CannotLoad` if FunASR is not installed.
        """
        try:
            with _callers_random_state():
                from funasr import AutoModel

                # FunASR sets torch's threads to 4, here and at every call, unless told a number.
                self._funasr = AutoModel(
                    model=str(checkpoint.folder),
                    device=device,
                    ncpu=threads or cores.available(),
                    disable_update=True,
                    disable_pbar=True,
                )
        except ImportError as error:
            raise CannotLoad(
                "engine 'funasr' needs the extra: pip install -e '.[funasr]'"
            ) from error
        self._head = self._read_head(checkpoint.labels.columns)
        self._model = checkpoint.describe(
            checkpoint.digest(),
            precision="fp32",
            runtime="funasr",
            device=str(self._funasr.kwargs["device"]),
        )

    @property
    def model(self) -> Model:
        """What was loaded, and where it runs."""
        return self._model

    @property
    def capacity(self) -> Capacity:
        """A batch of one: FunASR has no larger."""
        return Capacity()

    def warm_up(self) -> None:
        """Runs one second of silence."""
        self.infer([Utterance(np.zeros(SAMPLE_RATE, np.float32))])

    def infer(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """Answers in the order of the batch, from the frames that FunASR returns of each clip."""
        return [self._predict(one) for one in batch]

    def _predict(self, one: Utterance) -> Prediction:
        """The mean over the frames and the head on it, as in FunASR `emotion2vec/model.py`.

        FunASR's own `scores` are the softmax of these logits, which it does not return.
        """
        result = self._funasr.generate(one.waveform, granularity="frame", extract_embedding=True)
        frames: Matrix = result[0]["feats"]
        weight, bias = self._head
        embedding = frames.mean(axis=0)
        return Prediction(
            logits=weight @ embedding + bias,
            embedding=embedding,
            frame_logits=frames @ weight.T + bias if one.frames else None,
            frame_embeddings=frames if one.frames else None,
        )

    def _read_head(self, columns: Sequence[int]) -> tuple[Matrix, Matrix]:
        """Weight (labels, D) and bias (labels,) of the rows that are labels."""
        head = self._funasr.model.proj
        rows = list(columns)
        weight = head.weight.detach().cpu().numpy()[rows]
        return weight, head.bias.detach().cpu().numpy()[rows]


@contextmanager
def _callers_random_state() -> Iterator[None]:
    """FunASR seeds every generator of the process with 0 when it loads a model."""
    import torch

    plain, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)
