"""The command `speech-emotion`."""

import click

from .about import health, info
from .analyze import analyze
from .stream import stream


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
