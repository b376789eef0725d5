"""Memory that batches pass through: pinned on the host, fixed on the device; computes nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from server.engine.buckets import Bucket
from server.engine.device import Copy, Device
from server.engine.model import Emotion2vec, Output
from server.speech import ONE_STEP, WINDOW, Samples


class HostMemory:
    """One batch on the host, waveforms in and answers out, where the device can reach it.

    Waveforms travel as the float32 they are: at 3,500 five-second clips/s that is 1.1 GB/s, a
    fiftieth of what PCIe 5 carries, and less work for the host than to make int16 of them.
    """

    def __init__(self, static: "Static", device: Device) -> None:
        self.waveforms = device.host_memory(static.waveforms.numel(), torch.float32)
        self.samples = device.host_memory(static.samples.numel(), torch.int64)
        size, labels = static.logits.shape
        self._width = static.embeddings.shape[1]
        self.embeddings = device.host_memory(size * self._width, torch.float32).view(size, -1)
        self.logits = device.host_memory(size * labels, torch.float32).view(size, labels)
        self._frames = device.host_memory(static.frames.numel(), static.frames.dtype)

    def write(self, clips: Sequence[Samples], bucket: Bucket) -> None:
        """Copies the clips into the rows; what follows them in a row is masked on the device.

        Rows without a clip say that they have one frame, of whatever was there before.
        """
        rows = self.waveforms[: bucket.numbers].numpy().reshape(bucket.size, -1)
        samples = self.samples[: bucket.size].numpy()
        samples[:] = WINDOW
        for i, clip in enumerate(clips):
            row = rows[i, : len(clip)]
            row[:] = clip
            if clip.dtype == np.int16:
                row *= ONE_STEP
            samples[i] = len(clip)

    def frames(self, bucket: Bucket) -> Tensor:
        """(size, frames, D) in the model's format; only rows that were asked for are there."""
        rows = self._frames[: bucket.size * bucket.frames * self._width]
        return rows.view(bucket.size, bucket.frames, self._width)


class Slot(HostMemory):
    """With memory of its own on the device, so that it is uploaded while another computes."""

    def __init__(self, static: "Static", device: Device) -> None:
        super().__init__(static, device)
        self.on_device = torch.empty_like(static.waveforms), torch.empty_like(static.samples)

    def uploads(self, bucket: Bucket) -> list[Copy]:
        """What has to get to the device."""
        waveforms, samples = self.on_device
        return [
            (waveforms[: bucket.numbers], self.waveforms[: bucket.numbers]),
            (samples[: bucket.size], self.samples[: bucket.size]),
        ]


class Static:
    """The memory that graphs read and write: as large as the largest shape, shared by all."""

    def __init__(
        self, buckets: Sequence[Bucket], network: Emotion2vec, device: torch.device
    ) -> None:
        size = max(bucket.size for bucket in buckets)
        frames = max(bucket.size * bucket.frames for bucket in buckets)
        samples = max(bucket.numbers for bucket in buckets)
        labels, width = network.head.weight.shape
        self.waveforms = torch.zeros(samples, device=device)
        self.samples = torch.full((size,), WINDOW, dtype=torch.int64, device=device)
        self.frames = torch.empty(frames * width, dtype=network.dtype, device=device)
        self.embeddings = torch.empty(size, width, device=device)
        self.logits = torch.empty(size, labels, device=device)
        self._width = width

    @property
    def bytes(self) -> int:
        tensors = self.waveforms, self.samples, self.frames, self.embeddings, self.logits
        return sum(tensor.nbytes for tensor in tensors)

    def read(self, waveforms: Tensor, samples: Tensor, bucket: Bucket) -> None:
        """Takes in a batch from pinned memory or from the device's own."""
        numbers, size = bucket.numbers, bucket.size
        self.waveforms[:numbers].copy_(waveforms[:numbers], non_blocking=True)
        self.samples[:size].copy_(samples[:size], non_blocking=True)

    def inputs(self, bucket: Bucket) -> tuple[Tensor, Tensor]:
        """Waveforms (size, samples), of which each row's own count (size,) is valid."""
        rows = self.waveforms[: bucket.numbers].view(bucket.size, -1)
        return rows, self.samples[: bucket.size]

    def store(self, output: Output, bucket: Bucket) -> None:
        """Keeps an output where the next run will find its place, too."""
        self._frames(bucket).copy_(output.frames)
        self.embeddings[: bucket.size].copy_(output.embeddings)
        self.logits[: bucket.size].copy_(output.logits)

    def answer(self, host: HostMemory, bucket: Bucket, wanted: Mapping[int, int]) -> None:
        """Starts the copies to the host; `wanted` maps rows to how many of their frames."""
        size = bucket.size
        host.embeddings[:size].copy_(self.embeddings[:size], non_blocking=True)
        host.logits[:size].copy_(self.logits[:size], non_blocking=True)
        ours, theirs = self._frames(bucket), host.frames(bucket)
        for row, count in wanted.items():
            theirs[row, :count].copy_(ours[row, :count], non_blocking=True)

    def _frames(self, bucket: Bucket) -> Tensor:
        rows = self.frames[: bucket.size * bucket.frames * self._width]
        return rows.view(bucket.size, bucket.frames, self._width)
