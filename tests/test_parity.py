"""Our engine against FunASR's numbers, and against FunASR itself where it is installed."""

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import FIVE, checksum, config, random_weights, write

from server.engine import checkpoint
from server.engine.loading import load
from server.engine.native import NativeEngine, network, pack
from server.speech import Utterance, softmax

sys.path.insert(0, str(Path(__file__).with_name("data")))
from make_funasr_outputs import OUTPUTS, WITH_FRAMES, clips

SCORES, EMBEDDINGS, FRAMES = 1e-5, 2e-5, 5e-5  # largest differences allowed; measured: a tenth

needs_funasr = pytest.mark.skipif(
    importlib.util.find_spec("funasr") is None, reason="funasr is not installed"
)


@pytest.fixture(scope="module")
def stored():
    with np.load(OUTPUTS) as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("parity") / "tiny")


@pytest.fixture(scope="module")
def tiny(folder):
    return checkpoint.find(str(folder))


@pytest.fixture(scope="module", params=["alone", "padded"])
def ours(request, tiny):
    """Embeddings, logits and frames of all clips, by the engine and by one padded batch."""
    if request.param == "alone":
        found = NativeEngine(tiny, threads=1).infer([Utterance(c, True) for c in clips()])
        pairs = [(p.embedding, p.logits) for p in found]
        embeddings, logits = map(np.stack, zip(*pairs, strict=True))
        return embeddings, logits, [p.frame_embeddings for p in found]
    waveforms, frames = pack([torch.from_numpy(clip) for clip in clips()])
    output = network(tiny, torch.device("cpu"))(waveforms, frames)
    own = [rows[:n].numpy() for rows, n in zip(output.frames, frames.tolist(), strict=True)]
    return output.embeddings.numpy(), output.logits.numpy(), own


def test_this_machine_makes_the_weights_that_funasr_ran(stored):
    assert checksum(random_weights(config())) == str(stored["weights"])


def test_scores_are_funasrs(ours, stored):
    scores = softmax(ours[1])

    np.testing.assert_allclose(scores, stored["scores"], rtol=0, atol=SCORES)
    assert (scores.argmax(1) == stored["scores"].argmax(1)).all()


def test_embeddings_are_funasrs(ours, stored):
    np.testing.assert_allclose(ours[0], stored["embeddings"], rtol=0, atol=EMBEDDINGS)


@pytest.mark.parametrize("clip", WITH_FRAMES)
def test_frames_are_funasrs(ours, stored, clip):
    np.testing.assert_allclose(ours[2][clip], stored[f"frames_{clip}"], rtol=0, atol=FRAMES)


@pytest.fixture(scope="module")
def reference(folder):
    return load(str(folder), engine="funasr", device="cpu", threads=1)


@needs_funasr
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_the_reference_engine_gives_funasrs_scores_and_frames(reference, stored):
    reference.warm_up()

    found = reference.infer([Utterance(clip, frames=True) for clip in clips()])

    scores = softmax(np.stack([p.logits for p in found]))
    np.testing.assert_allclose(scores, stored["scores"], rtol=0, atol=SCORES)
    for i in WITH_FRAMES:
        stored_frames = stored[f"frames_{i}"]
        np.testing.assert_allclose(found[i].frame_embeddings, stored_frames, rtol=0, atol=FRAMES)
    np.testing.assert_allclose(found[0].frame_logits.mean(0), found[0].logits, atol=1e-4)
    assert reference.infer([Utterance(clips()[8])])[0].frame_logits is None


@needs_funasr
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_both_engines_describe_the_same_model(reference, tiny):
    ours = NativeEngine(tiny, threads=1).model

    assert reference.model.runtime == "funasr"
    for name in ("name", "version", "labels", "dimension", "parameters", "device"):
        assert getattr(reference.model, name) == getattr(ours, name)


@needs_funasr
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_masked_labels_are_scored_as_funasr_scores_them(tmp_path):
    from funasr import AutoModel

    folder = write(tmp_path / "five", labels=FIVE, official_layout=True)
    clip = clips()[4]
    reference = AutoModel(model=str(folder), disable_update=True, disable_pbar=True, ncpu=1)

    (found,) = load(str(folder), device="cpu", threads=1).infer([Utterance(clip)])

    expected = reference.generate(clip)[0]["scores"]
    np.testing.assert_allclose(softmax(found.logits), expected, rtol=0, atol=SCORES)


@needs_funasr
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_loading_the_reference_leaves_the_callers_random_numbers_alone(folder):
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    load(str(folder), engine="funasr", device="cpu", threads=1)

    found = random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert found == (random.random(), np.random.rand(), torch.rand(()).item())
