"""A pharmacy's day through the client library, answered by the platform's own comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from rxoutflow.client.reconciling import PAGE, reconcile, totals
from rxoutflow.errors import AnswerUntrusted, InvalidInput
from rxoutflow.v1.clearing_pb2 import DayBook, DayComparison, DayDifference, LedgerEntry
from rxoutflow.v1.pharmacy_service_pb2 import PharmacyServiceReconcileDayRequest
from rxoutflow_server.application.clearing.books import PAGE as SERVER_PAGE
from rxoutflow_server.application.clearing.messages import entry_message, totals_message
from rxoutflow_server.application.clearing.reconciling import answer_pharmacy
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain import ledger
from rxoutflow_server.domain.ledger import Book, Entry, Mode
from rxoutflow_server.storage.memory import MemoryStore
from support.ledgers import DAY, posting, reversal
from support.sheets import Cast

PHARMACY = Cast.create("350500").pharmacy


@dataclass
class Desk:
    """A platform with a pharmacy's sales, and what it was asked."""

    asked: list[DayBook] = field(default_factory=list)
    store: MemoryStore[Transaction] = field(default_factory=lambda: MemoryStore.open("platform"))

    async def sold(self, *entries: Entry) -> None:
        for entry in entries:
            await self.store.transact(
                lambda tx, entry=entry: tx.clearing.add_entry(  # type: ignore[misc] # mypy cannot infer a lambda with a default
                    Book.SALES, PHARMACY.institution_code, entry
                )
            )

    def __call__(self, book: DayBook) -> DayComparison:
        self.asked.append(book)
        request = PharmacyServiceReconcileDayRequest(book=book)
        return answer_pharmacy(self.store._tables, PHARMACY, request).comparison


@pytest.fixture
def desk() -> Desk:
    return Desk()


def messages(*entries: Entry) -> list[LedgerEntry]:
    return [entry_message(entry) for entry in entries]


async def test_books_that_agree_send_totals_only(desk: Desk) -> None:
    await desk.sold(posting("S1"), posting("S2"))
    found = reconcile(DAY, reversed(messages(posting("S1"), posting("S2"))), desk)
    assert found.agreed
    assert [len(book.page.entries) for book in desk.asked] == [0]


async def test_a_day_without_sales_agrees_with_none(desk: Desk) -> None:
    assert reconcile(DAY, [], desk).agreed


async def test_many_sales_are_compared_page_by_page(desk: Desk) -> None:
    assert PAGE == SERVER_PAGE
    sales = [posting(f"S{index:05}") for index in range(2 * PAGE + 500)]
    await desk.sold(*(sales[:7] + sales[8:]))
    book = messages(*(sales[:-1]))
    book[1500].cash_fen += 1
    book[1500].total_fen += 1
    found = reconcile(DAY, book, desk)
    assert not found.agreed
    kinds = [(each.settlement_id, each.kind) for each in found.differences]
    assert kinds == [
        ("S00007", DayDifference.KIND_MISSING_THERE),
        ("S01500", DayDifference.KIND_AMOUNT_DIFFERS),
        ("S02499", DayDifference.KIND_MISSING_HERE),
    ]
    assert max(len(each.page.entries) for each in desk.asked) == PAGE


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda book: book.append(book[0]), "S1: is in the book twice"),
        (lambda book: setattr(book[0], "cash_fen", 1), "S1: its amounts do not add up"),
        (lambda book: setattr(book[0], "cash_fen", -1), "S1: its amounts do not add up"),
    ],
)
def test_a_book_that_cannot_be_is_not_sent(
    desk: Desk, spoil: Callable[[list[LedgerEntry]], None], problem: str
) -> None:
    book = messages(posting("S1"))
    spoil(book)
    with pytest.raises(InvalidInput, match=problem):
        reconcile(DAY, book, desk)
    assert desk.asked == []


def test_a_platform_that_leads_in_circles_is_not_followed() -> None:
    answer = DayComparison(compared_through="S1")
    with pytest.raises(AnswerUntrusted, match="without getting anywhere"):
        reconcile(DAY, messages(posting("S2")), lambda book: answer)


def test_both_sides_add_up_alike() -> None:
    alone = posting("S3", pool=0, account=0, family=0, mode=Mode.SELF_PAY)
    book = [posting("S1"), posting("S2"), reversal(posting("S2")), alone]
    assert totals(messages(*book)) == tuple(map(totals_message, ledger.totals(book)))
