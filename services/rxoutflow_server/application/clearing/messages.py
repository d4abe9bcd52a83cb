"""Between the messages of reconciliation and clearing and the values of the domain."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from rxoutflow.v1 import clearing_pb2, settlement_pb2
from rxoutflow_server.application.messages import SETTLEMENT_STATES
from rxoutflow_server.application.validation import invalid
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.domain.ledger import Entry, Mode, Movement, Totals
from rxoutflow_server.domain.reconciliation import Difference, DifferenceKind

_MODES = {
    Mode.INSURANCE: settlement_pb2.SETTLEMENT_MODE_INSURANCE,
    Mode.SELF_PAY: settlement_pb2.SETTLEMENT_MODE_SELF_PAY,
}
_MOVEMENTS = {
    Movement.POSTING: clearing_pb2.LedgerEntry.MOVEMENT_POSTING,
    Movement.REVERSAL: clearing_pb2.LedgerEntry.MOVEMENT_REVERSAL,
}
_KINDS = {
    DifferenceKind.MISSING_HERE: clearing_pb2.DayDifference.KIND_MISSING_HERE,
    DifferenceKind.MISSING_THERE: clearing_pb2.DayDifference.KIND_MISSING_THERE,
    DifferenceKind.AMOUNT_DIFFERS: clearing_pb2.DayDifference.KIND_AMOUNT_DIFFERS,
    DifferenceKind.MODE_DIFFERS: clearing_pb2.DayDifference.KIND_MODE_DIFFERS,
    DifferenceKind.STATE_DIFFERS: clearing_pb2.DayDifference.KIND_STATE_DIFFERS,
    DifferenceKind.DAY_DIFFERS: clearing_pb2.DayDifference.KIND_DAY_DIFFERS,
}
_MODE_OF = {value: key for key, value in _MODES.items()}
_MOVEMENT_OF = {value: key for key, value in _MOVEMENTS.items()}


def day_of(text: str, field: str) -> date:
    """A day from the wire.

    Raises:
        Refusal: FIELD_INVALID.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise invalid(field, "must be a day as YYYY-MM-DD") from None
    if day.isoformat() != text or not 2000 <= day.year < 9999:
        raise invalid(field, "must be a day as YYYY-MM-DD")
    return day


def totals_message(totals: Totals) -> clearing_pb2.DayTotals:
    """Sums on the wire."""
    return clearing_pb2.DayTotals(
        mode=_MODES[totals.mode],
        count=totals.count,
        total_fen=totals.total_fen,
        pool_fen=totals.pool_fen,
        account_fen=totals.account_fen,
        family_fen=totals.family_fen,
        cash_fen=totals.cash_fen,
    )


def totals_of(messages: Iterable[clearing_pb2.DayTotals], field: str) -> tuple[Totals, ...]:
    """Sums from the wire.

    Raises:
        Refusal: FIELD_INVALID if a mode is unknown or occurs twice.
    """
    found = tuple(_totals(message, field) for message in messages)
    if len({each.mode for each in found}) != len(found):
        raise invalid(field, "must have each mode once")
    return found


def entry_message(entry: Entry) -> clearing_pb2.LedgerEntry:
    """An entry on the wire."""
    return clearing_pb2.LedgerEntry(
        settlement_id=entry.settlement_id,
        movement=_MOVEMENTS[entry.movement],
        reversal_id=entry.reversal_id,
        prescription_number=entry.prescription_number,
        mode=_MODES[entry.mode],
        total_fen=entry.total_fen,
        pool_fen=entry.pool_fen,
        account_fen=entry.account_fen,
        family_fen=entry.family_fen,
        cash_fen=entry.cash_fen,
    )


def entries_of(messages: Iterable[clearing_pb2.LedgerEntry], day: date, field: str) -> list[Entry]:
    """Entries of a day from the wire.

    Raises:
        Refusal: FIELD_INVALID if an enum is unknown, or amounts do not add up.
    """
    return [_entry(message, day, f"{field}[{index}]") for index, message in enumerate(messages)]


def difference_message(difference: Difference) -> clearing_pb2.DayDifference:
    """A difference on the wire."""
    here, there = difference.here_state, difference.there_state
    unset = settlement_pb2.Settlement.STATE_UNSPECIFIED
    return clearing_pb2.DayDifference(
        kind=_KINDS[difference.kind],
        settlement_id=difference.settlement_id,
        movement=_MOVEMENTS[difference.movement],
        reversal_id=difference.reversal_id,
        prescription_number=difference.prescription_number,
        amounts=[
            clearing_pb2.DayDifference.AmountDifference(
                field=each.field, here_fen=each.here_fen, there_fen=each.there_fen
            )
            for each in difference.amounts
        ],
        here_state=SETTLEMENT_STATES[here] if here is not None else unset,
        there_state=SETTLEMENT_STATES[there] if there is not None else unset,
        there_day=difference.there_day.isoformat() if difference.there_day is not None else "",
    )


def _totals(message: clearing_pb2.DayTotals, field: str) -> Totals:
    mode = _MODE_OF.get(message.mode)
    if mode is None:
        raise invalid(f"{field}.mode", "is not known")
    return Totals(
        mode,
        message.count,
        message.total_fen,
        message.pool_fen,
        message.account_fen,
        message.family_fen,
        message.cash_fen,
    )


def _entry(message: clearing_pb2.LedgerEntry, day: date, field: str) -> Entry:
    mode, movement = _MODE_OF.get(message.mode), _MOVEMENT_OF.get(message.movement)
    if mode is None or movement is None:
        raise invalid(field, "its mode or movement is not known")
    try:
        return Entry(
            day=day,
            settlement_id=message.settlement_id,
            movement=movement,
            prescription_number=message.prescription_number,
            pharmacy_code="",
            mode=mode,
            total_fen=message.total_fen,
            pool_fen=message.pool_fen,
            account_fen=message.account_fen,
            family_fen=message.family_fen,
            cash_fen=message.cash_fen,
            posted_day=day,
            reversal_id=message.reversal_id,
        )
    except InvariantBroken:
        raise invalid(field, "its amounts must be at least 0 and add up to total_fen") from None
