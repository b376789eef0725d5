"""The engine for devices that live on batches: padded to fixed shapes, captured, replayed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from server.engine import CannotLoad, Capacity
from server.engine.buckets import Bucket, Grid, Piece, affordable
from server.engine.device import Device
from server.engine.kernels import ways
from server.engine.model import Affine, Emotion2vec
from server.engine.normal import normalise_rows
from server.engine.position import Grouped, Unfolded
from server.engine.staging import HostMemory, Slot, Static
from server.engine.trial import Way, fastest
from server.speech import HOP, WINDOW, Matrix, Model, Prediction, Utterance, frame_count

SLOTS = 2
"""Batches in flight: one computes while the next is copied to the device."""

POSITIONS: tuple[type[Grouped | Unfolded], ...] = Grouped, Unfolded


class BatchEngine:
    """emotion2vec on a GPU.

    `infer` may be called from as many threads as there are slots. Each batch is written to the
    pinned memory of a slot, uploaded while the one before it computes, copied to where the graphs
    read, and run by replaying the graph of its shape. Longer clips than any shape run without one.
    """

    def __init__(
        self, network: Emotion2vec, model: Model, device: Device, *, normalised: bool = True
    ) -> None:
        """`network` is on `device` already; `normalised` says that it wants normal waveforms."""
        self._network = network
        self._model = model
        self._device = device
        self._normalised = normalised
        with device.computing():  # where the weights were made: another stream would not wait
            self._head = Affine(*(tensor.cpu() for tensor in network.head))
        self._graphs: dict[Bucket, Callable[[], None]] = {}
        self._slots: SimpleQueue[Slot] = SimpleQueue()
        self._capacity = Capacity()

    @property
    def model(self) -> Model:
        """What was loaded, and where it runs."""
        return self._model

    @property
    def capacity(self) -> Capacity:
        """Measured by `warm_up`."""
        return self._capacity

    def warm_up(self) -> None:
        """Sees what fits, allocates all buffers, and captures every shape, the largest first.

        Raises `CannotLoad` if not even one clip fits.
        """
        try:
            with self._device.errors():
                self._fit()
                self._choose_ways()
                for bucket in self._grid.buckets():
                    with self._device.computing():
                        self._graphs[bucket] = self._device.capture(self._run(bucket))
                self._capacity = self._measure()
        except MemoryError as error:
            raise CannotLoad(f"{self._device.name}: too little free memory: {error}") from error

    def infer(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """Answers in the order of the batch; every waveform needs at least 400 samples.

        Raises `MemoryError` if it does not fit, `DeviceLost` if the device answers no more, and
        whatever torch raises.
        """
        frames = [frame_count(len(one.samples)) for one in batch]
        if min(frames) < 1:
            raise ValueError(f"a clip needs at least {WINDOW} samples")
        predictions: dict[int, Prediction] = {}
        with self._device.errors():
            for piece in self._grid.divide(frames):
                clips = [batch[i] for i in piece.clips]
                answer = self._replay if piece.bucket in self._graphs else self._run_long
                predictions |= zip(piece.clips, answer(piece, clips), strict=True)
        return [predictions[i] for i in range(len(batch))]

    def _replay(self, piece: Piece, clips: Sequence[Utterance]) -> list[Prediction]:
        bucket = piece.bucket
        with self._slot() as slot:
            slot.write([one.samples for one in clips], bucket)
            uploaded = self._device.upload(slot.uploads(bucket))
            with self._device.computing():
                uploaded()
                self._static.read(*slot.on_device, bucket)
                self._graphs[bucket]()
                self._static.answer(slot, bucket, _wanted(clips))
                done = self._device.mark()
            done()
            return self._predictions(slot, bucket, clips)

    def _run_long(self, piece: Piece, clips: Sequence[Utterance]) -> list[Prediction]:
        """Alone on the device and without a graph: computing takes longer than launching here."""
        bucket = piece.bucket
        with self._device.computing():
            static = Static([bucket], self._network, self._device.name)
            host = HostMemory(static, self._device)
            host.write([one.samples for one in clips], bucket)
            static.read(host.waveforms, host.samples, bucket)
            self._forward(static, bucket)
            static.answer(host, bucket, _wanted(clips))
            self._device.mark()()
        return self._predictions(host, bucket, clips)

    def _run(self, bucket: Bucket) -> Callable[[], None]:
        return lambda: self._forward(self._static, bucket)

    def _forward(self, static: Static, bucket: Bucket) -> None:
        """From static memory to static memory: nothing of it asks for a value of the device."""
        waveforms, samples = static.inputs(bucket)
        rows, frames = normalise_rows(waveforms, samples, normalised=self._normalised)
        static.store(self._network(rows, frames), bucket)

    def _predictions(
        self, host: HostMemory, bucket: Bucket, clips: Sequence[Utterance]
    ) -> list[Prediction]:
        """Copies of what came back, since the memory is used again."""
        wanted, rows = _wanted(clips), host.frames(bucket)
        return [
            Prediction(
                logits=host.logits[i].numpy().copy(),
                embedding=host.embeddings[i].numpy().copy(),
                **(self._frames(rows[i, : wanted[i]]) if i in wanted else {}),
            )
            for i in range(len(clips))
        ]

    def _frames(self, rows: Tensor) -> dict[str, Matrix]:
        frames = rows.to(torch.float32, copy=True)
        logits = F.linear(frames, *self._head)
        return {"frame_logits": logits.numpy(), "frame_embeddings": frames.numpy()}

    @contextmanager
    def _slot(self) -> Iterator[Slot]:
        slot = self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put(slot)

    def _fit(self) -> None:
        """Chooses the shapes by what the longest needs, and makes the buffers for them."""
        longest = Bucket(1, Grid(self._network.extra).lengths[-1])
        with self._device.computing():
            self._bytes_per_second = self._bytes_of(longest) / longest.seconds
        seconds = affordable(self._device.free_bytes(), self._bytes_per_second)
        self._grid = Grid(self._network.extra, seconds)
        buckets = self._grid.buckets()
        if not buckets:
            raise MemoryError(f"there is room for {seconds:.1f} s of audio only")
        with self._device.computing():
            self._static = Static(buckets, self._network, self._device.name)
            for _ in range(SLOTS):
                self._slots.put(Slot(self._static, self._device))

    def _bytes_of(self, bucket: Bucket) -> int:
        """What a shape takes of the device, its part of all buffers included.

        Running counts twice: while graphs are captured, they hold memory of their own beside that
        of the run before each capture. Either way to compute the positions may be chosen later.
        """
        static = Static([bucket], self._network, self._device.name)
        running = []
        for kind in POSITIONS:
            self._network.compute_positions_by(kind)
            self._forward(static, bucket)  # what a first run leaves behind is not counted
            running.append(self._device.bytes_of(lambda: self._forward(static, bucket)))
        return 2 * max(running) + (1 + SLOTS) * static.bytes

    def _choose_ways(self) -> None:
        """What is fastest on this device, with rows full of noise: silence is computed faster."""
        bucket = self._grid.buckets()[0]
        with self._device.computing():
            self._static.waveforms.normal_()
            self._static.samples.fill_(bucket.samples - HOP)
        self._choose(self._network.compute_positions_by, POSITIONS, bucket)
        self._choose(self._network.compute_by, ways(self._device.name), bucket)
        with self._device.computing():
            self._static.samples.fill_(WINDOW)

    def _choose(self, use: Callable[[Way], None], kinds: Sequence[Way], bucket: Bucket) -> None:
        """As `trial.fastest`, of a whole forward pass."""

        def run(kind: Way) -> tuple[float, Tensor]:
            with self._device.computing():
                use(kind)
            spent = min(self._time(self._run(bucket)) for _ in range(3))
            with self._device.computing():
                return spent, self._static.frames.to("cpu", torch.float32, copy=True)

        best = fastest(kinds, run)
        with self._device.computing():
            use(best)

    def _time(self, run: Callable[[], None]) -> float:
        with self._device.computing():
            self._device.mark()()
            started_at = perf_counter()
            run()
            self._device.mark()()
        return perf_counter() - started_at

    def _measure(self) -> Capacity:
        """Fits seconds of computing to the smallest and the largest shape."""
        large, small = self._grid.buckets()[0], Bucket(1, self._grid.lengths[0])
        times = [self._time_batch(bucket) for bucket in (small, large)]
        per_second = max(0.0, (times[1] - times[0]) / (large.seconds - small.seconds))
        sizes = self._grid.sizes(self._grid.lengths[0])
        return Capacity(
            batch_size=sizes[-1],
            preferred_sizes=tuple(sizes),
            batch_seconds=large.seconds,
            per_batch=max(0.0, times[0] - per_second * small.seconds),
            per_audio_second=per_second,
            slots=SLOTS,
            memory_bytes=self._device.used_bytes(),
            bytes_per_audio_second=self._bytes_per_second,
        )

    def _time_batch(self, bucket: Bucket) -> float:
        noise = np.random.default_rng(0).random(bucket.samples, np.float32)
        batch = [Utterance(noise[:-HOP])] * bucket.size
        times = []
        for _ in range(3):
            started_at = perf_counter()
            self.infer(batch)
            times.append(perf_counter() - started_at)
        return min(times)


def _wanted(clips: Sequence[Utterance]) -> dict[int, int]:
    """Rows whose frames somebody wants -> how many frames those have."""
    return {i: frame_count(len(one.samples)) for i, one in enumerate(clips) if one.frames}
