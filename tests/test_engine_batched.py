"""The engine for GPUs, on a CPU: its buffers, shapes and order, with a device that is a fake."""

import threading
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from checkpoints import speech_like, write
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from server.engine import CannotLoad, DeviceLost, checkpoint, native
from server.engine.batched import SLOTS, BatchEngine
from server.engine.buckets import ALIGNMENT, MOST_SECONDS, Bucket, Grid, affordable
from server.engine.cuda import CudaDevice, is_full
from server.engine.model import Emotion2vec
from server.engine.native import NativeEngine
from server.engine.normal import normalise_rows
from server.speech import HOP, SAMPLE_RATE, WINDOW, Utterance, as_waveform, frame_count, softmax

EXTRA = 10


class HostDevice:
    """A device that is the host itself, and remembers in which order it was asked for what."""

    name = torch.device("cpu")

    def __init__(self, free_bytes=3 * 2**20):
        self.done = []
        self.captured = []
        self.error = None
        self._free = free_bytes
        self._turn = threading.Lock()

    def host_memory(self, numbers, dtype):
        return torch.full((numbers,), 77, dtype=dtype)

    def upload(self, copies):
        self.done.append("upload")
        with torch.inference_mode():
            for target, source in copies:
                target.copy_(source)
        return lambda: self.done.append("uploaded")

    @contextmanager
    def computing(self):
        with self._turn, torch.inference_mode():
            yield

    def mark(self):
        return lambda: self.done.append("waited")

    def capture(self, run):
        run()
        self.captured.append(run)

        def replay():
            self.done.append("replay")
            if self.error:
                raise self.error
            run()

        return replay

    def errors(self):
        return nullcontext()

    def free_bytes(self):
        return self._free

    def used_bytes(self):
        return 123

    def bytes_of(self, run):
        run()
        return 2**20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return checkpoint.find(str(write(tmp_path_factory.mktemp("models") / "tiny")))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(tiny, device):
    network, model = native.load(tiny, torch.device("cpu"), "float32")
    engine = BatchEngine(network, model, device)
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def device():
    return HostDevice()


@pytest.fixture(scope="module")
def batched(tiny, device):
    return make(tiny, device)


@pytest.fixture(scope="module")
def alone(tiny):
    return NativeEngine(tiny, threads=1)


def same(found, expected):
    np.testing.assert_allclose(softmax(found.logits), softmax(expected.logits), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.embedding, expected.embedding, rtol=0, atol=2e-5)
    assert (found.frame_embeddings is None) == (expected.frame_embeddings is None)
    if found.frame_embeddings is not None:
        for ours, theirs in (
            (found.frame_embeddings, expected.frame_embeddings),
            (found.frame_logits, expected.frame_logits),
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


clips = st.lists(st.tuples(st.integers(400, 60_000), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=25, derandomize=True)
@given(clips)
def test_every_batch_gets_the_answers_of_its_clips_alone(batched, alone, wanted):
    batch = [Utterance(speech_like(n, seed), frames) for seed, (n, frames) in enumerate(wanted)]

    found = batched.infer(batch)

    for one, answer in zip(batch, found, strict=True):
        same(answer, alone.infer([one])[0])


def test_sixteen_bits_get_the_answers_of_the_same_samples_as_floats(batched, alone):
    clips = [(20_000 * speech_like(n, n)).astype(np.int16) for n in (9_000, 12_345)]
    floats = alone.infer([Utterance(as_waveform(clip), frames=True) for clip in clips])

    for engine in (batched, alone):
        found = engine.infer([Utterance(clip, frames=True) for clip in clips])

        for ours, theirs in zip(found, floats, strict=True):
            same(ours, theirs)


def test_a_clip_longer_than_every_graph_runs_without_one(batched, alone, device):
    long = Utterance(speech_like(30 * SAMPLE_RATE), frames=True)
    short = Utterance(speech_like(SAMPLE_RATE))
    device.done.clear()

    found = batched.infer([short, long])

    assert device.done.count("replay") == 1
    same(found[0], alone.infer([short])[0])
    same(found[1], alone.infer([long])[0])


def test_answers_outlive_the_buffers_that_they_came_in(batched):
    first = batched.infer([Utterance(speech_like(9_000), frames=True)])[0]
    kept = first.logits.copy(), first.embedding.copy(), first.frame_embeddings.copy()

    for seed in range(SLOTS + 1):
        batched.infer([Utterance(speech_like(9_000, seed + 1), frames=True)])

    for found, expected in zip(
        (first.logits, first.embedding, first.frame_embeddings), kept, strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_the_next_batch_is_uploaded_before_the_device_is_free(batched, device):
    one = [Utterance(speech_like(9_000))]
    device.done.clear()

    batched.infer(one)

    assert device.done == ["upload", "uploaded", "replay", "waited"]


def test_many_threads_get_their_own_answers(batched, alone):
    batches = [
        [Utterance(speech_like(5_000 + 400 * n, n), True), Utterance(speech_like(8_000, n))]
        for n in range(12)
    ]
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: batched.infer(batches[n])}))
        for n in range(len(batches))
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for n, batch in enumerate(batches):
        for one, answer in zip(batch, found[n], strict=True):
            same(answer, alone.infer([one])[0])


