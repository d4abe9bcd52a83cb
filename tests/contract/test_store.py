"""What every store must do, whatever engine is below it (they are in ``support.backends``)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rxoutflow_server.application.edge_ports import EdgeStore, Registration
from rxoutflow_server.application.ports import (
    AgreementUse,
    BarredNumber,
    BoxSale,
    DeadEvent,
    OpenBox,
    OutgoingEvent,
    PickupTries,
    Store,
    StoredOutcome,
    Transaction,
)
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.accounts import AccountEntry, AccountMovement, OpeningBalances
from rxoutflow_server.domain.attempt import Attempt, AttemptState, LineQuantity
from rxoutflow_server.domain.benefit import Enrolment, SchemeShare
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal, Unavailable
from rxoutflow_server.domain.plan import Plan
from rxoutflow_server.domain.prescription import (
    AttemptReference,
    Change,
    LineUse,
    Prescription,
)
from rxoutflow_server.domain.settlement import NOTHING, Amounts, Settlement, SettlementState
from rxoutflow_server.storage.memory import MemoryStore
from support.backends import Backend, OpenStore, SqliteFiles
from support.batches import PATIENCE, in_one_batch
from support.records import (
    ATTEMPT,
    HOSPITAL,
    LEASE,
    NOW,
    NUMBER,
    PERSON,
    PHARMACY,
    SETTLEMENT,
    booked_return,
    claim_copy,
    completed,
    digest,
    dispense,
    event,
    goods_return,
    handover,
    index_entry,
    issued,
    later,
    notice,
    outcome,
    person,
    prescription,
    returned,
    reversal,
    settled_lines,
    settlement,
    statement,
    step,
    terms,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
R = TypeVar("R")
X = TypeVar("X")
X_co = TypeVar("X_co", covariant=True)


def defaulted(sample: DataclassInstance) -> set[str]:
    """Fields of a sample that would look the same if a store forgot them."""
    return {each.name for each in fields(sample) if getattr(sample, each.name) == each.default}


def claimed(fresh: Prescription, attempt_id: str = ATTEMPT) -> Change:
    return transitions.claim(fresh, terms(), attempt_id=attempt_id, now=NOW, lease=LEASE)


def committed(change: Change) -> Change:
    attempt = change.attempt
    reference = AttemptReference(attempt.attempt_id, attempt.fence, PHARMACY, digest("commit"))
    return transitions.commit(
        change.prescription, attempt, reference, attempt.lines, settlement_id=SETTLEMENT, now=NOW
    )


class Transacts(Protocol[X_co]):
    """What a platform's and an edge's store have in common."""

    async def transact(self, command: Callable[[X_co], T]) -> T: ...


def on(act: Callable[[X, R], T], record: R) -> Callable[[X], T]:
    """The command that does something with one record."""
    return lambda tx: act(tx, record)


async def each_stored(store: Transacts[X_co], act: Callable[[X_co, R], T], *records: R) -> list[T]:
    """Do the same with each record, one command after the other."""
    return [await store.transact(on(act, record)) for record in records]


def adding(new: Prescription) -> Callable[[Transaction], bool]:
    return lambda tx: tx.home.add_prescription(new)


def barring(number: BarredNumber) -> Callable[[Transaction], bool]:
    return lambda tx: tx.home.bar(number)


def looking_up(
    number: str,
) -> Callable[[Transaction], tuple[Prescription | None, BarredNumber | None]]:
    return lambda tx: (tx.home.prescription(number), tx.home.barred(number))


async def add(store: Store, *new: Prescription) -> None:
    assert all(await each_stored(store, lambda tx, each: tx.home.add_prescription(each), *new))


# --- home -----------------------------------------------------------------------------------------


async def test_a_prescription_comes_back_as_it_was_registered(store: Store) -> None:
    await add(store, prescription())
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == prescription()
    assert await store.read(lambda tx: tx.home.prescription("350200-other")) is None


async def test_a_committed_prescription_comes_back_with_every_field(store: Store) -> None:
    fresh = replace(prescription(), plan=Plan(2, 28, dose_count=10))
    await add(store, fresh)
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == fresh
    change = committed(claimed(fresh))
    begun = replace(change.prescription, opened_fills=2, fill_begin_day=date(2026, 2, 28))
    change = Change(begun, change.attempts)
    await store.transact(lambda tx: tx.home.save(change))
    marked, _ = transitions.revoke(change.prescription, now=later(minutes=1))
    await store.transact(lambda tx: tx.home.save(marked))
    stored = await store.read(lambda tx: tx.home.prescription(NUMBER))
    assert stored == marked.prescription
    assert stored is not None
    assert defaulted(stored) == set()
    assert stored.live_attempt is not None
    assert defaulted(stored.live_attempt) == set()


@pytest.mark.parametrize("opened_fills", [0, 2])
async def test_no_more_fills_are_open_than_there_are(store: Store, opened_fills: int) -> None:
    await add(store, prescription())
    change = claimed(prescription())
    broken = Change(replace(change.prescription, opened_fills=opened_fills), change.attempts)
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.home.save(broken))


BARRED = BarredNumber(NUMBER, HOSPITAL, digest("revocation"), later(microseconds=7))


async def test_a_barred_number_is_never_registered(store: Store) -> None:
    assert await store.read(lambda tx: tx.home.barred(NUMBER)) is None
    assert await store.transact(lambda tx: tx.home.bar(BARRED))
    assert await store.read(lambda tx: tx.home.barred(NUMBER)) == BARRED
    assert not await store.transact(lambda tx: tx.home.add_prescription(prescription()))
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) is None
    assert await store.read(lambda tx: tx.home.barred("350200-other")) is None
    other = prescription("350200-other")
    assert await store.transact(lambda tx: tx.home.add_prescription(other)), "another is free"


async def test_a_number_that_is_barred_again_stays_as_it_was(store: Store) -> None:
    again = replace(BARRED, revocation_sha256=digest("another"), time=later(days=1))
    for each in (BARRED, again):
        assert await store.transact(barring(each))
    assert await store.read(lambda tx: tx.home.barred(NUMBER)) == BARRED


async def test_a_registered_number_is_not_barred(store: Store) -> None:
    await add(store, prescription())
    assert not await store.transact(lambda tx: tx.home.bar(BARRED))
    assert await store.read(lambda tx: tx.home.barred(NUMBER)) is None
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == prescription()


async def test_a_number_whose_registration_was_refused_is_free(store: Store) -> None:
    await add(store, prescription())
    taken = prescription("350200-other", hospital_number=f"HIS-{NUMBER}")
    assert not await store.transact(lambda tx: tx.home.add_prescription(taken))
    other = replace(BARRED, prescription_number=taken.number)
    assert await store.transact(lambda tx: tx.home.bar(other))


async def test_of_a_registration_and_a_bar_at_the_same_time_one_finds_the_other(
    store: Store,
) -> None:
    numbers = [f"350200-{index}" for index in range(20)]
    registering = [store.transact(adding(prescription(number))) for number in numbers]
    to_bar = [
        store.transact(barring(replace(BARRED, prescription_number=number))) for number in numbers
    ]
    mixed = [each for pair in zip(registering, to_bar, strict=True) for each in pair]
    done = await asyncio.gather(*mixed)
    for number, registered, barred_now in zip(numbers, done[::2], done[1::2], strict=True):
        assert registered is not barred_now
        stored, barred = await store.read(looking_up(number))
        assert (stored is not None, barred is None) == (registered, registered)


async def test_a_reserved_attempt_keeps_its_lease_to_the_microsecond(store: Store) -> None:
    await add(store, prescription())
    change = claimed(prescription())
    await store.transact(lambda tx: tx.home.save(change))
    stored = await store.read(lambda tx: tx.home.attempt(NUMBER, ATTEMPT))
    assert stored == change.attempt
    assert await store.read(lambda tx: tx.home.attempt(NUMBER, "another")) is None


async def test_an_ended_attempt_is_kept_but_is_no_longer_the_live_one(store: Store) -> None:
    await add(store, prescription())
    change = claimed(prescription())
    await store.transact(lambda tx: tx.home.save(change))
    ended = transitions.expire_lease(change.prescription, now=later(hours=1))
    await store.transact(lambda tx: tx.home.save(ended))
    stored = await store.read(lambda tx: tx.home.prescription(NUMBER))
    assert stored == ended.prescription
    assert await store.read(lambda tx: tx.home.attempt(NUMBER, ATTEMPT)) == ended.attempt


@pytest.mark.parametrize(
    ("number", "hospital_number"),
    [(NUMBER, "HIS-other"), ("350200-other", "HIS-1")],
    ids=["the same number", "the same number of the hospital's own"],
)
async def test_a_taken_number_is_refused_and_leaves_nothing_behind(
    store: Store, number: str, hospital_number: str
) -> None:
    first = prescription(NUMBER, "HIS-1")
    await add(store, first)
    again = replace(prescription(number, hospital_number), lines=(LineUse(9, 9),))
    assert not await store.transact(lambda tx: tx.home.add_prescription(again))
    assert await store.read(lambda tx: tx.home.prescriptions_of(HOSPITAL, "", 10)) == [first]
    free = prescription("350200-third", "HIS-other")
    await add(store, free)
    assert await store.read(lambda tx: tx.home.prescription("350200-third")) == free


async def test_of_two_registrations_of_one_number_at_once_one_wins(store: Store) -> None:
    rivals = [prescription(NUMBER, f"HIS-{i}") for i in range(20)]
    won = await asyncio.gather(
        *(
            store.transact(on(lambda tx, each: tx.home.add_prescription(each), rival))
            for rival in rivals
        )
    )
    assert won.count(True) == 1
    stored = await store.read(lambda tx: tx.home.prescription(NUMBER))
    assert stored == rivals[won.index(True)]


async def test_of_many_claims_at_once_one_wins(store: Store) -> None:
    await add(store, prescription())

    def claim_for(pharmacy: str) -> Callable[[Transaction], None]:
        def command(tx: Transaction) -> None:
            current = tx.home.prescription(NUMBER)
            assert current is not None
            tx.home.save(
                transitions.claim(
                    current, terms(pharmacy), attempt_id=f"of-{pharmacy}", now=NOW, lease=LEASE
                )
            )

        return command

    outcomes = await asyncio.gather(
        *(store.transact(claim_for(f"P{i}")) for i in range(16)), return_exceptions=True
    )
    refusals = [each for each in outcomes if isinstance(each, Refusal)]
    assert len(refusals) == 15
    assert {refusal.reason for refusal in refusals} == {Reason.PRESCRIPTION_HELD}


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt_id": "second-live-attempt", "fence": 2},
        {"attempt_id": "same-fence", "state": AttemptState.RELEASED, "lease_expire_time": None},
    ],
    ids=["a second live attempt", "a fence used twice"],
)
async def test_what_the_domain_excludes_the_store_excludes_too(
    store: Store, wrong: dict[str, Any]
) -> None:
    await add(store, prescription())
    change = claimed(prescription())
    await store.transact(lambda tx: tx.home.save(change))
    broken = Change(change.prescription, (replace(change.attempt, **wrong),))
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.home.save(broken))
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == change.prescription


async def test_more_than_was_authorised_cannot_be_stored(store: Store) -> None:
    await add(store, prescription())
    line = replace(LineUse(1, 20))
    object.__setattr__(line, "dispensed", 21)  # no code of the domain can make such a line
    broken = Change(replace(prescription(), lines=(line,)))
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.home.save(broken))


async def test_an_older_version_never_overwrites_a_newer_one(store: Store) -> None:
    await add(store, prescription())
    change = claimed(prescription())
    await store.transact(lambda tx: tx.home.save(change))
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.home.save(Change(prescription())))


async def test_what_was_never_added_cannot_be_saved(store: Store) -> None:
    for save in (
        lambda tx: tx.home.save(Change(prescription())),
        lambda tx: tx.payer.save_person(person()),
        lambda tx: tx.payer.save_settlement(settlement()),
        lambda tx: tx.dispensing.save_dispense(dispense()),
    ):
        with pytest.raises(InvariantBroken):
            await store.transact(save)


async def test_a_hospital_lists_its_own_prescriptions_newest_first(store: Store) -> None:
    numbers = [f"350200-{i}" for i in range(5)]
    await add(store, *[prescription(number) for number in numbers])
    await add(store, replace(prescription("350200-9"), issuer_code="H35020000009"))
    first = await store.read(lambda tx: tx.home.prescriptions_of(HOSPITAL, "", 2))
    rest = await store.read(lambda tx: tx.home.prescriptions_of(HOSPITAL, first[-1].number, 9))
    assert [each.number for each in [*first, *rest]] == numbers[::-1]
    assert first[0] == prescription(numbers[-1])


async def test_leases_are_overdue_from_their_very_end_longest_overdue_first(store: Store) -> None:
    for minutes, number in ((2, "a"), (1, "b"), (3, "c")):
        await add(store, prescription(number))
        change = transitions.claim(
            prescription(number),
            terms(),
            attempt_id=f"of-{number}",
            now=NOW,
            lease=timedelta(minutes=minutes),
        )
        await each_stored(store, lambda tx, each: tx.home.save(each), change)

    async def overdue(**after: float) -> list[str]:
        return list(await store.read(lambda tx: tx.home.overdue_leases(later(**after), 10)))

    assert await overdue(minutes=1, microseconds=-1) == []
    assert await overdue(minutes=1) == ["b"]
    assert await overdue(minutes=2) == ["b", "a"]
    assert await store.read(lambda tx: tx.home.overdue_leases(later(hours=1), 2)) == ["b", "a"]


async def test_a_committed_attempt_is_never_overdue(store: Store) -> None:
    await add(store, prescription())
    await store.transact(lambda tx: tx.home.save(committed(claimed(prescription()))))
    assert await store.read(lambda tx: tx.home.overdue_leases(later(days=99), 10)) == []


async def test_wrong_pickup_codes_are_counted_per_prescription(store: Store) -> None:
    await add(store, prescription())
    assert await store.read(lambda tx: tx.home.pickup_tries(NUMBER)) is None
    for tries in (PickupTries(NUMBER, 1, None), PickupTries(NUMBER, 5, later(minutes=15))):
        await each_stored(store, lambda tx, each: tx.home.save_pickup_tries(each), tries)
        assert await store.read(lambda tx: tx.home.pickup_tries(NUMBER)) == tries
    assert await store.read(lambda tx: tx.home.pickup_tries("another")) is None


# --- journal --------------------------------------------------------------------------------------


async def test_a_statement_is_kept_byte_for_byte(store: Store) -> None:
    kept = statement()
    await store.transact(lambda tx: tx.journal.keep_statement(NUMBER, digest(1), kept, NOW))
    found = await store.read(lambda tx: tx.journal.statement(NUMBER, digest(1)))
    assert found == kept
    assert found.SerializeToString() == kept.SerializeToString()


async def test_the_first_statement_under_a_digest_stays(store: Store) -> None:
    await each_stored(
        store,
        lambda tx, each: tx.journal.keep_statement(NUMBER, digest(1), each, NOW),
        statement("first"),
        statement("second"),
    )
    found = await store.read(lambda tx: tx.journal.statement(NUMBER, digest(1)))
    assert found.payload == b"first"


async def test_a_statement_that_was_not_kept_is_a_defect(store: Store) -> None:
    with pytest.raises(InvariantBroken):
        await store.read(lambda tx: tx.journal.statement(NUMBER, digest("never")))


async def test_an_outcome_is_found_by_its_prescription_caller_and_request_only(
    store: Store,
) -> None:
    await store.transact(lambda tx: tx.journal.keep_outcome(NUMBER, "caller", "id", outcome()))
    assert await store.read(lambda tx: tx.journal.outcome(NUMBER, "caller", "id")) == outcome()
    for number, caller, request_id in (
        ("other", "caller", "id"),
        (NUMBER, "other", "id"),
        (NUMBER, "caller", "other"),
    ):
        found = partial(find_outcome, number=number, caller=caller, request_id=request_id)
        assert await store.read(found) is None


def find_outcome(
    tx: Transaction, number: str, caller: str, request_id: str
) -> StoredOutcome | None:
    return tx.journal.outcome(number, caller, request_id)


async def test_an_outcome_is_stored_once(store: Store) -> None:
    await store.transact(lambda tx: tx.journal.keep_outcome(NUMBER, "caller", "id", outcome()))
    other = outcome(b"another answer")
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.journal.keep_outcome(NUMBER, "caller", "id", other))
    assert await store.read(lambda tx: tx.journal.outcome(NUMBER, "caller", "id")) == outcome()


async def test_steps_come_back_in_the_order_in_which_they_were_stored(store: Store) -> None:
    steps = [step(action) for action in ("registered", "claimed", "claimed", "paid")]
    await each_stored(store, lambda tx, each: tx.journal.add_step(NUMBER, each), *steps)
    await store.transact(lambda tx: tx.journal.add_step("350200-other", step("another's")))
    assert await store.read(lambda tx: tx.journal.steps(NUMBER)) == steps


async def test_notices_are_numbered_per_institution_without_gaps(store: Store) -> None:
    notices = [notice("A", "a1"), notice("B", "b1"), notice("A", "a2"), notice("A", "a3")]
    await each_stored(store, lambda tx, each: tx.journal.add_notice(each), *notices)
    found = await store.read(lambda tx: tx.journal.notices("A", 0, 10))
    assert found == [replace(notice("A", f"a{i}"), sequence=i) for i in (1, 2, 3)]
    assert await store.read(lambda tx: tx.journal.notices("A", 1, 1)) == [found[1]]
    assert await store.read(lambda tx: tx.journal.notices("A", 3, 10)) == []
    assert await store.read(lambda tx: tx.journal.notices("B", 0, 10)) == [notice("B", "b1")]


async def test_a_notice_that_was_undone_uses_no_number(store: Store) -> None:
    def undone(tx: Transaction) -> None:
        tx.journal.add_notice(notice("A", "undone"))
        raise LookupError

    with pytest.raises(LookupError):
        await store.transact(undone)
    await store.transact(lambda tx: tx.journal.add_notice(notice("A", "first")))
    assert await store.read(lambda tx: tx.journal.notices("A", 0, 10)) == [notice("A", "first")]


async def test_an_event_of_another_region_is_noted_once(store: Store) -> None:
    async def receive(number: str, origin: str, event_id: str) -> bool:
        return await store.transact(
            lambda tx: tx.journal.receive_event(number, origin, event_id, NOW)
        )

    assert await receive(NUMBER, "350500", "e1")
    assert not await receive(NUMBER, "350500", "e1")
    assert await receive(NUMBER, "350600", "e1")
    assert await receive(NUMBER, "350500", "e2")


# --- outbox ---------------------------------------------------------------------------------------


async def due(store: Store, peer: str = "350500", limit: int = 10, **after: float) -> list[str]:
    events = await store.read(lambda tx: tx.journal.due_events(peer, later(**after), limit))
    return [each.event_id for each in events]


async def put(store: Store, *events: OutgoingEvent) -> None:
    await each_stored(store, lambda tx, each: tx.journal.add_event(each), *events)


async def test_events_are_due_in_the_order_in_which_they_were_stored(store: Store) -> None:
    # Ids of one instant need not rise; the order of one prescription is the order of storing.
    await put(store, event("z"), event("m"), event("a"))
    await put(store, event("later", number="other", create_time=later(seconds=1)))
    assert await due(store) == ["z", "m", "a"]
    assert await due(store, seconds=1) == ["z", "m", "a", "later"]
    assert await due(store, limit=2) == ["z", "m"]
    assert await store.read(lambda tx: tx.journal.due_events("350500", NOW, 1)) == [event("z")]


async def test_only_peers_with_something_to_send_now_are_named(store: Store) -> None:
    await put(store, event("1", peer="B"), event("2", peer="A"), event("3", peer="B"))
    await put(store, event("4", peer="C", create_time=later(hours=1)))
    assert await store.read(lambda tx: tx.journal.peers_with_due_events(NOW)) == ["A", "B"]
    assert await due(store, "A") == ["2"]


async def test_an_acknowledged_event_is_gone(store: Store) -> None:
    await put(store, event("1"), event("2"))
    for _again in range(2):
        await store.transact(lambda tx: tx.journal.event_acknowledged(event("1")))
    assert await due(store) == ["2"]


async def test_a_refused_event_is_never_sent_again_and_holds_nothing_up(store: Store) -> None:
    await put(store, event("1"), event("2"))
    await store.transact(lambda tx: tx.journal.event_refused(event("1"), "unknown attempt"))
    await store.transact(lambda tx: tx.journal.event_delayed(event("1"), NOW))
    assert await due(store, days=99) == ["2"]


async def test_a_delayed_event_is_due_again_with_its_tries_counted(store: Store) -> None:
    await put(store, event("1"))
    await store.transact(lambda tx: tx.journal.event_delayed(event("1"), later(seconds=5)))
    assert await due(store, seconds=4) == []
    assert await store.read(lambda tx: tx.journal.peers_with_due_events(later(seconds=4))) == []
    again = await store.read(lambda tx: tx.journal.due_events("350500", later(seconds=5), 10))
    assert again == [replace(event("1"), tries=1)]


async def test_an_event_waits_for_the_earlier_ones_of_its_prescription(store: Store) -> None:
    await put(store, event("1"), event("2"), event("x", number="other"))
    await store.transact(lambda tx: tx.journal.event_delayed(event("1"), later(seconds=5)))
    assert await due(store) == ["x"]
    # Due again, the earlier one still goes first; the later one follows when it has left.
    assert await due(store, seconds=5) == ["x", "1"]
    await store.transact(lambda tx: tx.journal.event_acknowledged(event("1")))
    assert await due(store) == ["2", "x"]


async def test_an_event_that_was_put_back_waits_for_all_that_were_there(store: Store) -> None:
    await put(store, event("1"), event("2"), event("x", number="other"))
    await store.transact(lambda tx: tx.journal.event_put_back(event("1"), later(seconds=5)))
    assert await due(store) == ["2", "x"]
    again = await store.read(lambda tx: tx.journal.due_events("350500", later(seconds=5), 10))
    assert [(each.event_id, each.tries) for each in again] == [("2", 0), ("x", 0), ("1", 1)]
    await store.transact(lambda tx: tx.journal.event_delayed(event("2"), later(seconds=9)))
    assert await due(store, seconds=5) == ["x"]


async def test_events_to_other_peers_are_not_held_up(store: Store) -> None:
    await put(store, event("1", peer="A"), event("2", peer="B"))
    await store.transact(
        lambda tx: tx.journal.event_delayed(event("1", peer="A"), later(seconds=5))
    )
    assert await due(store, "B") == ["2"]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_event_of_a_prescription_leaves_in_order_whatever_the_network_does(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> None:
        store = SqliteFiles(tmp_path_factory.mktemp("outbox")).platform()
        events = {
            each.event_id: each for each in (event(f"{i}", number=f"{i % 2}") for i in range(8))
        }
        await put(store, *events.values())
        left = await drained(store, events, data)
        await store.close()
        for parity in (0, 1):
            own = [each for each in left if int(each) % 2 == parity]
            assert own == sorted(own)

    asyncio.run(run())


async def drained(store: Store, events: dict[str, OutgoingEvent], data: st.DataObject) -> list[str]:
    """The events in the order in which they arrived, over a network that often fails."""
    left: list[str] = []
    clock = 0
    while len(left) < len(events):
        clock += data.draw(st.integers(1, 3), "seconds")
        for event_id in await due(store, limit=data.draw(st.integers(1, 8)), seconds=clock):
            sent = events[event_id]
            if data.draw(st.booleans(), "fails"):
                until = later(seconds=clock + data.draw(st.integers(1, 5), "pause"))
                await store.transact(partial(delay, event=sent, until=until))
                break  # the call failed here: what was behind it is tried again
            left.append(event_id)
            await store.transact(partial(acknowledge, event=sent))
    return left


def delay(tx: Transaction, event: OutgoingEvent, until: datetime) -> None:
    tx.journal.event_delayed(event, until)


def acknowledge(tx: Transaction, event: OutgoingEvent) -> None:
    tx.journal.event_acknowledged(event)


# --- for people: silent pharmacies, events that were set aside ------------------------------------


async def test_commitments_are_listed_from_a_time_on_oldest_first(store: Store) -> None:
    numbers = [f"35020000000000000{index}" for index in range(4)]
    for index, number in enumerate(numbers):
        change = committed(claimed(prescription(number), f"attempt-{number}"))
        attempt = replace(change.attempt, update_time=later(minutes=-index))
        held = Change(replace(change.prescription, live_attempt=attempt), (attempt,))
        await store.transact(
            on(lambda tx, each: tx.home.add_prescription(each), prescription(number))
        )
        await store.transact(on(lambda tx, each: tx.home.save(each), held))
    await add(store, prescription())
    await store.transact(lambda tx: tx.home.save(claimed(prescription())))

    async def listed(end: datetime, after: tuple[datetime, str] | None, limit: int) -> list[str]:
        found = await store.read(lambda tx: tx.home.commits_until(end, after, limit))
        return [each.prescription_number for each in found]

    assert await listed(later(minutes=-4), None, 9) == []
    assert await listed(later(minutes=-2), None, 9) == [numbers[3], numbers[2]]
    assert await listed(NOW, None, 2) == [numbers[3], numbers[2]]
    assert await listed(NOW, (later(minutes=-2), numbers[2]), 9) == [numbers[1], numbers[0]]
    assert await listed(NOW, (later(minutes=-2), ""), 1) == [numbers[2]]
    assert await store.read(lambda tx: tx.home.count_commits_until(later(minutes=-1))) == 3
    assert await store.read(lambda tx: tx.home.count_commits_until(NOW)) == 4


async def test_holds_are_listed_from_a_time_on_longest_held_first(store: Store) -> None:
    holds = [
        replace(
            settlement(f"settlement-{index}", f"attempt-{index}"),
            create_time=later(minutes=-index),
        )
        for index in range(5)
    ]
    for each in holds:
        await store.transact(on(lambda tx, one: tx.payer.add_settlement(one), each))
    posted = replace(holds[4], state=SettlementState.POSTED)
    await store.transact(lambda tx: tx.payer.save_settlement(posted))
    end = (holds[3].insured_person_id, holds[3].attempt_id, "dispensed")
    await store.transact(lambda tx: tx.payer.note_attempt_end(*end))

    async def listed(
        end: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> list[Settlement]:
        return list(await store.read(lambda tx: tx.payer.holds_until(end, after, limit)))

    assert await listed(later(minutes=-3), None, 9) == []
    assert await listed(later(minutes=-1), None, 9) == [holds[2], holds[1]]
    assert await listed(NOW, None, 2) == [holds[2], holds[1]]
    assert await listed(NOW, (later(minutes=-1), "settlement-1"), 9) == [holds[0]]
    assert await listed(NOW, (later(minutes=-1), ""), 1) == [holds[1]]
    assert await store.read(lambda tx: tx.payer.count_holds_until(later(minutes=-2))) == 2
    assert await store.read(lambda tx: tx.payer.count_holds_until(NOW)) == 4


async def set_aside(store: Store, *ids: str) -> None:
    for each in ids:
        await store.transact(on(lambda tx, name: tx.journal.add_event(event(name)), each))
        await store.transact(
            on(lambda tx, name: tx.journal.event_refused(event(name), f"no {name}"), each)
        )


async def test_events_that_were_set_aside_are_listed_and_counted(store: Store) -> None:
    await set_aside(store, "e3", "e1", "e2")
    await store.transact(lambda tx: tx.journal.add_event(event("e0")))
    found = await store.read(lambda tx: tx.journal.dead_events("", 2))
    assert found == [
        DeadEvent(replace(event(each), tries=1), f"no {each}") for each in ("e1", "e2")
    ]
    (last,) = await store.read(lambda tx: tx.journal.dead_events("e2", 2))
    assert last.event.event_id == "e3"
    assert await store.read(lambda tx: tx.journal.count_dead_events()) == 3


async def test_an_event_that_was_set_aside_is_found_by_all_of_its_key(store: Store) -> None:
    await set_aside(store, "e1")
    found = await store.read(lambda tx: tx.journal.dead_event(NUMBER, "350500", "e1"))
    assert found is not None
    assert found.error == "no e1"
    for key in (("other", "350500", "e1"), (NUMBER, "other", "e1"), (NUMBER, "350500", "other")):
        assert await store.read(on(lambda tx, key: tx.journal.dead_event(*key), key)) is None


async def test_an_event_that_was_given_back_is_due_and_waits_from_then_on(store: Store) -> None:
    await set_aside(store, "e1")
    now = later(days=4)
    await store.transact(lambda tx: tx.journal.event_revived(event("e1"), now))
    (due,) = await store.read(lambda tx: tx.journal.due_events("350500", now, 9))
    assert due == replace(event("e1"), tries=1, pending_since=now)
    assert due.waiting_at(later(days=5)) == timedelta(days=1)
    assert event("e1").waiting_at(later(days=5)) == timedelta(days=5)
    assert await store.read(lambda tx: tx.journal.count_dead_events()) == 0
    assert await store.read(lambda tx: tx.journal.dead_event(NUMBER, "350500", "e1")) is None


async def test_statements_are_found_if_they_are_there(store: Store) -> None:
    kept = [statement("one"), statement("two")]
    for index, each in enumerate(kept):
        await store.transact(
            on(
                lambda tx, given: tx.journal.keep_statement(
                    NUMBER, digest(given[0]), given[1], later(minutes=given[0])
                ),
                (index, each),
            )
        )
    assert await store.read(lambda tx: tx.journal.find_statement(NUMBER, digest(1))) == kept[1]
    assert await store.read(lambda tx: tx.journal.find_statement(NUMBER, digest(9))) is None
    payload_type = kept[0].payload_type
    assert await store.read(lambda tx: tx.journal.statements_of(NUMBER, payload_type)) == kept
    assert await store.read(lambda tx: tx.journal.statements_of(NUMBER, "another")) == []
    assert await store.read(lambda tx: tx.journal.statements_of("other", payload_type)) == []


# --- payer ----------------------------------------------------------------------------------------


async def test_a_person_comes_back_with_every_field(store: Store) -> None:
    assert defaulted(person()) == set()
    assert await store.transact(lambda tx: tx.payer.add_person(person()))
    assert await store.read(lambda tx: tx.payer.person(PERSON)) == person()
    assert await store.read(lambda tx: tx.payer.person("another")) is None


async def test_a_person_is_added_once_and_saved_as_a_whole(store: Store) -> None:
    await store.transact(lambda tx: tx.payer.add_person(person()))
    changed = replace(
        person(),
        own_account_fen=1,
        family_accounts_fen=(),
        year=2027,
        used_deductible_fen=0,
        used_cap_fen=0,
        direct_settlement_suspended=False,
    )
    assert not await store.transact(lambda tx: tx.payer.add_person(changed))
    assert await store.read(lambda tx: tx.payer.person(PERSON)) == person()
    await store.transact(lambda tx: tx.payer.save_person(changed))
    assert await store.read(lambda tx: tx.payer.person(PERSON)) == changed


async def test_enrolments_are_saved_as_a_whole_and_for_the_person_s_year(store: Store) -> None:
    await store.transact(lambda tx: tx.payer.add_person(person()))
    used = replace(person(), enrolments=(Enrolment("SCHEME-2", 5, 6),))
    await store.transact(lambda tx: tx.payer.save_person(used))
    assert await store.read(lambda tx: tx.payer.person(PERSON)) == used
    next_year = used.in_year(used.year + 1)
    await store.transact(lambda tx: tx.payer.save_person(next_year))
    found = await store.read(lambda tx: tx.payer.person(PERSON))
    assert found is not None
    assert found.enrolments == (Enrolment("SCHEME-2"),)


async def test_settlements_of_a_year_come_by_person_in_the_order_in_which_they_began(
    store: Store,
) -> None:
    shares = (SchemeShare("SCHEME-1", (0, 2), 500, 20, 300), SchemeShare("SCHEME-2", (1,), 9, 0, 9))
    first = replace(settlement("b"), schemes=shares, pricing_sha256=digest("pricing"))
    second = replace(settlement("a"), create_time=later(seconds=1))
    elsewhere = replace(settlement("c"), insured_person_id="0")
    past = replace(settlement("d"), year=2025)
    for each in (second, first, elsewhere, past):
        await store.transact(lambda tx, each=each: tx.payer.add_settlement(each))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    found = await store.read(lambda tx: tx.payer.settlements_of_year(2026))
    assert list(found) == [elsewhere, first, second]


@pytest.mark.parametrize(
    "wrong",
    [
        {"own_account_fen": -1},
        {"family_accounts_fen": (5, -1)},
        {"used_deductible_fen": -1},
        {"used_cap_fen": -1},
    ],
    ids=str,
)
async def test_no_balance_can_be_stored_below_zero(store: Store, wrong: dict[str, Any]) -> None:
    await store.transact(lambda tx: tx.payer.add_person(person()))
    overdrawn = replace(person(), **wrong)
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.payer.save_person(overdrawn))
    assert await store.read(lambda tx: tx.payer.person(PERSON)) == person()


async def test_a_settlement_comes_back_with_every_field_and_moves_its_state(store: Store) -> None:
    amounts = [getattr(settlement().amounts, each.name) for each in fields(Amounts)]
    assert len(set(amounts)) == len(amounts)  # so that no two columns can be exchanged unseen
    await store.transact(lambda tx: tx.payer.add_settlement(settlement()))
    assert await store.read(lambda tx: tx.payer.settlement(PERSON, SETTLEMENT)) == settlement()
    posted = replace(
        settlement(),
        state=SettlementState.POSTED,
        cause_sha256=digest("record"),
        update_time=later(hours=1),
    )
    await store.transact(lambda tx: tx.payer.save_settlement(posted))
    assert await store.read(lambda tx: tx.payer.settlement(PERSON, SETTLEMENT)) == posted
    assert await store.read(lambda tx: tx.payer.settlement("another", SETTLEMENT)) is None


async def test_what_each_line_took_and_what_went_back_come_back_with_the_settlement(
    store: Store,
) -> None:
    begun = replace(settlement(), lines=settled_lines())
    await store.transact(lambda tx: tx.payer.add_settlement(begun))
    assert await store.read(lambda tx: tx.payer.settlement(PERSON, SETTLEMENT)) == begun
    back = replace(begun, state=SettlementState.REVERSED, reversed=begun.amounts)
    await store.transact(lambda tx: tx.payer.save_settlement(back))
    assert await store.read(lambda tx: tx.payer.settlement(PERSON, SETTLEMENT)) == back


@pytest.mark.parametrize("name", [each.name for each in fields(Amounts)])
async def test_more_than_was_paid_never_goes_back(store: Store, name: str) -> None:
    await store.transact(lambda tx: tx.payer.add_settlement(settlement()))
    for fen in (getattr(settlement().amounts, name) + 1, -1):
        wrong = replace(settlement(), reversed=replace(NOTHING, **{name: fen}))
        with pytest.raises(InvariantBroken):
            await each_stored(store, lambda tx, each: tx.payer.save_settlement(each), wrong)


async def test_a_reversal_comes_back_with_every_field_and_its_id_is_used_once(
    store: Store,
) -> None:
    others = (reversal("R2"), reversal("R3", "another"))
    await each_stored(store, lambda tx, each: tx.payer.add_reversal(each), *others, reversal())
    assert await store.read(lambda tx: tx.payer.reversal(PERSON, SETTLEMENT, "R1")) == reversal()
    assert await store.read(lambda tx: tx.payer.reversal("another", SETTLEMENT, "R1")) is None
    assert await store.read(lambda tx: tx.payer.reversal(PERSON, "another", "R1")) is None
    found = await store.read(lambda tx: tx.payer.reversals(PERSON, SETTLEMENT))
    assert found == [reversal("R1"), reversal("R2")]
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.payer.add_reversal(reversal()))


async def test_a_new_person_s_accounts_open_with_what_the_person_brings(store: Store) -> None:
    await store.transact(lambda tx: tx.payer.add_person(person()))
    opened = OpeningBalances(person().own_account_fen, person().family_accounts_fen)
    assert await store.read(lambda tx: tx.payer.opening(PERSON)) == opened
    assert await store.read(lambda tx: tx.payer.opening("another")) is None
    richer = replace(person(), own_account_fen=person().own_account_fen + 1)
    await store.transact(lambda tx: tx.payer.add_person(richer))
    await store.transact(lambda tx: tx.payer.save_person(richer))
    assert await store.read(lambda tx: tx.payer.opening(PERSON)) == opened, "it never changes"


def account_entry(**changes: Any) -> AccountEntry:
    entry = AccountEntry(
        PERSON, SETTLEMENT, AccountMovement.HOLD, "", "own", "held", 7, later(microseconds=1)
    )
    return replace(entry, **changes)


async def test_account_entries_come_back_with_every_field_and_a_movement_is_written_once(
    store: Store,
) -> None:
    back = {"movement": AccountMovement.REVERSAL, "debit_account": "payable:350500"}
    entries = [
        account_entry(settlement_id="another"),
        account_entry(debit_account="family:1"),
        account_entry(),
        account_entry(**back, credit_account="own", reversal_id="R1"),
        account_entry(**back, credit_account="own", reversal_id="R2"),
        account_entry(movement=AccountMovement.VOID, debit_account="held", credit_account="own"),
    ]
    elsewhere = account_entry(insured_person_id="another")
    await store.transact(lambda tx: tx.payer.add_account_entries([*reversed(entries), elsewhere]))
    found = await store.read(lambda tx: tx.payer.account_entries(PERSON))
    assert sorted(found, key=str) == sorted(entries, key=str)
    assert await store.read(lambda tx: tx.payer.account_entries("nobody")) == []
    again = [account_entry(settlement_id="new"), account_entry(fen=8, time=later(days=1))]
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.payer.add_account_entries(again))
    assert await store.read(lambda tx: tx.payer.account_entries(PERSON)) == found, "nor half of it"


async def test_all_settlements_and_all_persons_are_found(store: Store) -> None:
    settlements = [settlement("s1", "a"), replace(settlement("s2", "b"), year=2025)]
    await each_stored(store, lambda tx, each: tx.payer.add_settlement(each), *settlements)
    elsewhere = replace(settlement("s3"), insured_person_id="another")
    await each_stored(store, lambda tx, each: tx.payer.add_settlement(each), elsewhere)
    assert await store.read(lambda tx: tx.payer.settlements_of(PERSON)) == settlements
    new = [person(f"insured-{index}") for index in (3, 1, 2)]
    await each_stored(store, lambda tx, each: tx.payer.add_person(each), *new)
    assert await store.read(lambda tx: tx.payer.persons("", 2)) == ["insured-1", "insured-2"]
    assert await store.read(lambda tx: tx.payer.persons("insured-2", 2)) == ["insured-3"]


async def test_a_booked_return_comes_back_and_its_id_is_used_once(store: Store) -> None:
    await add(store, prescription())
    new = (booked_return("R2"), booked_return("R3", "another"), booked_return())
    await each_stored(store, lambda tx, each: tx.home.add_booked_return(each), *new)
    assert await store.read(lambda tx: tx.home.booked_return(NUMBER, "R1")) == booked_return()
    assert await store.read(lambda tx: tx.home.booked_return(NUMBER, "R9")) is None
    found = await store.read(lambda tx: tx.home.booked_returns(NUMBER, ATTEMPT))
    assert found == [booked_return("R1"), booked_return("R2")]
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.home.add_booked_return(booked_return()))


async def test_a_return_comes_back_at_its_beginning_and_end(store: Store) -> None:
    new = (returned("R2"), returned("R3", "another"), returned())
    await each_stored(store, lambda tx, each: tx.dispensing.add_return(each), *new)
    end = returned().booked_by_home(later(hours=1))
    end = end.reversed_by_payer(settlement().amounts, later(hours=2))
    await store.transact(lambda tx: tx.dispensing.save_return(end))
    assert await store.read(lambda tx: tx.dispensing.goods_return(NUMBER, "R1")) == end
    assert await store.read(lambda tx: tx.dispensing.goods_return("another", "R1")) is None
    found = await store.read(lambda tx: tx.dispensing.returns(NUMBER, SETTLEMENT))
    assert found == [end, returned("R2")]
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.dispensing.add_return(returned()))
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.dispensing.save_return(returned("R9")))


async def test_amounts_that_do_not_add_up_cannot_be_stored(store: Store) -> None:
    for each in fields(Amounts):
        amounts = settlement().amounts
        off_by_one = replace(amounts, **{each.name: getattr(amounts, each.name) + 1})
        wrong = replace(settlement(), amounts=off_by_one)
        with pytest.raises(InvariantBroken):
            await each_stored(store, lambda tx, each: tx.payer.add_settlement(each), wrong)


async def test_settlements_are_found_by_their_attempt(store: Store) -> None:
    settlements = [settlement("s1", "a"), settlement("s2", "b"), settlement("s3", "a")]
    await each_stored(store, lambda tx, each: tx.payer.add_settlement(each), *settlements)
    found = await store.read(lambda tx: tx.payer.settlements_of_attempt(PERSON, "a"))
    assert found == [settlement("s1", "a"), settlement("s3", "a")]


async def test_a_settlement_id_is_used_once(store: Store) -> None:
    await store.transact(lambda tx: tx.payer.add_settlement(settlement()))
    again = settlement(attempt_id="another")
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.payer.add_settlement(again))


async def test_the_end_of_an_attempt_is_remembered_as_it_was_first_told(store: Store) -> None:
    assert await store.read(lambda tx: tx.payer.attempt_end(PERSON, ATTEMPT)) is None
    await each_stored(
        store,
        lambda tx, state: tx.payer.note_attempt_end(PERSON, ATTEMPT, state),
        "released",
        "dispensed",
    )
    assert await store.read(lambda tx: tx.payer.attempt_end(PERSON, ATTEMPT)) == "released"


async def test_the_index_keeps_the_newest_status_in_whatever_order_they_arrive(
    store: Store,
) -> None:
    entries = [index_entry(2), index_entry(5), index_entry(3), index_entry(1, "350200-0")]
    await each_stored(store, lambda tx, each: tx.payer.index(each), *entries)
    found = await store.read(lambda tx: tx.payer.indexed(PERSON))
    assert found == [index_entry(1, "350200-0"), index_entry(5)]


async def test_a_credential_code_belongs_to_the_pharmacy_that_used_it_first(
    store: Store,
) -> None:
    async def use(person_id: str, code: str, pharmacy: str) -> bool:
        return await store.transact(
            lambda tx: tx.payer.use_credential_code(person_id, digest(code), pharmacy)
        )

    assert await use(PERSON, "code", "P1")
    assert not await use(PERSON, "code", "P2")
    assert await use(PERSON, "code", "P1")
    assert await use(PERSON, "another code", "P2")
    assert await use("another person", "code", "P2")


# --- dispensing -----------------------------------------------------------------------------------


async def test_a_claim_copy_is_stored_and_renewed(store: Store) -> None:
    await store.transact(lambda tx: tx.dispensing.save_claim(claim_copy()))
    assert await store.read(lambda tx: tx.dispensing.claim(NUMBER, ATTEMPT)) == claim_copy()
    renewed = replace(
        claim_copy(),
        prescription_sha256=digest("new sheet"),
        attempt_sha256=digest("ended"),
        update_time=later(hours=1),
    )
    await store.transact(lambda tx: tx.dispensing.save_claim(renewed))
    assert await store.read(lambda tx: tx.dispensing.claim(NUMBER, ATTEMPT)) == renewed
    assert await store.read(lambda tx: tx.dispensing.claim(NUMBER, "another")) is None


async def test_a_dispense_comes_back_with_every_field_at_its_beginning_and_end(
    store: Store,
) -> None:
    await store.transact(lambda tx: tx.dispensing.add_dispense(dispense()))
    assert await store.read(lambda tx: tx.dispensing.dispense(NUMBER, SETTLEMENT)) == dispense()
    end = completed(dispense())
    assert defaulted(end) == set()
    await store.transact(lambda tx: tx.dispensing.save_dispense(end))
    assert await store.read(lambda tx: tx.dispensing.dispense(NUMBER, SETTLEMENT)) == end
    assert await store.read(lambda tx: tx.dispensing.dispense(NUMBER, "another")) is None


async def test_no_dispense_is_complete_before_it_is_booked_and_posted(store: Store) -> None:
    await store.transact(lambda tx: tx.dispensing.add_dispense(dispense()))
    early = replace(completed(dispense()), posted=False)
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.dispensing.save_dispense(early))


async def test_the_newest_dispense_of_an_attempt_is_found(store: Store) -> None:
    older = dispense("s9")
    newer = dispense("s1", create_time=later(seconds=1))
    other = dispense("s5", attempt_id="another")
    await each_stored(store, lambda tx, each: tx.dispensing.add_dispense(each), older, newer, other)
    found = await store.read(lambda tx: tx.dispensing.dispense_of_attempt(NUMBER, ATTEMPT))
    assert found == newer


async def test_undecided_dispenses_are_listed_longest_untouched_first(
    store: Store,
) -> None:
    seconds = {"s1": 2, "s2": 1, "s3": 3}
    begun = [replace(dispense(each), update_time=later(seconds=n)) for each, n in seconds.items()]
    await each_stored(store, lambda tx, each: tx.dispensing.add_dispense(each), *begun)
    done = completed(dispense("s3"))
    await store.transact(lambda tx: tx.dispensing.save_dispense(done))
    found = await store.read(lambda tx: tx.dispensing.undecided(10))
    assert [each.settlement_id for each in found] == ["s2", "s1"]
    assert len(await store.read(lambda tx: tx.dispensing.undecided(1))) == 1


async def test_a_pharmacy_lists_its_own_dispenses_newest_first(store: Store) -> None:
    own = [dispense(f"s{i}") for i in range(4)]
    other = replace(dispense("s9"), pharmacy_code="P35020000009")
    await each_stored(store, lambda tx, each: tx.dispensing.add_dispense(each), *own, other)
    first = await store.read(lambda tx: tx.dispensing.dispenses_of(PHARMACY, "", 3))
    rest = await store.read(lambda tx: tx.dispensing.dispenses_of(PHARMACY, "s1", 3))
    assert [each.settlement_id for each in [*first, *rest]] == ["s3", "s2", "s1", "s0"]


def box(code: str, attempt_id: str, *, loose: bool = False) -> BoxSale:
    return BoxSale(code, loose, NUMBER, attempt_id, PHARMACY)


@pytest.mark.parametrize(
    ("first_loose", "second_loose", "allowed"),
    [(False, False, False), (True, True, True), (False, True, False), (True, False, False)],
)
async def test_a_box_is_sold_once_unless_it_is_sold_loose_every_time(
    store: Store, first_loose: bool, second_loose: bool, allowed: bool
) -> None:
    async def sell(code: str, attempt_id: str, loose: bool) -> bool:
        return await store.transact(
            lambda tx: tx.trace_codes.sell(box(code, attempt_id, loose=loose))
        )

    assert await sell("code", "a1", first_loose)
    assert await sell("code", "a2", second_loose) is allowed
    assert await sell("another code", "a2", second_loose)


@pytest.mark.parametrize("loose", [False, True])
async def test_the_same_attempt_sells_its_box_again(store: Store, loose: bool) -> None:
    for _ in range(2):
        assert await store.transact(lambda tx: tx.trace_codes.sell(box("c", "a1", loose=loose)))


async def test_only_the_attempt_that_sold_a_box_takes_it_back(store: Store) -> None:
    assert await store.transact(lambda tx: tx.trace_codes.sell(box("c", "a1")))
    for number, attempt_id, pharmacy in (
        ("another number", "a1", PHARMACY),
        (NUMBER, "a2", PHARMACY),
        (NUMBER, "a1", "P35020000009"),
    ):
        await store.transact(
            lambda tx, key=(number, attempt_id, pharmacy): tx.trace_codes.take_back("c", *key)  # type: ignore[misc] # mypy cannot infer a lambda with a default
        )
        assert not await store.transact(lambda tx: tx.trace_codes.sell(box("c", "a3")))
    await store.transact(lambda tx: tx.trace_codes.take_back("c", NUMBER, "a1", PHARMACY))
    assert await store.transact(lambda tx: tx.trace_codes.sell(box("c", "a3")))


async def test_a_box_that_was_opened_is_never_sold_whole(store: Store) -> None:
    assert await store.transact(lambda tx: tx.trace_codes.sell(box("c", "a1", loose=True)))
    await store.transact(lambda tx: tx.trace_codes.take_back("c", NUMBER, "a1", PHARMACY))
    assert not await store.transact(lambda tx: tx.trace_codes.sell(box("c", "a2")))
    assert await store.transact(lambda tx: tx.trace_codes.sell(box("c", "a2", loose=True)))


async def test_open_boxes_come_longest_untouched_first_until_they_are_closed(store: Store) -> None:
    boxes = [
        OpenBox(NUMBER, "a1", code, unwanted, later(seconds=seconds))
        for code, unwanted, seconds in (("c1", False, 3), ("c2", True, 1), ("c3", False, 2))
    ]
    await each_stored(store, lambda tx, each: tx.dispensing.open_box(each), *boxes)
    found = await store.read(lambda tx: tx.dispensing.open_boxes(later(seconds=2), 9))
    assert found == [boxes[1], boxes[2]]
    await store.transact(
        lambda tx: tx.dispensing.put_off_box(replace(boxes[1], update_time=later(seconds=9)))
    )
    await store.transact(lambda tx: tx.dispensing.close_boxes(NUMBER, "a1", ["c3", "absent"]))
    await store.transact(lambda tx: tx.dispensing.close_boxes(NUMBER, "a2", ["c1"]))
    found = await store.read(lambda tx: tx.dispensing.open_boxes(later(seconds=9), 9))
    assert [(each.code, each.unwanted) for each in found] == [("c1", False), ("c2", True)]
    again = replace(boxes[0], unwanted=True)
    await store.transact(lambda tx: tx.dispensing.open_box(again))
    found = await store.read(lambda tx: tx.dispensing.open_boxes(later(seconds=9), 1))
    assert found == [again]


async def test_a_dispense_is_found_by_the_request_that_began_it(store: Store) -> None:
    first = replace(dispense("s1"), request_id="r1")
    second = replace(dispense("s2"), request_id="r2")
    await each_stored(store, lambda tx, each: tx.dispensing.add_dispense(each), first, second)
    found = await store.read(lambda tx: tx.dispensing.dispense_of_request(NUMBER, "r2"))
    assert found == second
    for number, request_id in ((NUMBER, "r3"), ("another number", "r1")):
        query = (number, request_id)
        found = await store.read(lambda tx, key=query: tx.dispensing.dispense_of_request(*key))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        assert found is None


# --- edge -----------------------------------------------------------------------------------------


async def test_an_issued_prescription_comes_back_with_every_field(edge: EdgeStore) -> None:
    assert await edge.transact(lambda tx: tx.edge.add_issued(issued()))
    assert not await edge.transact(lambda tx: tx.edge.add_issued(issued()))
    assert await edge.read(lambda tx: tx.edge.issued(NUMBER)) == issued()
    registered = replace(
        issued(),
        registration=Registration.REGISTERED,
        status_sha256=digest("status"),
        status_time=later(seconds=2),
        sent=True,
        refusal="PRESCRIPTION_EXPIRED",
        revocation_request_id="0195-revoke",
    )
    assert defaulted(registered) == set()
    await edge.transact(lambda tx: tx.edge.save_issued(registered))
    assert await edge.read(lambda tx: tx.edge.issued(NUMBER)) == registered
    assert await edge.read(lambda tx: tx.edge.issued("another")) is None


async def test_queued_prescriptions_are_listed_oldest_first(edge: EdgeStore) -> None:
    seconds = {"a": 2, "b": 1, "c": 3}
    new = [issued(number, later(seconds=n)) for number, n in seconds.items()]
    await each_stored(edge, lambda tx, each: tx.edge.add_issued(each), *new)
    refused = replace(issued("c"), registration=Registration.REFUSED)
    await edge.transact(lambda tx: tx.edge.save_issued(refused))
    queued = await edge.read(lambda tx: tx.edge.queued(10))
    assert [each.prescription_number for each in queued] == ["b", "a"]
    assert len(await edge.read(lambda tx: tx.edge.queued(1))) == 1


async def test_a_handover_comes_back_with_every_field(edge: EdgeStore) -> None:
    assert await edge.transact(lambda tx: tx.edge.add_handover(handover()))
    assert not await edge.transact(lambda tx: tx.edge.add_handover(handover()))
    assert await edge.read(lambda tx: tx.edge.handover(NUMBER, ATTEMPT)) == handover()
    refused = replace(handover(), refusal="DISPENSE_MISMATCH")
    corrected = replace(
        handover(), request_id="0195-again", statement_sha256=digest("again"), delivered=True
    )
    for progress in (refused, corrected):
        await each_stored(edge, lambda tx, each: tx.edge.save_handover(each), progress)
        assert await edge.read(lambda tx: tx.edge.handover(NUMBER, ATTEMPT)) == progress
    assert await edge.read(lambda tx: tx.edge.handover(NUMBER, "another")) is None


async def test_undelivered_handovers_are_listed_oldest_first(edge: EdgeStore) -> None:
    seconds = {"a": 2, "b": 1, "c": 3, "d": 4}
    new = [handover(attempt_id, later(seconds=n)) for attempt_id, n in seconds.items()]
    await each_stored(edge, lambda tx, each: tx.edge.add_handover(each), *new)
    delivered = replace(handover("c"), delivered=True)
    refused = replace(handover("d"), refusal="ATTEMPT_ENDED")
    await each_stored(edge, lambda tx, each: tx.edge.save_handover(each), delivered, refused)
    found = await edge.read(lambda tx: tx.edge.undelivered(10))
    assert [each.attempt_id for each in found] == ["b", "a"]


async def test_a_return_to_be_delivered_comes_back_with_every_field(edge: EdgeStore) -> None:
    assert await edge.transact(lambda tx: tx.edge.add_goods_return(goods_return()))
    assert not await edge.transact(lambda tx: tx.edge.add_goods_return(goods_return()))
    assert await edge.read(lambda tx: tx.edge.goods_return(NUMBER, "R1")) == goods_return()
    refused = replace(goods_return(), refusal="RETURN_EXCEEDED")
    corrected = replace(
        goods_return(), request_id="0195-again", statement_sha256=digest("again"), delivered=True
    )
    for progress in (refused, corrected):
        await each_stored(edge, lambda tx, each: tx.edge.save_goods_return(each), progress)
        assert await edge.read(lambda tx: tx.edge.goods_return(NUMBER, "R1")) == progress
    assert await edge.read(lambda tx: tx.edge.goods_return(NUMBER, "R9")) is None


async def test_returns_are_due_oldest_first_and_after_their_handover(edge: EdgeStore) -> None:
    seconds = {"a": 2, "b": 1, "c": 3, "d": 4}
    new = [goods_return(each, later(seconds=n)) for each, n in seconds.items()]
    await each_stored(edge, lambda tx, each: tx.edge.add_goods_return(each), *new)
    late = goods_return("e", attempt_id="waits")
    await edge.transact(lambda tx: tx.edge.add_goods_return(late))
    await edge.transact(lambda tx: tx.edge.add_handover(handover("waits")))
    delivered = replace(goods_return("c"), delivered=True)
    refused = replace(goods_return("d"), refusal="RETURN_EXCEEDED")
    await each_stored(edge, lambda tx, each: tx.edge.save_goods_return(each), delivered, refused)
    found = await edge.read(lambda tx: tx.edge.undelivered_returns(10))
    assert [each.reversal_id for each in found] == ["b", "a"]
    there = replace(handover("waits"), delivered=True)
    await edge.transact(lambda tx: tx.edge.save_handover(there))
    found = await edge.read(lambda tx: tx.edge.undelivered_returns(10))
    assert [each.reversal_id for each in found] == ["e", "b", "a"]


async def test_a_handover_that_waits_is_found_by_its_prescription(edge: EdgeStore) -> None:
    async def waiting(number: str) -> str:
        found = await edge.read(lambda tx: tx.edge.waiting_handover(number))
        return found.attempt_id if found else ""

    new = [handover("a", later(seconds=2)), handover("b", later(seconds=1))]
    await each_stored(edge, lambda tx, each: tx.edge.add_handover(each), *new)
    assert await waiting(NUMBER) == "b"
    assert await waiting("another number") == ""
    ended = [replace(handover("b"), delivered=True), replace(handover("a"), refusal="X")]
    for each, next_one in zip(ended, ("a", ""), strict=True):
        await each_stored(edge, lambda tx, saved: tx.edge.save_handover(saved), each)
        assert await waiting(NUMBER) == next_one


async def test_a_stream_begins_without_a_token_and_keeps_its_last_one(edge: EdgeStore) -> None:
    assert await edge.read(lambda tx: tx.edge.resume_token("notices")) == ""
    await each_stored(edge, lambda tx, token: tx.edge.save_resume_token("notices", token), "1", "2")
    assert await edge.read(lambda tx: tx.edge.resume_token("notices")) == "2"
    assert await edge.read(lambda tx: tx.edge.resume_token("another")) == ""


async def test_an_edge_keeps_a_journal_too(edge: EdgeStore) -> None:
    await edge.transact(lambda tx: tx.journal.add_notice(notice(HOSPITAL, "claimed")))
    found = await edge.read(lambda tx: tx.journal.notices(HOSPITAL, 0, 10))
    assert found == [notice(HOSPITAL, "claimed")]


# --- agreements -----------------------------------------------------------------------------------


def agreement_use(day: date, fen: int, number: str = NUMBER, reversal_id: str = "") -> AgreementUse:
    sha256 = digest(number, reversal_id)
    return AgreementUse(PHARMACY, day, number, SETTLEMENT, reversal_id, fen, sha256)


async def test_what_was_paid_for_an_institution_is_summed_from_a_day_up_to_another(
    store: Store,
) -> None:
    first, last = date(2026, 2, 1), date(2026, 3, 1)
    uses = (
        agreement_use(first - timedelta(days=1), 1, "n1"),
        agreement_use(first, 20, "n2"),
        agreement_use(last - timedelta(days=1), 300, "n3"),
        agreement_use(last - timedelta(days=1), -50, "n3", "R1"),
        agreement_use(last, 4_000, "n4"),
        replace(agreement_use(first, 50_000, "n2"), institution_code="another"),
    )
    for _ in range(2):  # the second time changes nothing
        await each_stored(store, lambda tx, each: tx.agreements.add_use(each), *uses)
    assert await store.read(lambda tx: tx.agreements.used_fen(PHARMACY, first, last)) == 270
    assert await store.read(lambda tx: tx.agreements.used_fen("nobody", first, last)) == 0
    assert await store.read(lambda tx: tx.agreements.newest_use(PHARMACY, first, last)) == uses[3]
    assert await store.read(lambda tx: tx.agreements.newest_use("nobody", first, last)) is None


@pytest.mark.parametrize(("fen", "reversal_id"), [(-1, ""), (1, "R1")])
async def test_a_payment_counts_up_and_what_came_back_counts_down(
    store: Store, fen: int, reversal_id: str
) -> None:
    wrong = agreement_use(date(2026, 2, 1), fen, reversal_id=reversal_id)
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.agreements.add_use(wrong))


async def test_who_is_above_a_quota_is_noted_once_for_each_change(store: Store) -> None:
    begin = date(2026, 1, 1)

    def told(tx: Transaction, above: bool) -> bool:
        return tx.agreements.set_above(PHARMACY, "document", begin, above=above)

    assert not await store.read(lambda tx: tx.agreements.is_above(PHARMACY, "document", begin))
    found = await each_stored(store, told, True, True, False, False, True)
    assert found == [True, False, True, False, True]
    assert await store.read(lambda tx: tx.agreements.is_above(PHARMACY, "document", begin))
    assert not await store.read(lambda tx: tx.agreements.is_above(PHARMACY, "other", begin))
    assert not await store.read(lambda tx: tx.agreements.is_above("other", "document", begin))


# --- transactions ---------------------------------------------------------------------------------


async def together(store: Store, begin: Callable[[], list[Awaitable[Any]]]) -> list[Any]:
    """What becomes of commands that wait together.

    Nothing can hold a store in memory: there they wait for their turns on the event loop.
    """
    if isinstance(store, MemoryStore):
        return await asyncio.gather(*begin(), return_exceptions=True)
    return await in_one_batch(store, begin)


async def test_a_failing_command_is_undone_and_leaves_its_neighbours_alone(store: Store) -> None:
    def failing(tx: Transaction) -> None:
        tx.home.add_prescription(prescription("350200-failing"))
        raise Refusal(Reason.PRESCRIPTION_EXPIRED, "too late")

    def breaking(tx: Transaction) -> None:
        tx.home.add_prescription(prescription("350200-breaking"))
        tx.payer.save_person(person())

    before, after = prescription("350200-1"), prescription("350200-2")
    results = await together(
        store,
        lambda: [
            store.transact(lambda tx: tx.home.add_prescription(before)),
            store.transact(failing),
            store.transact(breaking),
            store.transact(lambda tx: tx.home.add_prescription(after)),
        ],
    )
    assert results[0] is True
    assert isinstance(results[1], Refusal)
    assert isinstance(results[2], InvariantBroken)
    assert results[3] is True
    stored = await store.read(lambda tx: tx.home.prescriptions_of(HOSPITAL, "", 10))
    assert stored == [after, before]


async def test_a_command_sees_what_was_answered_before_it(store: Store) -> None:
    assert await store.transact(lambda tx: tx.home.add_prescription(prescription()))
    assert await store.transact(lambda tx: tx.home.prescription(NUMBER)) == prescription()


async def test_a_query_sees_nothing_of_a_command_that_has_not_been_answered(
    lasting_store: Store,
) -> None:
    store = lasting_store
    written, go = threading.Event(), threading.Event()

    def command(tx: Transaction) -> bool:
        tx.home.add_prescription(prescription())
        written.set()
        return go.wait(PATIENCE)

    answer = asyncio.ensure_future(store.transact(command))
    assert await asyncio.to_thread(written.wait, PATIENCE)
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) is None
    go.set()
    assert await answer
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) == prescription()


async def test_a_query_keeps_its_snapshot_while_commands_go_on(lasting_store: Store) -> None:
    store = lasting_store
    reading, go = threading.Event(), threading.Event()

    def query(tx: Transaction) -> tuple[int, int]:
        first = len(tx.home.prescriptions_of(HOSPITAL, "", 10))
        reading.set()
        assert go.wait(PATIENCE)
        return first, len(tx.home.prescriptions_of(HOSPITAL, "", 10))

    await add(store, prescription("350200-1"))
    answer = asyncio.ensure_future(store.read(query))
    assert await asyncio.to_thread(reading.wait, PATIENCE)
    await add(store, prescription("350200-2"))
    go.set()
    assert await answer == (1, 1)


async def test_a_query_cannot_write(store: Store) -> None:
    with pytest.raises(InvariantBroken):
        await store.read(lambda tx: tx.home.add_prescription(prescription()))
    assert await store.read(lambda tx: tx.home.prescription(NUMBER)) is None


async def test_what_was_answered_is_there_after_a_restart(lasting_backend: Backend) -> None:
    backend = lasting_backend
    store = backend.platform()
    await add(store, prescription())
    await store.transact(lambda tx: tx.home.save(claimed(prescription())))
    await put(store, event("1"))
    await store.transact(lambda tx: tx.journal.add_notice(notice("A", "a1")))
    await store.close()

    again = backend.platform()
    stored = await again.read(lambda tx: tx.home.prescription(NUMBER))
    assert stored == claimed(prescription()).prescription
    assert await due(again) == ["1"]
    await again.transact(lambda tx: tx.journal.add_notice(notice("A", "a2")))
    assert [
        each.sequence for each in await again.read(lambda tx: tx.journal.notices("A", 0, 9))
    ] == [1, 2]
    await again.close()


async def test_closing_finishes_what_waits(backend: Backend) -> None:
    store = backend.platform()
    new = [prescription(f"350200-{i}") for i in range(50)]
    adding = [
        asyncio.ensure_future(
            store.transact(on(lambda tx, each: tx.home.add_prescription(each), each))
        )
        for each in new
    ]
    await asyncio.sleep(0)
    await store.close()
    assert all(await asyncio.gather(*adding))


async def test_of_one_request_that_comes_many_times_at_once_one_takes_effect(store: Store) -> None:
    await add(store, prescription())

    def claim_once(tx: Transaction) -> bool:
        if tx.journal.outcome(NUMBER, "caller", "0195-request") is not None:
            return False
        current = tx.home.prescription(NUMBER)
        assert current is not None
        tx.home.save(claimed(current))
        tx.journal.keep_outcome(NUMBER, "caller", "0195-request", outcome())
        return True

    ended = await asyncio.gather(*(store.transact(claim_once) for _ in range(16)))
    assert ended.count(True) == 1
    stored = await store.read(lambda tx: tx.home.prescription(NUMBER))
    assert stored == claimed(prescription()).prescription


async def test_a_closed_store_answers_that_nothing_is_known(backend: Backend) -> None:
    store = backend.platform()
    await store.close()
    with pytest.raises(Unavailable):
        await store.transact(lambda tx: tx.home.add_prescription(prescription()))
    with pytest.raises(Unavailable):
        await store.read(lambda tx: tx.home.prescription(NUMBER))


# --- the life of a prescription -------------------------------------------------------------------

BEGINNINGS: dict[AttemptState, tuple[str, ...]] = {
    AttemptState.RESERVED: ("claim",),
    AttemptState.EXPIRED: ("claim", "wait"),
    AttemptState.RELEASED: ("claim", "release"),
    AttemptState.COMMITTED: ("claim", "commit"),
    AttemptState.DISPENSED: ("claim", "commit", "dispense"),
}


class Life:
    """One prescription in a store and beside it, in plain values, what should be there."""

    def __init__(self, store: Store, number: str) -> None:
        self.store = store
        self.model = prescription(number)
        self.attempts: list[Attempt] = []
        self.now = NOW

    async def claim(self, pharmacy: str = "P1", lines: tuple[LineQuantity, ...] = ()) -> None:
        wanted, attempt_id = replace(terms(pharmacy), lines=lines), f"{len(self.attempts)}"
        await self._do(
            lambda rx: transitions.claim(
                rx, wanted, attempt_id=attempt_id, now=self.now, lease=LEASE
            )
        )

    async def end(self, kind: str, attempt: Attempt, cause: bytes = b"") -> None:
        """Commit, dispense or release."""
        reference = AttemptReference(
            attempt.attempt_id, attempt.fence, attempt.pharmacy_code, cause
        )
        lines, now = attempt.lines, self.now
        await self._do(
            {
                "commit": lambda rx: transitions.commit(
                    rx, attempt, reference, lines, settlement_id="s", now=now
                ),
                "dispense": lambda rx: transitions.dispense(rx, attempt, reference, lines, now=now),
                "release": lambda rx: transitions.release(rx, attempt, reference, now=now),
            }[kind]
        )

    async def wait(self, minutes: int = 31) -> None:
        self.now += timedelta(minutes=minutes)
        await self._do(lambda rx: transitions.expire_lease(rx, now=self.now))

    async def revoke(self) -> None:
        await self._do(lambda rx: transitions.revoke(rx, now=self.now)[0])

    async def check(self) -> None:
        number = self.model.number
        assert await self.store.read(lambda tx: tx.home.prescription(number)) == self.model
        for attempt in self.attempts:
            find = partial(find_attempt, number=number, attempt_id=attempt.attempt_id)
            assert await self.store.read(find) == attempt

    async def _do(self, transition: Callable[[Prescription], Change]) -> None:
        """The same transition on both sides; a refusal changes neither."""

        def command(tx: Transaction) -> None:
            current = tx.home.prescription(self.model.number)
            assert current is not None
            assert current == self.model
            tx.home.save(transition(current))

        try:
            change = transition(self.model)
        except Refusal:
            with pytest.raises(Refusal):
                await self.store.transact(command)
            return
        await self.store.transact(command)
        self.model = change.prescription
        changed = {attempt.attempt_id: attempt for attempt in change.attempts}
        known = {attempt.attempt_id: attempt for attempt in self.attempts}
        self.attempts = list((known | changed).values())


def find_attempt(tx: Transaction, number: str, attempt_id: str) -> Attempt | None:
    return tx.home.attempt(number, attempt_id)


async def begin(life: Life, beginning: tuple[str, ...]) -> None:
    for kind in beginning:
        if kind == "claim":
            await life.claim()
        elif kind == "wait":
            await life.wait()
        else:
            await life.end(kind, life.attempts[-1])


async def go_on(life: Life, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["claim", "commit", "dispense", "release", "wait", "revoke"]))
    if kind == "wait":
        await life.wait(data.draw(st.integers(1, 40)))
    elif kind == "claim":
        line_ids = data.draw(st.lists(st.sampled_from([1, 2]), unique=True))
        lines = tuple([LineQuantity(each, data.draw(st.integers(1, 31))) for each in line_ids])
        await life.claim(data.draw(st.sampled_from(["P1", "P2"])), lines)
    elif kind == "revoke":
        if data.draw(st.integers(0, 4)) == 0:  # rarely, because it ends the story
            await life.revoke()
    elif life.attempts:
        attempt = data.draw(st.sampled_from(life.attempts))
        await life.end(kind, attempt, data.draw(st.sampled_from([b"one", b"two"])))


@pytest.mark.parametrize("state", AttemptState)
def test_whatever_happens_to_a_prescription_the_store_follows_the_domain(
    state: AttemptState, tmp_path: Path
) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(opened(SqliteFiles(tmp_path)))
        numbers = iter(range(1_000_000))

        @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(data=st.data())
        def lives(data: st.DataObject) -> None:
            life = Life(store, f"350200-{next(numbers):08}")

            async def run() -> None:
                await add(store, life.model)
                await begin(life, BEGINNINGS[state])
                assert life.attempts[-1].state is state
                for _ in range(data.draw(st.integers(0, 20), "length")):
                    await go_on(life, data)
                await life.check()

            runner.run(run())

        lives()
        runner.run(store.close())


async def opened(backend: Backend) -> OpenStore:
    return backend.platform()
