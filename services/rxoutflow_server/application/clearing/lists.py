"""The list behind a clearing statement: a CSV file that both regions write from their own books.

The contract fixes every byte of it (``clearing.proto``), so its SHA-256 in the signed statement
binds the list, and anybody can check a file with ``sha256sum``. Nothing in it needs quoting: ids,
codes, days and integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from rxoutflow_server.application.clearing.books import entries_between
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.clearing import Period, Tally
from rxoutflow_server.domain.ledger import Book, Entry

HEADER = (
    "day,settlement_id,movement,reversal_id,prescription_number,pharmacy_code,"
    "total_fen,pool_fen,account_fen,family_fen,cash_fen,posted_day\n"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A period of a book: its sums, and the digest of its list."""

    tally: Tally
    list_sha256: bytes


def lines(entries: Iterable[Entry]) -> Iterator[str]:
    """The lines of a list, with their ends, the header first."""
    yield HEADER
    for entry in entries:
        yield line(entry)


def line(entry: Entry) -> str:
    """One entry as a line of a list."""
    return (
        f"{entry.day},{entry.settlement_id},{entry.movement},{entry.reversal_id},"
        f"{entry.prescription_number},{entry.pharmacy_code},{entry.total_fen},{entry.pool_fen},"
        f"{entry.account_fen},{entry.family_fen},{entry.cash_fen},{entry.posted_day}\n"
    )


def listed(period: Period, entries: Iterable[Entry]) -> Listed:
    """Add up and digest a period's entries, which must be in order; reads them once.

    Raises:
        InvariantBroken: an entry is of another period.
    """
    tally, digest = Tally(period), sha256(HEADER.encode())
    for entry in entries:
        tally.add(entry)
        digest.update(line(entry).encode())
    return Listed(tally, digest.digest())


def listed_book(tx: Transaction, book: Book, counterpart: str, period: Period) -> Listed:
    """Add up and digest a period of a book."""
    entries = entries_between(tx, book, counterpart, period.first_day, period.end_day)
    return listed(period, entries)
