"""A GPU as the batch engine knows it: streams, graphs, pinned memory, errors; knows no model."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from server.engine import DeviceLost
from server.engine.device import Copy, Wait


class CudaDevice:
    """One stream computes, another uploads, so that a copy runs while the last batch computes."""

    def __init__(self, name: torch.device, memory_fraction: float = 1.0) -> None:
        """`memory_fraction` of the GPU's memory is all that this process will take."""
        self.name = name
        self._fraction = memory_fraction
        self._turn = threading.Lock()
        torch.cuda.set_per_process_memory_fraction(memory_fraction, name)
        _compute_exactly()
        self._compute = torch.cuda.Stream(name)  # type: ignore[no-untyped-call]
        self._copies = torch.cuda.Stream(name)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def host_memory(self, numbers: int, dtype: torch.dtype) -> Tensor:
        """Page-locked, so that copies need neither a detour nor the host's time."""
        return torch.empty(numbers, dtype=dtype, pin_memory=True)

    def upload(self, copies: Sequence[Copy]) -> Wait:
        """The host may not touch the sources before a later `mark` has been waited for."""
        uploaded = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._copies), torch.inference_mode():
            for target, source in copies:
                target.copy_(source, non_blocking=True)
            uploaded.record(self._copies)
        return lambda: self._compute.wait_event(uploaded)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Current stream and device are the thread's own, so each thread sets them here."""
        with self._turn, torch.cuda.stream(self._compute), torch.inference_mode():
            yield

    def mark(self) -> Wait:
        """Waiting blocks the thread without spinning, and without Python's lock."""
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(self._compute)
        return done.synchronize

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """All graphs share one pool, so they take the memory of the largest: capture it first.

        What `run` allocates is only its own while it runs; its results must go to memory that
        existed before. The first run loads kernels and libraries' workspaces, which a capture
        must not.
        """
        run()
        self._compute.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Only this thread is held to what a capture allows; others may be loading or serving.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._compute, capture_error_mode="thread_local"
        ):
            run()
        return graph.replay

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Whether an error is sticky only the device can say: a lost one fails at anything."""
        try:
            yield
        except RuntimeError as error:
            if is_full(error):
                torch.cuda.empty_cache()
                raise MemoryError(str(error)) from error
            if not self._answers():
                raise DeviceLost(str(error)) from error
            raise

    def free_bytes(self) -> int:
        """What others leave free, and at most this process's share.

        What the allocator caches is given back first. It keeps the memory of graphs, in which
        nothing else may be allocated, though it counts most of it as unused.
        """
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.name)
        return min(free, int(self._fraction * total) - torch.cuda.memory_reserved(self.name))

    def used_bytes(self) -> int:
        """What the allocator holds, and what the driver took for contexts, kernels and graphs."""
        free, total = torch.cuda.mem_get_info(self.name)
        return total - free

    def bytes_of(self, run: Callable[[], None]) -> int:
        """By the allocator's own account, at its peak."""
        torch.cuda.reset_peak_memory_stats(self.name)
        before = torch.cuda.memory_allocated(self.name)
        run()
        self._compute.synchronize()
        return torch.cuda.max_memory_allocated(self.name) - before

    def _answers(self) -> bool:
        try:
            torch.cuda.synchronize(self.name)
        except RuntimeError:
            return False
        return True


def _compute_exactly() -> None:
    """For the whole process: defaults that trade digits for speed, or seconds of planning."""
    torch.backends.cudnn.allow_tf32 = False  # on by default; float32 means float32 here
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    # The other fused kernel that takes a bias plans each shape anew, for a second or so.
    torch.backends.cuda.enable_cudnn_sdp(False)


def is_full(error: RuntimeError) -> bool:
    """Whether a smaller batch could have run; the libraries say it in words of their own."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "STATUS_ALLOC_FAILED" in text
