"""Repeat prescriptions by fills, herbal formulas by doses: what opens when, and what leaves whole.

Days are the home region's: its midnight is 16:00 UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.local_time import local_day
from rxoutflow_server.domain.plan import ONCE, Plan
from rxoutflow_server.domain.prescription import LineUse, Ruling, Validity
from support.home_book import (
    LEASE,
    MICROSECOND,
    START,
    Book,
    new_prescription,
    quantities,
)

DAY = timedelta(days=1)
LONG_AFTER = START + 200 * DAY
THREE = Plan(fill_count=3, fill_interval_days=28)
FIRST_DAY = date(2024, 5, 1)
SECOND_FILL_OPENS = datetime(2024, 5, 28, 16, tzinfo=UTC)
"""The local midnight with which 29 May begins, 28 days after the day of START."""


def repeat(*authorised: int, plan: Plan = THREE) -> Book:
    return Book(new_prescription(*authorised, expire_time=LONG_AFTER, plan=plan))


def collect(book: Book, letter: str = "A", wanted: Mapping[int, int] | None = None) -> None:
    """Claim, commit, hand over, record; all on the spot."""
    book.claim(letter, wanted)
    book.commit(letter)
    book.dispense(letter)


def claimed(book: Book, wanted: Mapping[int, int] | None = None) -> tuple[LineQuantity, ...]:
    return book.claim("A", wanted).attempt.lines


def refused(book: Book, wanted: Mapping[int, int] | None = None) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        book.claim("A", wanted)
    return refusal.value


# --- the plan by itself ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "authorised", "opened"),
    [
        pytest.param(ONCE, 84, [84], id="once"),
        pytest.param(THREE, 84, [28, 56, 84], id="equal shares"),
        pytest.param(THREE, 85, [28, 56, 85], id="the rest with the last"),
        pytest.param(THREE, 86, [28, 56, 86], id="the rest with the last, again"),
        pytest.param(THREE, 3, [1, 2, 3], id="one each"),
        pytest.param(Plan(2, 7, dose_count=14), 140, [70, 140], id="doses"),
        pytest.param(Plan(2, 7, dose_count=7), 70, [30, 70], id="odd doses stay whole"),
        pytest.param(Plan(3, 7, dose_count=7), 35, [10, 20, 35], id="two, two, three doses"),
    ],
)
def test_a_fill_opens_its_share_and_the_last_one_what_is_left(
    plan: Plan, authorised: int, opened: list[int]
) -> None:
    assert [plan.opened(authorised, fills) for fills in range(1, plan.fill_count + 1)] == opened


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2024, 5, 1, 15, 59, 59, tzinfo=UTC), date(2024, 5, 1)),
        (datetime(2024, 5, 1, 16, 0, tzinfo=UTC), date(2024, 5, 2)),
        (datetime(2024, 12, 31, 16, 0, tzinfo=UTC), date(2025, 1, 1)),
    ],
)
def test_a_local_day_begins_at_its_own_midnight(moment: datetime, day: date) -> None:
    assert local_day(moment) == day


# --- when a fill opens ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "opened"),
    [
        pytest.param(SECOND_FILL_OPENS - DAY, False, id="the day before"),
        pytest.param(SECOND_FILL_OPENS - MICROSECOND, False, id="the last instant before"),
        pytest.param(SECOND_FILL_OPENS, True, id="its first instant"),
        pytest.param(SECOND_FILL_OPENS + DAY, True, id="the day after"),
        pytest.param(SECOND_FILL_OPENS + 100 * DAY, True, id="long after"),
    ],
)
@pytest.mark.parametrize("wanted", [None, {1: 28}, {1: 1}])
def test_the_second_fill_opens_with_its_local_day(
    wanted: Mapping[int, int] | None, moment: datetime, opened: bool
) -> None:
    book = repeat(84)
    collect(book)
    book.now = moment
    if opened:
        assert claimed(book, wanted) == quantities(wanted or {1: 28})
        return
    refusal = refused(book, wanted)
    assert refusal.reason is Reason.FILL_TOO_EARLY
    assert refusal.detail == {"open_day": "2024-05-29", "line_id": "1"}
    assert "2024-05-29" in refusal.message


def test_each_fill_is_counted_from_the_day_on_which_the_one_before_was_handed_over() -> None:
    book = repeat(84)
    collect(book)
    book.now = SECOND_FILL_OPENS + 10 * DAY
    collect(book)
    assert book.prescription.next_fill_day == local_day(book.now) + 28 * DAY
    book.now += 28 * DAY - MICROSECOND - (book.now - SECOND_FILL_OPENS) % DAY
    assert refused(book).reason is Reason.FILL_TOO_EARLY
    book.now += MICROSECOND
    assert claimed(book) == quantities({1: 28})


def test_fills_do_not_pile_up_while_nobody_collects() -> None:
    book = repeat(84)
    collect(book)
    book.now = START + 150 * DAY
    assert claimed(book) == quantities({1: 28})


def test_nothing_more_opens_before_the_first_fill_is_begun() -> None:
    book = repeat(84)
    book.now = START + 150 * DAY
    assert book.prescription.with_fills_of(book.now).open_lines == quantities({1: 28})
    refusal = refused(book, {1: 29})
    assert (refusal.reason, refusal.detail) == (Reason.FILL_TOO_EARLY, {"line_id": "1"})
    assert "28 days after" in refusal.message


def test_a_claim_or_a_commit_alone_begins_no_fill() -> None:
    book = repeat(84)
    book.claim("A")
    book.commit("A")
    assert book.prescription.next_fill_day is None
    book.release("A")
    assert book.prescription.next_fill_day is None
    book.claim("A")
    book.now += LEASE
    book.expire_lease()
    assert book.prescription.fill_begin_day is None


@pytest.mark.parametrize(
    ("committed", "handed_over", "told", "begun"),
    [
        pytest.param(0, 1, 9, 1, id="the day of the handover, however late the record"),
        pytest.param(2, 1, 9, 2, id="not before the commit"),
        pytest.param(0, 12, 9, 9, id="not after the record arrived"),
        pytest.param(3, None, 9, 3, id="with the commit if nobody says"),
    ],
)
def test_a_fill_begins_on_the_day_of_its_handover(
    committed: int, handed_over: int | None, told: int, begun: int
) -> None:
    book = repeat(84)
    book.now = START + committed * DAY
    book.claim("A")
    book.commit("A")
    book.now = START + told * DAY
    said = None if handed_over is None else START + handed_over * DAY
    book.dispense("A", handover_time=said)
    assert book.prescription.fill_begin_day == FIRST_DAY + begun * DAY


def test_a_handover_that_two_people_found_begins_the_fill_on_the_day_of_its_commit() -> None:
    book = repeat(84)
    book.claim("A")
    book.commit("A")
    change = transitions.adjudicate(
        book.prescription,
        book.newest,
        Ruling(book.newest.attempt_id, book.newest.fence, True, b"finding"),
        now=START + 40 * DAY,
        overdue=DAY,
    )
    assert change.prescription.fill_begin_day == FIRST_DAY


def test_a_handover_of_a_part_begins_the_fill() -> None:
    book = repeat(84, 84)
    collect(book, wanted={2: 1})
    assert book.prescription.next_fill_day == FIRST_DAY + 28 * DAY


def test_the_rest_of_a_fill_stays_open_and_its_collection_begins_no_other() -> None:
    book = repeat(84)
    collect(book, wanted={1: 10})
    book.now += 5 * DAY
    assert refused(book, {1: 19}).detail == {"open_day": "2024-05-29", "line_id": "1"}
    collect(book, "B", {1: 8})
    assert book.prescription.next_fill_day == FIRST_DAY + 28 * DAY, "counted from the first part"
    book.now = SECOND_FILL_OPENS
    collect(book, "C", {1: 10})
    assert book.prescription.opened_fills == 2
    assert book.prescription.next_fill_day is None, "that was the rest of the first"
    collect(book, "A", {1: 1})
    assert book.prescription.next_fill_day == local_day(SECOND_FILL_OPENS) + 28 * DAY


def test_what_came_back_is_not_handed_over() -> None:
    book = repeat(84)
    collect(book)
    line = replace(book.prescription.lines[0], returned=28)
    book.prescription = replace(book.prescription, lines=(line,))
    assert book.prescription.open_lines == quantities({1: 28}), "it can be collected again"
    assert book.prescription.next_fill_day == FIRST_DAY + 28 * DAY
    after = book.prescription.with_fills_of(SECOND_FILL_OPENS)
    assert after.open_lines == quantities({1: 56})


def test_a_claim_before_midnight_holds_what_was_open_then() -> None:
    book = repeat(84)
    collect(book, wanted={1: 20})
    book.now = SECOND_FILL_OPENS - LEASE / 2
    assert claimed(book) == quantities({1: 8})
    book.now = SECOND_FILL_OPENS
    book.commit("A")
    book.dispense("A", handover_time=book.now)
    assert book.prescription.opened_fills == 1
    assert claimed(book) == quantities({1: 28})


def test_every_line_opens_by_its_own_share() -> None:
    book = repeat(84, 30)
    assert claimed(book) == quantities({1: 28, 2: 10})
    book.release("A")
    refusal = refused(book, {1: 28, 2: 11})
    assert (refusal.reason, refusal.detail["line_id"]) == (Reason.FILL_TOO_EARLY, "2")


def test_more_than_was_authorised_is_never_a_matter_of_time() -> None:
    book = repeat(84)
    collect(book)
    refusal = refused(book, {1: 57})
    assert refusal.reason is Reason.QUANTITY_EXCEEDED
    assert refusal.detail == {"line_id": "1", "available": "56"}


def test_after_the_last_fill_it_is_used_up() -> None:
    book = repeat(85)
    for share in (28, 28, 29):
        book.claim("A")
        assert book.newest.lines == quantities({1: share})
        book.commit("A")
        book.dispense("A")
        book.now += 28 * DAY
    assert refused(book).reason is Reason.PRESCRIPTION_USED_UP
    assert book.prescription.next_fill_day is None


def test_a_fill_that_opened_is_refused_after_the_prescription_expired() -> None:
    book = Book(new_prescription(84, expire_time=SECOND_FILL_OPENS, plan=THREE))
    collect(book)
    book.now = SECOND_FILL_OPENS
    assert refused(book).reason is Reason.PRESCRIPTION_EXPIRED


def test_a_revocation_between_fills_takes_the_rest() -> None:
    book = repeat(84)
    collect(book)
    assert book.revoke() == "rest_revoked"
    assert book.prescription.validity is Validity.REVOKED
    book.now = SECOND_FILL_OPENS
    assert refused(book).reason is Reason.PRESCRIPTION_REVOKED


def test_a_mark_during_a_fill_revokes_the_fills_to_come() -> None:
    book = repeat(84)
    book.claim("A")
    book.revoke()
    book.commit("A")
    change = book.dispense("A")
    assert change.mark_took_effect
    assert book.prescription.validity is Validity.REVOKED


def test_a_prescription_without_a_plan_keeps_no_days() -> None:
    book = Book(new_prescription(2))
    collect(book)
    assert (book.prescription.opened_fills, book.prescription.fill_begin_day) == (1, None)


# --- doses ----------------------------------------------------------------------------------------

SEVEN = Plan(dose_count=7)
PER_DOSE = (10, 5, 1)


def formula(plan: Plan = SEVEN) -> Book:
    """Three herbs, seven doses of 10, 5 and 1."""
    herbs = [each * plan.dose_count for each in PER_DOSE]
    return Book(new_prescription(*herbs, expire_time=LONG_AFTER, plan=plan))


def doses(count: int) -> dict[int, int]:
    return {line_id: each * count for line_id, each in enumerate(PER_DOSE, start=1)}


@pytest.mark.parametrize("count", range(1, 8))
def test_a_formula_is_claimed_by_whole_doses(count: int) -> None:
    book = formula()
    assert claimed(book, doses(count)) == quantities(doses(count))


INCOMPLETE = [
    pytest.param({1: 30, 2: 15}, "3", id="a herb is missing"),
    pytest.param({2: 15, 3: 3}, "1", id="the first herb is missing"),
    pytest.param({1: 30, 2: 15, 3: 2}, "3", id="a dose of a herb is missing"),
    pytest.param({1: 31, 2: 15, 3: 3}, "1", id="a little more of one"),
    pytest.param({1: 29, 2: 14, 3: 2}, "1", id="a little less of each"),
    pytest.param({1: 9, 2: 4}, "1", id="less than a dose"),
    pytest.param({3: 7}, "1", id="one herb by itself"),
]


@pytest.mark.parametrize(("wanted", "line_id"), INCOMPLETE)
def test_a_claim_of_other_than_whole_doses_is_refused(wanted: dict[int, int], line_id: str) -> None:
    refusal = refused(formula(), wanted)
    assert refusal.reason is Reason.DOSES_INCOMPLETE
    assert refusal.detail["line_id"] == line_id
    assert f"one dose of line {line_id} is {PER_DOSE[int(line_id) - 1]}" in refusal.message


@pytest.mark.parametrize(("wanted", "line_id"), INCOMPLETE)
def test_a_commit_of_other_than_whole_doses_is_refused(
    wanted: dict[int, int], line_id: str
) -> None:
    book = formula()
    book.claim("A")
    with pytest.raises(Refusal) as refusal:
        book.commit("A", wanted)
    assert refusal.value.reason is Reason.DOSES_INCOMPLETE
    assert refusal.value.detail["line_id"] == line_id


def test_doses_that_one_pharmacy_does_not_have_are_owing_and_left_to_another() -> None:
    book = formula()
    book.claim("A")
    book.commit("A", doses(3))
    book.dispense("A")
    assert book.prescription.available == quantities(doses(4))
    assert claimed(book) == quantities(doses(4))


def test_more_doses_than_there_are_is_a_quantity_exceeded() -> None:
    assert refused(formula(), doses(8)).reason is Reason.QUANTITY_EXCEEDED


def test_a_formula_of_one_dose_leaves_as_a_whole() -> None:
    book = formula(Plan(dose_count=1))
    assert refused(book, {1: 10, 2: 5}).reason is Reason.DOSES_INCOMPLETE
    assert claimed(book) == quantities(doses(1))


def test_a_repeated_formula_opens_whole_doses() -> None:
    book = formula(Plan(2, 7, dose_count=7))
    assert claimed(book) == quantities(doses(3))
    book.commit("A")
    book.dispense("A")
    refusal = refused(book, doses(1))
    assert (refusal.reason, refusal.detail["open_day"]) == (Reason.FILL_TOO_EARLY, "2024-05-08")
    book.now += 7 * DAY
    assert claimed(book) == quantities(doses(4))


def test_lines_without_doses_go_each_by_itself() -> None:
    lines = [LineUse(1, 70), LineUse(2, 35)]
    authorised = [LineQuantity(line.line_id, line.authorised) for line in lines]
    assert ONCE.line_out_of_dose(authorised, [LineQuantity(2, 3)]) is None
    assert SEVEN.line_out_of_dose(authorised, [LineQuantity(2, 3)]) == LineQuantity(1, 10)
