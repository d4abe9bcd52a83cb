"""Clearing: not a fen is lost or made, between two regions or among all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rxoutflow_server.application.clearing.lists import HEADER, lines, listed
from rxoutflow_server.domain.clearing import (
    Obligation,
    Period,
    bilateral_nets,
    net_between,
    net_positions,
    tally,
)
from rxoutflow_server.domain.ledger import AMOUNTS, Entry, Movement, totals
from rxoutflow_server.domain.reconciliation import (
    Difference,
    DifferenceKind,
    agree,
    compare,
    through,
    window,
    within,
)
from support.ledgers import PERIOD, REGIONS, books, of_period

obligations = st.lists(
    st.builds(
        Obligation,
        st.sampled_from(REGIONS),
        st.sampled_from(REGIONS),
        st.integers(-(10**12), 10**12),
    ),
    max_size=40,
)


@given(obligations)
def test_the_net_positions_of_all_regions_sum_to_zero(owed: list[Obligation]) -> None:
    assert sum(net_positions(owed).values()) == 0


@given(obligations)
def test_what_one_region_pays_another_gets(owed: list[Obligation]) -> None:
    for first in REGIONS:
        assert net_between(owed, first, first) == 0
        for second in REGIONS:
            assert net_between(owed, first, second) == -net_between(owed, second, first)


@given(obligations)
def test_the_bilateral_nets_of_a_region_are_its_position(owed: list[Obligation]) -> None:
    nets = bilateral_nets(owed)
    assert all(each.first < each.second for each in nets)
    assert len({(each.first, each.second) for each in nets}) == len(nets)
    positions = net_positions(owed)
    for region in REGIONS:
        pays = sum(each.net_fen for each in nets if each.first == region)
        gets = sum(each.net_fen for each in nets if each.second == region)
        assert gets - pays == positions.get(region, 0)
        for each in nets:
            assert each.net_fen == net_between(owed, each.first, each.second)


@given(books())
def test_a_statement_is_the_sum_of_its_list(book: list[Entry]) -> None:
    entries = of_period(book)
    figures = tally(PERIOD, entries).figures
    signed = [(1 if e.movement is Movement.POSTING else -1, e) for e in entries]
    for name in AMOUNTS:
        assert getattr(figures.totals, name) == sum(s * getattr(e, name) for s, e in signed)
    assert figures.owed_fen == sum(
        s * (e.pool_fen + e.account_fen + e.family_fen) for s, e in signed
    )
    assert figures.owed_fen == figures.totals.total_fen - figures.totals.cash_fen
    assert figures.posting_count + figures.reversal_count == len(entries) == figures.totals.count


@given(books())
def test_the_days_of_a_statement_add_up_to_it(book: list[Entry]) -> None:
    sums = tally(PERIOD, of_period(book))
    assert list(sums.days) == sorted(sums.days)
    for name in ("count", *AMOUNTS):
        whole = getattr(sums.figures.totals, name)
        assert sum(getattr(day, name) for day in sums.days.values()) == whole


@given(books())
def test_every_fen_is_cleared_in_exactly_one_period(book: list[Entry]) -> None:
    periods = {Period.of(entry.day) for entry in book}
    cleared = [
        tally(period, [entry for entry in book if entry.day in period]).figures.owed_fen
        for period in periods
    ]
    assert sum(cleared) == sum(entry.owed_fen for entry in book)


@given(books())
def test_a_reversal_after_the_cut_off_is_an_adjustment_of_the_period_it_happens_in(
    book: list[Entry],
) -> None:
    entries = of_period(book)
    late = [entry for entry in entries if entry.posted_day < PERIOD.first_day]
    figures = tally(PERIOD, entries).figures
    assert all(entry.movement is Movement.REVERSAL for entry in late)
    assert figures.adjustment_count == len(late)
    assert figures.adjustment_fen == sum(entry.owed_fen for entry in late) <= 0
    # Without adjustments, a period never owes less than nothing.
    assert figures.owed_fen - figures.adjustment_fen >= 0


@given(books(), st.data())
def test_the_list_has_a_line_for_each_entry_and_its_digest_knows_them_all(
    book: list[Entry], data: st.DataObject
) -> None:
    entries = of_period(book)
    written = list(lines(entries))
    assert written[0] == HEADER
    assert len(written) == len(set(written)) == len(entries) + 1
    whole = listed(PERIOD, entries).list_sha256
    if entries:
        index = data.draw(st.integers(0, len(entries) - 1))
        without = entries[:index] + entries[index + 1 :]
        assert listed(PERIOD, without).list_sha256 != whole


@given(books(), books())
def test_books_compared_in_windows_differ_as_they_do_as_a_whole(
    here: list[Entry], there: list[Entry]
) -> None:
    here, there = (sorted(each, key=lambda entry: entry.key) for each in (here, there))
    assert _by_windows(here, there) == list(compare(here, there))


@given(books(), books())
def test_what_is_missing_here_is_missing_there_from_the_other_side(
    here: list[Entry], there: list[Entry]
) -> None:
    here, there = (
        sorted((e for e in each if e.movement is Movement.POSTING), key=lambda e: e.key)
        for each in (here, there)
    )
    turned = {
        DifferenceKind.MISSING_HERE: DifferenceKind.MISSING_THERE,
        DifferenceKind.MISSING_THERE: DifferenceKind.MISSING_HERE,
    }
    found = [(turned.get(e.kind, e.kind), e.settlement_id) for e in compare(here, there)]
    assert found == [(each.kind, each.settlement_id) for each in compare(there, here)]


@given(books(), books())
def test_totals_that_agree_hide_no_difference_of_one_settlement(
    here: list[Entry], there: list[Entry]
) -> None:
    here, there = (sorted(each, key=lambda entry: entry.key) for each in (here, there))
    if not list(compare(here, there)):
        assert agree(totals(here), totals(there))


def _by_windows(here: list[Entry], there: list[Entry], size: int = 4) -> list[Difference]:
    """Compare as two parties do that send pages of a few entries."""
    found: list[Difference] = []
    after = ""
    while True:
        pages = [[e for e in book if e.settlement_id > after][:size] for book in (here, there)]
        lasts = [len(page) < size for page in pages]
        end = window(through(page, last=last) for page, last in zip(pages, lasts, strict=True))
        found.extend(compare(within(pages[0], end), within(pages[1], end)))
        if end is None:
            return found
        assert end > after
        after = end
