"""Daily reconciliation (对总账、对明细账) of a party's own book with its platform's.

The platform compares; here are the totals, and the loop that sends entries page by page once the
totals turned out to differ. Nothing is put right: a difference is for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from rxoutflow.client.evidence import require
from rxoutflow.errors import InvalidInput
from rxoutflow.v1.clearing_pb2 import (
    DayBook,
    DayComparison,
    DayDifference,
    DayTotals,
    EntryPage,
    LedgerEntry,
)

PAGE = 1000
"""Entries to a call; the contract allows no more."""

_AMOUNTS = ("total_fen", "pool_fen", "account_fen", "family_fen", "cash_fen")


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What came of a day. *Here* is this party, *there* the platform."""

    here: tuple[DayTotals, ...]
    there: tuple[DayTotals, ...]
    differences: tuple[DayDifference, ...]

    @property
    def agreed(self) -> bool:
        """Whether both books say the same."""
        return not self.differences and _by_mode(self.here) == _by_mode(self.there)


def reconcile(
    day: date, entries: Iterable[LedgerEntry], call: Callable[[DayBook], DayComparison]
) -> Reconciled:
    """Compare a day's entries, given in any order.

    Raises:
        InvalidInput: an entry occurs twice, or its amounts do not add up.
        AnswerUntrusted: the platform's answers lead nowhere.
    """
    book = sorted(entries, key=_key)
    _check(book)
    here = totals(book)
    comparison = call(DayBook(day=day.isoformat(), totals=here))
    there = tuple(comparison.totals)
    if comparison.agree:
        return Reconciled(here, there, ())
    return Reconciled(here, there, tuple(_differences(day, book, call)))


def totals(entries: Iterable[LedgerEntry]) -> tuple[DayTotals, ...]:
    """The sums of each mode that occurs: postings less reversals."""
    sums: dict[int, DayTotals] = {}
    for entry in entries:
        sum_ = sums.setdefault(entry.mode, DayTotals(mode=entry.mode))
        sign = -1 if entry.movement == LedgerEntry.MOVEMENT_REVERSAL else 1
        sum_.count += 1
        for name in _AMOUNTS:
            setattr(sum_, name, getattr(sum_, name) + sign * getattr(entry, name))
    return tuple(sums[mode] for mode in sorted(sums))


def _differences(
    day: date, book: Sequence[LedgerEntry], call: Callable[[DayBook], DayComparison]
) -> list[DayDifference]:
    found: list[DayDifference] = []
    after, more = "", True
    while more:
        rest = [entry for entry in book if entry.settlement_id > after]
        page = EntryPage(after_settlement_id=after, entries=rest[:PAGE], last=len(rest) <= PAGE)
        comparison = call(DayBook(day=day.isoformat(), page=page))
        found.extend(comparison.differences)
        more = bool(comparison.compared_through)
        require(
            not more or comparison.compared_through > after,
            "the platform compares without getting anywhere",
        )
        after = comparison.compared_through
    return found


def _check(book: Sequence[LedgerEntry]) -> None:
    for before, entry in zip([None, *book], book, strict=False):
        if before is not None and _key(before) == _key(entry):
            raise InvalidInput(f"settlement {entry.settlement_id}: is in the book twice")
        parts = (entry.pool_fen, entry.account_fen, entry.family_fen, entry.cash_fen)
        if entry.total_fen != sum(parts) or min(parts) < 0:
            raise InvalidInput(f"settlement {entry.settlement_id}: its amounts do not add up")


def _key(entry: LedgerEntry) -> tuple[str, int, str]:
    return entry.settlement_id, entry.movement, entry.reversal_id


def _by_mode(sums: Iterable[DayTotals]) -> dict[int, DayTotals]:
    return {each.mode: each for each in sums if each.count}
