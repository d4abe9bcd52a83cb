"""Books and clearings as every store keeps them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from rxoutflow_server.application.clearing.books import entries_between
from rxoutflow_server.application.ports import Clearing, RegionRole, Store, Transaction
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.domain.ledger import Book, Entry, after_settlement
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.sqlite import SqliteStore
from rxoutflow_server.storage.sqlite.reports import reading_platform
from support.ledgers import DAY, PERIOD, posting, reversal
from support.records import NOW, statement

OTHER = "350500"
NEXT_DAY = DAY + timedelta(days=1)
STATED = Clearing(
    RegionRole.PAYER, OTHER, PERIOD, 1, statement("a month"), acceptance=None, time=NOW
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "platform.db"


async def add(store: Store, *entries: Entry, other: str = OTHER) -> None:
    def command(tx: Transaction) -> None:
        for entry in entries:
            tx.clearing.add_entry(Book.PAYABLE, other, entry)

    await store.transact(command)


async def listed(
    store: Store, begin: date, end: date, after: str = "", limit: int = 99
) -> list[Entry]:
    return list(
        await store.read(
            lambda tx: tx.clearing.entries(
                Book.PAYABLE, OTHER, begin, end, after_settlement(after), limit
            )
        )
    )


async def test_an_entry_comes_back_as_it_was(store: Store) -> None:
    entry = replace(reversal(posting(), NEXT_DAY), reversal_id="R1")
    await add(store, entry)
    assert await listed(store, NEXT_DAY, NEXT_DAY + timedelta(days=1)) == [entry]
    found = await store.read(
        lambda tx: tx.clearing.entry(Book.PAYABLE, entry.prescription_number, entry.key)
    )
    assert found == entry
    missing = await store.read(
        lambda tx: tx.clearing.entry(Book.SALES, entry.prescription_number, entry.key)
    )
    assert missing is None


async def test_an_entry_is_added_once_and_never_changed(store: Store) -> None:
    await add(store, posting(), posting(pool=1))
    assert await listed(store, DAY, NEXT_DAY) == [posting()]


async def test_entries_come_by_days_and_keys_whatever_order_they_were_added_in(
    store: Store,
) -> None:
    first, second, third = posting("S3"), posting("S1", NEXT_DAY), posting("S2", NEXT_DAY)
    taken_back = reversal(second)
    await add(store, taken_back, third, second, first)
    await add(store, posting("S0"), other="320600")
    end = NEXT_DAY + timedelta(days=1)
    assert await listed(store, DAY, end) == [first, second, taken_back, third]
    assert await listed(store, DAY, end, limit=2) == [first, second]
    assert await listed(store, DAY, end, after="S3") == [second, taken_back, third]
    assert await listed(store, NEXT_DAY, end, after="S1") == [third]
    assert await listed(store, DAY, NEXT_DAY) == [first]


async def test_a_book_is_read_whole_across_pages(store: Store) -> None:
    many = [posting(f"S{index:05}", DAY + timedelta(days=index // 900)) for index in range(2100)]
    await add(store, *many)
    end = DAY + timedelta(days=30)
    whole = await store.read(lambda tx: list(entries_between(tx, Book.PAYABLE, OTHER, DAY, end)))
    assert whole == many


async def test_counterparts_are_named_once_and_by_book(store: Store) -> None:
    await add(store, posting("S1"), posting("S2"))
    await add(store, posting("S3"), other="320600")
    assert await store.read(lambda tx: tx.clearing.counterparts(Book.PAYABLE)) == ["320600", OTHER]
    assert await store.read(lambda tx: tx.clearing.counterparts(Book.SALES)) == []


async def test_the_newest_statement_of_a_period_counts(store: Store) -> None:
    later = replace(STATED, revision=2, statement=statement("put right"))
    await store.transact(lambda tx: tx.clearing.add_clearing(STATED))
    await store.transact(lambda tx: tx.clearing.add_clearing(later))
    found = await store.read(lambda tx: tx.clearing.clearing(RegionRole.PAYER, OTHER, PERIOD))
    assert found == later
    assert await store.read(lambda tx: tx.clearing.clearings(PERIOD)) == [STATED, later]
    nobody = await store.read(lambda tx: tx.clearing.clearing(RegionRole.PAYER, "1", PERIOD))
    assert nobody is None


async def test_the_last_period_that_was_stated_is_known(store: Store) -> None:
    assert await store.read(lambda tx: tx.clearing.last_cleared(RegionRole.PAYER, OTHER)) is None
    for period in (Period(2025, 12), PERIOD, Period(2026, 1)):
        await store.transact(
            lambda tx, period=period: tx.clearing.add_clearing(replace(STATED, period=period))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        )
    assert await store.read(lambda tx: tx.clearing.last_cleared(RegionRole.PAYER, OTHER)) == PERIOD


async def test_a_statement_is_accepted_once(store: Store) -> None:
    accepted = replace(STATED, acceptance=statement("yes"))
    await store.transact(lambda tx: tx.clearing.add_clearing(STATED))
    await store.transact(lambda tx: tx.clearing.accept_clearing(accepted))
    assert await store.read(lambda tx: tx.clearing.clearings(PERIOD)) == [accepted]
    with pytest.raises(InvariantBroken):
        await store.transact(
            lambda tx: tx.clearing.accept_clearing(replace(STATED, acceptance=statement("no")))
        )
    second = replace(accepted, revision=2)
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.clearing.add_clearing(second))


async def test_a_report_reads_beside_the_service_and_cannot_write(path: Path) -> None:
    async with SqliteStore.open(path, "platform") as store:
        await report_beside(path, store)


async def report_beside(path: Path, store: Store) -> None:
    await add(store, posting())
    with reading_platform(path) as books:
        assert await books.read(lambda tx: tx.clearing.counterparts(Book.PAYABLE)) == [OTHER]
        with pytest.raises(Exception, match="readonly"):
            await books.read(lambda tx: tx.clearing.add_clearing(STATED))
        await add(store, posting("S2"))  # nobody waits for the report
        found = await books.read(
            lambda tx: tx.clearing.entries(Book.PAYABLE, OTHER, DAY, NEXT_DAY, ("", "", ""), 9)
        )
        assert len(found) == 2


async def test_a_report_reads_a_store_whose_service_is_stopped(path: Path) -> None:
    async with SqliteStore.open(path, "platform") as opened:
        await add(opened, posting())
    with reading_platform(path) as books:
        assert await books.read(lambda tx: tx.clearing.counterparts(Book.PAYABLE)) == [OTHER]


async def test_a_report_on_no_store_says_what_to_do(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"), reading_platform(path):
        pass
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but a text long enough to be taken for one" * 99)
    with pytest.raises(StoreError, match="cannot be read"), reading_platform(text):
        pass
    edge = tmp_path / "edge.db"
    async with SqliteStore.open(edge, "edge"):
        pass
    with pytest.raises(StoreError, match="of kind edge"), reading_platform(edge):
        pass
