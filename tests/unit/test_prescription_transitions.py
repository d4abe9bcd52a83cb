"""Every event in every state of a prescription, and the edges of time and quantity.

The tables below are the specification: a row is a state, a column an event, a cell what
comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, AttemptState, LineQuantity
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.plan import Plan
from rxoutflow_server.domain.prescription import (
    AttemptReference,
    Change,
    LineUse,
    RevocationOutcome,
    Validity,
)
from support.home_book import (
    CLAIM,
    COMMITMENT,
    END,
    LEASE,
    MICROSECOND,
    RECORD,
    RELEASE,
    START,
    Book,
    claim_terms,
    new_prescription,
    pharmacy_code,
    quantities,
    region_code,
)

# --- the states, each reached by the real transitions; pharmacy A is the claimant -----------------


def available(book: Book) -> None:
    """Nothing has happened yet."""


def reserved(book: Book) -> None:
    book.claim("A")


def reserved_lease_over(book: Book) -> None:
    reserved(book)
    book.now += LEASE


def committed(book: Book) -> None:
    reserved(book)
    book.commit("A")


def committed_long_ago(book: Book) -> None:
    committed(book)
    book.now = END + timedelta(days=365)


def dispensed_partly(book: Book) -> None:
    book.claim("A", {1: 1})
    book.commit("A")
    book.dispense("A")


def dispensed(book: Book) -> None:
    committed(book)
    book.dispense("A")


def released(book: Book) -> None:
    reserved(book)
    book.release("A")


def released_after_commit(book: Book) -> None:
    committed(book)
    book.release("A")


def expired(book: Book) -> None:
    reserved_lease_over(book)
    book.expire_lease()


def validity_over(book: Book) -> None:
    book.now = END


def validity_over_reserved(book: Book) -> None:
    book.now = END - MICROSECOND
    reserved(book)
    book.now = END


def validity_over_committed(book: Book) -> None:
    validity_over_reserved(book)
    book.commit("A")


def validity_over_partly(book: Book) -> None:
    dispensed_partly(book)
    book.now = END


def marked(book: Book) -> None:
    reserved(book)
    book.revoke()


def marked_lease_over(book: Book) -> None:
    marked(book)
    book.now += LEASE


def marked_committed(book: Book) -> None:
    committed(book)
    book.revoke()


def marked_released(book: Book) -> None:
    marked(book)
    book.release("A")


def marked_expired(book: Book) -> None:
    marked_lease_over(book)
    book.expire_lease()


def marked_dispensed_partly(book: Book) -> None:
    book.claim("A", {1: 1})
    book.revoke()
    book.commit("A")
    book.dispense("A")


def marked_dispensed(book: Book) -> None:
    marked_committed(book)
    book.dispense("A")


def revoked(book: Book) -> None:
    book.revoke()


def revoked_rest(book: Book) -> None:
    dispensed_partly(book)
    book.revoke()


def fill_open(book: Book) -> None:
    """Of two fills, a day apart, the first is open: one of the two packs."""
    book.prescription = replace(book.prescription, plan=Plan(2, 1))


def fill_reserved(book: Book) -> None:
    fill_open(book)
    book.claim("A")


def fill_committed(book: Book) -> None:
    fill_reserved(book)
    book.commit("A")


def fill_collected(book: Book) -> None:
    fill_committed(book)
    book.dispense("A")


def fill_marked(book: Book) -> None:
    fill_committed(book)
    book.revoke()


def next_fill_open(book: Book) -> None:
    fill_collected(book)
    book.now += timedelta(days=1)


def next_fill_released(book: Book) -> None:
    next_fill_open(book)
    book.claim("A")
    book.release("A")


def next_fill_too_late(book: Book) -> None:
    fill_collected(book)
    book.now = END


def every_fill_collected(book: Book) -> None:
    next_fill_open(book)
    book.claim("A")
    book.commit("A")
    book.dispense("A")


# --- the events -----------------------------------------------------------------------------------

EVENTS: dict[str, Callable[[Book], Change]] = {
    "claim A": lambda book: book.claim("A"),
    "claim B": lambda book: book.claim("B"),
    "commit": lambda book: book.commit("A"),
    "dispense": lambda book: book.dispense("A"),
    "release": lambda book: book.release("A"),
    "lease timer": lambda book: book.expire_lease(),
}
REFUSALS = {
    "HELD": Reason.PRESCRIPTION_HELD,
    "REVOKED": Reason.PRESCRIPTION_REVOKED,
    "EXPIRED": Reason.PRESCRIPTION_EXPIRED,
    "USED_UP": Reason.PRESCRIPTION_USED_UP,
    "ENDED": Reason.ATTEMPT_ENDED,
    "TOO_EARLY": Reason.ATTEMPT_NOT_COMMITTED,
    "CLOSED": Reason.FILL_TOO_EARLY,
}
# Capitals are refusals, small letters the new state of the attempt. "same" changes nothing; "-" is
# no attempt to name. Commit, dispense and release come from A, which names its newest attempt.
TABLE = """
                         claim A    claim B    commit     dispense   release    lease timer
