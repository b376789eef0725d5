"""Every setting, with its unit, its default and how to choose it.

Flags win over `SPEECHEMOTION_*` variables, those over the TOML file that `--config` or
SPEECHEMOTION_CONFIG names, and that over the defaults. Knows pydantic and nothing of the server.
"""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "SPEECHEMOTION_"
MIB = 2**20
LAST_PORT = 65_535


class SettingsError(Exception):
    """The settings make no sense; the text says which, one a line."""


class PortTaken(SettingsError):
    """Somebody else listens on the address."""


class Settings(BaseSettings):
    """speech-emotion-server: send it speech over gRPC, it answers with emotions.

    Every flag can be given as an environment variable: --max-audio-seconds is
    SPEECHEMOTION_MAX_AUDIO_SECONDS; or as a line of the TOML file that --config names.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="speech-emotion-server",
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    config: Path | None = Field(None, description="TOML file with settings.")

    # Where it listens
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 or [::] for all.")
    port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 takes a free one.")

    metrics_host: str = Field(
        "127.0.0.1", description="Address of /metrics, /healthz and /readyz; never a public one."
    )
    metrics_port: int = Field(
        9464, ge=0, le=65535, description="Their HTTP port; 0 takes a free one."
    )
    trust_proxy: bool = Field(
        False,
        description="Believe the header x-client-id. Only behind a proxy that sets it and strips "
        "what callers send, and with no other way in.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Server processes (Linux), which share a CPU's model; they get the ports "
        "--port, +1, ..., and one metrics port more than workers. SIGHUP renews them one by one.",
    )
    share_port: bool = Field(
        False,
        description="All listen on the one --port (SO_REUSEPORT): a client's connection stays "
        "with one worker, so use it for many clients without a proxy.",
    )
    tls_cert: Path | None = Field(
        None, description="Certificate chain (PEM), for use without a proxy; read anew if replaced."
    )
    tls_key: Path | None = Field(None, description="Its private key (PEM).")
    tls_client_ca: Path | None = Field(
        None, description="Accept only clients with a certificate of this authority (PEM)."
    )
    api_keys_file: Path | None = Field(
        None, description="YAML list of {key, client}; then every call needs one of the keys."
    )
    max_connection_age_seconds: float = Field(
        0.0,
        ge=0,
        description="Asks clients to reconnect after this long, so that balancers without health "
        "checks find new replicas; 0: never. Calls in progress finish.",
    )

    # What it serves
    model: str = Field(
        "demo",
        min_length=1,
        description="'demo' (built in), the folder of a FunASR checkpoint, or a hub id such as "
        "iic/emotion2vec_plus_large (needs the extra 'funasr').",
    )
    engine: Literal["native", "funasr", "fake"] = Field(
        "native", description="'funasr' is the slow reference, 'fake' has no model (load tests)."
    )
    devices: str = Field(
        "auto",
        description="auto (every GPU, or else the CPU), cpu, or GPUs such as cuda:0,cuda:1.",
    )
    precision: Literal["auto", "float32", "float16", "bfloat16", "int8"] = Field(
        "auto",
        description="auto takes float16 on a GPU and float32 on a CPU; int8 (CPU) and bfloat16 "
        "are faster and less exact.",
    )
    memory_fraction: float = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory that a server process may take."
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of the model; 0: one for each core, divided by the workers.",
    )

    # What it accepts
    max_audio_bytes: int = Field(
        16 * MIB, ge=1024, description="Largest audio of a request, and of a batch as a whole."
    )
    max_audio_seconds: float = Field(
        60.0, gt=0.1, le=600, description="Longest audio of a request; memory grows with it."
    )
    max_upload_bytes: int = Field(
        100 * MIB,
        ge=1024,
        description="Largest file of AnalyzeUpload; what is beyond max_audio_bytes or "
        "max_audio_seconds is analysed in windows.",
    )
    max_long_uploads: int = Field(
        16, ge=1, description="Most such files at a time; each has a thread and some 30 MB."
    )
    max_batch_items: int = Field(32, ge=1, le=1024, description="Most items of a BatchAnalyze.")
    max_frame_embedding_seconds: float = Field(
        20.0, gt=0, description="Longest audio whose frame embeddings fit one answer as float32."
    )
    decode_threads: int = Field(2, ge=1, le=64, description="Threads that decode audio.")

    # How it batches
    max_batch_size: int = Field(
        0, ge=0, description="Most utterances in one forward pass; 0: what the device runs best."
    )
    max_batch_seconds: float = Field(
        240.0, gt=0, description="Most padded audio in one forward pass, in seconds."
    )
    queue_delay_ms: float = Field(
        2.0, ge=0, description="How long an idle device waits for company for a request."
    )
    max_queue_size: int = Field(1024, ge=1, description="Most requests that wait.")
    max_queue_seconds: float = Field(
        10.0,
        gt=0,
        description="Longest wait that is accepted, by the measured rate; beyond it requests are "
        "refused with RESOURCE_EXHAUSTED. Choose less than your callers' patience.",
    )

    max_concurrent_calls: int = Field(
        0, ge=0, description="Most unary calls in progress; 0: as many as the queue takes."
    )
    degrade_bulk_after_seconds: float = Field(
        0.0,
        ge=0,
        description="With more work than this waiting, bulk requests get scores without frames or "
        "embeddings, and a warning; 0: never.",
    )
    refuse_bulk_after_seconds: float = Field(
        0.0, ge=0, description="With more than this waiting, bulk requests are refused; 0: never."
    )

    # What it does with streams
    stream_window_ms: int = Field(
        2_000, ge=100, description="Window of a stream that names none, in milliseconds."
    )
    stream_hop_ms: int = Field(
        1_000, ge=100, description="From one such window to the next, in milliseconds."
    )
    stream_idle_seconds: float = Field(
        30.0, gt=0, description="A client that sends nothing for so long has lost its stream."
    )
    stream_resume_seconds: float = Field(
        60.0,
        ge=0,
        description="How long a broken stream can be resumed; its state stays in memory.",
    )
    stream_heartbeat_seconds: float = Field(
        10.0, gt=0, description="A stream that has nothing to say says so this often."
    )
    max_stream_seconds: float = Field(
        4 * 3600.0, gt=0, description="Longest stream, by the clock and by its audio."
    )
    max_stream_sessions: int = Field(
        1_024, ge=1, description="Most streams of one client address, resumable ones included."
    )
    max_stream_decoders: int = Field(
        64, ge=1, description="Most streams that bring a container (Opus, MP3); each has a thread."
    )
    max_stream_pending: int = Field(
        8,
        ge=1,
        description="Most results of a stream that are computed or wait to be read; then its "
        "client has to wait.",
    )
    max_stream_lag_ms: float = Field(
        1_000.0, gt=0, description="A live stream later than this gets no interim results."
    )
    max_stream_chunk_bytes: int = Field(
        256 * 1024, ge=1_024, description="Largest audio of one stream message."
    )
    max_stream_speed: float = Field(
        2.0, ge=1, description="Fastest live stream, in seconds of audio for each second."
    )

    redis_url: str = Field(
        "",
        pattern=r"^$|^(redis|rediss)(\+cluster)?://|^unix://",
        repr=False,  # it may hold a password
        description="redis://HOST:PORT/DB, where replicas keep what their streams need to be "
        "resumed on another one (no audio); empty: on the same replica only.",
    )

    # How it stops
    drain_notice_seconds: float = Field(
        0.0,
        ge=0,
        description="On SIGTERM: how long to go on serving while health says NOT_SERVING. Behind "
        "a load balancer: its health check interval and a margin.",
    )
    drain_grace_seconds: float = Field(
        30.0, ge=0, description="Then: how long accepted calls may take to finish."
    )

    # What it says
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON lines elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="info has a line for each call."
    )
    reflection: bool = Field(True, description="Serve gRPC reflection (grpcurl, buf curl).")
    channelz: bool = Field(False, description="Serve gRPC channelz (connections, calls, bytes).")

    @model_validator(mode="after")
    def _tls_is_complete(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key need each other")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_is_a_number(cls, value: object, info: ValidationInfo) -> object:
        """TOML's `true` would be 1."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted is not bool:
            raise ValueError("expected a value, not true or false")
        return value

    @model_validator(mode="after")
    def _workers_have_ports(self) -> "Settings":
        last = self.port + self.workers - 1
        if self.port and not self.share_port and last > LAST_PORT:
            raise ValueError(f"port: the last of {self.workers} workers would listen on {last}")
        spare = self.metrics_port + self.workers
        if self.metrics_port and self.workers > 1 and spare > LAST_PORT:
            raise ValueError(f"metrics_port: {self.workers} workers would need {spare}")
        return self

    @model_validator(mode="after")
    def _streams_fit_requests(self) -> "Settings":
        if self.stream_window_ms > 1000 * self.max_audio_seconds:
            raise ValueError("stream_window_ms must not exceed max_audio_seconds")
        return self

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> "Settings":
        if self.max_batch_size > self.max_queue_size:
            raise ValueError("max_batch_size must not exceed max_queue_size")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from every source. Raises SettingsError with a line for each mistake.

    `--help` and flags that do not exist end the process, as argparse does.
    """
    file = _chosen_file(arguments, environment)
    source = type("Settings", (Settings,), {"model_config": {"toml_file": file}})
    source.__doc__ = Settings.__doc__
    try:
        settings: Settings = CliApp.run(source, cli_args=list(arguments))
    except ValidationError as error:
        raise SettingsError(_mistakes(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    return settings


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """SPEECHEMOTION_* variables that no setting reads: most likely misspelt."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _chosen_file(arguments: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=environment.get(PREFIX + "CONFIG"))
    name = parser.parse_known_args(arguments)[0].config
    if name is not None and not Path(name).is_file():
        raise SettingsError(f"There is no settings file {name}.")
    return None if name is None else Path(name)


def _mistakes(error: ValidationError) -> str:
    lines = []
    for mistake in error.errors():
        name = ".".join(str(part) for part in mistake["loc"]) or "settings"
        shown = not isinstance(mistake["input"], dict) and name != "redis_url"  # a password
        given = f" (got {mistake['input']!r})" if shown else ""
        lines.append(f"{name}: {mistake['msg']}{given}")
    return "\n".join(lines)
