"""Writing books: an entry for each posting, reversal and sale, in the transaction that brings it.

Payer and dispensing region derive an entry by the same function from the same signed Settlement, so
day and amounts cannot differ between them unless a statement was lost or altered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta

from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow_server.application.messages import instant
from rxoutflow_server.application.ports import RegionRole, Transaction
from rxoutflow_server.application.region import LOCAL_TIME
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import Book, Entry, Mode, Movement
from rxoutflow_server.domain.money import line_amount_fen

PAGE = 1000
"""Entries read at once, and sent to be compared at once."""

_MOVEMENTS = {
    settlement_pb2.Settlement.STATE_POSTED: Movement.POSTING,
    settlement_pb2.Settlement.STATE_REVERSED: Movement.REVERSAL,
}


def local_day(moment: datetime) -> date:
    """The local day of a time."""
    return moment.astimezone(LOCAL_TIME).date()


def begin_of(period: Period) -> datetime:
    """The first moment of a period."""
    return datetime.combine(period.first_day, time(), LOCAL_TIME)


def posting_time(tx: Transaction, dispensing_region_code: str, now: datetime) -> datetime:
    """When a settlement is posted that is posted now: never in a period that was stated already.

    Only a clock that was set back could do that; the posting then falls on the first moment of the
    next period, so that no fen is posted into a list that is closed.
    """
    stated = tx.clearing.last_cleared(RegionRole.PAYER, dispensing_region_code)
    return now if stated is None else max(now, begin_of(stated.next))


def book_settlement(
    tx: Transaction, book: Book, counterpart: str, content: settlement_pb2.Settlement
) -> None:
    """Book the posting or reversal that a settlement's new state means. Others move nothing.

    Raises:
        Refusal: SETTLEMENT_NOT_FOUND for a reversal of what was never posted here.
    """
    movement = _MOVEMENTS.get(content.state)
    if movement is None:
        return
    entry = _entry(content, movement, local_day(instant(content.update_time)))
    if movement is Movement.REVERSAL:
        posting = tx.clearing.entry(
            book, entry.prescription_number, (entry.settlement_id, Movement.POSTING, "")
        )
        if posting is None:
            raise Refusal(Reason.SETTLEMENT_NOT_FOUND, "what is reversed was never posted here")
        entry = replace(entry, posted_day=posting.day)
    tx.clearing.add_entry(book, counterpart, entry)


def book_sale(tx: Transaction, dispense: Dispense, record: dispense_pb2.DispenseRecord) -> None:
    """Book what a pharmacy handed over, with the amounts that were committed."""
    number, pharmacy = dispense.prescription_number, dispense.pharmacy_code
    day = local_day(instant(record.dispense_time))
    if dispense.insured:
        held = tx.journal.statement(number, dispense.settlement_sha256)
        content = settlement_pb2.Settlement.FromString(held.payload)
        tx.clearing.add_entry(Book.SALES, pharmacy, _entry(content, Movement.POSTING, day))
        return
    total = _price(tx, dispense)
    tx.clearing.add_entry(
        Book.SALES,
        pharmacy,
        Entry(
            day=day,
            settlement_id=dispense.settlement_id,
            movement=Movement.POSTING,
            prescription_number=number,
            pharmacy_code=pharmacy,
            mode=Mode.SELF_PAY,
            total_fen=total,
            pool_fen=0,
            account_fen=0,
            family_fen=0,
            cash_fen=total,
            posted_day=day,
        ),
    )


def entries_of_day(tx: Transaction, book: Book, counterpart: str, day: date) -> Iterator[Entry]:
    """The entries of a day, in order; a page at a time in memory."""
    return entries_between(tx, book, counterpart, day, day + timedelta(days=1))


def entries_between(
    tx: Transaction, book: Book, counterpart: str, begin: date, end: date
) -> Iterator[Entry]:
    """The entries from a day up to, not including, another one; a page at a time in memory."""
    after = ("", "", "")
    while page := tx.clearing.entries(book, counterpart, begin, end, after, PAGE):
        yield from page
        begin, after = page[-1].day, page[-1].key


def _entry(content: settlement_pb2.Settlement, movement: Movement, day: date) -> Entry:
    amounts = content.amounts
    return Entry(
        day=day,
        settlement_id=content.settlement_id,
        movement=movement,
        prescription_number=content.prescription_number,
        pharmacy_code=content.pharmacy_code,
        mode=Mode.INSURANCE,
        total_fen=amounts.total_fen,
        pool_fen=amounts.pool_fen,
        account_fen=amounts.account_fen,
        family_fen=amounts.family_fen,
        cash_fen=amounts.cash_fen,
        posted_day=day,
    )


def _price(tx: Transaction, dispense: Dispense) -> int:
    """What the patient alone pays: the committed lines, each rounded to the fen."""
    statement = tx.journal.statement(dispense.prescription_number, dispense.commitment_sha256)
    lines = attempt_pb2.Commitment.FromString(statement.payload).lines
    return sum(line_amount_fen(line.quantity, line.unit_price_micro_yuan) for line in lines)
