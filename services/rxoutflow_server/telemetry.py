"""Logs: one JSON object a line, with known keys and plain values only.

:func:`configure` is called by an entry point and by nothing else; importing this module changes
nothing. Every key that may be logged is listed here with the form that its value must have. A key
that is not listed is dropped, a value of another form is replaced by ``[redacted]``, and the names
of both are listed under ``redacted``. So a patient's name cannot slip into a log by accident: no
key has a form that a Chinese name or an identity card number fits. Records of other libraries are
reduced to who spoke and how loudly.

No log line is ever built from the text of an exception.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

LEVELS: Final = ("debug", "info", "warning", "error")
"""Values of the setting ``log.level``."""

MAX_TEXT: Final = 200
"""Longest text of a value, in characters."""

REDACTED: Final = "[redacted]"

Form = Callable[[object], bool]


def _matches(pattern: str) -> Form:
    compiled = re.compile(pattern, re.ASCII)

    def fits(value: object) -> bool:
        return (
            isinstance(value, str)
            and len(value) <= MAX_TEXT
            and compiled.fullmatch(value) is not None
        )

    return fits


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def _places(value: object) -> bool:
    return isinstance(value, list | tuple) and all(_PLACE(item) for item in value)


_WORD = _matches(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_PLACE = _matches(r"[A-Za-z_<>?][A-Za-z0-9_.<>?]{0,150}:[0-9]{1,7}")
_INSTITUTION = _matches(r"[A-Z][A-Z0-9]{0,19}|[0-9]{6}")
_UUID = _matches(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_DIGEST = _matches(r"[0-9a-f]{64}")
_INCIDENT = _matches(r"[0-9a-f]{16}")
_ADDRESS = _matches(r"[A-Za-z0-9.:\[\]_-]{1,100}:[0-9]{1,5}")
_PATH = _matches(r"[A-Za-z0-9_./~+@-]{1,200}\.(pem|key|toml|csv|db|trustlist)")
_REGION = _matches(r"[0-9]{6}")

FORMS: Final[Mapping[str, Form]] = {
    "address": _ADDRESS,
    "age_seconds": _number,
    "attempt_id": _UUID,
    "attempts": _number,
    "caller": _INSTITUTION,
    "certificate_sha256": _DIGEST,
    "code": _WORD,
    "component": _WORD,
    "count": _number,
    "delay_seconds": _number,
    "duration_ms": _number,
    "event": _WORD,
    "event_id": _UUID,
    "exception": _WORD,
    "exit_code": _number,
    "file": _PATH,
    "held_sequence": _number,
    "held_size": _number,
    "incident": _INCIDENT,
    "institution": _INSTITUTION,
    "key": _matches(r"[a-z][a-z0-9_.]{0,80}"),
    "kind": _WORD,
    "level": _WORD,
    "library": _WORD,
    "method": _matches(r"/[A-Za-z0-9_.]{1,100}/[A-Za-z0-9]{1,60}"),
    "payload_type": _matches(r"[a-z]+/[a-z0-9.+-]{1,90}"),
    "peer": _REGION,
    "reason": _WORD,
    "region": _REGION,
    "remaining_seconds": _number,
    "request_id": _UUID,
    "sequence": _number,
    "settlement_id": _UUID,
    "signal": _WORD,
    "size": _number,
    "table": _WORD,
    "timestamp": _matches(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,20}Z"),
    "trace": _places,
    "version": _WORD,
}
"""Every key that may appear in a log, and the form of its value. Add keys here, no free text."""

_KEY_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send logs of this level (one of ``LEVELS``) and above to the stream, standard error if none.

    Raises:
        ValueError: there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"the log level must be one of {', '.join(LEVELS)}")
    numeric = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            _rendered,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep what is known to be harmless; name what was taken out."""
    kept: EventDict = {}
    removed: list[str] = []
    for key, value in event.items():
        form = FORMS.get(key)
        if value is None:
            continue
        if form is not None and form(value):
            kept[key] = value
            continue
        if form is not None:
            kept[key] = REDACTED
        removed.append(key if _KEY_NAME.fullmatch(key) else REDACTED)
    if removed:
        kept["redacted"] = removed
    return kept


_ENCODER = json.JSONEncoder()


def _rendered(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One line. What was kept is plain, so an encoder made once can write it."""
    return _ENCODER.encode(event)


_ANSWER_UNDELIVERED = "ExecuteBatchError"
"""What gRPC raises where a connection ended under a call that was being answered. It logs it as an
error; but a caller that went away is its own business, and it asks again when it comes back."""


class _LibraryHandler(logging.Handler):
    """Tells that a library logged something, without its text."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the library's name and level, and the type of the exception if there is one."""
        raised = record.exc_info[0] if record.exc_info else None
        exception = raised.__qualname__ if raised else None
        gone = exception == _ANSWER_UNDELIVERED
        structlog.get_logger().log(
            logging.WARNING if gone else record.levelno,
            "library",
            library=record.name,
            exception=exception,
            trace=[f"{record.module}:{record.lineno}"],
        )
