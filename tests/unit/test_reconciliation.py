"""Books of a day that differ: each difference is found, and named for what it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.ledger import Entry, Mode, Movement, Totals, after_settlement, totals
from rxoutflow_server.domain.reconciliation import (
    AmountDifference,
    Difference,
    DifferenceKind,
    Known,
    agree,
    compare,
    through,
    window,
    within,
)
from rxoutflow_server.domain.settlement import SettlementState
from support.ledgers import DAY, NUMBER, posting, reversal

P1, P2, P3 = (posting(f"S{index}") for index in (1, 2, 3))
R2 = reversal(P2)
TOMORROW = DAY + timedelta(days=1)


def named(
    kind: DifferenceKind,
    settlement: str = "S2",
    movement: Movement = Movement.POSTING,
    **more: object,
) -> Difference:
    return Difference(kind, settlement, movement, NUMBER, **more)  # type: ignore[arg-type] # a table's columns


CASES = {
    "the same books": ([P1, P2], [P1, P2], None, []),
    "two empty books": ([], [], None, []),
    "posted there only": ([P1, P3], [P1, P2, P3], None, [named(DifferenceKind.MISSING_HERE)]),
    "posted here only, unknown there": (
        [P1, P2],
        [P1],
        None,
        [named(DifferenceKind.MISSING_THERE)],
    ),
    "posted here, voided there": (
        [P2],
        [],
        Known(SettlementState.VOIDED),
        [
            named(
                DifferenceKind.STATE_DIFFERS,
                here_state=SettlementState.POSTED,
                there_state=SettlementState.VOIDED,
            )
        ],
    ),
    "posted here, only held there": (
        [P2],
        [],
        Known(SettlementState.HELD),
        [
            named(
                DifferenceKind.STATE_DIFFERS,
                here_state=SettlementState.POSTED,
                there_state=SettlementState.HELD,
            )
        ],
    ),
    "posted on another day there": (
        [P2],
        [],
        Known(SettlementState.POSTED, TOMORROW),
        [named(DifferenceKind.DAY_DIFFERS, there_day=TOMORROW)],
    ),
    "reversed there": (
        [P2],
        [P2, R2],
        None,
        [
            named(
                DifferenceKind.STATE_DIFFERS,
                movement=Movement.REVERSAL,
                here_state=SettlementState.POSTED,
                there_state=SettlementState.REVERSED,
            )
        ],
    ),
    "reversed here": (
        [P2, R2],
        [P2],
        Known(SettlementState.POSTED),
        [
            named(
                DifferenceKind.STATE_DIFFERS,
                movement=Movement.REVERSAL,
                here_state=SettlementState.REVERSED,
                there_state=SettlementState.POSTED,
            )
        ],
    ),
    "another share of the fund": (
        [P2],
        [posting("S2", pool=701, cash=499)],
        None,
        [
            named(
                DifferenceKind.AMOUNT_DIFFERS,
                amounts=(
                    AmountDifference("pool_fen", 700, 701),
                    AmountDifference("cash_fen", 500, 499),
                ),
            )
        ],
    ),
    "another total": (
        [P2],
        [posting("S2", cash=501)],
        None,
        [
            named(
                DifferenceKind.AMOUNT_DIFFERS,
                amounts=(
                    AmountDifference("total_fen", 1500, 1501),
                    AmountDifference("cash_fen", 500, 501),
                ),
            )
        ],
    ),
    "paid by the patient alone there": (
        [posting("S2", pool=0, account=0, family=0)],
        [posting("S2", pool=0, account=0, family=0, mode=Mode.SELF_PAY)],
        None,
        [named(DifferenceKind.MODE_DIFFERS)],
    ),
}


@pytest.mark.parametrize(("here", "there", "known", "expected"), CASES.values(), ids=CASES.keys())
def test_every_difference_is_named(
    here: list[Entry], there: list[Entry], known: Known | None, expected: list[Difference]
) -> None:
    assert list(compare(here, there, lambda entry: known)) == expected
    assert agree(totals(here), totals(there)) is (not expected)


def test_differences_come_in_the_order_of_settlements() -> None:
    found = compare([P1, P3], [P2, posting("S3", pool=1)])
    assert [(each.settlement_id, each.kind) for each in found] == [
        ("S1", DifferenceKind.MISSING_THERE),
        ("S2", DifferenceKind.MISSING_HERE),
        ("S3", DifferenceKind.AMOUNT_DIFFERS),
    ]


@pytest.mark.parametrize("book", [[P2, P1], [P1, P1]], ids=["descending", "twice"])
def test_a_book_out_of_order_is_refused(book: list[Entry]) -> None:
    for here, there in ((book, []), ([], book)):
        with pytest.raises(Refusal) as refused:
            list(compare(here, there))
        assert refused.value.reason is Reason.FIELD_INVALID
        assert refused.value.detail["field"] == "entries"


def test_totals_are_by_mode_and_count_reversals_as_negative() -> None:
    alone = posting("S4", pool=0, account=0, family=0, mode=Mode.SELF_PAY)
    assert totals([P1, P2, R2, alone]) == (
        Totals(Mode.INSURANCE, 3, 1500, 700, 200, 100, 500),
        Totals(Mode.SELF_PAY, 1, 500, 0, 0, 0, 500),
    )


def test_a_mode_without_entries_does_not_matter() -> None:
    assert agree((), (Totals(Mode.SELF_PAY),))
    assert not agree((), totals([P1]))


def test_a_window_ends_before_what_either_side_may_not_have_given_whole() -> None:
    here, there = [P1, P2, P3], [P1, P2]
    assert window((through(here, last=True), through(there, last=True))) is None
    end = window((through(here, last=False), through(there, last=False)))
    assert end == "S1"
    assert within(here, end) == [P1]
    assert within(here, None) == here


@pytest.mark.parametrize("page", [[], [P2], [P2, R2]], ids=["empty", "one", "one settlement"])
def test_a_page_by_which_nothing_can_be_compared_is_refused(page: list[Entry]) -> None:
    with pytest.raises(Refusal, match="must hold several settlements"):
        through(page, last=False)


def test_the_place_after_a_settlement_is_after_all_its_entries() -> None:
    for entry in (P2, R2, replace(R2, reversal_id="R")):
        assert after_settlement("S1") < entry.key < after_settlement("S2")
    assert after_settlement("") < P1.key


@pytest.mark.parametrize(
    "changes",
    [
        {"total_fen": 1499},
        {"total_fen": 1498, "cash_fen": -2, "pool_fen": 1200},
        {"day": DAY - timedelta(days=1)},
        {"day": TOMORROW},
    ],
    ids=["a fen lost", "negative", "before its posting", "a posting of another day"],
)
def test_an_entry_that_contradicts_itself_cannot_be_made(changes: dict[str, int | date]) -> None:
    with pytest.raises(InvariantBroken):
        replace(P1, **changes)  # type: ignore[arg-type] # a table's columns
