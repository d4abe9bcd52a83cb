"""Returns and reversals: what may come back, what follows from it, and every fen there and back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.benefit import Enrolment, LineShare
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.plan import ONCE, Plan
from rxoutflow_server.domain.returns import (
    Cause,
    HandedOver,
    ReturnedLine,
    require_boxes,
    require_returnable,
    returned_before,
)
from rxoutflow_server.domain.reversal import restored, reverse
from rxoutflow_server.domain.settlement import (
    Amounts,
    SettledLine,
    Settlement,
    SettlementState,
    consume,
)
from support.home_book import START, Book, new_prescription, quantities
from support.invariants import (
    check_amounts,
    check_home,
    check_not_overdrawn,
    check_reversed,
)
from support.settlements import HELD, NOW, PERSON, YEAR

LATER = NOW + timedelta(days=3)
FIRST = LineShare(
    amount_fen=6_001,
    deductible_fen=2_000,
    pool_fen=2_500,
    account_fen=3_000,
    family_accounts_fen=(300, 101),
    cash_fen=100,
    own_fen=500,
    excess_fen=250,
    first_self_pay_fen=250,
)
SECOND = LineShare(
    amount_fen=3_999,
    deductible_fen=1_000,
    pool_fen=1_500,
    account_fen=2_000,
    family_accounts_fen=(200, 0),
    cash_fen=299,
)
LINES = (SettledLine(1, 20, FIRST), SettledLine(2, 7, SECOND))
POSTED = replace(
    HELD,
    state=SettlementState.POSTED,
    amounts=Amounts.of_lines([FIRST, SECOND]),
    family_accounts_fen=(500, 101),
    lines=LINES,
)
PAID = consume(PERSON, POSTED)


def give_back(
    settlement: Settlement, *lines: tuple[int, int], before: dict[int, int] | None = None
) -> tuple[Settlement, Amounts]:
    back = [LineQuantity(line_id, quantity) for line_id, quantity in lines]
    after, parts = reverse(settlement, before or {}, back, cause_sha256=b"return", now=LATER)
    return after, Amounts.of_lines(parts)


# --- what may come back ---------------------------------------------------------------------------

GIVEN = (LineQuantity(1, 20), LineQuantity(2, 7))


@pytest.mark.parametrize(
    ("back", "reason", "detail"),
    [
        ([(1, 11)], Reason.RETURN_EXCEEDED, {"line_id": "1", "returnable": "10"}),
        ([(2, 8)], Reason.RETURN_EXCEEDED, {"line_id": "2", "returnable": "7"}),
        ([(1, 0)], Reason.RETURN_EXCEEDED, {"line_id": "1", "returnable": "10"}),
        ([(3, 1)], Reason.LINE_UNKNOWN, {"line_id": "3"}),
        ([(1, 1), (1, 1)], Reason.LINE_UNKNOWN, {"line_id": "1"}),
    ],
)
def test_of_no_line_comes_more_back_than_is_out(
    back: list[tuple[int, int]], reason: Reason, detail: dict[str, str]
) -> None:
    before = returned_before([[LineQuantity(1, 4)], [LineQuantity(1, 6)]])
    with pytest.raises(Refusal) as refused:
        require_returnable(GIVEN, before, [LineQuantity(*each) for each in back])
    assert (refused.value.reason, refused.value.detail) == (reason, detail)


def test_everything_that_is_out_may_come_back() -> None:
    require_returnable(GIVEN, {1: 10}, [LineQuantity(1, 10), LineQuantity(2, 7)])


@pytest.mark.parametrize(
    ("cause", "again", "resaleable"),
    [
        (Cause.QUALITY, True, False),
        (Cause.DISPENSING_ERROR, True, True),
        (Cause.NOT_DELIVERED, True, True),
        (Cause.PATIENT, False, False),
    ],
)
def test_the_cause_decides_what_follows(cause: Cause, *, again: bool, resaleable: bool) -> None:
    assert (cause.re_entitles, cause.is_resaleable) == (again, resaleable)


SOLD = (HandedOver(1, 20, frozenset({"a", "b"})), HandedOver(2, 7, frozenset(), frozenset({"c"})))


@pytest.mark.parametrize(
    ("before", "back"),
    [
        ([], ReturnedLine(1, 10, ("a",))),
        ([], ReturnedLine(1, 20, ("a", "b"))),
        ([], ReturnedLine(1, 20)),
        ([ReturnedLine(1, 10, ("a",))], ReturnedLine(1, 10, ("b",))),
        ([ReturnedLine(1, 9)], ReturnedLine(1, 1, ("b",))),
        ([ReturnedLine(2, 1, ("c",))], ReturnedLine(2, 1, ("c",))),  # a part of a part
    ],
)
def test_boxes_of_the_handover_come_back_once(
    before: list[ReturnedLine], back: ReturnedLine
) -> None:
    require_boxes(SOLD, before, [back])


@pytest.mark.parametrize(
    ("before", "back"),
    [
        ([], ReturnedLine(1, 9, ("a",))),
        ([], ReturnedLine(1, 19, ("a", "b"))),
        ([], ReturnedLine(1, 20, ("a", "a"))),
        ([], ReturnedLine(1, 20, ("c",))),
        ([], ReturnedLine(2, 7, ("a",))),
        ([ReturnedLine(1, 10, ("a",))], ReturnedLine(1, 10, ("a",))),
    ],
)
def test_boxes_that_cannot_have_come_back_are_refused(
    before: list[ReturnedLine], back: ReturnedLine
) -> None:
    with pytest.raises(Refusal) as refused:
        require_boxes(SOLD, before, [back])
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


# --- what the home region makes of it ---------------------------------------------------------


def dispensed(*authorised: int, plan: Plan = ONCE, wanted: dict[int, int] | None = None) -> Book:
    """A book with one attempt that was handed over."""
    end = START + timedelta(days=84)
    book = Book(new_prescription(*authorised, expire_time=end, plan=plan))
    book.claim("A", wanted)
    book.commit("A")
    book.dispense("A")
    return book


def take_back(
    book: Book, back: dict[int, int], cause: Cause = Cause.QUALITY, **before: int
) -> bool:
    """A return arrives; whether it made the medicine available again."""
    earlier = {int(line_id.removeprefix("line")): n for line_id, n in before.items()}
    change, again = transitions.take_back(
        book.prescription, book.newest, quantities(back), earlier, cause, now=book.now
    )
    check_home(change.prescription, book.attempts.values())
    assert change.attempts == ()
    assert change.prescription.version == book.prescription.version + 1
    book.prescription = change.prescription
    return again


def test_what_came_back_can_be_claimed_again_and_no_more() -> None:
    book = dispensed(30, 10)
    assert take_back(book, {1: 12})
    assert book.prescription.available == (LineQuantity(1, 12),)
    with pytest.raises(Refusal) as refused:
        book.claim("B", {1: 13})
    assert refused.value.reason is Reason.QUANTITY_EXCEEDED
    book.claim("B")
    assert book.newest.lines == (LineQuantity(1, 12),)


def test_what_a_patient_brings_back_is_booked_but_not_available() -> None:
    book = dispensed(30)
    assert not take_back(book, {1: 30}, Cause.PATIENT)
    assert book.prescription.available == ()
    with pytest.raises(Refusal) as refused:
        take_back(book, {1: 1}, Cause.QUALITY, line1=30)  # it counts all the same
    assert refused.value.reason is Reason.RETURN_EXCEEDED


@pytest.mark.parametrize("moved", [timedelta(days=84), timedelta(days=400)])
def test_what_comes_back_when_it_is_no_longer_valid_is_not_available(moved: timedelta) -> None:
    book = dispensed(30)
    book.now = START + moved
    assert not take_back(book, {1: 30})


def test_what_comes_back_of_a_revoked_prescription_is_not_available() -> None:
    book = dispensed(30, wanted={1: 10})
    book.revoke()
    assert not take_back(book, {1: 10})


def test_nothing_comes_back_before_its_handover_is_booked() -> None:
    book = Book(new_prescription(30))
    book.claim("A")
    for step in (lambda: None, lambda: book.commit("A")):
        step()
        with pytest.raises(Refusal) as refused:
            take_back(book, {1: 1})
        assert refused.value.reason is Reason.EARLIER_FACT_MISSING
    book.release("A")
    with pytest.raises(Refusal) as refused:
        take_back(book, {1: 1})
    assert refused.value.reason is Reason.ATTEMPT_ENDED


def test_a_repeat_prescription_opens_again_within_its_open_fills() -> None:
    book = dispensed(84, plan=Plan(fill_count=3, fill_interval_days=28))
    assert book.newest.lines == (LineQuantity(1, 28),)
    assert take_back(book, {1: 5})
    with pytest.raises(Refusal) as refused:
        book.claim("B", {1: 6})
    assert refused.value.reason is Reason.FILL_TOO_EARLY
    book.claim("B")
    assert book.newest.lines == (LineQuantity(1, 5),)


def test_a_formula_comes_back_in_whole_doses_if_it_is_to_be_filled_again() -> None:
    book = dispensed(70, 35, plan=Plan(dose_count=7))
    for odd in ({1: 30, 2: 14}, {1: 30}, {1: 35, 2: 17}):
        with pytest.raises(Refusal) as refused:
            take_back(book, odd)
        assert refused.value.reason is Reason.DOSES_INCOMPLETE
    assert take_back(book, {1: 30, 2: 15})
    book.claim("B")
    assert book.newest.lines == (LineQuantity(1, 30), LineQuantity(2, 15))


def test_a_patient_may_bring_back_any_part_of_a_formula() -> None:
    assert not take_back(dispensed(70, 35, plan=Plan(dose_count=7)), {1: 3}, Cause.PATIENT)


# --- what goes back -------------------------------------------------------------------------------


def test_a_settlement_stays_posted_until_everything_is_back() -> None:
    part, first = give_back(POSTED, (1, 7))
    assert (part.state, part.cause_sha256) == (SettlementState.POSTED, POSTED.cause_sha256)
    assert part.reversed == first
    more, second = give_back(part, (1, 13), before={1: 7})
    assert more.state is SettlementState.POSTED
    whole, third = give_back(more, (2, 7), before={1: 20})
    assert (whole.state, whole.cause_sha256, whole.update_time) == ("reversed", b"return", LATER)
    assert whole.reversed == whole.amounts
    check_reversed(POSTED.amounts, [first, second, third], whole=True)
    for each in (first, second, third):
        check_amounts(each)


def test_a_line_gives_back_what_it_took_and_nothing_of_the_other() -> None:
    _, back = give_back(POSTED, (2, 7))
    assert back == Amounts.of_lines([SECOND])


def test_giving_everything_back_restores_the_person_to_the_fen() -> None:
    assert restored(PAID, POSTED, [FIRST, SECOND]) == PERSON


def test_what_is_given_back_in_another_year_restores_accounts_only() -> None:
    later = restored(PAID.in_year(YEAR + 1), POSTED, [FIRST, SECOND])
    assert later == replace(PERSON, year=YEAR + 1, used_deductible_fen=0, used_cap_fen=0)


def test_a_scheme_gets_its_own_money_back() -> None:
    enrolled = replace(PERSON, enrolments=(Enrolment("MZ01", 2_000, 2_500),))
    share = replace(FIRST, scheme_code="MZ01")
    after = restored(enrolled, POSTED, [share])
    assert after.enrolments == (Enrolment("MZ01", 0, 0),)
    assert (after.used_deductible_fen, after.used_cap_fen) == (
        PERSON.used_deductible_fen,
        PERSON.used_cap_fen,
    )
    check_not_overdrawn(after)


@pytest.mark.parametrize(
    ("state", "reason"),
    [("held", Reason.EARLIER_FACT_MISSING), ("voided", Reason.SETTLEMENT_ENDED)],
)
def test_what_was_not_paid_is_not_given_back(state: str, reason: Reason) -> None:
    with pytest.raises(Refusal) as refused:
        give_back(replace(POSTED, state=SettlementState(state)), (1, 1))
    assert refused.value.reason is reason


def test_what_was_given_back_in_whole_is_not_given_back_again() -> None:
    reversed_ = replace(POSTED, state=SettlementState.REVERSED, reversed=POSTED.amounts)
    with pytest.raises(Refusal) as refused:
        give_back(reversed_, (1, 1), before={1: 20, 2: 7})
    assert refused.value.reason is Reason.RETURN_EXCEEDED


def test_forgetting_an_earlier_reversal_breaks_the_transaction_not_the_books() -> None:
    part, _ = give_back(POSTED, (1, 20))
    with pytest.raises(InvariantBroken, match="more back than was paid"):
        give_back(part, (1, 20))  # as if nothing had come back before
