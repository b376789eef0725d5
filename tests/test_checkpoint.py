import sys
from types import ModuleType

import pytest
import torch
from checkpoints import FIVE, NINE, checksum, config, random_weights, write

from server.engine import CheckpointError, checkpoint, weights
from server.engine.architecture import parse

LARGE = config(dim=1024, heads=16, depth=8, prenet=4, conv=512)
BASE = config(dim=768, heads=12, depth=8, prenet=4, conv=512)


def read_weights(found, **options):
    shapes = found.architecture.shapes(found.labels.classes)
    return weights.read(found.weights, shapes, found.scope_map, **options)


def altered(**changes):
    """A tiny config with some keys changed, wherever they are."""
    settings = config()
    audio = settings["model_conf"]["modalities"]["audio"]
    for key, value in changes.items():
        section = next(s for s in (settings, settings["model_conf"], audio) if key in s)
        section[key] = value
    return settings


@pytest.mark.parametrize(
    ("settings", "tensors", "numbers"), [(LARGE, 185, 162_140_185), (BASE, 185, 93_178_133)]
)
def test_the_published_sizes_have_the_published_numbers_of_tensors(settings, tensors, numbers):
    shapes = parse(settings).shapes(classes=9)

    assert len(shapes) == tensors
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == numbers


def test_the_names_are_the_english_ones(tmp_path):
    folder = write(tmp_path / "tiny")

    labels = checkpoint.read(folder, "tiny").labels

    assert labels.names == (
        "angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown",
    )  # fmt: skip


def test_masked_rows_of_the_head_have_no_name(tmp_path):
    folder = write(tmp_path / "tiny", labels=FIVE)

    labels = checkpoint.read(folder, "tiny").labels

    assert labels.names == ("angry", "happy", "neutral", "sad", "unknown")
    assert labels.columns == (0, 3, 4, 6, 8)
    assert labels.classes == 9


def test_labels_may_come_as_json(tmp_path):
    folder = write(tmp_path / "tiny", configuration=False)
    (folder / "configuration.json").write_text(
        '{"file_path_metas": {"tokenizer_conf": {"token_list": "tokens.json"}}}'
    )
    (folder / "tokens.json").write_text('["生气/angry", "<unk>"]', encoding="utf-8")

    labels = checkpoint.read(folder, "tiny").labels

    assert labels.names == ("angry", "unknown")


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"official_layout": True},
        {"wrapping": "state_dict"},
        {"wrapping": "model_state_dict"},
        {"wrapping": "model"},
        {"configuration": False},
    ],
)
def test_every_layout_that_funasr_takes_gives_the_same_weights(tmp_path, layout):
    folder = write(tmp_path / "tiny", **layout)

    found = read_weights(checkpoint.read(folder, "tiny"))

    assert checksum(found) == checksum(random_weights(config()))


def test_a_large_file_is_read_piece_by_piece(tmp_path):
    folder = write(tmp_path / "tiny")

    found = read_weights(checkpoint.read(folder, "tiny"), mapped_at_once=20_000)

    assert checksum(found) == checksum(random_weights(config()))


def test_weights_without_the_prefix_are_found_too(tmp_path):
    folder = write(tmp_path / "tiny")
    torch.save(random_weights(config()), folder / "model.pt")

    found = read_weights(checkpoint.read(folder, "tiny"))

    assert checksum(found) == checksum(random_weights(config()))


def test_half_precision_files_become_float32(tmp_path):
    folder = write(tmp_path / "tiny", half=True)

    found = read_weights(checkpoint.read(folder, "tiny"))

    expected = {name: value.half().float() for name, value in random_weights(config()).items()}
    assert checksum(found) == checksum(expected)


def test_the_files_may_have_other_names_if_configuration_json_says_so(tmp_path):
    folder = write(tmp_path / "tiny")
    (folder / "model.pt").rename(folder / "emotion2vec_base.pt")
    text = (folder / "configuration.json").read_text()
    (folder / "configuration.json").write_text(text.replace("model.pt", "emotion2vec_base.pt"))

    found = checkpoint.read(folder, "tiny")

    assert found.weights == folder / "emotion2vec_base.pt"


