"""Settings: which source wins, and what a person is told about a mistake."""

import pytest

from server.choices import stream_limits_of
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


@pytest.mark.parametrize(
    ("text", "arguments", "mistake"),
    [
        ("port = true\n", [], "port: .*true"),
        ("", ["--threads", "100000000"], "threads: .*1024"),
        ("", ["--workers", "2", "--port", "65535"], "port: .*65536"),
        ("", ["--workers", "2", "--metrics-port", "65534"], "metrics_port: .*65536"),
        ("", ["--max-audio-seconds", "1.5"], "stream_window_ms must not exceed max_audio_seconds"),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(file, text, arguments, mistake):
    with pytest.raises(SettingsError, match=mistake):
        read_settings(["--config", file(text), *arguments], {})


def test_workers_on_one_port_may_have_the_last_one():
    settings = read_settings(["--workers", "2", "--share-port", "--port", "65535"], {})

    assert settings.port == 65_535


def test_a_file_that_is_not_text_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes(b"port = \xff\xfe")

    with pytest.raises(SettingsError, match="is not TOML"):
        read_settings(["--config", str(path)], {})


def test_a_file_that_cannot_be_read_is_an_error_of_one_line():
    with pytest.raises(SettingsError, match="mem cannot be read"):
        read_settings(["--config", "/proc/self/mem"], {})


def test_a_window_shorter_than_the_hop_shortens_the_hop():
    settings = read_settings(["--stream-window-ms", "500", "--metrics-port", "0"], {})

    assert stream_limits_of(settings).hop_ms == 500