available                reserved   reserved   -          -          -          same
reserved                 same       HELD       committed  TOO_EARLY  released   same
reserved_lease_over      reserved   reserved   ENDED      TOO_EARLY  ENDED      expired
committed                same       HELD       same       dispensed  released   same
committed_long_ago       same       HELD       same       dispensed  released   same
dispensed_partly         reserved   reserved   ENDED      same       ENDED      same
dispensed                USED_UP    USED_UP    ENDED      same       ENDED      same
released                 reserved   reserved   ENDED      ENDED      same       same
released_after_commit    reserved   reserved   ENDED      ENDED      same       same
expired                  reserved   reserved   ENDED      ENDED      ENDED      same
validity_over            EXPIRED    EXPIRED    -          -          -          same
validity_over_reserved   same       HELD       committed  TOO_EARLY  released   same
validity_over_committed  same       HELD       same       dispensed  released   same
validity_over_partly     EXPIRED    EXPIRED    ENDED      same       ENDED      same
marked                   same       HELD       committed  TOO_EARLY  released   same
marked_lease_over        REVOKED    REVOKED    ENDED      TOO_EARLY  ENDED      expired
marked_committed         same       HELD       same       dispensed  released   same
marked_released          REVOKED    REVOKED    ENDED      ENDED      same       same
marked_expired           REVOKED    REVOKED    ENDED      ENDED      ENDED      same
marked_dispensed_partly  REVOKED    REVOKED    ENDED      same       ENDED      same
marked_dispensed         USED_UP    USED_UP    ENDED      same       ENDED      same
revoked                  REVOKED    REVOKED    -          -          -          same
revoked_rest             REVOKED    REVOKED    ENDED      same       ENDED      same
fill_open                reserved   reserved   -          -          -          same
fill_reserved            same       HELD       committed  TOO_EARLY  released   same
fill_committed           same       HELD       same       dispensed  released   same
fill_collected           CLOSED     CLOSED     ENDED      same       ENDED      same
fill_marked              same       HELD       same       dispensed  released   same
next_fill_open           reserved   reserved   ENDED      same       ENDED      same
next_fill_released       reserved   reserved   ENDED      ENDED      same       same
next_fill_too_late       EXPIRED    EXPIRED    ENDED      same       ENDED      same
every_fill_collected     USED_UP    USED_UP    ENDED      same       ENDED      same
"""
# What a revocation comes to, the validity after it, and what is then available of two packs.
REVOCATIONS = """
available                revoked            revoked                2
reserved                 marked             marked_for_revocation  0
reserved_lease_over      revoked            revoked                2
committed                marked             marked_for_revocation  0
committed_long_ago       marked             marked_for_revocation  0
dispensed_partly         rest_revoked       revoked                1
dispensed                already_dispensed  active                 0
released                 revoked            revoked                2
released_after_commit    revoked            revoked                2
expired                  revoked            revoked                2
validity_over            expired            active                 2
validity_over_reserved   marked             marked_for_revocation  0
validity_over_committed  marked             marked_for_revocation  0
validity_over_partly     expired            active                 1
marked                   marked             marked_for_revocation  0
marked_lease_over        already_revoked    revoked                2
marked_committed         marked             marked_for_revocation  0
marked_released          already_revoked    revoked                2
marked_expired           already_revoked    revoked                2
marked_dispensed_partly  already_revoked    revoked                1
marked_dispensed         already_dispensed  active                 0
revoked                  already_revoked    revoked                2
revoked_rest             already_revoked    revoked                1
fill_open                revoked            revoked                2
fill_reserved            marked             marked_for_revocation  1
fill_committed           marked             marked_for_revocation  1
fill_collected           rest_revoked       revoked                1
fill_marked              marked             marked_for_revocation  1
next_fill_open           rest_revoked       revoked                1
next_fill_released       rest_revoked       revoked                1
next_fill_too_late       expired            active                 1
every_fill_collected     already_dispensed  active                 0
"""
STATES: dict[str, Callable[[Book], None]] = {
    state.__name__: state
    for state in (
        available,
        reserved,
        reserved_lease_over,
        committed,
        committed_long_ago,
        dispensed_partly,
        dispensed,
        released,
        released_after_commit,
        expired,
        validity_over,
        validity_over_reserved,
        validity_over_committed,
        validity_over_partly,
        marked,
        marked_lease_over,
        marked_committed,
        marked_released,
        marked_expired,
        marked_dispensed_partly,
        marked_dispensed,
        revoked,
        revoked_rest,
        fill_open,
        fill_reserved,
        fill_committed,
        fill_collected,
        fill_marked,
        next_fill_open,
        next_fill_released,
        next_fill_too_late,
        every_fill_collected,
    )
}
NO_ATTEMPT = ("available", "validity_over", "revoked", "fill_open")
WITH_ATTEMPT = [name for name in STATES if name not in NO_ATTEMPT]


def book_in(state: str) -> Book:
    book = Book(new_prescription(2))
    STATES[state](book)
    return book


def rows(table: str) -> Iterator[list[str]]:
    return (line.split() for line in table.strip().splitlines())


def cells() -> list[tuple[str, str, str]]:
    lines = list(rows(TABLE.partition("timer\n")[2]))
    return [
        (row[0], event, cell) for row in lines for event, cell in zip(EVENTS, row[1:], strict=True)
    ]


def outcome(book: Book, event: Callable[[Book], Change]) -> str:
    """What came of an event, in the words of the table."""
    before = (book.prescription, dict(book.attempts))
    try:
        change = event(book)
    except Refusal as refusal:
        assert (book.prescription, book.attempts) == before
        return next(word for word, reason in REFUSALS.items() if reason is refusal.reason)
    if (book.prescription, book.attempts) == before:
        assert change.prescription is before[0], "unchanged means not even a new version"
        return "same"
    assert book.prescription.version > before[0].version
    assert book.prescription.update_time == change.attempt.update_time == book.now
    return change.attempt.state


@pytest.mark.parametrize(
    ("state", "event", "expected"), [each for each in cells() if each[2] != "-"]
)
def test_every_event_has_its_outcome_in_every_state(state: str, event: str, expected: str) -> None:
    assert outcome(book_in(state), EVENTS[event]) == expected


def test_the_tables_have_a_row_for_every_state_and_a_dash_only_without_an_attempt() -> None:
    assert [row[0] for row in rows(REVOCATIONS)] == list(STATES)
    assert list(dict.fromkeys(state for state, _, _ in cells())) == list(STATES)
    assert len(cells()) == len(STATES) * len(EVENTS)
    dashes = {(state, event) for state, event, cell in cells() if cell == "-"}
    assert {state for state, _ in dashes} == set(STATES) - set(WITH_ATTEMPT)
    assert {event for _, event in dashes} == {"commit", "dispense", "release"}


@pytest.mark.parametrize(("state", "outcome", "validity", "left"), list(rows(REVOCATIONS)))
def test_every_revocation_says_what_it_came_to(
    state: str, outcome: str, validity: str, left: str
) -> None:
    book = book_in(state)
    assert book.revoke() is RevocationOutcome(outcome)
    assert book.prescription.validity is Validity(validity)
    assert sum(line.quantity for line in book.prescription.available) == int(left)


@pytest.mark.parametrize("state", STATES)
def test_a_revocation_that_is_repeated_changes_nothing(state: str) -> None:
    book = book_in(state)
    book.revoke()
    prescription, attempts = book.prescription, dict(book.attempts)
    book.revoke()
    assert book.prescription is prescription
    assert book.attempts == attempts


@pytest.mark.parametrize("step", ["commit", "dispense", "release"])
@pytest.mark.parametrize("state", WITH_ATTEMPT)
def test_an_attempt_does_not_exist_for_another_pharmacy(state: str, step: str) -> None:
    book = book_in(state)
    with pytest.raises(Refusal) as refused:
        getattr(book, step)("B")
    assert refused.value.reason is Reason.ATTEMPT_NOT_FOUND


def follow_up(book: Book, step: str, reference: AttemptReference) -> Change:
    """A later step on the newest attempt, under any name."""
    attempt, prescription = book.newest, book.prescription
    if step == "release":
        return transitions.release(prescription, attempt, reference, now=book.now)
    if step == "dispense":
        return transitions.dispense(prescription, attempt, reference, attempt.lines, now=book.now)
    return transitions.commit(
        prescription, attempt, reference, attempt.lines, settlement_id="settlement", now=book.now
    )


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("step", ["commit", "dispense", "release"])
@pytest.mark.parametrize("state", WITH_ATTEMPT)
def test_a_step_with_another_fence_is_refused(state: str, step: str, off: int) -> None:
    book = book_in(state)
    right = book.reference("A", b"any")
    with pytest.raises(Refusal) as refused:
        follow_up(book, step, replace(right, fence=right.fence + off))
    assert refused.value.reason is Reason.FENCE_STALE


@pytest.mark.parametrize("step", ["commit", "dispense", "release"])
def test_a_step_for_another_attempt_of_the_same_pharmacy_is_refused(step: str) -> None:
    book = book_in("committed")
    with pytest.raises(Refusal) as refused:
        follow_up(book, step, replace(book.reference("A", b"any"), attempt_id="attempt-0"))
    assert refused.value.reason is Reason.ATTEMPT_NOT_FOUND


# --- time -----------------------------------------------------------------------------------------

EDGES = [(-MICROSECOND, True), (timedelta(0), False), (MICROSECOND, False)]


@pytest.mark.parametrize(("offset", "valid"), EDGES)
def test_validity_ends_at_its_end_and_not_before(offset: timedelta, valid: bool) -> None:
    book = Book(new_prescription(2), now=END + offset)
    expected = Validity.ACTIVE if valid else Validity.EXPIRED
    assert book.prescription.validity_at(book.now) is expected
    assert outcome(book, EVENTS["claim A"]) == ("reserved" if valid else "EXPIRED")
    fresh = Book(new_prescription(2), now=END + offset)
    assert fresh.revoke() == ("revoked" if valid else "expired")


@pytest.mark.parametrize(("offset", "live"), EDGES)
@pytest.mark.parametrize(
    ("event", "while_live", "after"),
    [
        ("claim A", "same", "reserved"),
        ("claim B", "HELD", "reserved"),
        ("commit", "committed", "ENDED"),
        ("release", "released", "ENDED"),
        ("lease timer", "same", "expired"),
    ],
)
def test_a_lease_ends_at_its_end_and_not_before(
    event: str, while_live: str, after: str, offset: timedelta, live: bool
) -> None:
    book = book_in("reserved")
    book.now = START + LEASE + offset
    assert outcome(book, EVENTS[event]) == (while_live if live else after)


@pytest.mark.parametrize(("offset", "live"), EDGES)
def test_a_revocation_marks_while_the_lease_lasts(offset: timedelta, live: bool) -> None:
    book = book_in("reserved")
    book.now = START + LEASE + offset
    assert book.revoke() == ("marked" if live else "revoked")
    assert book.newest.state == ("reserved" if live else "expired")


def test_a_lease_outlives_the_validity_of_its_prescription() -> None:
    book = book_in("validity_over_reserved")
    assert book.newest.lease_expire_time == END - MICROSECOND + LEASE
    book.commit("A")
    book.dispense("A")
    assert book.prescription.has_dispensed


@pytest.mark.parametrize("ending", ["release", "lease timer"])
def test_what_comes_back_after_the_validity_cannot_be_claimed(ending: str) -> None:
    book = book_in("validity_over_reserved")
    if ending == "lease timer":
        book.now += LEASE
    EVENTS[ending](book)
    assert book.prescription.available == quantities({1: 2})
    assert outcome(book, EVENTS["claim A"]) == "EXPIRED"


@pytest.mark.parametrize("state", ["committed", "marked_committed"])
def test_no_timer_moves_what_is_committed(state: str) -> None:
    book = book_in(state)
    before = book.newest
    book.now = datetime.max.replace(tzinfo=START.tzinfo)
    book.expire_lease()
    book.revoke()
    assert book.newest is before
    assert before.lease_expire_time is None
    leased = replace(before, lease_expire_time=START + LEASE)
    assert not leased.lease_is_over(book.now), "a committed attempt has no lease, whatever it says"


# --- what an attempt says -------------------------------------------------------------------------


def test_a_claim_tells_who_holds_what_until_when() -> None:
    book = Book(new_prescription(2, 3), now=START + timedelta(hours=1))
    change = book.claim("A", {2: 1})
    assert change.attempts == (
        Attempt(
            attempt_id="attempt-1",
            prescription_number=book.prescription.number,
            fence=1,
            state=AttemptState.RESERVED,
            pharmacy_code=pharmacy_code("A"),
            dispensing_region_code=region_code("A"),
            lines=quantities({2: 1}),
            create_time=book.now,
            lease_expire_time=book.now + LEASE,
            update_time=book.now,
            settlement_id="",
            cause_sha256=CLAIM,
        ),
    )
    assert change.prescription.live_attempt is change.attempt
    assert change.prescription.lines == (LineUse(1, 2), LineUse(2, 3, claimed=1))
    assert not change.prescription.pharmacy_reviewed


def test_each_step_names_the_statement_that_led_to_it() -> None:
    book = book_in("reserved")
    assert book.commit("A", settlement_id="s-7").attempt.cause_sha256 == COMMITMENT
    assert book.newest.settlement_id == "s-7"
    assert book.prescription.pharmacy_reviewed
    assert book.dispense("A").attempt.cause_sha256 == RECORD
    assert book.newest.settlement_id == "s-7"
    assert book_in("released").newest.cause_sha256 == RELEASE
    assert book_in("expired").newest.cause_sha256 == b""


@pytest.mark.parametrize("state", ["dispensed", "released", "released_after_commit", "expired"])
def test_an_ended_attempt_has_no_lease_and_is_not_live(state: str) -> None:
    book = book_in(state)
    assert book.newest.lease_expire_time is None
    assert not book.newest.state.is_live
    assert book.prescription.live_attempt is None


def test_a_claim_after_a_lease_ran_out_states_both_attempts() -> None:
    book = book_in("reserved_lease_over")
    change = book.claim("B")
    states = [(each.attempt_id, each.fence, each.state) for each in change.attempts]
    assert states == [("attempt-1", 1, "expired"), ("attempt-2", 2, "reserved")]
    assert change.attempt.pharmacy_code == pharmacy_code("B")


def test_fences_rise_by_one_over_releases_expiries_and_dispenses() -> None:
    book = Book(new_prescription(2))
    for letter in "ABA":
        book.claim(letter)
        book.release(letter)
    book.claim("B")
    book.now += LEASE
    book.claim("A", {1: 1})
    book.commit("A")
    book.dispense("A")
    book.claim("B")
    assert [each.fence for each in book.attempts.values()] == [1, 2, 3, 4, 5, 6]


def test_a_claim_that_was_answered_before_gets_the_same_attempt_whatever_it_wants_now() -> None:
    book = Book(new_prescription(2))
    first = book.claim("A", {1: 1}).attempt
    assert book.claim("A", {1: 2}, cause=b"claim again").attempt is first


def test_a_pharmacy_of_the_same_code_in_another_region_is_another_pharmacy() -> None:
    book = book_in("reserved")
    terms = replace(claim_terms("A"), dispensing_region_code=region_code("B"))
    with pytest.raises(Refusal) as refused:
        transitions.claim(
            book.prescription, terms, attempt_id="attempt-2", now=book.now, lease=LEASE
        )
    assert refused.value.reason is Reason.PRESCRIPTION_HELD


@pytest.mark.parametrize(
    ("state", "lease"), [("reserved", (START + LEASE).isoformat()), ("committed", "")]
)
def test_a_refused_claim_names_the_holder_and_how_long(state: str, lease: str) -> None:
    book = book_in(state)
    with pytest.raises(Refusal) as refused:
        book.claim("B")
    assert refused.value.detail == {
        "holder_code": pharmacy_code("A"),
        "holder_region": region_code("A"),
        "lease_expire_time": lease,
    }


@pytest.mark.parametrize(
    ("state", "step", "ended_as"),
    [
        ("reserved_lease_over", "commit", "expired"),
        ("reserved_lease_over", "release", "expired"),
        ("expired", "dispense", "expired"),
        ("released", "commit", "released"),
        ("dispensed", "release", "dispensed"),
    ],
)
def test_a_step_on_an_ended_attempt_hears_how_it_ended(
    state: str, step: str, ended_as: str
) -> None:
    book = book_in(state)
    with pytest.raises(Refusal) as refused:
        getattr(book, step)("A")
    assert refused.value.detail == {"state": ended_as}
    assert ended_as in refused.value.message


# --- quantities -----------------------------------------------------------------------------------


def test_a_claim_without_lines_takes_everything_that_is_available() -> None:
    book = Book(new_prescription(2, 3))
    book.claim("A", {1: 2, 2: 1})
    book.commit("A")
    book.dispense("A")
    assert book.claim("B").attempt.lines == quantities({2: 2})


def test_parts_can_be_dispensed_one_after_the_other_until_it_is_used_up() -> None:
    book = Book(new_prescription(3))
    for letter, part in (("A", 1), ("B", 2)):
        book.claim(letter, {1: part})
        book.commit(letter)
        book.dispense(letter)
    assert book.prescription.lines == (LineUse(1, 3, dispensed=3),)
    assert outcome(book, EVENTS["claim A"]) == "USED_UP"
    with pytest.raises(Refusal) as refused:
        book.claim("A", {1: 1})
    assert refused.value.reason is Reason.QUANTITY_EXCEEDED


@pytest.mark.parametrize(
    ("taken", "lines"),
    [
        ({1: 2, 2: 3}, (LineUse(1, 2, committed=2), LineUse(2, 3, committed=3))),
        ({1: 2, 2: 1}, (LineUse(1, 2, committed=2), LineUse(2, 3, committed=1))),
        ({2: 3}, (LineUse(1, 2), LineUse(2, 3, committed=3))),
        ({1: 1}, (LineUse(1, 2, committed=1), LineUse(2, 3))),
    ],
)
def test_a_commit_of_less_than_was_claimed_frees_the_rest(
    taken: dict[int, int], lines: tuple[LineUse, ...]
) -> None:
    book = Book(new_prescription(2, 3))
    book.claim("A")
    change = book.commit("A", taken)
    assert change.attempt.lines == quantities(taken)
    assert book.prescription.lines == lines
    assert outcome(book, EVENTS["claim B"]) == "HELD", "free, but one live attempt at a time"
    book.dispense("A")
    left = tuple(LineQuantity(each.line_id, each.available) for each in lines if each.available)
    if left:
        assert book.claim("B").attempt.lines == left


def test_a_release_after_a_partial_commit_frees_all_of_it() -> None:
    book = Book(new_prescription(2, 3))
    book.claim("A")
    book.commit("A", {1: 1})
    book.release("A")
    assert book.prescription.lines == (LineUse(1, 2), LineUse(2, 3))


TWO_OF_LINE_1 = {"line_id": "1", "available": "2"}
BAD_LINES = [
    pytest.param(((3, 1),), Reason.LINE_UNKNOWN, {"line_id": "3"}, id="unknown"),
    pytest.param(((1, 1), (1, 1)), Reason.LINE_UNKNOWN, {"line_id": "1"}, id="twice"),
    pytest.param(((1, 3),), Reason.QUANTITY_EXCEEDED, TWO_OF_LINE_1, id="more"),
    pytest.param(((2, 1), (1, 3)), Reason.QUANTITY_EXCEEDED, TWO_OF_LINE_1, id="one-of-two-more"),
    pytest.param(((1, 0),), Reason.FIELD_INVALID, {"field": "lines.quantity"}, id="zero"),
    pytest.param(((1, -1),), Reason.FIELD_INVALID, {"field": "lines.quantity"}, id="negative"),
]


@pytest.mark.parametrize(("wanted", "reason", "detail"), BAD_LINES)
def test_a_claim_of_impossible_lines_is_refused(
    wanted: tuple[tuple[int, int], ...], reason: Reason, detail: dict[str, str]
) -> None:
    lines = tuple(LineQuantity(*each) for each in wanted)
    with pytest.raises(Refusal) as refused:
        transitions.claim(
            new_prescription(2, 3),
            replace(claim_terms("A"), lines=lines),
            attempt_id="attempt-1",
            now=START,
            lease=LEASE,
        )
    assert (refused.value.reason, refused.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    ("wanted", "reason", "detail"),
    [*BAD_LINES, pytest.param((), Reason.FIELD_INVALID, {"field": "lines"}, id="nothing")],
)
def test_a_commit_of_impossible_lines_is_refused(
    wanted: tuple[tuple[int, int], ...], reason: Reason, detail: dict[str, str]
) -> None:
    book = Book(new_prescription(2, 3))
    book.claim("A")
    lines = tuple(LineQuantity(*each) for each in wanted)
    with pytest.raises(Refusal) as refused:
        transitions.commit(
            book.prescription,
            book.newest,
            book.reference("A", COMMITMENT),
            lines,
            settlement_id="settlement",
            now=book.now,
        )
    assert (refused.value.reason, refused.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    ("wanted", "reason", "detail"),
    [
        ({1: 2}, Reason.QUANTITY_EXCEEDED, {"line_id": "1", "available": "1"}),
        ({2: 1}, Reason.LINE_UNKNOWN, {"line_id": "2"}),
    ],
)
def test_a_commit_of_more_than_was_claimed_is_refused_even_if_it_is_available(
    wanted: dict[int, int], reason: Reason, detail: dict[str, str]
) -> None:
    book = Book(new_prescription(2, 3))
    book.claim("A", {1: 1})
    with pytest.raises(Refusal) as refused:
        book.commit("A", wanted)
    assert (refused.value.reason, refused.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    "handed_over", [{1: 1, 2: 3}, {1: 2}, {1: 2, 2: 3, 3: 1}, {1: 3, 2: 3}, {}]
)
def test_a_record_that_differs_from_the_commitment_is_refused(handed_over: dict[int, int]) -> None:
    book = Book(new_prescription(2, 3))
    book.claim("A")
    book.commit("A")
    with pytest.raises(Refusal) as refused:
        book.dispense("A", handed_over)
    assert refused.value.reason is Reason.DISPENSE_MISMATCH
    assert book.newest.state is AttemptState.COMMITTED


def test_a_ledger_that_does_not_hold_what_its_attempt_says_is_a_defect_and_not_a_refusal() -> None:
    book = book_in("reserved")
    broken = replace(book.prescription, lines=(LineUse(1, 2),))
    reference = book.reference("A", RELEASE)
    with pytest.raises(InvariantBroken, match="line 1"):
        transitions.release(broken, book.newest, reference, now=book.now)


@pytest.mark.parametrize("term", ["claimed", "committed", "dispensed", "returned"])
def test_no_term_of_a_ledger_is_negative(term: str) -> None:
    with pytest.raises(InvariantBroken, match="line 7"):
        replace(LineUse(7, 2), **{term: -1})
    with pytest.raises(InvariantBroken, match="line 7"):
        LineUse(7, 2, claimed=1, committed=1, dispensed=1)


# --- saying it twice ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["committed", "committed_long_ago", "marked_committed"])
def test_a_commit_can_be_repeated(state: str) -> None:
    book = book_in(state)
    before = book.newest
    assert book.commit("A", {1: 2}, cause=b"signed again").attempt is before


@pytest.mark.parametrize(
    ("settlement_id", "taken"), [("settlement", {1: 1}), ("another", {1: 2}), ("", {1: 2})]
)
def test_a_commit_cannot_be_changed(settlement_id: str, taken: dict[int, int]) -> None:
    book = book_in("committed")
    with pytest.raises(Refusal) as refused:
        book.commit("A", taken, settlement_id=settlement_id)
    assert refused.value.reason is Reason.ATTEMPT_ALREADY_COMMITTED
    assert refused.value.detail == {"settlement_id": "settlement"}


@pytest.mark.parametrize(("state", "step"), [("dispensed", "dispense"), ("released", "release")])
def test_an_end_can_be_repeated_with_the_same_statement_only(state: str, step: str) -> None:
    book = book_in(state)
    before = book.newest
    assert getattr(book, step)("A").attempt is before
    with pytest.raises(Refusal) as refused:
        getattr(book, step)("A", cause=b"another statement")
    assert refused.value.reason is Reason.ATTEMPT_ENDED


@pytest.mark.parametrize("step", ["commit", "dispense", "release"])
def test_an_attempt_that_ended_stays_ended_while_another_lives(step: str) -> None:
    book = book_in("released_after_commit")
    old = book.newest
    book.claim("B")
    book.commit("B", settlement_id="of B")
    live = book.newest
    with pytest.raises(Refusal) as refused:
        getattr(book, step)("A", attempt=old, cause=b"late")
    assert refused.value.reason is Reason.ATTEMPT_ENDED
    assert book.prescription.live_attempt is live


# --- the mark -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "event", "validity"),
    [
        ("marked", "release", "revoked"),
        ("marked_committed", "release", "revoked"),
        ("marked_lease_over", "lease timer", "revoked"),
        ("marked_committed", "dispense", "active"),
        ("fill_marked", "release", "revoked"),
        ("fill_marked", "dispense", "revoked"),
    ],
)
def test_a_mark_takes_effect_on_what_is_left(state: str, event: str, validity: str) -> None:
    book = book_in(state)
    assert book.prescription.validity is Validity.MARKED_FOR_REVOCATION
    change = EVENTS[event](book)
    assert book.prescription.validity is Validity(validity)
    assert change.mark_took_effect is (validity == "revoked"), "and this is told"


def test_no_other_end_of_an_attempt_tells_of_a_mark() -> None:
    for state, event in (("committed", "dispense"), ("reserved", "release"), ("marked", "commit")):
        assert not EVENTS[event](book_in(state)).mark_took_effect


def test_a_mark_on_a_partial_claim_revokes_the_rest_after_the_dispense() -> None:
    book = book_in("marked_dispensed_partly")
    assert book.prescription.validity is Validity.REVOKED
    assert book.prescription.lines == (LineUse(1, 2, dispensed=1),)


def test_a_mark_frees_nothing_before_the_attempt_ends() -> None:
    book = Book(new_prescription(2))
    book.claim("A")
    book.revoke()
    book.commit("A", {1: 1})
    assert book.prescription.validity is Validity.MARKED_FOR_REVOCATION
    assert outcome(book, EVENTS["claim B"]) == "HELD"
