"""Structured logs: one line for each call, with its request id, never with its audio."""

import atexit
import json
import logging
import sys
import time
from functools import cache, lru_cache
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict

from server.telemetry import CallReport
from server.telemetry.later import Later

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FINE = frozenset({"OK", "CANCELLED"})


_CALLS = Later()
atexit.register(_CALLS.now)


class Lines:
    """A stream for one process: inside an event loop lines are written a few at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: list[str] = []
        self._later = Later()
        atexit.register(self._write_out)

    def write(self, text: str) -> None:
        self._waiting.append(text)

    def flush(self) -> None:
        """Called after each line."""
        self._later.add(Lines._write_out, self)

    def _write_out(self) -> None:
        lines, self._waiting = self._waiting, []
        if lines and not self._stream.closed:
            self._stream.write("".join(lines))
            self._stream.flush()


def configure(*, level: str, style: str) -> None:
    """Sends the logs to stderr; `style` is "console", "json" or "auto" (console on a terminal)."""
    _CALLS.now()
    on_terminal = style == "console" or (style == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            _calls_first,
            structlog.processors.add_log_level,
            _stamp,
            *(_console() if on_terminal else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(Lines(sys.stderr)),  # type: ignore[arg-type]  # a part of TextIO
        cache_logger_on_first_use=False,
    )
    _logger.cache_clear()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")


def log_call(report: CallReport) -> None:
    """The access log: refused calls are warnings, our own faults errors with their cause."""
    _CALLS.add(_print, report)


def _print(report: CallReport) -> None:
    log = _logger()
    fields: dict[str, Any] = {
        "method": report.method.rpartition("/")[2],
        "code": report.code,
        "request_id": report.request_id,
        "peer": report.peer,
        "ms": round(1000 * report.seconds, 1),
        "audio_ms": round(1000 * report.audio_seconds),
        "timestamp": _iso(report.ended_at),
    }
    if report.client:
        fields["client"] = report.client
    if report.reason:
        fields["reason"] = report.reason
    if report.cause is not None:
        log.error("call failed", **fields, error_id=report.error_id, exc_info=report.cause)
    elif report.code in FINE:
        log.info("call", **fields)
    else:
        log.warning("call refused", **fields)


def _calls_first(_log: Any, _method: str, fields: EventDict) -> EventDict:
    """What is logged of something else comes after the calls that ended before it."""
    _CALLS.now()
    return fields


@cache
def _logger() -> Any:
    """Made once: a logger for each line would cost as much as the line."""
    return structlog.get_logger().bind()


def _console() -> list[Any]:
    # The plain formatter: the default one prints local variables, and those hold audio.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _json() -> list[Any]:
    return [structlog.processors.format_exc_info, _encode]


def _encode(_log: Any, _method: str, fields: EventDict) -> str:
    # Strings from outside are valid UTF-8, but for paths.
    try:
        return orjson.dumps(fields, default=repr).decode()
    except TypeError:
        return json.dumps(fields, default=repr)


def _stamp(_log: Any, _method: str, fields: EventDict) -> EventDict:
    if "timestamp" not in fields:
        fields["timestamp"] = _iso(time.time())
    return fields


def _iso(now: float) -> str:
    """As structlog's TimeStamper(fmt="iso", utc=True), which costs four times as much."""
    return f"{_second(int(now))}.{int(now % 1 * 1e6):06d}Z"


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
