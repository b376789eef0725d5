# ruff: noqa: E402, because the imports need packages that may be missing
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

for package in ("scipy", "tqdm", "soxr", "soundfile", "av"):
    pytest.importorskip(package, reason="the extra 'train' is not installed")

import soundfile
import torch
import yaml

from training import augment, export, metrics, sampling, scoring, sounds, teacher, transmission
from training.__main__ import main
from training.batches import Item, collate, in_batches, normalise, pad_waves, shorten
from training.data import (
    EMODB_CLASSES,
    LABELS,
    NAMES,
    NEUTRAL,
    SURPRISED,
    UNKNOWN,
    is_held_out,
    to_pcm,
)
from training.distil import Distiller
from training.examples import COMPONENTS, Example, load, save
from training.layers import strided_convolution
from training.model import HOP, Size, Student, frame_counts
from training.pipeline import Plan
from training.train import Recipe, Trainer, label_loss

SMALL = Size(conv=16, width=32, heads=2, prenet=1, depth=1)
RATE = 16_000


@pytest.fixture(autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    voice = np.sin(2 * np.pi * (120 + 20 * np.sin(4 * t)) * t) * (1 + np.sin(9 * t))
    return (0.2 * voice + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def example(label: int, seed: int, seconds: float = 1.0) -> Example:
    """A tone whose pitch is its label, with random teacher frames."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * 200 * 1.5**label * t) + 0.1 * rng.standard_normal(len(t))
    frames = (len(t) - 400) // 320 + 1
    teacher = rng.standard_normal((frames - 5, COMPONENTS)).astype(np.float16)
    return Example(to_pcm(wave.astype(np.float32)), label, f"s{seed % 2}", seed, teacher, 3)


def trainer(recipe: Recipe, examples: list[Example], path: Path | None) -> Trainer:
    torch.manual_seed(0)
    student, distiller = Student(SMALL), Distiller(SMALL)
    distiller.fit(examples)
    return Trainer(student, distiller, recipe, seed=0, path=path)


DISTORTIONS = {
    "reverberate": augment.reverberate,
    "equalise": augment.equalise,
    "clip_peaks": augment.clip_peaks,
    "network": augment.network,
    "degrade": augment.degrade,
    "telephone": lambda wave, _: transmission.telephone(wave),
    "opus": lambda wave, _: transmission.lossy(wave, "libopus", 16_000),
    "mp3": lambda wave, _: transmission.lossy(wave, "mp3", 32_000),
}


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("seconds", [0.3, 1.2])
def test_a_distortion_keeps_the_length_and_stays_finite(name: str, seconds: float) -> None:
    wave = speech_like(seconds)
    for seed in range(3):
        distorted = DISTORTIONS[name](wave, np.random.default_rng(seed))
        assert distorted.shape == wave.shape
        assert distorted.dtype == np.float32
        assert np.isfinite(distorted).all()


@pytest.mark.parametrize("kind", sounds.KINDS)
def test_a_synthetic_sound_has_the_length_asked_for(kind: str) -> None:
    for seed in range(3):
        wave = sounds.KINDS[kind](8000, np.random.default_rng(seed))
        assert wave.shape == (8000,)
        assert np.isfinite(wave).all()


def test_noise_is_mixed_at_the_ratio_asked_for() -> None:
    wave = speech_like(1)
    noise = np.random.default_rng(1).standard_normal(len(wave)).astype(np.float32)
    added = augment.add_noise(wave, noise, 10) - wave
    assert 10 * np.log10((wave**2).mean() / (added**2).mean()) == pytest.approx(10, abs=0.01)


def test_a_faster_clip_is_shorter() -> None:
    assert len(augment.change_speed(speech_like(1), 1.25)) == pytest.approx(RATE / 1.25, abs=2)


def test_opus_keeps_speech_in_its_place() -> None:
    wave = speech_like(1)
    decoded = transmission.lossy(wave, "libopus", 24_000)
    assert np.corrcoef(wave, decoded)[0, 1] > 0.9


def test_examples_survive_the_file(tmp_path: Path) -> None:
    examples = [example(1, 1), example(2, 2, 0.5)]
    save(tmp_path / "x.npz", examples)
    for before, after in zip(examples, load(tmp_path / "x.npz"), strict=True):
        assert np.array_equal(before.pcm, after.pcm)
        assert np.array_equal(before.teacher, after.teacher)
        assert (before.label, before.speaker, before.clip, before.start) == (
            after.label, after.speaker, after.clip, after.start,
        )  # fmt: skip


@pytest.mark.parametrize("kernel", [2, 3])
def test_the_row_product_is_the_strided_convolution(kernel: int) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv1d(6, 4, kernel, 2, bias=False)
    x = torch.randn(2, 6, 37)
    rows = strided_convolution(x.transpose(1, 2), convolution.weight)
    torch.testing.assert_close(rows, convolution(x).transpose(1, 2))


def test_a_padded_batch_answers_like_single_clips() -> None:
    torch.manual_seed(0)
    student = Student(SMALL).eval()
    waves = [speech_like(s, seed) for seed, s in enumerate((0.3, 1.0, 0.7))]
    together = scoring.logits(student, waves)
    for wave, row in zip(waves, together, strict=True):
        alone = student(normalise(torch.from_numpy(wave))[None], torch.tensor([len(wave)]))
        np.testing.assert_allclose(alone.detach().numpy()[0], row, atol=1e-5)


def test_frames_are_counted_as_funasr_counts_them() -> None:
    lengths = torch.tensor([400, 719, 720, 1040, 48_000])
    assert frame_counts(lengths).tolist() == [1, 1, 2, 3, 149]


def test_batches_hold_every_item_once() -> None:
    items = [Item(example(0, seed, 0.2 + 0.01 * seed)) for seed in range(10)]
    groups = in_batches(items, 4, np.random.default_rng(0))
    assert sorted(item.example.clip for group in groups for item in group) == list(range(10))


def test_the_teachers_frames_start_after_the_silence() -> None:
    batch = collate([Item(example(0, 1))])
    heard = batch.heard[0].tolist()
    assert heard[:3] == [False] * 3
    assert all(heard[3:-2])
    assert not any(heard[-2:])


@pytest.mark.parametrize("start", [0, 3, 30])
def test_a_stretch_keeps_the_teachers_frames_in_step(start: int) -> None:
    whole = example(0, 1)
    frames = np.arange(whole.frames - start, dtype=np.float16)[:, None].repeat(COMPONENTS, 1)
    item = Item(replace(whole, start=start, teacher=frames), np.arange(whole.frames)[:, None])
    for seed in range(10):
        short = shorten(item, 12, np.random.default_rng(seed))
        assert short.example.frames == len(short.features) == 12
        heard = short.features[short.example.start :, 0]
        np.testing.assert_array_equal(heard - start, short.example.teacher[:, 0])


def test_an_epoch_holds_every_acted_emotion_alike() -> None:
    acted = [Item(example(label, 10 * label + n)) for label in range(7) for n in range(label + 1)]
    draw = sampling.Balanced(acted, [Item(example(NEUTRAL, 99))], [], per_class=5)
    labels = [item.example.label for item in draw(np.random.default_rng(0))]
    assert [labels.count(label) for label in range(7)] == [5, 5, 5, 5, 6, 5, 5]


def test_the_held_out_speakers_are_about_a_fifth() -> None:
    share = np.mean([is_held_out(str(speaker)) for speaker in range(1000)])
    assert 0.15 < share < 0.25


def test_no_label_without_data_is_learnt() -> None:
    logits = torch.zeros(2, 9, requires_grad=True)
    label_loss(logits, torch.tensor([0, NEUTRAL]), smoothing=0.1).backward()
    assert logits.grad is not None
    assert (logits.grad[:, SURPRISED] > 0).all()  # only ever pushed down


def test_a_few_steps_lower_the_loss() -> None:
    examples = [example(label, 10 * label + n) for label in range(3) for n in range(4)]
    items = [Item(e) for e in examples]
    short = trainer(Recipe(1, rate=3e-3, batch=6), examples, None)
    long = trainer(Recipe(12, rate=3e-3, batch=6), examples, None)
    batch = collate(items)

    def loss(model: Student) -> float:
        with torch.no_grad():
            return label_loss(model.eval()(batch.inputs, batch.lengths), batch.labels, 0).item()

    before = loss(short.run(lambda _: items, "short"))
    after = loss(long.run(lambda _: items, "long"))
    assert after < 0.6 * before


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    examples = [example(label, label) for label in range(4)]
    items = [Item(e) for e in examples]
    recipe = Recipe(4, batch=2, averaging=0.5, masking=0.1)
    whole = trainer(recipe, examples, None).run(lambda _: items, "whole")

    class Interrupted(Exception):
        pass

    calls = 0

    def draw_twice(_: np.random.Generator) -> list[Item]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted
        return items

    with pytest.raises(Interrupted):
        trainer(recipe, examples, tmp_path / "run.pt").run(draw_twice, "cut")
    resumed = trainer(recipe, examples, tmp_path / "run.pt").run(lambda _: items, "resumed")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def published_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published inference checkpoint, without the prefix."""
    d, c, audio = size.width, size.conv, "modality_encoders.AUDIO."
    shapes: dict[str, tuple[int, ...]] = {
        audio + "alibi_scale": (1, 1, size.heads, 1, 1),
        audio + "extra_tokens": (1, 10, d),
        audio + "context_encoder.norm.weight": (d,),
        audio + "context_encoder.norm.bias": (d,),
        audio + "project_features.1.weight": (c,),
        audio + "project_features.1.bias": (c,),
        audio + "project_features.2.weight": (d, c),
        audio + "project_features.2.bias": (d,),
    }
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        layer = f"{audio}local_encoder.conv_layers.{i}."
        shapes[layer + "0.weight"] = (c, c if i else 1, kernel)
        shapes[layer + "2.1.weight"] = shapes[layer + "2.1.bias"] = (c,)
    for i in range(1, 6):
        layer = f"{audio}relative_positional_encoder.{i}.0."
        shapes[layer + "weight"], shapes[layer + "bias"] = (d, d // 16, 19), (d,)
    blocks = [f"{audio}context_encoder.blocks.{i}." for i in range(size.prenet)]
    for block in blocks + [f"blocks.{i}." for i in range(size.depth)]:
        layers = {"attn.qkv": (3 * d, d), "attn.proj": (d, d)}
        layers |= {"mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for name, shape in layers.items():
            shapes[f"{block}{name}.weight"], shapes[f"{block}{name}.bias"] = shape, shape[:1]
        for name in ("norm1", "norm2"):
            shapes[f"{block}{name}.weight"] = shapes[f"{block}{name}.bias"] = (d,)
    return shapes


def test_the_exported_tensors_have_the_published_names_and_shapes() -> None:
    expected = {export.PREFIX + name: shape for name, shape in published_shapes(SMALL).items()}
    expected |= {"proj.weight": (9, 32), "proj.bias": (9,)}
    found = {name: tuple(t.shape) for name, t in export.weights(Student(SMALL)).items()}
    assert found == expected


def test_an_exported_folder_reads_back_as_the_same_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = Student(SMALL).eval()
    export.write(tmp_path / "demo", student, temperature=2.0)
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"config.yaml", "configuration.json", "model.pt", "tokens.txt"}
    again = export.read(tmp_path / "demo")
    waves, lengths = pad_waves([normalise(torch.from_numpy(speech_like(1)))])
    torch.testing.assert_close(
        again(waves, lengths), student(waves, lengths) / 2, atol=5e-3, rtol=0
    )


def test_the_configuration_names_every_dimension(tmp_path: Path) -> None:
    export.write(tmp_path / "demo", Student(SMALL), temperature=1.0)
    conf = yaml.safe_load((tmp_path / "demo" / "config.yaml").read_text())["model_conf"]
    audio = conf["modalities"]["audio"]
    assert (conf["embed_dim"], conf["num_heads"], conf["depth"], conf["mlp_ratio"]) == (32, 2, 1, 4)
    assert (audio["prenet_depth"], audio["num_extra_tokens"], audio["num_alibi_heads"]) == (
        1,
        10,
        2,
    )
    assert "(16, 10, 5)" in audio["feature_encoder_spec"]
    assert len((tmp_path / "demo" / "tokens.txt").read_text().split("\n")) == len(LABELS)


def test_the_right_temperature_calibrates() -> None:
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((4000, 9))
    truth = np.array([rng.choice(9, p=p) for p in metrics.softmax(logits)])
    assert metrics.best_temperature(truth, 2 * logits) == pytest.approx(2, rel=0.1)
    assert metrics.calibration_error(truth, metrics.softmax(logits)) < 0.03
    assert metrics.calibration_error(truth, metrics.softmax(4 * logits)) > 0.1


class FakeTeacher:
    """Random frames of the right shape, the same for the same clip."""

    def __call__(self, waves: torch.Tensor) -> list[torch.Tensor]:
        chance = torch.Generator().manual_seed(waves.shape[1])
        frames = waves.shape[1] // HOP
        return [torch.randn(1, frames, teacher.WIDTH, generator=chance) for _ in range(2)]


def write_corpus(folder: Path, speakers: list[str], emotions: list[str], seconds: float) -> None:
    folder.mkdir(parents=True)
    rows = ["path\tspeaker\temotion"]
    for number, (speaker, emotion) in enumerate((s, e) for s in speakers for e in emotions):
        name = f"{number}.wav"
        soundfile.write(folder / name, speech_like(seconds + 0.01 * number, number), RATE)
        rows.append(f"{name}\t{speaker}\t{emotion}")
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")


def test_one_command_trains_measures_and_writes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    acted = [NAMES[label] for label in EMODB_CLASSES]
    write_corpus(tmp_path / "data" / "emodb", ["03", "08"], acted, 0.6)
    write_corpus(tmp_path / "data" / "librispeech", ["1", "2", "5", "26"], ["neutral"], 1.2)
    quick = Recipe(1, batch=8, averaging=0.5, longest=30)
    plan = Plan(
        SMALL, front_end_steps=2, trunk=(quick, replace(quick, epochs=2)), head=quick, acted_clips=2
    )
    monkeypatch.setattr("training.__main__.Plan", lambda: plan)
    monkeypatch.setattr("training.front_end._SEGMENT", 4000)
    monkeypatch.setattr("training.materials.Materials._teacher", lambda _: FakeTeacher())
    monkeypatch.setattr("training.materials.SOUNDS", 12)
    monkeypatch.setattr("training.materials.EMODB_VERSIONS", 1)
    monkeypatch.setattr("training.conditions._SOUNDS_OF_EACH_KIND", 1)
    monkeypatch.setattr("training.metrics.BOOTSTRAP_ROUNDS", 20)
    options = ["--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")]
    options += ["--out", str(tmp_path / "demo"), "--threads", "2"]
    for command in ([], ["evaluate"]):
        monkeypatch.setattr("sys.argv", ["training", *command, *options])
        main()
    assert "UAR" in capsys.readouterr().out
    assert "8 kHz mu-law" in (tmp_path / "demo" / "MODEL_CARD.md").read_text()
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert set(report["leave_one_speaker_out"]["speakers"]) == {"03", "08"}
    assert export.read(tmp_path / "demo").size == SMALL


def test_unweighted_recall_counts_a_rare_class_like_a_common_one() -> None:
    truth = np.array([0] * 9 + [UNKNOWN])
    assert metrics.unweighted_recall(truth, np.zeros(10, int)) == 0.5
