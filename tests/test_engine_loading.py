import subprocess
import sys

import numpy as np
import pytest
from checkpoints import speech_like, write

from server.engine import CannotLoad, CheckpointError
from server.engine.fake import FakeEngine
from server.engine.loading import load
from server.speech import Utterance, frame_count


def test_a_folder_becomes_an_engine(tmp_path):
    folder = write(tmp_path / "tiny")

    engine = load(str(folder), engine="native", device="cpu", precision="auto", threads=1)

    assert engine.model.name == "tiny"
    assert engine.model.notices == ()
    assert len(engine.infer([Utterance(speech_like(4_000))])) == 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"engine": "triton"}, "'triton'"), ({"engine": "funasr", "precision": "float16"}, "float32")],
)
def test_settings_that_make_no_engine_are_refused(tmp_path, settings, text):
    folder = write(tmp_path / "tiny")

    with pytest.raises(CannotLoad, match=text):
        load(str(folder), **settings)


def test_the_reference_engine_says_what_to_install(tmp_path, monkeypatch):
    folder = write(tmp_path / "tiny")
    monkeypatch.setitem(sys.modules, "funasr", None)

    with pytest.raises(CannotLoad, match=r"pip install -e '.\[funasr\]'"):
        load(str(folder), engine="funasr")


def test_a_folder_that_is_not_there_is_a_checkpoint_error():
    with pytest.raises(CheckpointError, match="no such folder"):
        load("/no/such/folder")


def test_asking_for_the_package_does_not_import_torch():
    code = "import sys, server.engine.loading; sys.exit('torch' in sys.modules)"

    finished = subprocess.run([sys.executable, "-c", code], check=False)

    assert finished.returncode == 0


def test_the_fake_answers_from_the_waveform_alone():
    engine = load("", engine="fake")
    loud, quiet = Utterance(speech_like(8_000), True), Utterance(speech_like(8_000) / 2)

    first, second = engine.infer([loud, quiet])

    (again,) = engine.infer([quiet])
    np.testing.assert_array_equal(second.logits, again.logits)
    assert not np.allclose(first.logits, second.logits)
    assert first.frame_logits.shape == (frame_count(8_000), len(engine.model.labels))
    assert second.frame_logits is None
    np.testing.assert_allclose(first.frame_logits.mean(0), first.logits, atol=1e-5)


def test_the_fake_remembers_its_batches_and_fails_when_told():
    def one_of_two(batch):
        return RuntimeError("not two") if len(batch) == 2 else None

    engine = FakeEngine(fail_when=one_of_two)
    one = Utterance(speech_like(400))

    engine.warm_up()
    engine.infer([one])
    with pytest.raises(RuntimeError, match="not two"):
        engine.infer([one, one])

    assert engine.batches == [1, 2]
    assert engine.warmed_up


def test_the_fake_takes_as_long_as_it_is_told(monkeypatch):
    slept = []
    monkeypatch.setattr("server.engine.fake.time.sleep", slept.append)
    engine = FakeEngine(delay_s_per_batch=0.5, delay_s_per_second=2)

    engine.infer([Utterance(speech_like(8_000)), Utterance(speech_like(4_000))])

    assert slept == [0.5 + 2 * 0.75]
