"""Structured logs: one line for each call, with its request id, never with its audio."""

import logging
import sys
from typing import Any

import structlog

from server.telemetry import CallReport

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FINE = frozenset({"OK", "CANCELLED"})


def configure(*, level: str, style: str) -> None:
    """Sends the logs to stderr; `style` is "console", "json" or "auto" (console on a terminal)."""
    on_terminal = style == "console" or (style == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_console() if on_terminal else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")


def log_call(report: CallReport) -> None:
    """The access log: refused calls are warnings, our own faults errors with their cause."""
    log = structlog.get_logger()
    fields: dict[str, Any] = {
        "method": report.method.rpartition("/")[2],
        "code": report.code,
        "request_id": report.request_id,
        "peer": report.peer,
        "ms": round(1000 * report.seconds, 1),
        "audio_ms": round(1000 * report.audio_seconds),
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


def _console() -> list[Any]:
    # The plain formatter: the default one prints local variables, and those hold audio.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _json() -> list[Any]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
