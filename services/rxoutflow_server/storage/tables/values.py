"""How times and short lists are written in columns.

Times are whole microseconds since 1970 in UTC, exact in both directions; a time without a zone is
refused. Short lists that are always read as a whole are JSON text.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.dispense import CommittedLine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

AFTER_EVERYTHING = "\U0010ffff"
"""Sorts after every number and id: the upper bound of a listing that begins with the newest."""


def micros(time: datetime) -> int:
    """Microseconds since 1970.

    Raises:
        TypeError: the time has no zone.
    """
    return (time - _EPOCH) // _MICROSECOND


def instant(microseconds: int) -> datetime:
    """The time in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def optional_micros(time: datetime | None) -> int | None:
    """Microseconds since 1970, or nothing."""
    return None if time is None else micros(time)


def optional_instant(microseconds: int | None) -> datetime | None:
    """The time in UTC, or nothing."""
    return None if microseconds is None else instant(microseconds)


def amounts_text(amounts: tuple[int, ...]) -> str:
    """Amounts in fen, in order."""
    return _text(amounts)


def amounts_of(text: str) -> tuple[int, ...]:
    """Amounts in fen, in order."""
    return tuple(json.loads(text))


def quantities_text(lines: tuple[LineQuantity, ...]) -> str:
    """Lines as ``[[line_id, quantity], …]``."""
    return _text([(line.line_id, line.quantity) for line in lines])


def quantities_of(text: str) -> tuple[LineQuantity, ...]:
    """Lines from ``[[line_id, quantity], …]``."""
    return tuple([LineQuantity(line_id, quantity) for line_id, quantity in json.loads(text)])


def committed_text(lines: tuple[CommittedLine, ...]) -> str:
    """Lines as ``[[line_id, drug_code, quantity], …]``."""
    return _text([(line.line_id, line.drug_code, line.quantity) for line in lines])


def committed_of(text: str) -> tuple[CommittedLine, ...]:
    """Lines from ``[[line_id, drug_code, quantity], …]``."""
    return tuple([CommittedLine(*line) for line in json.loads(text)])


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
