"""The command `speech-emotion`."""

import os
import sys
from typing import Any

import click

from .about import health, info
from .analyze import analyze
from .stream import stream

SIGPIPE = 128 + 13
"""The status of a program that SIGPIPE ends, which Python ignores."""


class Commands(click.Group):
    """Says in a line what cannot be written, and nothing to who has read enough."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            _forget_output()
            raise SystemExit(SIGPIPE) from None
        except OSError as error:
            if error.filename is None:
                _forget_output()
            raise click.ClickException(f"{error.filename or 'stdout'}: {error.strerror}") from error


def _forget_output() -> None:
    """What is still to be flushed goes nowhere, as it would say the same again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="speech-emotion-client")
def main() -> None:
    """Ask a Speech Emotion Server which emotions are in speech.

    \b
    Try:  speech-emotion analyze --sample
    """


main.add_command(analyze)
main.add_command(stream)
main.add_command(info)
main.add_command(health)
