"""The commands that ask about the server itself: `info` and `health`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from speech_emotion_client.errors import SpeechEmotionError
from speech_emotion_client.server import Limits, Model, ServerInfo

from .connect import connect, failure, server_options
from .output import Output
from .palette import colour, short
from .records import dumps
from .seconds import NOT_NEGATIVE


@click.command()
@server_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def info(server: str, as_json: bool, **access: Any) -> None:
    """Show the server's version, health, limits and models."""
    try:
        with connect(server, timeout=10, **access) as client:
            status, about, models = client.health(), client.server_info(), client.models()
    except SpeechEmotionError as error:
        raise failure(server, error) from error
    if as_json:
        body = {"server": server, "health": status, **dataclasses.asdict(about)}
        click.echo(dumps(body | {"models": [dataclasses.asdict(each) for each in models]}))
        return
    console = Output(highlight=False)
    console.print()
    console.print(_server_table(server, status, about))
    for model in models:
        console.print(_model_table(model))


@click.command()
@server_options
@click.option("--wait", type=NOT_NEGATIVE, default=0.0, help="Seconds to wait until it does.")
def health(server: str, wait: float, **access: Any) -> None:
    """Say whether the server serves; exit code 0 if so, else 1."""
    try:
        with connect(server, timeout=5, retries=0, **access) as client:
            if wait:
                client.wait_ready(wait)
            status = client.health()
    except SpeechEmotionError as error:
        raise failure(server, error) from error
    click.secho(status, fg="green" if status == "SERVING" else "red")
    raise SystemExit(0 if status == "SERVING" else 1)


def _facts(rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=len("embedding"))
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, value)
    table.add_row("", "")
    return table


def _server_table(server: str, status: str, about: ServerInfo) -> Table:
    state = Text(status, "bold green" if status == "SERVING" else "bold red")
    version = f"speech-emotion-server {about.server_version}, API {about.api_version}"
    return _facts(
        [
            ("server", Text(server, "bold")),
            ("health", state),
            ("version", version),
            ("formats", " ".join(about.containers)),
            ("limits", _limits(about.limits)),
        ]
    )


def _limits(limits: Limits) -> str:
    parts = (
        (limits.max_audio_bytes, f"{limits.max_audio_bytes / 2**20:.3g} MiB a request"),
        (limits.max_upload_bytes, f"{limits.max_upload_bytes / 2**20:.3g} MiB an upload"),
        (
            limits.max_audio_ms,
            f"{limits.min_audio_ms / 1000:g} to {limits.max_audio_ms / 1000:g} s",
        ),
        (limits.max_batch_items, f"{limits.max_batch_items} items a batch"),
        (
            limits.max_frame_embedding_ms,
            f"frame embeddings up to {limits.max_frame_embedding_ms / 1000:g} s",
        ),
        (limits.max_concurrent_streams, f"{limits.max_concurrent_streams} streams"),
    )
    return " · ".join(text for limit, text in parts if limit)


def _model_table(model: Model) -> Table:
    labels = Text("  ").join(Text(short(label), colour(label)) for label in model.labels)
    runs = " ".join(filter(None, (model.runtime, model.precision, "on", model.device)))
    audio = f"{model.sample_rate / 1000:g} kHz, a frame every {model.frame_period_ms:g} ms"
    return _facts(
        [
            ("model", Text.assemble((model.name, "bold"), f"  {model.display_name}")),
            ("state", Text(model.state, "green" if model.state == "ready" else "yellow")),
            ("runs", runs),
            ("audio", audio),
            ("embedding", f"{model.embedding_dimension} numbers"),
            ("labels", labels),
            ("weights", model.weights_digest),
            ("licence", model.license),
        ]
    )
