"""Two people decide on an attempt: every state of it, both findings, and the edge of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import AttemptState
from rxoutflow_server.domain.dispense import (
    CommittedLine,
    Dispense,
    DispenseState,
    found,
    require_as_found,
)
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.plan import Plan
from rxoutflow_server.domain.prescription import Ruling, Validity
from support.home_book import (
    ADJUDICATION,
    END,
    LEASE,
    MICROSECOND,
    OVERDUE,
    START,
    Book,
    new_prescription,
    quantities,
)

State = Callable[[Book], object]


def reserved(book: Book) -> None:
    book.claim("A")


def reserved_lease_over(book: Book) -> None:
    book.claim("A")
    book.now += LEASE


def committed(book: Book) -> None:
    book.claim("A")
    book.commit("A")


def overdue(book: Book) -> None:
    committed(book)
    book.now += OVERDUE


def overdue_expired(book: Book) -> None:
    """The validity of the prescription says nothing about what is committed."""
    committed(book)
    book.now = END + OVERDUE


def overdue_marked(book: Book) -> None:
    committed(book)
    book.revoke()
    book.now += OVERDUE


def dispensed(book: Book) -> None:
    committed(book)
    book.dispense("A")
    book.now += OVERDUE


def released(book: Book) -> None:
    committed(book)
    book.release("A")
    book.now += OVERDUE


def expired(book: Book) -> None:
    reserved_lease_over(book)
    book.expire_lease()
    book.now += OVERDUE


def found_handed_over(book: Book) -> None:
    overdue(book)
    book.adjudicate(handed_over=True, cause=b"an earlier one")


def found_not_handed_over(book: Book) -> None:
    overdue(book)
    book.adjudicate(handed_over=False, cause=b"an earlier one")


ENDS = {True: AttemptState.DISPENSED, False: AttemptState.RELEASED}

TABLE: dict[State, Reason | None] = {
    reserved: Reason.ATTEMPT_NOT_COMMITTED,
    reserved_lease_over: Reason.ATTEMPT_ENDED,
    committed: Reason.ATTEMPT_NOT_OVERDUE,
    overdue: None,
    overdue_expired: None,
    overdue_marked: None,
    dispensed: Reason.ATTEMPT_ENDED,
    released: Reason.ATTEMPT_ENDED,
    expired: Reason.ATTEMPT_ENDED,
    found_handed_over: Reason.ATTEMPT_ENDED,
    found_not_handed_over: Reason.ATTEMPT_ENDED,
}
"""What comes of either finding in each state: a refusal, or that the attempt ends so."""


@pytest.fixture
def book() -> Book:
    return Book(new_prescription(2, 28))


@pytest.mark.parametrize("handed_over", [True, False])
@pytest.mark.parametrize("state", TABLE, ids=lambda state: state.__name__)
def test_what_comes_of_a_finding_in_each_state(book: Book, state: State, handed_over: bool) -> None:
    state(book)
    before = book.prescription
    reason = TABLE[state]
    if reason is None:
        assert book.adjudicate(handed_over=handed_over).attempt.state is ENDS[handed_over]
        return
    with pytest.raises(Refusal) as refused:
        book.adjudicate(handed_over=handed_over)
    assert refused.value.reason is reason
    assert book.prescription == before


def test_what_was_found_handed_over_moves_to_dispensed(book: Book) -> None:
    book.claim("A")
    book.commit("A", {2: 20})
    book.now += OVERDUE
    change = book.adjudicate(handed_over=True)
    ledger = [(line.committed, line.dispensed, line.available) for line in book.prescription.lines]
    assert ledger == [(0, 0, 2), (0, 20, 8)]
    assert change.attempt.cause_sha256 == ADJUDICATION
    assert book.prescription.live_attempt is None
    assert book.prescription.version == change.prescription.version


def test_what_was_found_not_handed_over_is_available_again(book: Book) -> None:
    overdue(book)
    book.adjudicate(handed_over=False)
    assert [line.available for line in book.prescription.lines] == [2, 28]
    assert book.claim("B").attempt.fence == 2


@pytest.mark.parametrize("handed_over", [True, False])
def test_the_same_decision_again_changes_nothing(book: Book, handed_over: bool) -> None:
    overdue(book)
    book.adjudicate(handed_over=handed_over)
    before = book.prescription
    change = book.adjudicate(handed_over=handed_over)
    assert (book.prescription, change.attempt.state) == (before, ENDS[handed_over])
    with pytest.raises(Refusal) as refused:
        book.adjudicate(handed_over=not handed_over)
    assert refused.value.reason is Reason.ATTEMPT_ENDED


def test_the_time_is_counted_from_the_commit_to_the_microsecond(book: Book) -> None:
    book.claim("A")
    book.now += LEASE - MICROSECOND
    book.commit("A")
    commit_time = book.now
    book.now += OVERDUE - MICROSECOND
    with pytest.raises(Refusal) as early:
        book.adjudicate(handed_over=True)
    assert early.value.detail == {"overdue_time": (commit_time + OVERDUE).isoformat()}
    book.now += MICROSECOND
    book.adjudicate(handed_over=True)


def test_a_region_may_let_people_decide_at_once(book: Book) -> None:
    committed(book)
    book.adjudicate(handed_over=False, overdue=timedelta(0))


def test_a_decision_names_the_fence_and_the_attempt(book: Book) -> None:
    overdue(book)
    with pytest.raises(Refusal) as stale:
        book.adjudicate(handed_over=True, fence=9)
    assert stale.value.reason is Reason.FENCE_STALE
    ruling = Ruling("another attempt", 1, True, ADJUDICATION)
    with pytest.raises(Refusal) as unknown:
        transitions.adjudicate(
            book.prescription, book.newest, ruling, now=book.now, overdue=OVERDUE
        )
    assert unknown.value.reason is Reason.ATTEMPT_NOT_FOUND


@pytest.mark.parametrize(
    ("handed_over", "validity"), [(True, Validity.ACTIVE), (False, Validity.REVOKED)]
)
def test_a_mark_for_revocation_takes_effect_on_what_is_left(
    book: Book, handed_over: bool, validity: Validity
) -> None:
    overdue_marked(book)
    change = book.adjudicate(handed_over=handed_over)
    assert book.prescription.validity is validity
    assert change.mark_took_effect is (validity is Validity.REVOKED)


def test_a_fill_that_was_found_begins_with_its_commit(book: Book) -> None:
    book.prescription = replace(book.prescription, plan=Plan(2, 1))
    overdue(book)
    book.adjudicate(handed_over=True)
    assert book.prescription.fill_begin_day == START.date()


def test_a_record_that_comes_later_must_say_what_was_found(book: Book) -> None:
    overdue(book)
    book.adjudicate(handed_over=True)
    reference = book.reference("A", b"late")
    attempt = book.newest
    transitions.require_as_found(attempt, reference, attempt.lines)
    for other, lines, reason in (
        (reference, quantities({1: 1, 2: 28}), Reason.DISPENSE_MISMATCH),
        (replace(reference, fence=9), attempt.lines, Reason.FENCE_STALE),
        (book.reference("B", b"late"), attempt.lines, Reason.ATTEMPT_NOT_FOUND),
    ):
        with pytest.raises(Refusal) as refused:
            transitions.require_as_found(attempt, other, lines)
        assert refused.value.reason is reason


# at the dispensing region

LINES = (CommittedLine(1, "SYNW1", 2), CommittedLine(3, "SYNW2", 28))
DISPENSE = Dispense(
    prescription_number="350500000000000017",
    settlement_id="settlement-1",
    attempt_id="attempt-1",
    fence=4,
    pharmacy_code="P35010000001",
    payer_region_code="350200",
    insured_person_id="3502000001",
    insured=True,
    lines=LINES,
    state=DispenseState.COMMITTING,
    create_time=START,
    update_time=START,
    request_id="request-1",
    commitment_sha256=b"commitment",
    pricing_sha256=b"pricing",
)


@pytest.mark.parametrize("state", DispenseState)
def test_a_finding_ends_a_dispense_from_every_step_before_its_record(state: DispenseState) -> None:
    before = replace(DISPENSE, state=state)
    after = found(before, now=START)
    if state not in (DispenseState.DISPENSED, DispenseState.COMPLETED):
        assert after == replace(before, state=DispenseState.DISPENSED, update_time=START)
    else:
        assert after == before


def test_without_insurance_a_finding_leaves_nothing_to_post() -> None:
    alone = replace(DISPENSE, state=DispenseState.COMMITTED, insured=False)
    assert found(alone, now=START).posted


@pytest.mark.parametrize(
    ("fence", "lines", "reason"),
    [(5, LINES, Reason.FENCE_STALE), (4, LINES[:1], Reason.DISPENSE_MISMATCH)],
)
def test_a_late_record_must_be_that_of_the_commitment(
    fence: int, lines: tuple[object, ...], reason: Reason
) -> None:
    require_as_found(DISPENSE, 4, LINES)
    with pytest.raises(Refusal) as refused:
        require_as_found(DISPENSE, fence, lines)  # type: ignore[arg-type] # of the table
    assert refused.value.reason is reason
