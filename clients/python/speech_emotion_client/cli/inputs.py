"""What the arguments name (files, folders, patterns, stdin) and where results are saved."""

import glob
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from speech_emotion_client.audio import AudioSource
from speech_emotion_client.samples import samples

STDIN = "-"
SUFFIXES = (
    *(".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka"),
    *(".mp3", ".mp4", ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma"),
)
"""What counts as audio in a folder; a file that is named itself may be called anything."""


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to analyse, and what to call it."""

    name: str
    source: AudioSource


def expand(arguments: Sequence[str], *, bundled: bool) -> list[Input]:
    """Inputs in the order they were named, each once; raises click.UsageError if there are none."""
    found = [Input(path.name, path) for path in samples()] if bundled else []
    names = dict.fromkeys(name for argument in arguments for name in _names(argument))
    found += [Input("stdin", sys.stdin.buffer) if n == STDIN else Input(n, Path(n)) for n in names]
    if not found:
        raise click.UsageError("Nothing to analyse: name files, folders or -, or use --sample.")
    return found


def _names(argument: str) -> list[str]:
    path = Path(argument)
    if argument == STDIN or path.is_file():
        return [argument]
    if path.is_dir():
        return _audio_files(path)
    if glob.has_magic(argument):
        if not (names := sorted(glob.glob(argument, recursive=True))):
            raise click.UsageError(f"No file matches {argument}.")
        return names
    return [argument]


def _audio_files(folder: Path) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise click.UsageError(f"No audio files in {folder}.")
    return [str(path) for path in files]


def outputs(target: Path | None, inputs: Sequence[Input], suffix: str) -> list[Path | None]:
    """A file for each input: `target` itself for one, else a name of its own in that folder."""
    if target is None:
        return [None] * len(inputs)
    if len(inputs) == 1 and not target.is_dir():
        if not target.parent.is_dir():
            raise click.UsageError(f"There is no folder {target.parent} to save {target.name} in.")
        return [target]
    if target.suffix == suffix:
        raise click.UsageError(f"{target} is one file, for {len(inputs)} inputs: name a folder.")
    target.mkdir(parents=True, exist_ok=True)
    return [target / f"{stem}{suffix}" for stem in _unique(each.name for each in inputs)]


def _unique(names: Iterable[str]) -> list[str]:
    """File stems; where two are equal, the whole path takes the place of the stem."""
    paths = [Path(name) for name in names]
    count = Counter(path.stem for path in paths)
    stems = [path.stem if count[path.stem] == 1 else _flat(path) for path in paths]
    again = Counter(stems)
    return [stem if again[stem] == 1 else f"{stem}-{i}" for i, stem in enumerate(stems)]


def _flat(path: Path) -> str:
    return re.sub(r"[^\w.-]+", "_", str(path)).strip("_.")
