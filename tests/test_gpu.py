"""What only a GPU can show: graphs, streams, half precision and errors. `make gpu` runs it."""

import threading

import numpy as np
import pytest
import torch
from checkpoints import config, speech_like, write

from server.engine import DeviceLost, checkpoint, native
from server.engine.batched import BatchEngine
from server.engine.buckets import Bucket
from server.engine.cuda import CudaDevice
from server.engine.kernels import Plain, ways
from server.engine.loading import load
from server.engine.position import Grouped, Unfolded
from server.speech import Utterance, softmax

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

GPU = torch.device("cuda:0")
LENGTHS = (400, 4_000, 16_000, 30_001, 48_000, 80_000, 100_003)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of moderate size whose heads are as wide as the large model's (64)."""
    settings = config(dim=256, heads=4, depth=2, prenet=2, conv=128)
    return str(write(tmp_path_factory.mktemp("models") / "moderate", settings=settings))


def make(folder, precision):
    engine = load(folder, device="cuda:0", precision=precision, memory_fraction=0.5)
    engine.warm_up()
    return engine


@pytest.fixture(scope="module")
def exact(folder):
    return make(folder, "float32")


@pytest.fixture(scope="module")
def half(folder):
    return make(folder, "float16")


@pytest.fixture(scope="module")
def clips():
    return [Utterance(speech_like(n, seed), frames=True) for seed, n in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def reference(folder, clips):
    return load(folder, device="cpu").infer(clips)


def scores(predictions):
    return softmax(np.stack([one.logits for one in predictions]))


def test_float32_on_the_gpu_gives_the_cpus_answers(exact, clips, reference):
    found = exact.infer(clips)

    np.testing.assert_allclose(scores(found), scores(reference), rtol=0, atol=1e-5)
    for ours, theirs in zip(found, reference, strict=True):
        np.testing.assert_allclose(ours.embedding, theirs.embedding, rtol=0, atol=5e-5)
        np.testing.assert_allclose(
            ours.frame_embeddings, theirs.frame_embeddings, rtol=0, atol=2e-4
        )


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_moves_no_score_far_and_no_clear_label(folder, clips, reference, precision):
    found = scores(make(folder, precision).infer(clips))

    expected = scores(reference)
    limit = 5e-3 if precision == "float16" else 6e-2
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
    margins = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0]
    clear = margins > 4 * limit
    assert (found.argmax(1) == expected.argmax(1))[clear].all()


def test_a_replayed_graph_gives_what_the_eager_run_gives(half, clips):
    (replayed,) = half.infer(clips[3:4])

    graphs, half._graphs = half._graphs, {}
    try:
        (eager,) = half.infer(clips[3:4])
    finally:
        half._graphs = graphs

    np.testing.assert_allclose(replayed.logits, eager.logits, rtol=0, atol=1e-3)
    np.testing.assert_allclose(replayed.frame_embeddings, eager.frame_embeddings, rtol=0, atol=1e-2)


@pytest.mark.parametrize("seed", range(8))
def test_every_company_gives_the_same_answer(half, seed):
    random = np.random.default_rng(seed)
    samples = random.integers(400, 110_000, size=random.integers(1, 40))
    batch = [Utterance(speech_like(int(n), i % 7)) for i, n in enumerate(samples)]

    together = scores(half.infer(batch))

    alone = scores([half.infer([one])[0] for one in batch])
    np.testing.assert_allclose(together, alone, rtol=0, atol=5e-3)


def test_two_batches_in_flight_keep_their_answers_apart(half, clips):
    expected = [half.infer([one])[0] for one in clips]
    found = {}

    def repeat(worker):
        found[worker] = [half.infer([clips[i % len(clips)]])[0] for i in range(worker, 200, 2)]

    workers = [threading.Thread(target=repeat, args=(worker,)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    for worker in range(2):
        for i, answer in zip(range(worker, 200, 2), found[worker], strict=True):
            np.testing.assert_array_equal(answer.logits, expected[i % len(clips)].logits)


def test_a_clip_beyond_every_graph_is_answered(half, folder):
    long = Utterance(speech_like(60 * 16_000))

    found = scores(half.infer([long]))

    np.testing.assert_allclose(
        found, scores(load(folder, device="cpu").infer([long])), rtol=0, atol=5e-3
    )


def test_replaying_takes_no_memory(half, clips):
    half.infer(clips)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]

    for _ in range(20):
        half.infer(clips)

    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


def test_both_ways_to_compute_positions_agree_on_the_gpu(folder):
    network, _ = native.load(checkpoint.find(folder), GPU, "float16")
    x = torch.randn(3, 118, 256, device=GPU, dtype=torch.float16)

    found = []
    for kind in (Grouped, Unfolded):
        network.compute_positions_by(kind)
        with torch.inference_mode():
            found.append(network._position(x, None))

    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-2)


