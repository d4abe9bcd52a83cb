"""Entries for tests of books, reconciliation and clearing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta

from hypothesis import strategies as st

from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.ledger import Entry, Mode, Movement

PERIOD = Period(2026, 2)
DAY = date(2026, 2, 27)
NUMBER = "350200260227000000000000000017"
REGIONS = ("320600", "350200", "350500", "430400", "610900")


def posting(
    settlement_id: str = "S1",
    day: date = DAY,
    *,
    pool: int = 700,
    account: int = 200,
    family: int = 100,
    cash: int = 500,
    mode: Mode = Mode.INSURANCE,
) -> Entry:
    """A posting with these parts."""
    return Entry(
        day=day,
        settlement_id=settlement_id,
        movement=Movement.POSTING,
        prescription_number=NUMBER,
        pharmacy_code="P35050000001",
        mode=mode,
        total_fen=pool + account + family + cash,
        pool_fen=pool,
        account_fen=account,
        family_fen=family,
        cash_fen=cash,
        posted_day=day,
    )


def reversal(of: Entry, day: date | None = None) -> Entry:
    """The reversal of the whole of a posting."""
    return replace(of, movement=Movement.REVERSAL, day=day or of.day, posted_day=of.day)


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Entries in the order of a book."""
    return sorted(entries, key=lambda entry: (entry.day, entry.key))


_fen = st.integers(0, 10**7)


@st.composite
def settlements(draw: st.DrawFn) -> list[Entry]:
    """A posting in or before the period, and perhaps its reversal in the period."""
    begin = PERIOD.first_day - timedelta(days=40)
    last = PERIOD.end_day - timedelta(days=1)
    posted = posting(
        f"S{draw(st.integers(0, 10**6)):07}",
        draw(st.dates(begin, last)),
        pool=draw(_fen),
        account=draw(_fen),
        family=draw(_fen),
        cash=draw(_fen),
    )
    if not draw(st.booleans()):
        return [posted]
    return [posted, reversal(posted, draw(st.dates(posted.day, last + timedelta(days=40))))]


def books() -> st.SearchStrategy[list[Entry]]:
    """The book of a pair, over more than the period, with each settlement once."""
    one_each = st.lists(settlements(), max_size=12, unique_by=lambda each: each[0].settlement_id)
    return one_each.map(lambda found: ordered(entry for each in found for entry in each))


def of_period(entries: Iterable[Entry]) -> list[Entry]:
    """The entries of the period."""
    return [entry for entry in entries if entry.day in PERIOD]
