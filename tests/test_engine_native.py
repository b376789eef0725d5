import numpy as np
import pytest
import torch
from checkpoints import FIVE, config, speech_like, write
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine import CannotLoad, Capacity, checkpoint, cores, devices, weights
from server.engine.attention import NUMBERS, AttentionBias, HeadByHead, alibi_slopes
from server.engine.attention import choose as choose_attention
from server.engine.linear import prepare
from server.engine.model import Emotion2vec
from server.engine.native import NativeEngine, network, pack
from server.engine.position import Grouped, Unfolded
from server.engine.precision import choose, cpu_features
from server.speech import Utterance, frame_count, softmax

CPU = torch.device("cpu")

lengths = st.integers(400, 24_000)
batches = st.lists(lengths, min_size=1, max_size=5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return checkpoint.find(str(write(tmp_path_factory.mktemp("models") / "tiny")))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Tiny models on many threads spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def native(tiny):
    return NativeEngine(tiny, threads=1)


@pytest.fixture(scope="module")
def padded(tiny):
    """The padded forward pass, that a GPU runs."""
    return network(tiny, CPU)


def forward(model, clips):
    """Frames (list of (T, D)), embeddings (B, D) and logits (B, labels) of one padded batch."""
    waveforms, frames = pack([torch.from_numpy(clip) for clip in clips])
    output = model(waveforms, frames)
    own = [
        rows[:count].float().numpy()
        for rows, count in zip(output.frames, frames.tolist(), strict=True)
    ]
    return own, output.embeddings.numpy(), output.logits.numpy()


def close(found, expected):
    """Parity's tolerances: frames, embeddings, scores."""
    frames, embeddings, logits = found
    expected_frames, expected_embeddings, expected_logits = expected
    for one, other in zip(frames, expected_frames, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-5)
    np.testing.assert_allclose(embeddings, expected_embeddings, rtol=0, atol=2e-5)
    np.testing.assert_allclose(softmax(logits), softmax(expected_logits), rtol=0, atol=1e-5)


@settings(max_examples=25, derandomize=True)
@given(batches)
def test_a_padded_batch_answers_each_clip_as_if_it_were_alone(padded, samples):
    clips = [speech_like(n, seed) for seed, n in enumerate(samples)]

    together = forward(padded, clips)

    alone = [forward(padded, [clip]) for clip in clips]
    frames, embeddings, logits = zip(*alone, strict=True)
    close(together, ([f[0] for f in frames], np.concatenate(embeddings), np.concatenate(logits)))


@settings(max_examples=25, derandomize=True)
@given(batches, st.randoms(use_true_random=False))
def test_the_engine_answers_alike_in_every_company_and_order(native, samples, random):
    utterances = [Utterance(speech_like(n, seed), True) for seed, n in enumerate(samples)]
    order = random.sample(range(len(samples)), len(samples))

    shuffled = native.infer([utterances[i] for i in order])

    for i, found in zip(order, shuffled, strict=True):
        (alone,) = native.infer([utterances[i]])
        np.testing.assert_array_equal(found.logits, alone.logits)
        np.testing.assert_array_equal(found.frame_embeddings, alone.frame_embeddings)


def test_the_padded_pass_never_asks_for_a_value(tiny):
    """On the meta device tensors have no values, so asking for one raises."""
    shapes = tiny.architecture.shapes(classes=9)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    model = Emotion2vec(tensors, tiny.architecture, tiny.labels.columns)
    waveforms, frames = pack([torch.zeros(n) for n in (400, 9_000)])

    output = model(waveforms.to("meta"), frames.to("meta"))

    assert output.logits.shape == (2, 9)
    assert output.frames.shape == (2, frame_count(9_000), 64)


def test_a_longer_bucket_changes_nothing(padded):
    clip = speech_like(9_000)
    waveforms, frames = pack([torch.from_numpy(clip)])
    longer = torch.nn.functional.pad(waveforms, (0, 320 * 50))

    output = padded(longer, frames)

    expected = padded(waveforms)
    torch.testing.assert_close(output.embeddings, expected.embeddings, rtol=0, atol=2e-5)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-4)


def test_garbage_in_the_neighbours_costs_a_clip_nothing(padded):
    waveforms, frames = pack([torch.from_numpy(speech_like(n)) for n in (9_000, 12_000, 9_000)])
    poisoned = waveforms.clone()
    poisoned[1] = torch.nan

    output = padded(poisoned, frames)

    expected = padded(waveforms, frames)
    torch.testing.assert_close(output.logits[::2], expected.logits[::2], rtol=0, atol=1e-5)


def test_the_engine_and_the_padded_pass_agree(native, padded):
    clips = [speech_like(n, n) for n in (400, 5_000, 16_000)]

    found = native.infer([Utterance(clip, True) for clip in clips])

    frames, embeddings, logits = forward(padded, clips)
    own = [one.frame_embeddings for one in found], [p.embedding for p in found]
    close((*own, np.stack([p.logits for p in found])), (frames, embeddings, logits))