def test_a_scope_map_may_be_one_text(tmp_path):
    folder = write(tmp_path / "tiny", settings=altered(scope_map="d2v_model.,none"))

    found = read_weights(checkpoint.read(folder, "tiny"))

    assert checksum(found) == checksum(random_weights(config()))


def test_of_two_prefixes_that_fit_the_last_wins_as_in_funasr():
    state = {"a.x": 1, "module.x": 2, "b.y": 3, "z": 4}
    scope_map = ("a.", "", "b.", "", "module.", "")

    found = [weights.source_name(name, state, scope_map) for name in ("x", "y", "z", "w")]

    assert found == ["module.x", "b.y", "z", None]


def test_a_missing_tensor_is_an_error_that_names_it(tmp_path):
    tensors = random_weights(config())
    del tensors["blocks.1.mlp.fc2.bias"]
    folder = write(tmp_path / "tiny", weights=tensors)

    with pytest.raises(CheckpointError, match=r"lacks blocks\.1\.mlp\.fc2\.bias.*\(64,\)"):
        read_weights(checkpoint.read(folder, "tiny"))


def test_a_tensor_of_another_shape_is_an_error_that_names_both_shapes(tmp_path):
    tensors = random_weights(config())
    tensors["blocks.0.attn.proj.weight"] = torch.zeros(64, 32)
    folder = write(tmp_path / "tiny", weights=tensors)

    with pytest.raises(CheckpointError, match=r"attn\.proj\.weight is \(64, 32\).*\(64, 64\)"):
        read_weights(checkpoint.read(folder, "tiny"))


def test_labels_of_another_model_are_an_error(tmp_path):
    folder = write(tmp_path / "tiny", labels=NINE[:3])

    with pytest.raises(CheckpointError, match=r"proj\.weight is \(9, 64\).*labels"):
        read_weights(checkpoint.read(folder, "tiny"))


def test_a_weight_that_is_no_number_is_an_error(tmp_path):
    tensors = random_weights(config())
    tensors["blocks.0.mlp.fc1.weight"][3, 5] = torch.nan
    folder = write(tmp_path / "tiny", weights=tensors)

    with pytest.raises(CheckpointError, match=r"fc1\.weight holds a NaN"):
        read_weights(checkpoint.read(folder, "tiny"))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 nor this"])
def test_a_file_that_torch_cannot_read_is_an_error(tmp_path, content):
    folder = write(tmp_path / "tiny")
    (folder / "model.pt").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"model\.pt: is no checkpoint"):
        read_weights(checkpoint.read(folder, "tiny"))


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    folder = write(tmp_path / "tiny")
    torch.save({"model": parse}, folder / "model.pt")

    with pytest.raises(CheckpointError, match=r"model\.pt: is no checkpoint"):
        read_weights(checkpoint.read(folder, "tiny"))


def test_a_file_without_names_is_an_error(tmp_path):
    folder = write(tmp_path / "tiny")
    torch.save([torch.zeros(3)], folder / "model.pt")

    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_weights(checkpoint.read(folder, "tiny"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": "Paraformer"}, "model is 'Paraformer'"),
        ({"tokenizer": None}, "no tokenizer"),
        ({"layer_norm_first": True}, "layer_norm_first is True"),
        ({"learned_alibi": True}, "learned_alibi is True"),
        ({"learned_alibi_scale_per_layer": True}, "learned_alibi_scale_per_layer is True"),
        ({"extractor_mode": "default"}, "extractor_mode is 'default'"),
        ({"num_alibi_heads": 8}, "do not go together"),
        ({"conv_pos_width": 100}, "even kernel, 20"),
        ({"feature_encoder_spec": "[(32, 10, 5)]"}, "seven layers"),
        ({"feature_encoder_spec": "exit()"}, "seven layers"),
        ({"modalities": {}}, "lacks a key: 'audio'"),
        ({"model_conf": None}, "lacks a key"),
    ],
)
def test_a_model_that_the_engine_does_not_compute_is_refused(tmp_path, changes, text):
    folder = write(tmp_path / "tiny", weights=random_weights(config()))
    folder = write(folder, weights={}, settings=altered(**changes))

    with pytest.raises(CheckpointError, match=text):
        checkpoint.read(folder, "tiny")


