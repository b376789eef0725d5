"""Timelines for other programs: JSON, CSV, WebVTT subtitles and RTTM, as the suffix says."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from speech_emotion_client.result import Analysis, Span

from .palette import short
from .records import dumps, segmentation_record

Writer = Callable[[str, Analysis, TextIO], None]


def save(path: Path, name: str, analysis: Analysis) -> None:
    """`path` has one of the suffixes of FORMATS."""
    with path.open("w", encoding="utf-8", newline="") as out:
        FORMATS[path.suffix.lower()](name, analysis, out)


def _json(name: str, analysis: Analysis, out: TextIO) -> None:
    about = {"file": name, "emotion": analysis.emotion, "duration": analysis.audio.duration}
    record = about | {"scores": analysis.scores} | segmentation_record(analysis)
    out.write(dumps(record, indent=1) + "\n")


def _csv(name: str, analysis: Analysis, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "start_s", "end_s", "emotion", "confidence", "segmentation"])
    for span in analysis.timeline:
        confidence = round(span.confidence, 6)
        row = [name, span.start, span.end, span.emotion, confidence, analysis.segmentation]
        writer.writerow(row)


def _vtt(name: str, analysis: Analysis, out: TextIO) -> None:
    """https://www.w3.org/TR/webvtt1/"""
    title = Path(name).name.replace("-->", "->")
    out.write(f"WEBVTT\n\nNOTE {title}: emotions of {analysis.segmentation}\n")
    for span in analysis.timeline:
        cue = f"{clock(span.start)} --> {clock(span.end)}"
        out.write(f"\n{cue}\n{short(span.emotion)} ({span.confidence:.0%})\n")


def _rttm(name: str, analysis: Analysis, out: TextIO) -> None:
    """NIST Rich Transcription Time Marked, the emotion in the place of the speaker's name."""
    recording = "_".join(Path(name).stem.split()) or "-"
    out.write(f";; emotions of {analysis.segmentation}\n")
    for span in analysis.timeline:
        place = f"{span.start:.3f} {span.end - span.start:.3f}"
        who = f"<NA> <NA> {_word(span)} {span.confidence:.4f} <NA>"
        out.write(f"SPEAKER {recording} 1 {place} {who}\n")


def _word(span: Span) -> str:
    return "_".join(short(span.emotion).split())


def clock(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds."""
    whole, ms = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{ms:03}"


FORMATS: Mapping[str, Writer] = {".json": _json, ".csv": _csv, ".vtt": _vtt, ".rttm": _rttm}
