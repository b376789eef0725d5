"""Writes a table to the terminal and, with the machine, commit and command, to RESULTS.md."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "RESULTS.md"
PLOTS = Path("build/benchmarks")

Row = Sequence[object]


def table(head: Row, rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def publish(title: str, head: Row, rows: Sequence[Row], note: str = "") -> None:
    """The newest comes last; `note` stands below the table."""
    text = table(head, rows)
    print(text, note, sep="\n")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    command = " ".join(["python", "-m", _module(), *sys.argv[1:]])
    load = f"load average {os.getloadavg()[0]:.1f}"
    parts = [f"### {title}", f"{when}, {_commit()}, {_machine()}, {load}. `{command}`", text]
    with RESULTS.open("a") as file:
        file.write("\n" + "\n\n".join([*parts, *([note] if note else [])]) + "\n")


def bars(name: str, labels: Sequence[str], values: Sequence[float], unit: str) -> None:
    """A plot under build/benchmarks."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(labels) + 1.2))
    axes.barh(labels, values)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    figure.tight_layout()
    figure.savefig(PLOTS / f"{name}.png")
    plt.close(figure)


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else "benchmarks"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"commit {answer.stdout.strip() or 'unknown'}"


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor()}"
