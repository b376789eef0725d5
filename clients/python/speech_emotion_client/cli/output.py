"""Where people read: a console that leaves a closed pipe to the command."""

from rich.console import Console


class Output(Console):
    """Rich would end the program here, with the status of a failure."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