def test_a_batch_that_fails_costs_the_next_ones_nothing(batched, alone, device):
    one = Utterance(speech_like(9_000))

    for error in [MemoryError("full")] * (SLOTS + 1):
        device.error = error
        with pytest.raises(MemoryError, match="full"):
            batched.infer([one])
    device.error = None

    same(batched.infer([one])[0], alone.infer([one])[0])


def test_a_clip_without_a_frame_is_refused(batched):
    with pytest.raises(ValueError, match="at least 400 samples"):
        batched.infer([Utterance(speech_like(399))])


def test_warming_up_captures_every_shape_the_largest_first(batched, device):
    buckets = batched.capacity

    assert len(device.captured) == len(Grid(EXTRA, buckets.batch_seconds).buckets())
    assert buckets.batch_size == buckets.preferred_sizes[-1]
    assert buckets.slots == SLOTS
    assert buckets.memory_bytes == 123
    assert buckets.bytes_per_audio_second > 0


def test_a_device_without_room_for_a_second_is_refused(tiny):
    with pytest.raises(CannotLoad, match="too little free memory"):
        make(tiny, HostDevice(free_bytes=2**14))


def test_less_memory_means_smaller_batches(tiny, batched):
    smaller = make(tiny, HostDevice(free_bytes=2**20))

    assert smaller.capacity.batch_seconds < batched.capacity.batch_seconds
    assert affordable(2**40, 2**20) == MOST_SECONDS


def test_the_hungrier_way_to_compute_positions_decides_what_fits(tiny, batched):
    """Which one is used is decided later, by what is faster."""
    device = HostDevice()
    needed = iter([2**20, 2**21])
    device.bytes_of = lambda _: next(needed)

    hungrier = make(tiny, device)

    assert hungrier.capacity.bytes_per_audio_second > batched.capacity.bytes_per_audio_second
    assert hungrier.capacity.batch_seconds < batched.capacity.batch_seconds


lengths = st.lists(st.integers(1, 3_100), min_size=1, max_size=70)


@given(lengths, st.floats(2, 168))
def test_every_clip_has_one_place_that_is_long_enough(frames, most):
    grid = Grid(EXTRA, most)

    pieces = grid.divide(frames)

    assert sorted(i for piece in pieces for i in piece.clips) == list(range(len(frames)))
    for piece in pieces:
        assert max(frames[i] for i in piece.clips) <= piece.bucket.frames
        assert len(piece.clips) <= piece.bucket.size
        assert (piece.bucket.frames + EXTRA) % ALIGNMENT == 0
        assert piece.bucket.size == 1 or piece.bucket.seconds <= most


@given(st.integers(300, 1_000))
def test_a_long_enough_clip_is_padded_by_a_sixteenth_at_most(frames):
    (piece,) = Grid(EXTRA).divide([frames])

    assert piece.bucket.frames + EXTRA < (frames + EXTRA) * 17 / 16 + 1


@pytest.mark.parametrize(("seconds", "size"), [(5, 32), (10, 16), (20, 8)])
def test_clips_of_whole_seconds_fill_the_largest_batches(seconds, size):
    frames = frame_count(seconds * SAMPLE_RATE)

    pieces = Grid(EXTRA).divide([frames] * size)

    assert [piece.bucket.size for piece in pieces] == [size]
    assert pieces[0].bucket.frames < 1.06 * frames


def test_the_shapes_are_few_enough_to_capture_and_the_largest_come_first():
    buckets = Grid(EXTRA).buckets()

    assert len(buckets) < 300
    assert [bucket.seconds for bucket in buckets] == sorted(
        (bucket.seconds for bucket in buckets), reverse=True
    )
    assert buckets[0].seconds <= MOST_SECONDS


