"""The access log, as it is printed."""

import asyncio
import io
import json

import pytest

from server.telemetry import CallReport
from server.telemetry.later import PAUSE
from server.telemetry.logs import Lines, configure, log_call


def report(code: str = "OK", **fields) -> CallReport:
    return CallReport(
        method="speechemotion.v1.EmotionService/Analyze",
        code=code,
        request_id="mine",
        peer="ipv4:127.0.0.1:5",
        ended_at=1_700_000_000.25,
        seconds=0.0123,
        audio_seconds=1.5,
        **{"reason": "", **fields},
    )


@pytest.fixture
def printed(capsys):
    """Logs a report and returns the line as JSON."""

    def log(level: str, one: CallReport) -> dict | None:
        configure(level=level, style="json")
        log_call(one)
        line = capsys.readouterr().err
        return json.loads(line) if line else None

    return log


def test_a_call_is_one_line_with_its_id_code_and_times(printed):
    line = printed("info", report())

    assert line == {
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "event": "call",
        "level": "info",
        "method": "Analyze",
        "code": "OK",
        "request_id": "mine",
        "peer": "ipv4:127.0.0.1:5",
        "ms": 12.3,
        "audio_ms": 1500,
    }


def test_a_refused_call_is_a_warning_with_its_reason(printed):
    line = printed("info", report("INVALID_ARGUMENT", reason="AUDIO_EMPTY"))

    assert (line["level"], line["reason"]) == ("warning", "AUDIO_EMPTY")


def test_an_unforeseen_failure_has_its_id_and_its_cause(printed):
    line = printed("error", report("INTERNAL", error_id="f00", cause=ZeroDivisionError("why")))

    assert (line["level"], line["error_id"]) == ("error", "f00")
    assert "ZeroDivisionError: why" in line["exception"]


def test_below_the_level_nothing_is_printed(printed):
    assert printed("warning", report()) is None


def test_a_traceback_on_a_terminal_shows_no_local_variables(capsys):
    def fail(audio: str) -> None:
        raise ZeroDivisionError("why" if audio else "")

    configure(level="info", style="console")
    try:
        fail(audio="very private")
    except ZeroDivisionError as error:
        log_call(report("INTERNAL", error_id="f00", cause=error))

    printed = capsys.readouterr().err
    assert "why" in printed
    assert "very private" not in printed.replace('fail(audio="very private")', "")


async def test_inside_a_loop_lines_are_written_together_and_none_is_lost():
    stream = io.StringIO()
    lines = Lines(stream)

    for text in ("one\n", "two\n"):
        lines.write(text)
        lines.flush()
    before = stream.getvalue()
    await asyncio.sleep(2 * PAUSE)

    assert (before, stream.getvalue()) == ("", "one\ntwo\n")


def test_text_that_is_not_unicode_is_logged_all_the_same(printed):
    line = printed("info", report(client="caf\udce9"))

    assert line["client"] == "caf\udce9"
