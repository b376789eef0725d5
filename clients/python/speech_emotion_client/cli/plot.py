"""Draws scores over time into an image; the only user of matplotlib, the extra `plot`."""

from importlib.util import find_spec
from pathlib import Path

from speech_emotion_client.result import Analysis, Frames

from .palette import colour, short

INSTALL = "pip install 'speech-emotion-client[plot]'"
INK, QUIET = "#22272e", "#8b98a5"
NEGLIGIBLE = 0.05
"""A score that no frame exceeds gets no line of its own in the legend."""


def available() -> bool:
    return find_spec("matplotlib") is not None


def suffixes() -> list[str]:
    """What `save` can write: .png, .svg, .pdf, ..."""
    from matplotlib.backend_bases import FigureCanvasBase

    return sorted(f".{name}" for name in FigureCanvasBase.get_supported_filetypes())


def save(path: Path, name: str, analysis: Analysis, frames: Frames) -> None:
    """A stacked area: at each time the heights are the frame's scores, and sum to 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    order = [frames.labels.index(label) for label in analysis.scores if label in frames.labels]
    labels = [frames.labels[column] for column in order]
    areas = axes.stackplot(
        frames.times,
        frames.scores[:, order].T,
        colors=[colour(label) for label in labels],
        alpha=0.92,
        linewidth=0.4,
        edgecolor="white",
    )
    seen = [at for at, column in enumerate(order) if frames.scores[:, column].max() > NEGLIGIBLE]
    axes.legend(
        [areas[at] for at in seen],
        [f"{short(labels[at])}  {analysis.scores[labels[at]]:.0%}" for at in seen],
        title="mean of segments" if analysis.segmentation else "whole utterance",
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        labelcolor=INK,
    )
    axes.set_title(
        f"{Path(name).name}: {short(analysis.emotion)}", loc="left", color=INK, weight="bold"
    )
    axes.set(xlabel="time [s]", ylabel="score", ylim=(0, 1))
    if analysis.segmentation:
        axes.set_title(analysis.segmentation, loc="right", color=QUIET, fontsize="small")
    axes.margins(x=0)
    axes.tick_params(colors=QUIET)
    axes.spines[:].set_visible(False)
    figure.savefig(path)