def test_rows_are_normalised_as_each_clip_is_alone():
    clips = [speech_like(n, n) for n in (400, 719, 720, 5_000)]
    samples = torch.tensor([len(clip) for clip in clips])
    bucket = Bucket(4, frame_count(5_000) + 3)
    rows = torch.full((bucket.size, bucket.samples), torch.nan)
    for row, clip in zip(rows, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)

    found, frames = normalise_rows(rows, samples)

    expected, counts = native.pack([torch.from_numpy(clip) for clip in clips])
    assert found.shape[1] == WINDOW + HOP * (bucket.frames - 1)
    assert frames.tolist() == counts.tolist()
    torch.testing.assert_close(found[:, : expected.shape[1]], expected, rtol=0, atol=2e-6)
    assert not found[:, expected.shape[1] :].any()


class Operators(TorchDispatchMode):
    """Remembers every operator that runs, and the devices of its tensors."""

    def __init__(self):
        super().__init__()
        self.seen, self.crossing, self.asking = [], [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen.append(str(func))
        tensors = [t for t in (*args, out) if isinstance(t, torch.Tensor)]
        if len({t.device.type for t in tensors}) > 1:
            self.crossing.append(str(func))
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "is_nonzero")):
            self.asking.append(str(func))
        return out


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_captured_run_neither_waits_for_the_device_nor_copies_from_the_host(tiny, dtype):
    """Both end a capture. On the meta device a tensor has a place, but no value to be asked for."""
    bucket = Bucket(3, Grid(EXTRA).lengths[0])
    shapes = tiny.architecture.shapes(classes=9)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    network = Emotion2vec(tensors, tiny.architecture, tiny.labels.columns, dtype=dtype)
    rows = torch.empty(bucket.size, bucket.samples, device="meta")
    samples = torch.empty(bucket.size, dtype=torch.int64, device="meta")

    with Operators() as operators, torch.inference_mode():
        output = network(*normalise_rows(rows, samples))

    assert len(operators.seen) > 100
    assert operators.crossing == []
    assert operators.asking == []
    assert output.frames.shape == (bucket.size, bucket.frames, 64)
    assert (output.frames.dtype, output.logits.dtype) == (dtype, torch.float32)


class Allocator:
    """A GPU's memory as torch tells of it: 100 bytes, of which others have 10."""

    def __init__(self, monkeypatch, *, allocated, cached, of_graphs):
        self.allocated, self.cached, self.of_graphs = allocated, cached, of_graphs
        for name in ("memory_reserved", "mem_get_info", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def memory_reserved(self, _):
        return self.allocated + self.cached + self.of_graphs

    def mem_get_info(self, device):
        return 90 - self.memory_reserved(device), 100

    def empty_cache(self):
        self.cached = 0


@pytest.mark.parametrize(("fraction", "free"), [(1.0, 90 - 50), (0.6, 60 - 50)])
def test_what_graphs_hold_is_not_free_though_it_is_unused(monkeypatch, fraction, free):
    """Counted as free, it made a second engine on the same GPU take more than there was."""
    device = CudaDevice.__new__(CudaDevice)
    device.name, device._fraction = torch.device("cuda:0"), fraction
    Allocator(monkeypatch, allocated=20, cached=15, of_graphs=30)

    assert device.free_bytes() == free


class BrokenDevice(CudaDevice):
    """A GPU of which only the way it takes errors is real."""

    def __init__(self, answers):
        self._answer = answers

    def _answers(self):
        return self._answer


@pytest.mark.parametrize(
    ("error", "answers", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, MemoryError),
        (torch.AcceleratorError("CUDA error: out of memory"), True, MemoryError),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True, MemoryError),
        (torch.AcceleratorError("an illegal memory access was encountered"), False, DeviceLost),
        (RuntimeError("CUDNN_STATUS_EXECUTION_FAILED"), False, DeviceLost),
        (RuntimeError("a mistake of ours"), True, RuntimeError),
        (ValueError("a mistake of the caller's"), False, ValueError),
    ],
)
def test_full_memory_a_lost_device_and_a_mistake_are_told_apart(error, answers, expected):
    with pytest.raises(expected) as caught, BrokenDevice(answers).errors():
        raise error

    assert type(caught.value) is expected or caught.value is error
    assert not isinstance(error, torch.OutOfMemoryError) or is_full(error)
