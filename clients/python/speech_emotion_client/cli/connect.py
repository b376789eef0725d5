"""The options that name a server, the same for every command; and what to say if nobody answers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import grpc

from speech_emotion_client.aio import AsyncClient
from speech_emotion_client.channel import DEFAULT_TARGET, ServerTLS
from speech_emotion_client.client import Client
from speech_emotion_client.errors import SpeechEmotionError, Unavailable


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --server, --api-key, --tls and --ca to a command."""
    for option in (
        click.option(
            "--ca",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="PEM file of the authority to trust; implies --tls.",
        ),
        click.option("--tls", is_flag=True, help="Encrypt; trusts the system's authorities."),
        click.option(
            "--api-key", envvar="SPEECH_EMOTION_API_KEY", help="Or SPEECH_EMOTION_API_KEY."
        ),
        click.option(
            "--server",
            envvar="SPEECH_EMOTION_SERVER",
            default=DEFAULT_TARGET,
            show_default=True,
            metavar="HOST:PORT",
            help="Or SPEECH_EMOTION_SERVER.",
        ),
    ):
        command = option(command)
    return command


def connect(
    server: str, api_key: str | None, tls: bool, ca: Path | None, **settings: Any
) -> Client:
    return Client(server, api_key=api_key, tls=_security(tls, ca), **settings)


def connect_async(
    server: str, api_key: str | None, tls: bool, ca: Path | None, **settings: Any
) -> AsyncClient:
    return AsyncClient(server, api_key=api_key, tls=_security(tls, ca), **settings)


def _security(tls: bool, ca: Path | None) -> ServerTLS:
    # gRPC's own log lines on stderr repeat, less clearly, what the errors say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return grpc.ssl_channel_credentials(ca.read_bytes()) if ca else tls


def nobody_answers(error: Exception | None) -> bool:
    """Whether the network failed, rather than a server that said that it is not ready."""
    return isinstance(error, Unavailable) and not error.reason


def no_server(target: str) -> click.ClickException:
    return click.ClickException(
        f"No server answers at {target}. Start one with: make run, or name yours with --server."
    )


def failure(target: str, error: SpeechEmotionError) -> click.ClickException:
    return no_server(target) if nobody_answers(error) else click.ClickException(str(error))
