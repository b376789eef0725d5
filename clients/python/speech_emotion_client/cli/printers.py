"""Who writes each outcome to stdout: as a page, as a row, as JSON or as CSV."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.text import Text

from speech_emotion_client.outcome import Outcome

from . import display, records
from .inputs import Input

Saved = Mapping[str, Path]


class Printer(ABC):
    """Counts, and leaves the rest to its kinds."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0

    def show(self, name: str, outcome: Outcome, saved: Saved) -> None:
        if outcome.error is None:
            self.answered += 1
        else:
            self.failed += 1
        self.write(name, outcome, saved)

    @abstractmethod
    def write(self, name: str, outcome: Outcome, saved: Saved) -> None:
        """Called once for each outcome, in order."""

    def close(self) -> None:  # noqa: B027 - most have nothing left to write
        """What can only be written when all outcomes are known."""


class JsonPrinter(Printer):
    """One object a line, as it comes."""

    def write(self, name: str, outcome: Outcome, saved: Saved) -> None:
        click.echo(records.to_json(name, outcome, saved))


class CsvPrinter(Printer):
    """All at the end: the columns are known only then."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[records.Record] = []

    def write(self, name: str, outcome: Outcome, saved: Saved) -> None:  # noqa: ARG002
        self._rows += records.csv_rows(name, outcome)

    def close(self) -> None:
        records.write_csv(self._rows, sys.stdout)


class PagePrinter(Printer):
    """One file in full; a failure goes to stderr."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def write(self, name: str, outcome: Outcome, saved: Saved) -> None:
        if outcome.error is not None:
            text = Text(f"{name}: {display.reason(outcome.error)}", "red")
            Console(stderr=True).print(text, soft_wrap=True)
            return
        self._console.print(display.full(name, outcome.unwrap()))
        for path in saved.values():
            self._console.print(Text(f"  saved {path}"), soft_wrap=True)


class RowPrinter(Printer):
    """A row for each file, then the sums."""

    def __init__(self, names: Sequence[str], console: Console) -> None:
        super().__init__()
        self._console = console
        self._names = dict(zip(names, display.brief(names), strict=True))
        self._rows = display.Rows(list(self._names.values()), self._console.width)
        self._summary = display.Summary()

    def write(self, name: str, outcome: Outcome, saved: Saved) -> None:  # noqa: ARG002
        # Not before the first row: there may be no server, and then no table.
        if self.answered + self.failed == 1:
            self._console.print(self._rows.head())
        if outcome.error is not None:
            self._console.print(self._rows.failure(self._names[name], outcome.error))
            return
        self._summary.add(outcome.unwrap())
        self._console.print(self._rows.answer(self._names[name], outcome.unwrap()))

    def close(self) -> None:
        self._console.print(self._summary.text(self.failed))


def choose(
    form: Literal["json", "csv"] | None, found: Sequence[Input], console: Console
) -> Printer:
    if form is not None:
        return JsonPrinter() if form == "json" else CsvPrinter()
    if len(found) == 1:
        return PagePrinter(console)
    return RowPrinter([each.name for each in found], console)
