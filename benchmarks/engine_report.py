"""A benchmark's rows as Markdown and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One number, and what it is of."""

    what: str
    engine: str
    threads: int  # 0 where they do not matter
    value: float
    unit: str
    note: str


def table(rows: Sequence[Row]) -> str:
    """GitHub's Markdown, with the ratio to the last engine that did the same."""
    lines = [
        "| what | engine | threads | | beside the last of its kind | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        threads = str(row.threads or "")
        value = f"{row.value:.3g} {row.unit}"
        lines.append(
            f"| {row.what} | {row.engine} | {threads} | {value} | {ratio(row, rows)} | {row.note} |"
        )
    return "\n".join(lines) + "\n"


def ratio(row: Row, rows: Sequence[Row]) -> str:
    """How many times as fast as the last row of its kind; only speeds are compared."""
    kind = [one for one in rows if (one.what, one.threads) == (row.what, row.threads)]
    base = kind[-1]
    if base is row or row.unit not in ("ms", "clips/s"):
        return ""
    faster = row.value / base.value if row.unit == "clips/s" else base.value / row.value
    return f"{faster:.2f}x"


def draw(rows: Sequence[Row], path: Path) -> None:
    """A bar for each speed; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    kinds = list(dict.fromkeys((r.what, r.threads, r.unit) for r in rows if r.threads))
    figure = Figure(figsize=(9, 2.2 * len(kinds)), layout="constrained")
    for axes, kind in zip(figure.subplots(len(kinds), squeeze=False)[:, 0], kinds, strict=True):
        bars = [row for row in rows if (row.what, row.threads, row.unit) == kind][::-1]
        drawn = axes.barh([row.engine for row in bars], [row.value for row in bars])
        axes.bar_label(drawn, fmt="{:.3g}", padding=3)
        axes.set_title(f"{kind[0]}, {kind[1]} threads ({kind[2]})", loc="left")
        axes.margins(x=0.12)
    figure.savefig(path)
