"""Writing books: an entry for each posting, reversal and sale, in the transaction that brings it.

Payer and dispensing region derive an entry by the same function from the same signed Settlement or
Reversal, so day and amounts cannot differ between them unless a statement was lost or altered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time, timedelta

from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow_server.application.messages import amounts, instant
from rxoutflow_server.application.ports import RegionRole, Transaction
from rxoutflow_server.application.region import LOCAL_TIME
from rxoutflow_server.application.validation import mismatch
from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.ledger import Book, Entry, Mode, Movement, reversal_of
from rxoutflow_server.domain.money import half_up, line_amount_fen
from rxoutflow_server.domain.settlement import NOTHING, Amounts

PAGE = 1000
"""Entries read at once, and sent to be compared at once."""


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
    """Book the posting that a settlement's new state means. Other states move nothing."""
    if content.state == settlement_pb2.Settlement.STATE_POSTED:
        day = local_day(instant(content.update_time))
        tx.clearing.add_entry(book, counterpart, _posting(content, day))


def book_reversal(
    tx: Transaction, book: Book, counterpart: str, content: settlement_pb2.Reversal
) -> None:
    """Book what a reversal gave back, on the day on which the payer did.

    Raises:
        Refusal: EARLIER_FACT_MISSING while what it gives back is not booked as posted, or
            SIGNED_CONTENT_MISMATCH if it says that it came before that.
    """
    key = (content.settlement_id, Movement.POSTING, "")
    posting = tx.clearing.entry(book, content.prescription_number, key)
    if posting is None:
        raise Refusal(
            Reason.EARLIER_FACT_MISSING, "what is reversed was not posted here; it is on its way"
        )
    day = local_day(instant(content.reverse_time))
    if day < posting.day:
        raise mismatch("reverse_time", "is before the settlement was posted")
    entry = reversal_of(posting, content.reversal_id, amounts(content.amounts), day)
    tx.clearing.add_entry(book, counterpart, entry)


def book_returned_sale(
    tx: Transaction, dispense: Dispense, reversal_id: str, back: Amounts, day: date
) -> None:
    """Book what goes back to patient and payer for a sale, on the day on which it was returned."""
    number, pharmacy = dispense.prescription_number, dispense.pharmacy_code
    key = (dispense.settlement_id, Movement.POSTING, "")
    sale = tx.clearing.entry(Book.SALES, number, key)
    if sale is None:
        raise InvariantBroken(f"settlement {dispense.settlement_id} was handed over, but not sold")
    entry = reversal_of(sale, reversal_id, back, max(day, sale.day))
    tx.clearing.add_entry(Book.SALES, pharmacy, entry)


def book_sale(tx: Transaction, dispense: Dispense, record: dispense_pb2.DispenseRecord) -> None:
    """Book what a pharmacy handed over, with the amounts that were committed."""
    number, pharmacy = dispense.prescription_number, dispense.pharmacy_code
    day = local_day(instant(record.dispense_time))
    if dispense.insured:
        held = tx.journal.statement(number, dispense.settlement_sha256)
        content = settlement_pb2.Settlement.FromString(held.payload)
        tx.clearing.add_entry(Book.SALES, pharmacy, _posting(content, day))
        return
    total = sum(_prices(tx, dispense).values())
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


def _posting(content: settlement_pb2.Settlement, day: date) -> Entry:
    paid = content.amounts
    return Entry(
        day=day,
        settlement_id=content.settlement_id,
        movement=Movement.POSTING,
        prescription_number=content.prescription_number,
        pharmacy_code=content.pharmacy_code,
        mode=Mode.INSURANCE,
        total_fen=paid.total_fen,
        pool_fen=paid.pool_fen,
        account_fen=paid.account_fen,
        family_fen=paid.family_fen,
        cash_fen=paid.cash_fen,
        posted_day=day,
    )


def price_back(
    tx: Transaction, dispense: Dispense, before: Mapping[int, int], back: Iterable[LineQuantity]
) -> Amounts:
    """What the patient, who paid alone, gets back for lines, or parts of them: cash.

    Of each line its share of what came back so far, rounded once, less what went back before; so
    the returns of a line add up to its price.
    """
    prices = _prices(tx, dispense)
    quantities = {line.line_id: line.quantity for line in dispense.lines}
    fen = 0
    for line in back:
        price, whole = prices[line.line_id], quantities[line.line_id]
        returned = before.get(line.line_id, 0)
        fen += half_up(price * (returned + line.quantity), whole)
        fen -= half_up(price * returned, whole)
    return replace(NOTHING, total_fen=fen, own_fen=fen, person_fen=fen, cash_fen=fen)


def _prices(tx: Transaction, dispense: Dispense) -> dict[int, int]:
    """What the patient alone pays for each committed line, rounded to the fen."""
    statement = tx.journal.statement(dispense.prescription_number, dispense.commitment_sha256)
    lines = attempt_pb2.Commitment.FromString(statement.payload).lines
    return {
        line.line_id: line_amount_fen(line.quantity, line.unit_price_micro_yuan) for line in lines
    }
