"""Outcomes for machines: one JSON object a file, or CSV. Everything goes to stdout as it is."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from speech_emotion_client.errors import SpeechEmotionError
from speech_emotion_client.outcome import ItemError, Outcome
from speech_emotion_client.result import Analysis, Frames

Record = Mapping[str, Any]


def to_json(name: str, outcome: Outcome, saved: Mapping[str, Path]) -> str:
    body = error_record(outcome.error) if outcome.error else analysis_record(outcome.unwrap())
    files = {key: str(path) for key, path in saved.items()}
    return dumps({"file": name} | body | files)


def dumps(record: Record, indent: int | None = None) -> str:
    """JSON, which has no NaN and no infinity: both become null."""
    text = json.dumps(record, ensure_ascii=False, indent=indent)
    finite = json.loads(text, parse_constant=lambda _: None)
    return json.dumps(finite, ensure_ascii=False, indent=indent)


def analysis_record(analysis: Analysis) -> dict[str, Any]:
    """Times in seconds unless the name says otherwise."""
    audio, provenance = analysis.audio, analysis.provenance
    when = provenance.compute_time
    return {
        "emotion": analysis.emotion,
        "confidence": _short(analysis.confidence),
        "scores": {label: _short(score) for label, score in analysis.scores.items()},
        "frames": None if analysis.frames is None else _frames_record(analysis.frames),
        "audio": {name: getattr(audio, name) for name in audio.__slots__},
        "warnings": [{"code": w.code, "message": w.message} for w in analysis.warnings],
        "timing": {name: round(getattr(analysis.timing, name), 3) for name in TIMING},
        "provenance": {
            **{name: getattr(provenance, name) for name in provenance.__slots__},
            "compute_time": when and when.isoformat(),
        },
        "request_id": analysis.request_id,
        **(segmentation_record(analysis) if analysis.segmentation else {}),
    }


def segmentation_record(analysis: Analysis) -> dict[str, Any]:
    """How a recording was cut, and what came of it; times in seconds."""
    spans = [
        {"start": s.start, "end": s.end, "emotion": s.emotion, "confidence": _short(s.confidence)}
        for s in analysis.timeline
    ]
    return {"segmentation": analysis.segmentation, "timeline": spans}


TIMING = ("queue_ms", "decode_ms", "preprocess_ms", "inference_ms", "total_ms")


def _frames_record(frames: Frames) -> dict[str, Any]:
    return {
        "labels": frames.labels,
        "times": [round(time, 4) for time in frames.times.tolist()],
        "scores": [[_short(score) for score in row] for row in frames.scores.tolist()],
    }


def error_record(error: ItemError) -> dict[str, Any]:
    if not isinstance(error, SpeechEmotionError):
        return {"error": {"type": "Unreadable", "message": error.strerror or str(error)}}
    names = ("code", "reason", "field", "metadata", "retry_after", "request_id")
    about = {name: getattr(error, name) for name in names}
    return {"error": {"type": type(error).__name__, "message": str(error)} | about}


def _short(number: float) -> float:
    """Six decimals: a float32 has no more to say about a score."""
    return round(number, 6)


def csv_rows(name: str, outcome: Outcome) -> list[Record]:
    """One row, or one for each frame if there are frames."""
    if outcome.error is not None:
        return [{"file": name, "error": str(outcome.error)}]
    analysis = outcome.unwrap()
    if analysis.frames is not None:
        return _frame_rows(name, analysis.frames)
    about = {
        "emotion": analysis.emotion,
        "confidence": _short(analysis.confidence),
        "duration_s": analysis.audio.duration,
        "model": analysis.provenance.model,
        "total_ms": round(analysis.timing.total_ms, 3),
        "request_id": analysis.request_id,
        "error": "",
    }
    if analysis.segmentation:
        about["segmentation"] = analysis.segmentation
    # By name: the order of the columns must not depend on which file came first.
    scores = {label: _short(analysis.scores[label]) for label in sorted(analysis.scores)}
    return [{"file": name} | about | scores]


def _frame_rows(name: str, frames: Frames) -> list[Record]:
    return [
        {"file": name, "time_s": round(time, 4), "emotion": emotion, "error": ""}
        | {label: _short(score) for label, score in zip(frames.labels, row, strict=True)}
        for time, emotion, row in zip(
            frames.times.tolist(), frames.emotions, frames.scores.tolist(), strict=True
        )
    ]


def write_csv(rows: Iterable[Record], out: TextIO) -> None:
    """All columns that any row has; a failed file leaves them empty but for `error`."""
    rows = list(rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    # A failed file may come first, and has fewer columns.
    ordered = sorted(columns, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    writer = csv.DictWriter(out, ordered, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


FIRST = (
    "file",
    "time_s",
    "emotion",
    "confidence",
    "duration_s",
    "model",
    "total_ms",
    "request_id",
    "error",
    "segmentation",
)