def test_working_in_small_pieces_gives_the_same_answers(tiny, padded):
    clips = [speech_like(n) for n in (3_000, 20_000)]
    tensors = checkpoint_weights(tiny)
    columns = tiny.labels.columns

    pieces = Emotion2vec(tensors, tiny.architecture, columns, numbers=20_000)

    close(forward(pieces, clips), forward(padded, clips))
    close(forward(pieces, clips[:1]), forward(padded, clips[:1]))


def checkpoint_weights(found):
    shapes = found.architecture.shapes(found.labels.classes)
    return weights.read(found.weights, shapes, found.scope_map)


@pytest.mark.parametrize(("tokens", "padding"), [(11, 0), (60, 1), (261, 0), (300, 39), (1101, 1)])
def test_one_clip_attends_as_a_batch_does(tokens, padding):
    """The second has a kernel of its own, which takes a bias that is written out."""
    generator = torch.Generator().manual_seed(tokens)
    qkv = torch.randn(1, tokens, 3 * 32, generator=generator)
    slopes = torch.tensor([0.5, 0.0, 0.125, 3.0])
    frames = torch.tensor([tokens - padding - 10])
    batch = AttentionBias(slopes, 10, torch.empty(1, tokens, 32), frames, NUMBERS)

    found = choose_attention(slopes, 10, torch.empty(1, tokens, 32), frames, NUMBERS)

    assert isinstance(found, HeadByHead)
    torch.testing.assert_close(found.attend(qkv), batch.attend(qkv), rtol=0, atol=2e-5)


def test_an_odd_number_of_tokens_costs_the_answer_nothing(native, padded):
    """An odd number of rows is slow in a product, so the engine adds one of padding."""
    clips = [speech_like(400 + 320 * n) for n in (6, 7, 300, 301)]

    found = native.infer([Utterance(clip, frames=True) for clip in clips])

    for clip, answer in zip(clips, found, strict=True):
        frames, embeddings, logits = forward(padded, [clip])
        assert len(answer.frame_embeddings) == frame_count(len(clip))
        np.testing.assert_allclose(answer.frame_embeddings, frames[0], rtol=0, atol=5e-5)
        np.testing.assert_allclose(answer.embedding, embeddings[0], rtol=0, atol=2e-5)
        np.testing.assert_allclose(answer.logits, logits[0], rtol=0, atol=2e-5)


def test_twelve_heads_have_the_slopes_of_the_paper():
    exponents = [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]

    assert alibi_slopes(12) == pytest.approx([2**-exponent for exponent in exponents])


def test_frames_come_only_when_asked_for(native):
    clip = speech_like(8_000)

    plain, detailed = native.infer([Utterance(clip), Utterance(clip, frames=True)])

    assert plain.frame_logits is None
    assert plain.frame_embeddings is None
    assert detailed.frame_logits.shape == (frame_count(8_000), 9)
    assert detailed.frame_embeddings.shape == (frame_count(8_000), 64)


def test_the_mean_of_the_frames_logits_is_the_utterances_logits(native):
    (found,) = native.infer([Utterance(speech_like(30_000), frames=True)])

    np.testing.assert_allclose(found.frame_logits.mean(0), found.logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.frame_embeddings.mean(0), found.embedding, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, -1.0])
def test_silence_and_a_constant_give_finite_answers(native, level):
    clip = np.full(5_000, level, np.float32)

    (found,) = native.infer([Utterance(clip, frames=True)])

    assert np.isfinite(found.logits).all()
    assert np.isfinite(found.frame_embeddings).all()


def test_a_waveform_that_cannot_be_written_is_fine(native):
    clip = np.frombuffer(speech_like(2_000).tobytes(), np.float32)

    (found,) = native.infer([Utterance(clip)])

    assert np.isfinite(found.logits).all()


def test_a_clip_without_a_frame_is_refused_and_the_next_one_is_served(native):
    with pytest.raises(ValueError, match="at least 400 samples"):
        native.infer([Utterance(speech_like(399))])

    assert len(native.infer([Utterance(speech_like(400))])) == 1


def test_leaving_out_masked_labels_renormalises_the_others(tmp_path, native):
    found = checkpoint.find(str(write(tmp_path / "five", labels=FIVE)))
    five = NativeEngine(found, threads=1)
    batch = [Utterance(speech_like(8_000))]

    scores = softmax(five.infer(batch)[0].logits)

    nine = softmax(native.infer(batch)[0].logits)[[0, 3, 4, 6, 8]]
    np.testing.assert_allclose(scores, nine / nine.sum(), rtol=0, atol=1e-6)
    assert five.model.labels == ("angry", "happy", "neutral", "sad", "unknown")


def test_the_model_says_what_it_is(native, tiny):
    native.warm_up()

    model = native.model

    assert (model.name, model.device, model.runtime) == ("tiny", "cpu", "torch-cpu")
    assert (model.precision, model.dimension, model.parameters) == ("fp32", 64, 245_261)
    assert model.digest == tiny.digest()
    assert model.digest.startswith(f"sha256:{model.version}")