NORMS = [
    (plus, affine, gelu) for plus in (False, True) for affine in (False, True) for gelu in (0, 1)
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [128, 512, 768, 1024])
def test_every_kernel_of_a_norm_is_as_exact_as_torch(dtype, width):
    x, other = torch.randn(2, 3, 1001, width, device=GPU, dtype=dtype)
    affine = torch.randn(2, width, device=GPU, dtype=dtype).unbind()

    for with_other, with_affine, gelu in NORMS:
        plus, weights = other if with_other else None, affine if with_affine else None
        wide = None if weights is None else (weights[0].double(), weights[1].double())
        more = None if plus is None else plus.double()
        exact = Plain().norm(x.double(), wide, plus=more, gelu=gelu)
        errors = [
            (kind().norm(x, weights, plus=plus, gelu=gelu).double() - exact).norm() / exact.norm()
            for kind in ways(GPU)
        ]
        assert max(errors) < 1.5 * errors[0] + 1e-7, (with_other, with_affine, gelu, errors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tokens", [64, 272, 1024, 3024])
def test_every_kernel_of_attention_is_as_exact_as_torch(dtype, tokens):
    slopes = torch.rand(4, device=GPU)
    qkv = torch.randn(3, tokens, 3 * 256, device=GPU, dtype=dtype)
    frames = torch.tensor([tokens - 10, tokens // 2, 1], device=GPU)
    like = qkv[..., :256]
    exact = Plain().attention(slopes.double(), 10, like.double(), frames, 2**26)
    expected = exact.attend(qkv.double())

    errors = []
    for kind in ways(GPU):
        found = kind().attention(slopes, 10, like, frames, 2**26).attend(qkv)
        errors.append((found.double() - expected).norm() / expected.norm())

    assert max(errors) < 1.5 * errors[0] + 1e-7, errors


def test_full_memory_passes_and_the_next_batch_is_served(half, clips):
    (expected,) = half.infer(clips[2:3])

    with pytest.raises(MemoryError), half._device.errors():
        torch.empty(2**50, dtype=torch.uint8, device=GPU)

    np.testing.assert_array_equal(half.infer(clips[2:3])[0].logits, expected.logits)


def test_a_small_share_of_the_memory_makes_small_batches(folder, half):
    network, model = native.load(checkpoint.find(folder), GPU, "float16")
    torch.cuda.synchronize()  # the engine computes on a stream of its own
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(GPU)[1]
    share = (torch.cuda.memory_reserved(GPU) + 300 * 2**20) / total

    try:
        small = BatchEngine(network, model, CudaDevice(GPU, share))
        small.warm_up()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)

    assert small.capacity.batch_seconds < half.capacity.batch_seconds
    assert small.infer([Utterance(speech_like(16_000))])


def test_every_shape_was_captured(half):
    assert all(isinstance(bucket, Bucket) for bucket in half._graphs)
    assert len(half._graphs) == len(half._grid.buckets())


LOSE = """
import sys; sys.path.insert(0, {tests!r})
import torch
from checkpoints import speech_like
from server.engine import DeviceLost
from server.engine.loading import load
from server.speech import Utterance
engine = load({folder!r}, device="cuda:0"); engine.warm_up()
one = [Utterance(speech_like(16_000))]
engine.infer(one)
with torch.cuda.stream(engine._device._compute):
    torch.zeros(3, device="cuda")[torch.tensor([2**30], device="cuda")]  # a device-side assert
for _ in range(2):
    try:
        engine.infer(one)
    except DeviceLost:
        print("lost")
"""


def test_a_sticky_error_is_a_lost_device_for_good(folder):
    import subprocess
    import sys
    from pathlib import Path

    code = LOSE.format(tests=str(Path(__file__).parent), folder=folder)

    # Unbuffered: such a process may not end in order.
    command = [sys.executable, "-u", "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert finished.stdout.split() == ["lost", "lost"], finished.stderr[-2000:]
    assert issubclass(DeviceLost, Exception)
