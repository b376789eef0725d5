"""All measures of the demo model, as plain numbers."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from training import metrics, scoring
from training.conditions import CONDITIONS
from training.crossval import CrossValidation, Logits
from training.data import NAMES, NEUTRAL, UNKNOWN, Wave
from training.model import Student
from training.spectrum import SAMPLE_RATE

Report = dict[str, Any]
Truth = NDArray[np.int64]


def temperature(crossval: CrossValidation) -> float:
    """The temperature that fits the answers about unheard speakers best."""
    truth, logits, _ = pooled(crossval, "clean")
    return metrics.best_temperature(truth, logits)


def pooled(crossval: CrossValidation, condition: str) -> tuple[Truth, Logits, NDArray[np.str_]]:
    """Truth, logits and speaker of every acted clip, each by the model that never heard him."""
    folds = crossval.folds()
    truth = [crossval.truth(speaker) for speaker in folds]
    names = [np.full(len(t), speaker) for speaker, t in zip(folds, truth, strict=True)]
    logits = [fold[condition] for fold in folds.values()]
    return np.concatenate(truth), np.concatenate(logits), np.concatenate(names)


def recall_report(crossval: CrossValidation) -> Report:
    """Unweighted average recall over seven classes: overall, by speaker, by class."""
    truth, logits, names = pooled(crossval, "clean")
    answers = logits.argmax(1)
    by_speaker = {
        str(speaker): recall_with_interval(truth[names == speaker], answers[names == speaker])
        for speaker in np.unique(names)
    }
    low, high = metrics.bootstrap(truth, answers, names)
    return {
        **recall_with_interval(truth, answers),
        "interval_by_speaker": [low, high],
        "speakers": by_speaker,
        "classes": {NAMES[c]: r for c, r in metrics.recalls(truth, answers).items()},
        "confusion": confusion(truth, answers),
    }


def recall_with_interval(truth: Truth, answers: Truth) -> Report:
    low, high = metrics.bootstrap(truth, answers, None)
    recall = metrics.unweighted_recall(truth, answers)
    return {"recall": recall, "interval": [low, high], "clips": len(truth)}


def confusion(truth: Truth, answers: Truth) -> list[list[int]]:
    """Rows are the truth, columns the answer, in the order of the nine labels."""
    table = np.zeros((len(NAMES), len(NAMES)), int)
    np.add.at(table, (truth, answers), 1)
    return [[int(n) for n in row] for row in table]


def condition_report(crossval: CrossValidation) -> Report:
    """The recall under each condition, and what it loses against clean clips."""
    report: Report = {}
    for name in CONDITIONS:
        truth, logits, _ = pooled(crossval, name)
        report[name] = {"recall": metrics.unweighted_recall(truth, logits.argmax(1))}
        report[name]["drop"] = report["clean"]["recall"] - report[name]["recall"]
    return report


def calibration_report(crossval: CrossValidation) -> Report:
    """Errors of the confidence; each speaker's temperature comes from the other speakers."""
    truth, logits, names = pooled(crossval, "clean")
    scaled = logits.copy()
    for name in np.unique(names):
        others = names != name
        scaled[~others] /= metrics.best_temperature(truth[others], logits[others])
    warmth = temperature(crossval)
    read = np.concatenate([fold["read"] for fold in crossval.folds().values()]) / warmth
    calm = np.full(len(read), NEUTRAL)
    return {
        "temperature": warmth,
        "acted": metrics.calibration_error(truth, metrics.softmax(scaled)),
        "acted_uncalibrated": metrics.calibration_error(truth, metrics.softmax(logits)),
        "read": metrics.calibration_error(calm, metrics.softmax(read)),
        "acted_log_loss": metrics.log_loss(truth, scaled),
    }


def side_report(crossval: CrossValidation) -> Report:
    """Read speech that must be neutral and sounds that must be unknown, over all folds."""
    folds = crossval.folds().values()
    read = np.stack([fold["read"].argmax(1) == NEUTRAL for fold in folds])
    sound = np.stack([fold["sounds"].argmax(1) == UNKNOWN for fold in folds])
    return {"neutral": float(read.mean()), "unknown": float(sound.mean())}


def shipped_report(crossval: CrossValidation, student: Student) -> Report:
    """The shipped model on the held-out read speech and on sounds."""
    read = scoring.logits(student, crossval.read)
    sound = scoring.logits(student, crossval.sounds).argmax(1) == UNKNOWN
    kinds = np.array(crossval.kinds)
    calm = np.full(len(read), NEUTRAL)
    return {
        "neutral": float((read.argmax(1) == NEUTRAL).mean()),
        "neutral_clips": len(read),
        "neutral_calibration": metrics.calibration_error(calm, metrics.softmax(read)),
        "unknown": float(sound.mean()),
        "unknown_kinds": {str(k): float(sound[kinds == k].mean()) for k in np.unique(kinds)},
    }


def latency(student: Student, seconds: float = 3.0, rounds: int = 40) -> Report:
    """Milliseconds for one clip on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wave = np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        scoring.logits(student, [wave.astype(np.float32)])
        times.append(1000 * (time.perf_counter() - start))
    torch.set_num_threads(threads)
    return {"median_ms": float(np.median(times)), "least_ms": min(times)}


def decode(path: Path) -> Wave:
    """Read any container that FFmpeg knows as mono at 16 kHz."""
    with av.open(str(path), "r") as source:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        frames = [*source.decode(audio=0), None]
        blocks = [block.to_ndarray()[0] for frame in frames for block in resampler.resample(frame)]
    return np.concatenate(blocks)


def clip_report(student: Student, folder: Path) -> list[Report]:
    """The answers about each clip of a folder with ``MANIFEST.tsv``: evaluation only."""
    with (folder / "MANIFEST.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    probabilities = metrics.softmax(
        scoring.logits(student, [decode(folder / row["file"]) for row in rows])
    )
    return [answer(row["file"], p) for row, p in zip(rows, probabilities, strict=True)]


def answer(name: str, probabilities: Sequence[float]) -> Report:
    """The two likeliest labels of one clip."""
    first, second = np.argsort(probabilities)[::-1][:2]
    return {
        "file": name,
        "answer": _shown(first),
        "confidence": float(probabilities[first]),
        "second": _shown(second),
        "second_confidence": float(probabilities[second]),
    }


def _shown(label: int) -> str:
    return "unknown" if label == UNKNOWN else NAMES[label]


def everything(crossval: CrossValidation, student: Student, folder: Path | None) -> Report:
    return {
        "leave_one_speaker_out": recall_report(crossval),
        "conditions": condition_report(crossval),
        "calibration": calibration_report(crossval),
        "folds": side_report(crossval),
        "shipped": shipped_report(crossval, student),
        "latency": latency(student),
        "parameters": sum(p.numel() for p in student.parameters()),
        "clips": clip_report(student, folder) if folder else [],
    }
