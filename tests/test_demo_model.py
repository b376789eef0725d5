from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from speech_emotion_client import samples

from server.engine import Engine
from server.engine.loading import load
from server.speech import Utterance, Waveform

FOLDER = Path(__file__).parents[1] / "server" / "engine" / "demo"
MIB = 2**20


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(FOLDER / "model.pt", weights_only=True)
    return state


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_folder_holds_a_checkpoint_and_its_card_and_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.name != "__pycache__"} == {
        "MODEL_CARD.md", "config.yaml", "configuration.json", "model.pt", "tokens.txt",
    }  # fmt: skip


def test_the_demo_model_fits_in_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 10 * MIB


def test_the_weights_are_finite_and_in_half_precision(weights: dict[str, torch.Tensor]) -> None:
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float16, name
        assert torch.isfinite(tensor).all(), name


def test_no_decoder_and_no_optimiser_is_shipped(weights: dict[str, torch.Tensor]) -> None:
    assert all(name.startswith(("d2v_model.", "proj.")) for name in weights)
    assert not any("decoder" in name for name in weights)


def test_the_nine_labels_are_in_the_published_order() -> None:
    labels = (FOLDER / "tokens.txt").read_text(encoding="utf-8").split("\n")
    assert labels == [
        "生气/angry", "厌恶/disgusted", "恐惧/fearful", "开心/happy", "中立/neutral",
        "其他/other", "难过/sad", "吃惊/surprised", "<unk>",
    ]  # fmt: skip


def test_the_configuration_describes_the_weights(weights: dict[str, torch.Tensor]) -> None:
    conf = yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))["model_conf"]
    audio = conf["modalities"]["audio"]
    width, names = conf["embed_dim"], "d2v_model.modality_encoders.AUDIO."
    assert weights["proj.weight"].shape == (9, width)
    assert weights[names + "extra_tokens"].shape == (1, audio["num_extra_tokens"], width)
    assert weights[names + "alibi_scale"].numel() == audio["num_alibi_heads"] == conf["num_heads"]
    assert count(weights, "d2v_model.blocks.") == conf["depth"]
    assert count(weights, names + "context_encoder.blocks.") == audio["prenet_depth"]
    assert count(weights, names + "relative_positional_encoder.") == audio["conv_pos_depth"]
    assert conf["normalize"] is True
    assert conf["layer_norm_first"] is False


def count(weights: dict[str, torch.Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if prefix in name})


def test_funasr_finds_every_file_by_configuration_json() -> None:
    settings = json.loads((FOLDER / "configuration.json").read_text(encoding="utf-8"))
    paths = settings["file_path_metas"]
    for name in (paths["init_param"], paths["config"], paths["tokenizer_conf"]["token_list"]):
        assert (FOLDER / name).is_file()


@pytest.mark.parametrize(
    "claim", ["CC0", "CC BY 4.0", "Burkhardt", "Panayotov", "OpenSLR 12", "Whisper", "surprised"]
)
def test_the_card_names_the_data_the_licences_and_the_limits(card: str, claim: str) -> None:
    assert claim in card


def test_the_card_never_claims_to_be_the_production_model(card: str) -> None:
    assert "not emotion2vec+" in card.replace("\n", " ")


@pytest.fixture(scope="module")
def demo() -> Engine:
    """The demo model as the server loads it."""
    return load("demo", device="cpu", threads=1)


@pytest.mark.parametrize("scale", [0, 1e-45, 1e-40, 1e-30, 1e9, 2.0**31])
def test_audio_of_any_scale_that_is_accepted_has_finite_answers(demo: Engine, scale: float) -> None:
    wave = np.sin(np.arange(16_000) / 20) * scale

    [prediction] = demo.infer([Utterance(wave.astype(np.float32), frames=True)])

    assert prediction.frame_logits is not None
    assert np.isfinite(prediction.logits).all()
    assert np.isfinite(prediction.embedding).all()
    assert np.isfinite(prediction.frame_logits).all()


def heard(engine: Engine, waveform: Waveform) -> str:
    [prediction] = engine.infer([Utterance(waveform)])
    return engine.model.labels[int(prediction.logits.argmax())]


def test_it_is_called_demo_and_every_answer_says_so(demo: Engine) -> None:
    assert demo.model.name == "demo"
    assert demo.model.license == "CC-BY-4.0"
    assert "DEMO_MODEL" in [notice.code for notice in demo.model.notices]


def test_silence_and_noise_are_unknown(demo: Engine) -> None:
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)

    assert heard(demo, np.zeros(32_000, np.float32)) == "unknown"
    assert heard(demo, 0.1 * noise) == "unknown"


def test_it_hears_a_difference_between_the_two_bundled_voices(demo: Engine) -> None:
    waves = [soundfile.read(path, dtype="float32")[0] for path in samples()]

    assert len({heard(demo, wave) for wave in waves}) == len(waves)
