"""Settings: which source wins, and what a person is told about a mistake."""

import pytest

from server.config import SettingsError, read_settings, unknown_variables


@pytest.fixture
def environment(monkeypatch):
    """Sets variables of the real environment, which the settings read."""

    def set_variables(**variables: str) -> dict[str, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return variables

    return set_variables


@pytest.fixture
def file(tmp_path):
    """Writes a settings file and returns its name."""

    def write(text: str) -> str:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return str(path)

    return write


def test_without_any_setting_the_demo_model_is_served_on_loopback():
    settings = read_settings([], {})

    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 50051, "demo")


def test_flags_beat_variables_beat_the_file_beat_the_defaults(environment, file):
    name = file("port = 1\nmax_batch_items = 2\ndecode_threads = 3\n")
    variables = environment(SPEECHEMOTION_PORT="10", SPEECHEMOTION_MAX_BATCH_ITEMS="20")

    settings = read_settings(["--config", name, "--port", "100"], variables)

    assert (settings.port, settings.max_batch_items, settings.decode_threads) == (100, 20, 3)


def test_the_file_can_be_named_by_a_variable(environment, file):
    variables = environment(SPEECHEMOTION_CONFIG=file("port = 7\n"))

    assert read_settings([], variables).port == 7


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port", "abc"], "port: .*integer.*'abc'"),
        (["--port", "99999"], "port: .*65535"),
        (["--max-batch-size", "9", "--max-queue-size", "8"], "max_batch_size must not exceed"),
        (["--config", "no-such-file.toml"], "no settings file no-such-file.toml"),
    ],
)
def test_a_mistake_is_named_in_one_line(arguments, text):
    with pytest.raises(SettingsError, match=text) as error:
        read_settings(arguments, {})

    assert "\n" not in str(error.value)


def test_a_misspelt_name_in_the_file_is_an_error(file):
    with pytest.raises(SettingsError, match="prot"):
        read_settings(["--config", file("prot = 1\n")], {})


def test_a_file_that_is_not_toml_is_an_error(file):
    with pytest.raises(SettingsError, match="not TOML"):
        read_settings(["--config", file("port: 1\n")], {})


def test_a_misspelt_variable_is_found():
    variables = {"SPEECHEMOTION_PROT": "1", "SPEECHEMOTION_PORT": "1", "PATH": "x"}

    assert unknown_variables(variables) == ["SPEECHEMOTION_PROT"]


def test_help_names_every_setting_and_its_unit(capsys):
    with pytest.raises(SystemExit) as end:
        read_settings(["--help"], {})

    assert end.value.code == 0
    help_text = capsys.readouterr().out
    for word in (
        "--max-audio-seconds",
        "SPEECHEMOTION_MAX_AUDIO_SECONDS",
        "FunASR",
        "--no-reflection",
    ):
        assert word in help_text
