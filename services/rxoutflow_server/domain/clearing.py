"""Periodic clearing (清算): what regions owe each other for a month, to the fen.

The payer owes the dispensing region what its pooled fund and its insured persons' accounts paid
there: postings of the period less reversals of the period. Cash never counts. An entry belongs to
the period of its own day; a reversal of a settlement that was posted in an earlier period is
therefore an *adjustment* in the period in which it happens, and a closed period never changes.

Everything here reads entries once and keeps sums only, so a period may be as large as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Self

from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.ledger import Entry, Mode, Movement, Totals

_PERIOD = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A month of local days: from its first day up to, not including, the first of the next."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The period of a text such as ``2026-11``.

        Raises:
            Refusal: FIELD_INVALID.
        """
        found = _PERIOD.fullmatch(text)
        if found is None or not 2000 <= int(found[1]) < 9999:
            raise Refusal(
                Reason.FIELD_INVALID, "period: must be a month as YYYY-MM", field="period"
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of(cls, day: date) -> Self:
        """The period of a day."""
        return cls(day.year, day.month)

    @property
    def first_day(self) -> date:
        """Its first day."""
        return date(self.year, self.month, 1)

    @property
    def end_day(self) -> date:
        """The day after its last one."""
        return self.next.first_day

    @property
    def next(self) -> Period:
        """The period after it."""
        return Period(self.year + self.month // 12, self.month % 12 + 1)

    def __contains__(self, day: date) -> bool:
        return self.first_day <= day < self.end_day

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one payer owes one dispensing region for a period; adjustments are part of it.

    Amounts are in fen, postings less reversals. ``owed_fen`` is negative where reversals exceed
    postings: then the dispensing region owes the payer.
    """

    totals: Totals
    posting_count: int
    reversal_count: int
    adjustment_count: int
    adjustment_fen: int

    @property
    def owed_fen(self) -> int:
        """Fund and accounts."""
        return self.totals.pool_fen + self.totals.account_fen + self.totals.family_fen


class Tally:
    """Adds up the entries of a period, one by one, for the period and for each of its days."""

    def __init__(self, period: Period) -> None:
        self._period = period
        self._first, self._end = period.first_day, period.end_day
        self._counts = {Movement.POSTING: 0, Movement.REVERSAL: 0}
        self._adjustment_count = 0
        self._adjustment_fen = 0
        self._days: dict[date, Totals] = {}

    def add(self, entry: Entry) -> None:
        """Count an entry.

        Raises:
            InvariantBroken: it is of another period, or one that no region pays.
        """
        if not self._first <= entry.day < self._end or entry.mode is not Mode.INSURANCE:
            raise InvariantBroken(f"settlement {entry.settlement_id} is no part of {self._period}")
        self._counts[entry.movement] += 1
        if is_adjustment(entry, self._first):
            self._adjustment_count += 1
            self._adjustment_fen += entry.owed_fen
        self._days[entry.day] = self._days.get(entry.day, _NOTHING).plus(entry)

    @property
    def days(self) -> Mapping[date, Totals]:
        """The sums of each day that has entries, in the order of the days."""
        return {day: self._days[day] for day in sorted(self._days)}

    @property
    def figures(self) -> Figures:
        """The sums of the period."""
        return Figures(
            totals=summed(self._days.values()),
            posting_count=self._counts[Movement.POSTING],
            reversal_count=self._counts[Movement.REVERSAL],
            adjustment_count=self._adjustment_count,
            adjustment_fen=self._adjustment_fen,
        )


@dataclass(frozen=True, slots=True)
class Obligation:
    """What a payer owes a dispensing region; negative the other way round."""

    payer: str
    dispensing: str
    owed_fen: int


@dataclass(frozen=True, slots=True)
class BilateralNet:
    """Two regions' obligations against each other. ``first`` sorts before ``second``."""

    first: str
    second: str
    first_owes_fen: int
    second_owes_fen: int

    @property
    def net_fen(self) -> int:
        """What the first region pays the second; negative: what it gets."""
        return self.first_owes_fen - self.second_owes_fen


_NOTHING = Totals(Mode.INSURANCE)


def is_adjustment(entry: Entry, first_day: date) -> bool:
    """Whether an entry takes back what an earlier period has cleared."""
    return entry.posted_day < first_day


def tally(period: Period, entries: Iterable[Entry]) -> Tally:
    """The sums of a period's entries.

    Raises:
        InvariantBroken: an entry is of another period.
    """
    sums = Tally(period)
    for entry in entries:
        sums.add(entry)
    return sums


def summed(parts: Iterable[Totals]) -> Totals:
    """The sum of sums."""
    whole = list(parts)
    return Totals(
        Mode.INSURANCE,
        sum(part.count for part in whole),
        sum(part.total_fen for part in whole),
        sum(part.pool_fen for part in whole),
        sum(part.account_fen for part in whole),
        sum(part.family_fen for part in whole),
        sum(part.cash_fen for part in whole),
    )


def net_between(obligations: Iterable[Obligation], payer: str, payee: str) -> int:
    """What one region pays another one after setting off; the other way round it is the negative.

    What a region owes itself is nothing between regions.
    """
    whole = list(obligations)
    return _owed(whole, payer, payee) - _owed(whole, payee, payer)


def bilateral_nets(obligations: Iterable[Obligation]) -> tuple[BilateralNet, ...]:
    """The net of every pair of regions that owes anything, in the order of their codes."""
    owed: dict[tuple[str, str], list[int]] = {}
    for each in obligations:
        if each.payer != each.dispensing:
            pair = (min(each.payer, each.dispensing), max(each.payer, each.dispensing))
            owed.setdefault(pair, [0, 0])[pair.index(each.payer)] += each.owed_fen
    return tuple(BilateralNet(*pair, *sums) for pair, sums in sorted(owed.items()))


def net_positions(obligations: Iterable[Obligation]) -> dict[str, int]:
    """What every region gets from all others together, negative where it pays; they sum to zero."""
    positions: dict[str, int] = {}
    for each in obligations:
        positions[each.payer] = positions.get(each.payer, 0) - each.owed_fen
        positions[each.dispensing] = positions.get(each.dispensing, 0) + each.owed_fen
    return dict(sorted(positions.items()))


def _owed(obligations: Iterable[Obligation], payer: str, dispensing: str) -> int:
    return sum(
        each.owed_fen
        for each in obligations
        if (each.payer, each.dispensing) == (payer, dispensing)
    )