def test_a_single_alibi_scale_serves_all_heads(tmp_path):
    settings = config()
    settings["model_conf"]["modalities"]["audio"]["learned_alibi_scale_per_head"] = False
    found = checkpoint.find(str(write(tmp_path / "one_scale", settings=settings)))

    engine = NativeEngine(found, threads=1)

    assert np.isfinite(engine.infer([Utterance(speech_like(4_000))])[0].logits).all()


def test_half_precision_stays_near_float32(tiny, padded):
    clips = [speech_like(n) for n in (4_000, 12_000)]

    reduced = forward(network(tiny, CPU, torch.bfloat16), clips)

    exact = forward(padded, clips)
    np.testing.assert_allclose(softmax(reduced[2]), softmax(exact[2]), rtol=0, atol=0.1)


def test_precisions_that_the_cpu_emulates_are_refused():
    avx2 = frozenset({"avx2", "fma"})

    with pytest.raises(CannotLoad, match="slower than float32"):
        choose("bfloat16", "cpu", avx2)
    with pytest.raises(CannotLoad, match="unknown"):
        choose("int4", "cpu", avx2)
    with pytest.raises(CannotLoad, match="slower than float32"):
        choose("int8", "cpu", avx2)
    with pytest.raises(CannotLoad, match="for CPUs"):
        choose("int8", "cuda")

    assert choose("bfloat16", "cpu", avx2 | {"amx_bf16"}) == "bfloat16"
    assert choose("float32", "cpu", avx2) == "float32"
    assert choose("int8", "cpu", avx2 | {"avx512_vnni"}) == "int8"
    assert choose("auto", "cpu") == "float32"
    assert choose("auto", "cuda") == "float16"
    assert choose("bfloat16", "cuda") == "bfloat16"


def test_the_cpus_features_are_read_from_linux(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16\n\nFeatures : bf16\n")

    assert cpu_features(cpuinfo) == {"fpu", "avx512_bf16", "bf16"}
    assert cpu_features(tmp_path / "elsewhere") == frozenset()


@pytest.fixture(scope="module")
def int8(tiny):
    return network(tiny, CPU, int8=True)


def test_int8_stays_near_float32(int8, padded):
    clips = [speech_like(n, n) for n in (4_000, 12_000, 20_000)]

    found = forward(int8, clips)

    exact = forward(padded, clips)
    np.testing.assert_allclose(softmax(found[2]), softmax(exact[2]), rtol=0, atol=0.02)
    assert np.abs(found[1] - exact[1]).max() > 1e-5


def test_int8_gives_a_row_the_same_answer_in_every_company():
    generator = torch.Generator().manual_seed(0)
    layer = prepare(
        torch.randn(24, 32, generator=generator), torch.randn(24, generator=generator), int8=True
    )
    rows = torch.randn(5, 32, generator=generator) * torch.tensor([[1e-3], [1], [1e3], [0], [7]])

    together = layer(rows)

    for row, found in zip(rows, together, strict=True):
        torch.testing.assert_close(layer(row[None])[0], found, rtol=0, atol=0)


def test_the_ways_to_compute_positions_agree():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 29, 64, generator=generator)
    weight = torch.randn(64, 4, 19, generator=generator) / 8
    bias = torch.randn(64, generator=generator)

    unfolded = Unfolded(weight, bias, 16)(x)

    torch.testing.assert_close(unfolded, Grouped(weight, bias, 16)(x), rtol=0, atol=1e-5)


def test_the_capacity_is_that_of_a_list(native):
    native.warm_up()

    capacity = native.capacity

    assert (capacity.batch_size, capacity.slots, capacity.preferred_sizes) == (1, 1, ())


def test_a_container_gets_a_thread_for_each_core_that_it_may_use():
    assert cores.quota("150000 100000\n") == 2
    assert cores.quota("max 100000\n") == 0
    assert cores.quota("-1\n 100000\n") == 0
    assert cores.available() >= 1


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert devices.choose("auto") == devices.choose("cpu") == ["cpu"]
    for wanted, text in (("tpu", "unknown"), ("cuda", "finds 0 GPUs"), ("cpu,cpu", "twice")):
        with pytest.raises(CannotLoad, match=text):
            devices.choose(wanted)


def test_auto_takes_every_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert devices.choose("auto") == ["cuda:0", "cuda:1"]
    assert devices.choose("cuda") == ["cuda:0"]
    assert devices.choose("cuda:1, cuda:0") == ["cuda:1", "cuda:0"]
    with pytest.raises(CannotLoad, match="finds 2 GPUs"):
        devices.choose("cuda:2")


def test_the_cost_model_says_nothing_of_a_measurement_that_was_disturbed(native, monkeypatch):
    times = iter([2.0, 1.0, 1.0, 3.0])
    monkeypatch.setattr(native, "_time", lambda _: next(times))
    monkeypatch.setattr(native, "_capacity", Capacity())

    native.warm_up()
    disturbed = native.capacity
    native.warm_up()

    assert disturbed == Capacity()
    assert native.capacity == Capacity(per_batch=0.5, per_audio_second=0.5)


def test_a_small_model_gets_one_thread_and_a_large_one_every_core():
    assert cores.worth_using(1_000_000) == 1
    assert cores.worth_using(162_000_000) == cores.available()
