"""How times and short lists are written in columns.

Times are whole microseconds since 1970 in UTC, exact in both directions; a time without a zone is
refused. Short lists that are always read as a whole are JSON text.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.benefit import LineShare, SchemeShare
from rxoutflow_server.domain.dispense import CommittedLine
from rxoutflow_server.domain.returns import ReturnedLine
from rxoutflow_server.domain.settlement import Amounts, SettledLine

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


def optional_day_text(day: date | None) -> str | None:
    """A day as ``2026-03-02``, or nothing."""
    return None if day is None else day.isoformat()


def optional_day(text: str | None) -> date | None:
    """A day from ``2026-03-02``, or nothing."""
    return None if text is None else date.fromisoformat(text)


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


def schemes_text(schemes: tuple[SchemeShare, ...]) -> str:
    """Shares as ``[[scheme_code, [line, …], inscope, deductible, pool], …]``."""
    return _text(
        [
            (each.scheme_code, each.lines, each.inscope_fen, each.deductible_fen, each.pool_fen)
            for each in schemes
        ]
    )


def schemes_of(text: str) -> tuple[SchemeShare, ...]:
    """Shares from ``[[scheme_code, [line, …], inscope, deductible, pool], …]``."""
    return tuple([SchemeShare(code, tuple(lines), *fen) for code, lines, *fen in json.loads(text)])


def returned_text(lines: tuple[ReturnedLine, ...]) -> str:
    """Lines as ``[[line_id, quantity, [trace_code, …]], …]``."""
    return _text([(line.line_id, line.quantity, line.trace_codes) for line in lines])


def returned_of(text: str) -> tuple[ReturnedLine, ...]:
    """Lines from ``[[line_id, quantity, [trace_code, …]], …]``."""
    return tuple(
        [
            ReturnedLine(line_id, quantity, tuple(codes))
            for line_id, quantity, codes in json.loads(text)
        ]
    )


def figures_text(amounts: Amounts) -> str:
    """All amounts of a settlement or reversal by name, in fen."""
    return _text({name: getattr(amounts, name) for name in Amounts.__slots__})


def figures_of(text: str) -> Amounts:
    """All amounts of a settlement or reversal from their names."""
    return Amounts(**json.loads(text))


def settled_text(lines: tuple[SettledLine, ...]) -> str:
    """Lines with what each took, by name."""
    return _text(
        [
            {
                "line_id": line.line_id,
                "quantity": line.quantity,
                **{name: getattr(line.share, name) for name in LineShare.__slots__},
            }
            for line in lines
        ]
    )


def settled_of(text: str) -> tuple[SettledLine, ...]:
    """Lines from what each took, by name."""
    return tuple([_settled_line(each) for each in json.loads(text)])


def _settled_line(stored: dict[str, Any]) -> SettledLine:
    line_id, quantity = stored.pop("line_id"), stored.pop("quantity")
    stored["family_accounts_fen"] = tuple(stored["family_accounts_fen"])
    return SettledLine(line_id, quantity, LineShare(**stored))


# Made once: ``json.dumps`` makes an encoder for every call whose settings are not its own.
_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
