"""Entries: what a settlement moved, on which day, as the two parties to it each write it down.

A book is a list of entries about one counterpart: what this region owes another one, what another
one owes it, or what one of its pharmacies sold. Both parties derive an entry from the same signed
statement, so their books agree unless something was lost or altered. Entries are only ever added:
a reversal is an entry of its own, on its own day, and never changes the one that it takes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import TypeAlias

from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.domain.settlement import Amounts

EntryKey: TypeAlias = tuple[str, str, str]
"""Settlement, movement and reversal: unique within a book, and the order of a day's entries."""

_LAST_MOVEMENT = "\U0010ffff"

AMOUNTS = ("total_fen", "pool_fen", "account_fen", "family_fen", "cash_fen")
"""The amounts of an entry; the first is the sum of the others."""


class Book(StrEnum):
    """Which list of entries."""

    PAYABLE = "payable"
    """What this region owes a dispensing region, as the payer (应付)."""
    RECEIVABLE = "receivable"
    """What a payer region owes this one for its pharmacies (应收)."""
    SALES = "sales"
    """What a pharmacy of this region handed over, whoever pays."""


class Mode(StrEnum):
    """How a settlement is paid."""

    INSURANCE = "insurance"
    SELF_PAY = "self_pay"


class Movement(StrEnum):
    """In which direction an entry moves money. The names sort in the order of events."""

    POSTING = "posting"
    REVERSAL = "reversal"

    @property
    def sign(self) -> int:
        """What the amounts count as in sums."""
        return 1 if self is Movement.POSTING else -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of money. Amounts are in fen and never negative; the movement has the sign.

    ``posted_day`` is the day on which the settlement was posted: of a posting its own day, of a
    reversal that day or an earlier one.

    Raises:
        InvariantBroken: the parts do not add up to the total, or the days contradict each other.
    """

    day: date
    settlement_id: str
    movement: Movement
    prescription_number: str
    pharmacy_code: str
    mode: Mode
    total_fen: int
    pool_fen: int
    account_fen: int
    family_fen: int
    cash_fen: int
    posted_day: date
    reversal_id: str = ""

    def __post_init__(self) -> None:
        parts = (self.pool_fen, self.account_fen, self.family_fen, self.cash_fen)
        if self.total_fen != sum(parts) or min(parts) < 0:
            raise InvariantBroken(f"the parts of settlement {self.settlement_id} are not its total")
        early = self.day < self.posted_day
        if early or (self.movement is Movement.POSTING and self.day != self.posted_day):
            raise InvariantBroken(f"settlement {self.settlement_id} moves before it was posted")

    @property
    def key(self) -> EntryKey:
        """Its place among the entries of its day."""
        return self.settlement_id, self.movement, self.reversal_id

    @property
    def owed_fen(self) -> int:
        """What the payer owes the dispensing region by this entry: fund and accounts, signed."""
        return self.movement.sign * (self.pool_fen + self.account_fen + self.family_fen)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over entries of one mode: postings less reversals; ``count`` counts both."""

    mode: Mode
    count: int = 0
    total_fen: int = 0
    pool_fen: int = 0
    account_fen: int = 0
    family_fen: int = 0
    cash_fen: int = 0

    def plus(self, entry: Entry) -> Totals:
        """The sums with one entry more."""
        sign = entry.movement.sign
        return Totals(
            self.mode,
            self.count + 1,
            self.total_fen + sign * entry.total_fen,
            self.pool_fen + sign * entry.pool_fen,
            self.account_fen + sign * entry.account_fen,
            self.family_fen + sign * entry.family_fen,
            self.cash_fen + sign * entry.cash_fen,
        )


def after_settlement(settlement_id: str) -> EntryKey:
    """The place behind all entries of a settlement; of the empty id: before all entries."""
    return (settlement_id, _LAST_MOVEMENT, "") if settlement_id else ("", "", "")


def reversal_of(posting: Entry, reversal_id: str, back: Amounts, day: date) -> Entry:
    """The entry that takes back what a reversal gave back of a posting, in part or in whole.

    Raises:
        InvariantBroken: it is before the posting.
    """
    return replace(
        posting,
        day=day,
        movement=Movement.REVERSAL,
        reversal_id=reversal_id,
        total_fen=back.total_fen,
        pool_fen=back.pool_fen,
        account_fen=back.account_fen,
        family_fen=back.family_fen,
        cash_fen=back.cash_fen,
    )


def totals(entries: Iterable[Entry]) -> tuple[Totals, ...]:
    """The sums of each mode that occurs, in the order of the modes."""
    sums: dict[Mode, Totals] = {}
    for entry in entries:
        sums[entry.mode] = sums.get(entry.mode, Totals(entry.mode)).plus(entry)
    return tuple(sums[mode] for mode in Mode if mode in sums)
