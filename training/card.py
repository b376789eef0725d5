"""The model card, filled in with the measured numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from training import export
from training.data import NAMES, SURPRISED
from training.materials import Materials

_FOLDER = Path(__file__).parent


def render(report: dict[str, Any] | None, materials: Materials, folder: Path) -> str:
    """Fill the template; without a report the results are announced as not measured."""
    size = export.read(folder).size
    read = {clip.speaker for clip in materials.librispeech_clips}
    held_out = sorted({clip.speaker for clip in materials.held_out_clips}, key=int)
    speed = report["latency"] if report else {"least_ms": 0.0, "median_ms": 0.0}
    return Template((_FOLDER / "model_card.md").read_text(encoding="utf-8")).substitute(
        parameters=f"{report['parameters']:,}" if report else "?",
        bytes=f"{(folder / 'model.pt').stat().st_size:,}",
        conv=size.conv, width=size.width, heads=size.heads, prenet=size.prenet, depth=size.depth,
        latency=f"{speed['least_ms']:.1f}", median=f"{speed['median_ms']:.1f}",
        read_learnt=len(materials.librispeech_clips), read_speakers=len(read),
        temperature=f"{report['calibration']['temperature']:.2f}" if report else "(not measured)",
        results=results(report) if report else "Not measured yet.",
        tried=(_FOLDER / "tried.md").read_text(encoding="utf-8").strip(),
        held_out=f"{len(held_out)} speakers: {', '.join(held_out)}.",
    )  # fmt: skip


def results(report: dict[str, Any]) -> str:
    sections = (
        _recalls, _classes, _confusion, _conditions, _rest, _clips,
    )  # fmt: skip
    return "\n\n".join(section(report) for section in sections)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:.2f}-{interval[1]:.2f}"


def _recalls(report: dict[str, Any]) -> str:
    whole = report["leave_one_speaker_out"]
    rows = [
        [speaker, str(r["clips"]), f"{r['recall']:.3f}", _span(r["interval"])]
        for speaker, r in whole["speakers"].items()
    ]
    overall = f"{_span(whole['interval'])} (by speaker {_span(whole['interval_by_speaker'])})"
    rows.append(["**all**", str(whole["clips"]), f"**{whole['recall']:.3f}**", overall])
    return table(["speaker", "clips", "UAR", "95 %"], rows)


def _classes(report: dict[str, Any]) -> str:
    rows = report["leave_one_speaker_out"]["classes"]
    return table(["label", "recall"], [[name, f"{recall:.2f}"] for name, recall in rows.items()])


def _confusion(report: dict[str, Any]) -> str:
    """Rows are the truth; labels without data are left out."""
    rows = [
        [NAMES[truth], *(str(n) for i, n in enumerate(counts) if i != SURPRISED)]
        for truth, counts in enumerate(report["leave_one_speaker_out"]["confusion"])
        if sum(counts)
    ]
    names = [name.replace("<unk>", "unknown") for i, name in enumerate(NAMES) if i != SURPRISED]
    return table(["truth \\ answer", *names], rows)


def _conditions(report: dict[str, Any]) -> str:
    titles = {
        "clean": "as recorded",
        "telephone": "8 kHz mu-law",
        "opus": "Opus, 16 kb/s",
        "noise": "noise at 10 dB",
    }
    rows = [
        [titles[name], f"{r['recall']:.3f}", f"{r['drop']:+.3f}"]
        for name, r in report["conditions"].items()
    ]
    return table(["condition", "UAR", "lost"], rows)


def _rest(report: dict[str, Any]) -> str:
    shipped, folds, errors = report["shipped"], report["folds"], report["calibration"]
    kinds = ", ".join(f"{k.replace('_', ' ')} {v:.2f}" for k, v in shipped["unknown_kinds"].items())
    rows = [
        [
            "unheard LibriSpeech speakers, neutral",
            f"{shipped['neutral']:.3f}",
            f"{folds['neutral']:.3f}",
        ],
        ["sounds without speech, unknown", f"{shipped['unknown']:.3f}", f"{folds['unknown']:.3f}"],
        ["calibration error, unheard actors", "", f"{errors['acted']:.3f}"],
        [
            "calibration error, LibriSpeech",
            f"{shipped['neutral_calibration']:.3f}",
            f"{errors['read']:.3f}",
        ],
    ]
    shown = table(["measure", "shipped model", "mean of the folds"], rows)
    return (
        f"{shown}\n\nThe calibration error of the actors takes each one's temperature from the "
        f"other seven; without it, it is {errors['acted_uncalibrated']:.3f}. "
        f"Sounds by kind: {kinds}."
    )


def _clips(report: dict[str, Any]) -> str:
    """Other recordings, for evaluation only."""
    rows = [
        [
            c["file"],
            f"{c['answer']} {c['confidence']:.2f}",
            f"{c['second']} {c['second_confidence']:.2f}",
        ]
        for c in report["clips"]
    ]
    return "Other recordings:\n\n" + table(["clip", "answer", "second"], rows)