@pytest.mark.parametrize("name", ["config.yaml", "model.pt", "tokens.txt"])
def test_a_missing_file_is_an_error_that_names_it(tmp_path, name):
    folder = write(tmp_path / "tiny")
    (folder / name).unlink()

    with pytest.raises(CheckpointError, match=name):
        checkpoint.read(folder, "tiny")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"just text"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("configuration.json", b"{"),
        ("configuration.json", b'{"file_path_metas": 3}'),
        ("tokens.txt", b"\xff"),
        ("tokens.txt", b"a/angry\nb/angry\n"),
        ("tokens.txt", b"angry\n\nsad\n"),
        ("tokens.txt", b""),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, content):
    folder = write(tmp_path / "tiny")
    (folder / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=name):
        checkpoint.read(folder, "tiny")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# Card\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: model-license\n---\n", "model-license"),
        ("---\ntags: [audio]\n---\n", "unknown"),
        ("# Card\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_license_is_what_the_model_card_says(tmp_path, card, expected):
    folder = write(tmp_path / "tiny")
    if card is not None:
        (folder / "README.md").write_text(card)

    assert checkpoint.read(folder, "tiny").license == expected


def test_the_digest_is_that_of_the_file_and_changes_with_the_weights(tmp_path):
    one = checkpoint.find(str(write(tmp_path / "one", seed=1)))
    copy = checkpoint.find(str(write(tmp_path / "copy", seed=1)))
    other = checkpoint.find(str(write(tmp_path / "other", seed=2)))

    assert one.digest().startswith("sha256:")
    assert one.digest() == copy.digest()
    assert one.digest() != other.digest()


def test_a_folder_gives_the_model_its_name(tmp_path):
    folder = write(tmp_path / "emotion2vec_plus_base")

    assert checkpoint.find(f"{folder}/").name == "emotion2vec_plus_base"


def test_the_bundled_demo_says_in_every_answer_that_it_is_one(tmp_path, monkeypatch):
    write(tmp_path / "demo")
    monkeypatch.setattr("importlib.resources.files", {"server.engine": tmp_path}.get)

    found = checkpoint.find("demo")

    assert found.name == "demo"
    assert [notice.code for notice in found.notices] == ["DEMO_MODEL"]


def test_a_source_that_is_nothing_is_an_error_that_says_what_to_give():
    with pytest.raises(CheckpointError, match="give a FunASR checkpoint folder or a hub id"):
        checkpoint.find("no such thing")


class Hub(ModuleType):
    """Stands for `modelscope.hub.snapshot_download`; remembers what was asked of it."""

    def __init__(self, folder, *, online):
        super().__init__("modelscope.hub.snapshot_download")
        self.folder, self.online = folder, online
        self.asked = []

    def snapshot_download(self, source, *, revision, local_files_only=False):
        self.asked.append((source, revision, local_files_only))
        if self.folder is None or not (self.online or local_files_only):
            raise ConnectionError("no route to host")
        return str(self.folder)


def visible(monkeypatch, hub):
    for name in ("modelscope", "modelscope.hub"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, hub.__name__, hub)
    return hub


def test_a_hub_id_is_downloaded_and_names_the_model(tmp_path, monkeypatch):
    folder = write(tmp_path / "snapshot")
    hub = visible(monkeypatch, Hub(folder, online=True))

    found = checkpoint.find("iic/emotion2vec_plus_large")

    assert (found.name, found.folder) == ("emotion2vec_plus_large", folder)
    assert hub.asked == [("iic/emotion2vec_plus_large", "master", False)]


def test_without_a_network_the_cached_copy_is_taken(tmp_path, monkeypatch):
    folder = write(tmp_path / "snapshot")
    visible(monkeypatch, Hub(folder, online=False))

    found = checkpoint.find("iic/emotion2vec_plus_large")

    assert found.folder == folder


def test_without_a_network_and_a_copy_the_error_says_what_to_do(monkeypatch):
    visible(monkeypatch, Hub(None, online=False))

    with pytest.raises(CheckpointError, match=r"no route to host.*on another machine"):
        checkpoint.find("iic/emotion2vec_plus_large")


def test_without_funasr_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)

    with pytest.raises(CheckpointError, match=r"\[funasr\].*another machine"):
        checkpoint.find("iic/emotion2vec_plus_large")
