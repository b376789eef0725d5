"""The options that name a server, the same for every command; and what to say if nobody answers."""

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
            callback=_named,
            metavar="HOST:PORT",
            help="Or SPEECH_EMOTION_SERVER.",
        ),
    ):
        command = option(command)
    return command


def _named(_context: click.Context, _option: click.Parameter, server: str) -> str:
    if not server.strip():
        raise click.BadParameter("It has no name: HOST:PORT.")
    return server


def connect(
    server: str, api_key: str | None, tls: bool, ca: Path | None, **settings: Any
) -> Client:
    return Client(server, api_key=api_key, tls=_security(tls, ca), **settings)


def connect_async(
    server: str, api_key: str | None, tls: bool, ca: Path | None, **settings: Any
) -> AsyncClient:
    return AsyncClient(server, api_key=api_key, tls=_security(tls, ca), **settings)


def _security(tls: bool, ca: Path | None) -> ServerTLS:
    return grpc.ssl_channel_credentials(ca.read_bytes()) if ca else tls


def nobody_answers(error: Exception | None) -> bool:
    """Whether the network failed, rather than a server that said that it is not ready."""
    return isinstance(error, Unavailable) and not error.reason


def no_server(target: str) -> click.ClickException:
    asked = click.get_current_context().params
    if asked["tls"] or asked["ca"]:
        return click.ClickException(
            f"No server answers at {target} over TLS: none is there, or it speaks no TLS, or its"
            " certificate is not trusted."
        )
    return click.ClickException(
        f"No server answers at {target}. Start one with: make run, or name yours with --server."
    )


def failure(target: str, error: SpeechEmotionError) -> click.ClickException:
    return no_server(target) if nobody_answers(error) else click.ClickException(str(error))
