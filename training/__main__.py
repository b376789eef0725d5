"""Command line: ``train`` (the default) makes the demo model, ``evaluate`` measures it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from training import card, evaluate, export
from training.crossval import CrossValidation
from training.materials import Materials
from training.pipeline import Pipeline, Plan


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m training",
        description="Train and measure the small demo model. A run that was stopped continues.",
    )
    commands = root.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train on all speakers and write the folder")
    measure = commands.add_parser("evaluate", help="print and write all measures, and the card")
    for command in (train, measure):
        _add_options(command)
    measure.add_argument("--clips", type=Path, help="folder of other clips with MANIFEST.tsv")
    return root


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", type=Path, required=True, help="folder that holds emodb/ and librispeech/"
    )
    command.add_argument(
        "--out", type=Path, default=Path("server/engine/demo"), help="checkpoint folder to write"
    )
    command.add_argument(
        "--work", type=Path, default=Path("build/demo-model"), help="folder for what is in between"
    )
    command.add_argument("--seed", type=int, default=0, help="another seed needs another --work")
    command.add_argument(
        "--threads", type=int, default=1, help="more are slower where others compute too"
    )
    command.add_argument(
        "--skip-folds", action="store_true", help="train only: no cross-validation, no calibration"
    )


def train(arguments: argparse.Namespace) -> None:
    """Folds first, because they tell the temperature; then the model on all speakers."""
    crossval = prepare(arguments)
    warmth = 1.0 if arguments.skip_folds else evaluate.temperature(crossval)
    student = crossval.pipeline.student(without=None)
    export.write(arguments.out, student, warmth)
    write_card(arguments, crossval, None)
    print(f"wrote {arguments.out}, temperature {warmth:.2f}")


def measure(arguments: argparse.Namespace) -> None:
    crossval = prepare(arguments)
    student = export.read(arguments.out)
    report = evaluate.everything(crossval, student, arguments.clips)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (arguments.work / "report.json").write_text(text + "\n", encoding="utf-8")
    print(write_card(arguments, crossval, report))


def write_card(
    arguments: argparse.Namespace, crossval: CrossValidation, report: evaluate.Report | None
) -> str:
    text = card.render(report, crossval.pipeline.materials, arguments.out)
    (arguments.out / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    return text


def prepare(arguments: argparse.Namespace) -> CrossValidation:
    torch.set_num_threads(arguments.threads)
    materials = Materials(arguments.data, arguments.work, arguments.seed)
    pipeline = Pipeline(materials, arguments.work, Plan(), arguments.seed)
    return CrossValidation(pipeline, arguments.work)


def main() -> None:
    words = sys.argv[1:]
    if words and words[0].startswith("--") and words[0] != "--help":
        words = ["train", *words]  # the usual command may be left out
    arguments = parser().parse_args(words)
    {"train": train, "evaluate": measure}[arguments.command](arguments)


if __name__ == "__main__":
    main()
