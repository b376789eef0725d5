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


SPEEDS = {"ms": "less is better", "clips/s": "more is better"}


def table(rows: Sequence[Row]) -> str:
    """GitHub's Markdown, with the ratio to the last engine that did the same."""
    lines = [
        "| what | engine | threads | | beside the last of its kind | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        threads = str(row.threads or "")
        value = f"{number(row.value)} {row.unit}"
        lines.append(
            f"| {row.what} | {row.engine} | {threads} | {value} | {ratio(row, rows)} | {row.note} |"
        )
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits, and never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ratio(row: Row, rows: Sequence[Row]) -> str:
    """How many times as fast as the last row of its kind; only speeds are compared."""
    kind = [one for one in rows if (one.what, one.threads) == (row.what, row.threads)]
    base = kind[-1]
    if base is row or row.unit not in SPEEDS:
        return ""
    faster = row.value / base.value if row.unit == "clips/s" else base.value / row.value
    return f"{faster:.2f}x"


def draw(rows: Sequence[Row], path: Path) -> None:
    """A bar for each speed, ours in one colour; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    kinds = list(dict.fromkeys((r.what, r.threads, r.unit) for r in rows if r.unit in SPEEDS))
    if not kinds:
        return
    groups = [[row for row in rows if (row.what, row.threads, row.unit) == kind] for kind in kinds]
    heights = [len(group) + 1 for group in groups]
    figure = Figure(figsize=(8, 0.34 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(kinds), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (what, threads, unit), group in zip(panels, kinds, groups, strict=True):
        colours = ["C0" if row.engine.startswith("our") else "0.6" for row in group]
        drawn = axes.barh(
            [row.engine for row in group], [row.value for row in group], color=colours
        )
        labels = [f"{number(row.value)} {unit}  {ratio(row, rows)}" for row in group]
        axes.bar_label(drawn, labels, padding=4)
        plural = "s" if threads > 1 else ""
        axes.set_title(f"{what}, {threads} thread{plural} ({SPEEDS[unit]})", loc="left", size=11)
        axes.invert_yaxis()
        axes.margins(x=0.3)
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(path)
