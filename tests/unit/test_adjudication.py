"""A pharmacy commits and stays silent: two people of the home region decide, every region acts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import permutations
from typing import Any

import pytest

from rxoutflow.statements import StatementError
from rxoutflow.v1 import administration_service_pb2 as messages
from rxoutflow.v1 import attempt_pb2, dispense_pb2
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_ADJUDICATOR, SignedStatement
from rxoutflow_server.application import administration
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.domain.settlement import Settlement
from support.adjudications import (
    DISPENSING,
    HOME,
    OVERDUE,
    PAYER,
    Silent,
    adjudicate,
    bring,
    decision,
    event,
    is_adjudication,
    on_their_way,
    silent,
)
from support.world import PERSON, World, content_of, person

Attempt = attempt_pb2.Attempt
Progress = dispense_pb2.DispenseProgress


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def overdue(world: World, **how: Any) -> Silent:
    """A pharmacy that has been silent for too long."""
    case = await silent(world, **how)
    world.clock.now += OVERDUE
    return case


async def settlement(world: World, case: Silent) -> Settlement:
    found = await world.platforms[PAYER].store.read(
        lambda tx: tx.payer.settlement(PERSON, case.settlement_id)
    )
    assert found is not None
    return found


async def dispense(world: World, case: Silent) -> Dispense:
    found = await world.platforms[DISPENSING].store.read(
        lambda tx: tx.dispensing.dispense(case.number, case.settlement_id)
    )
    assert found is not None
    return found


async def notices(world: World, region: str, institution: str) -> list[tuple[str, str]]:
    found = await world.platforms[region].store.read(
        lambda tx: tx.journal.notices(institution, 0, 100)
    )
    return [(each.kind, each.summary) for each in found]


async def no_dead_letters(world: World) -> bool:
    return not any([await world.dead_events(region) for region in world.platforms])


async def ledger(world: World, case: Silent) -> tuple[int, int, int]:
    """What of the line is available, committed and dispensed."""
    line = (await world.status(case.number)).lines[0]
    return line.available, line.committed, line.dispensed


async def refused(act: Callable[[], Any]) -> Reason:
    try:
        await act()
    except (Refusal, StatementError) as error:
        return Reason(error.reason)
    raise AssertionError("it was not refused")


# both findings


async def test_what_two_people_found_handed_over_is_booked_and_paid(world: World) -> None:
    case = await overdue(world)
    statement = decision(world, case.attempt, handed_over=True)
    ended = await adjudicate(world, statement)
    assert ended.state == Attempt.STATE_DISPENSED
    await world.settle()
    assert await ledger(world, case) == (0, 0, 20)
    paid = await settlement(world, case)
    assert (paid.state, paid.cause_sha256) == ("posted", ended.cause_sha256)
    done = await dispense(world, case)
    assert (done.state, done.record_sha256) == ("completed", ended.cause_sha256)
    assert await no_dead_letters(world)


async def test_what_two_people_found_not_handed_over_is_free_again(world: World) -> None:
    case = await overdue(world)
    ended = await adjudicate(world, decision(world, case.attempt, handed_over=False))
    assert ended.state == Attempt.STATE_RELEASED
    await world.settle()
    assert await ledger(world, case) == (20, 0, 0)
    assert (await settlement(world, case)).state == "voided"
    assert await world.person(PAYER) == person()
    assert (await dispense(world, case)).state == "released"
    assert await no_dead_letters(world)


@pytest.mark.parametrize("handed_over", [True, False])
async def test_a_patient_who_paid_alone_needs_no_payer_to_be_adjudicated(
    world: World, handed_over: bool
) -> None:
    case = await overdue(world, insured=False)
    world.unreachable = {PAYER}
    await adjudicate(world, decision(world, case.attempt, handed_over=handed_over))
    await world.settle()
    assert (await dispense(world, case)).state == ("completed" if handed_over else "released")


@pytest.mark.parametrize("handed_over", [True, False])
async def test_hospital_and_pharmacy_hear_what_was_found(world: World, handed_over: bool) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=handed_over))
    await world.settle()
    kind, word = ("DISPENSED", "handed") if handed_over else ("ATTEMPT_ENDED", "nothing")
    hospital = world.platforms[HOME].hospital.institution_code
    at_home = [each for each in await notices(world, HOME, hospital) if "two people" in each[1]]
    assert [each[0] for each in at_home] == [kind]
    assert word in at_home[0][1]
    pharmacy = world.platforms[DISPENSING].pharmacy.institution_code
    heard = await notices(world, DISPENSING, pharmacy)
    assert [each[0] for each in heard if "two people" in each[1]] == [kind]


async def test_supervision_sees_who_decided(world: World) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    await world.settle()
    for region, action in (
        (HOME, "adjudicated"),
        (DISPENSING, "adjudication known"),
        (PAYER, "adjudication known"),
    ):
        steps = await world.platforms[region].store.read(lambda tx: tx.journal.steps(case.number))
        assert [each.action for each in steps].count(action) == 1, region


# whatever order, however often, whatever is lost


def orders() -> list[tuple[int, ...]]:
    """Every order of three events, and each of them with everything told twice."""
    return [*permutations(range(3)), *(order * 2 for order in permutations(range(3)))]


@pytest.mark.parametrize("order", orders(), ids=str)
@pytest.mark.parametrize("handed_over", [True, False])
async def test_the_order_of_events_changes_nothing(
    world: World, order: tuple[int, ...], handed_over: bool
) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=handed_over))
    to_payer = on_their_way(world, HOME, PAYER)
    to_pharmacy = on_their_way(world, HOME, DISPENSING)
    assert (len(to_payer), len(to_pharmacy)) == (3, 2)
    for index in order:
        assert await bring(world, HOME, PAYER, to_payer[index]) == ""
        assert await bring(world, HOME, DISPENSING, *to_pharmacy[index : index + 1]) == ""
    await world.settle()
    assert (await settlement(world, case)).state == ("posted" if handed_over else "voided")
    assert (await dispense(world, case)).state == ("completed" if handed_over else "released")
    assert await no_dead_letters(world)


@pytest.mark.parametrize("lost", range(1, 6))
async def test_lost_answers_change_nothing(world: World, lost: int) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    world.lost_answers = lost
    for _ in range(lost + 1):
        await world.settle()
        world.clock.now += timedelta(minutes=2)
    assert (await settlement(world, case)).state == "posted"
    assert (await dispense(world, case)).state == "completed"
    assert await no_dead_letters(world)


async def test_an_adjudication_that_was_undone_never_happened(world: World) -> None:
    case = await overdue(world)
    statement = decision(world, case.attempt, handed_over=True)
    home = world.platforms[HOME]

    def crash(tx: Any) -> None:
        request = messages.AdjudicateAttemptRequest(
            request_id=world.request_id(), adjudication=statement
        )
        administration.adjudicate(tx, home.region, home.hospital, request)
        raise RuntimeError("the power fails before the commit")

    with pytest.raises(RuntimeError):
        await home.store.transact(crash)
    await world.settle()
    assert await ledger(world, case) == (0, 20, 0)
    assert (await settlement(world, case)).state == "held"
    await adjudicate(world, statement)
    await world.settle()
    assert (await settlement(world, case)).state == "posted"


async def test_a_region_that_lost_the_answer_to_its_commit_ends_it_as_well(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    world.losing = {"commit_attempt"}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, request)
    case = Silent(number, code, attempt, request)
    assert (await dispense(world, case)).state == "held"
    world.clock.now += OVERDUE
    await adjudicate(world, decision(world, attempt, handed_over=True))
    await world.settle()
    assert (await dispense(world, case)).state == "completed"
    assert (await settlement(world, case)).state == "posted"


# what comes late


async def test_a_late_record_of_what_was_found_is_kept_as_evidence(world: World) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    await world.settle()
    before, paid = await ledger(world, case), await settlement(world, case)
    record = world.record_request(DISPENSING, case.request.commitment)
    progress = await world.record(DISPENSING, record)
    assert progress.state == Progress.STATE_COMPLETED
    assert await world.record(DISPENSING, record) == progress
    await world.settle()
    assert (await ledger(world, case), await settlement(world, case)) == (before, paid)
    assert await no_dead_letters(world)
    for platform in world.platforms.values():
        kept = await platform.store.read(
            lambda tx: tx.journal.statements_of(case.number, record.dispense_record.payload_type)
        )
        assert list(kept) == [record.dispense_record]


async def test_the_boxes_of_a_late_record_are_sold(world: World) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    await world.settle()
    late = world.record_request(DISPENSING, case.request.commitment)
    await world.record(DISPENSING, late)
    other = await silent(world)
    again = world.record_request(DISPENSING, other.request.commitment)
    content = content_of(again.dispense_record, dispense_pb2.DispenseRecord)
    sold = content_of(late.dispense_record, dispense_pb2.DispenseRecord).lines[0].trace_codes
    del content.lines[0].trace_codes[:]
    content.lines[0].trace_codes.extend(sold)
    again.dispense_record.CopyFrom(world.signed(DISPENSING, content))
    reason = await refused(lambda: world.record(DISPENSING, again))
    assert reason is Reason.TRACE_CODE_ALREADY_SOLD


async def test_a_second_late_record_is_refused(world: World) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    await world.settle()
    await world.record(DISPENSING, world.record_request(DISPENSING, case.request.commitment))
    another = world.record_request(DISPENSING, case.request.commitment)
    assert await refused(lambda: world.record(DISPENSING, another)) is Reason.ATTEMPT_ENDED


@pytest.mark.parametrize("at", [HOME, DISPENSING, PAYER])
async def test_a_late_record_of_something_else_is_refused_everywhere(world: World, at: str) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    if at != PAYER:
        await world.settle()
    record = world.record_request(DISPENSING, case.request.commitment)
    content = content_of(record.dispense_record, dispense_pb2.DispenseRecord)
    content.lines[0].quantity -= 1
    record.dispense_record.CopyFrom(world.signed(DISPENSING, content))
    if at == DISPENSING:
        reason = str(await refused(lambda: world.record(DISPENSING, record)))
    else:
        told = event(world, record.dispense_record, case.number, to_payer=at == PAYER)
        reason = await bring(world, DISPENSING, at, told)
    assert reason == "DISPENSE_MISMATCH"


async def test_a_late_record_against_the_finding_is_refused(world: World) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=False))
    record = world.record_request(DISPENSING, case.request.commitment)
    told = event(world, record.dispense_record, case.number, to_payer=False)
    assert await bring(world, DISPENSING, HOME, told) == "ATTEMPT_ENDED"
    await world.settle()
    assert await refused(lambda: world.record(DISPENSING, record)) is Reason.ATTEMPT_ENDED
    assert await ledger(world, case) == (20, 0, 0)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
async def test_a_record_that_crosses_the_adjudication_is_paid_once(
    world: World, order: tuple[int, ...]
) -> None:
    """The pharmacy speaks up while two people decide: record, finding and booking in any order."""
    case = await overdue(world)
    record = world.record_request(DISPENSING, case.request.commitment)
    await world.record(DISPENSING, record)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    finding, booking, _ = on_their_way(world, HOME, PAYER)
    assert is_adjudication(finding)
    (written,) = on_their_way(world, DISPENSING, PAYER)
    for index in order:
        told = (finding, booking, written)[index]
        origin = DISPENSING if told is written else HOME
        reason = await bring(world, origin, PAYER, told)
        waits = index == 2 and order.index(1) < order.index(2) < order.index(0)
        assert reason == ("EARLIER_FACT_MISSING" if waits else "")
    for _ in range(3):
        await world.settle()
        world.clock.now += timedelta(minutes=2)
    assert (await settlement(world, case)).state == "posted"
    assert (await dispense(world, case)).state == "completed"
    assert await ledger(world, case) == (0, 0, 20)
    assert await no_dead_letters(world)


# who may decide, and when


async def test_one_person_does_not_decide_alone(world: World) -> None:
    case = await overdue(world)
    first = world.platforms[HOME].cast.adjudicator
    statement = decision(world, case.attempt, handed_over=True, people=(first, first))
    reason = await refused(lambda: adjudicate(world, statement))
    assert reason is Reason.SIGNERS_NOT_DISTINCT
    assert await ledger(world, case) == (0, 20, 0)


async def test_two_certificates_are_not_two_people(world: World) -> None:
    case = await overdue(world)
    cast = world.platforms[HOME].cast
    other = cast.region.person(cast.region.platform, "J001", SIGNER_ROLE_ADJUDICATOR)
    publish(world)
    statement = decision(world, case.attempt, handed_over=True, people=(cast.adjudicator, other))
    reason = await refused(lambda: adjudicate(world, statement))
    assert reason is Reason.SIGNERS_NOT_DISTINCT


async def test_one_signature_is_not_enough(world: World) -> None:
    case = await overdue(world)
    first = world.platforms[HOME].cast.adjudicator
    statement = decision(world, case.attempt, handed_over=True, people=(first,))
    assert await refused(lambda: adjudicate(world, statement)) is Reason.SIGNATURE_MISSING


async def test_people_of_another_region_do_not_decide(world: World) -> None:
    case = await overdue(world)
    cast = world.platforms[DISPENSING].cast
    people = (cast.adjudicator, cast.second_adjudicator)
    statement = decision(world, case.attempt, handed_over=True, people=people)
    reason = await refused(lambda: adjudicate(world, statement))
    assert reason is Reason.SIGNED_CONTENT_MISMATCH


async def test_people_of_a_hospital_do_not_decide(world: World) -> None:
    case = await overdue(world)
    cast = world.platforms[HOME].cast
    people = [
        cast.region.person(cast.hospital, code, SIGNER_ROLE_ADJUDICATOR) for code in ("J1", "J2")
    ]
    publish(world)
    statement = decision(world, case.attempt, handed_over=True, people=people)
    assert await refused(lambda: adjudicate(world, statement)) is Reason.SIGNER_UNTRUSTED


def publish(world: World) -> None:
    region = world.platforms[HOME].cast.region
    region.trust_list.sequence += 1
    world.platforms[HOME].region.trust.offer(region.signed_list(), world.clock.now)


async def test_nobody_decides_before_the_attempt_is_overdue(world: World) -> None:
    case = await silent(world)
    world.clock.now += OVERDUE - timedelta(microseconds=1)
    statement = decision(world, case.attempt, handed_over=True)
    with pytest.raises(Refusal) as early:
        await adjudicate(world, statement)
    assert early.value.reason is Reason.ATTEMPT_NOT_OVERDUE
    assert early.value.detail["overdue_time"]
    world.clock.now += timedelta(microseconds=1)
    await adjudicate(world, statement)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fence": 7}, Reason.FENCE_STALE),
        ({"attempt_id": "019ce000-0000-7000-8000-000000000000"}, Reason.ATTEMPT_NOT_FOUND),
        ({"evidence": ""}, Reason.FIELD_INVALID),
        ({"evidence": "x" * 2001}, Reason.FIELD_INVALID),
        ({"evidence": "\x1b[31m"}, Reason.FIELD_INVALID),
        ({"finding": 0}, Reason.FIELD_INVALID),
        ({"finding": 3}, Reason.STATEMENT_MALFORMED),
        ({"adjudication_id": "one"}, Reason.FIELD_INVALID),
        ({"document_sha256": [b"short"]}, Reason.FIELD_INVALID),
        ({"document_sha256": [b"x" * 32] * 21}, Reason.FIELD_INVALID),
    ],
)
async def test_a_decision_says_plainly_what_it_is_about(
    world: World, changes: dict[str, Any], reason: Reason
) -> None:
    case = await overdue(world)
    statement = decision(world, case.attempt, handed_over=True, **changes)
    assert await refused(lambda: adjudicate(world, statement)) is reason


async def test_a_claim_that_was_never_committed_is_not_decided_on(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    statement = decision(world, attempt, handed_over=True)
    reason = await refused(lambda: adjudicate(world, statement))
    assert reason is Reason.ATTEMPT_NOT_COMMITTED
    world.clock.now += OVERDUE
    assert await refused(lambda: adjudicate(world, statement)) is Reason.ATTEMPT_ENDED


@pytest.mark.parametrize("handed_over", [True, False])
async def test_a_decision_is_final(world: World, handed_over: bool) -> None:
    case = await overdue(world)
    statement = decision(world, case.attempt, handed_over=handed_over)
    ended = await adjudicate(world, statement)
    assert await adjudicate(world, statement) == ended
    for finding in (True, False):
        other = decision(world, case.attempt, handed_over=finding)
        assert await refused(partial(adjudicate, world, other)) is Reason.ATTEMPT_ENDED


async def test_the_same_request_gets_the_same_answer(world: World) -> None:
    case = await overdue(world)
    request_id = world.request_id()
    statement = decision(world, case.attempt, handed_over=True)
    first = await adjudicate(world, statement, request_id)
    world.clock.now += timedelta(hours=1)
    assert await adjudicate(world, statement, request_id) == first
    other = decision(world, case.attempt, handed_over=True)
    reason = await refused(lambda: adjudicate(world, other, request_id))
    assert reason is Reason.REQUEST_ID_REUSED


async def test_a_released_attempt_is_not_decided_on(world: World) -> None:
    case = await overdue(world)
    await world.release(DISPENSING, case.attempt)
    statement = decision(world, case.attempt, handed_over=True)
    assert await refused(lambda: adjudicate(world, statement)) is Reason.ATTEMPT_ENDED


# nobody is paid for a decision that home did not make


async def test_a_stray_adjudication_pays_nothing(world: World) -> None:
    """Two people sign, but home never ended the attempt by it."""
    case = await overdue(world)
    statement = decision(world, case.attempt, handed_over=True)
    told = event(world, statement, case.number, to_payer=True)
    assert await bring(world, HOME, PAYER, told) == ""
    assert (await settlement(world, case)).state == "held"
    await world.record(DISPENSING, world.record_request(DISPENSING, case.request.commitment))
    await world.settle()
    assert (await settlement(world, case)).state == "posted"
    assert await no_dead_letters(world)


async def test_an_end_by_adjudication_pays_nothing_without_it(world: World) -> None:
    case = await overdue(world)
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    finding, *others = on_their_way(world, HOME, PAYER)
    assert is_adjudication(finding)
    assert await bring(world, HOME, PAYER, *others) == ""
    assert (await settlement(world, case)).state == "held"


@pytest.mark.parametrize("to", [PAYER, HOME])
async def test_a_dispensing_region_brings_no_adjudication(world: World, to: str) -> None:
    case = await overdue(world)
    statement = decision(world, case.attempt, handed_over=True)
    told = event(world, statement, case.number, to_payer=to == PAYER)
    assert await bring(world, DISPENSING, to, told) == "CALLER_REGION_NOT_ALLOWED"


async def test_an_adjudication_of_another_attempt_pays_nothing(world: World) -> None:
    case, other = await overdue(world), await overdue(world)
    swapped = decision(world, other.attempt, handed_over=True)
    mixed = decision(world, case.attempt, handed_over=True, attempt_id=other.attempt.attempt_id)
    for statement in (swapped, mixed):
        number = content_of(statement, attempt_pb2.Adjudication).prescription_number
        told = event(world, statement, number, to_payer=True)
        assert await bring(world, HOME, PAYER, told) == ""
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    _, *others = on_their_way(world, HOME, PAYER)
    await bring(world, HOME, PAYER, *others)
    assert (await settlement(world, case)).state == "held"
    assert (await settlement(world, other)).state == "held"


async def test_a_plain_region_does_everything_itself(world: World) -> None:
    """Home, dispensing and payer in one."""
    case = await silent(world, dispensing=HOME, payer=HOME)
    world.clock.now += OVERDUE
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    await world.settle()
    home = world.platforms[HOME].store
    paid = await home.read(lambda tx: tx.payer.settlement(PERSON, case.settlement_id))
    done = await home.read(lambda tx: tx.dispensing.dispense(case.number, case.settlement_id))
    assert paid is not None
    assert paid.state == "posted"
    assert done is not None
    assert done.state == "completed"


# the list


async def listed(
    world: World, size: int = 0, token: str = ""
) -> messages.ListOverdueAttemptsResponse:
    home = world.platforms[HOME]
    request = messages.ListOverdueAttemptsRequest(page_size=size, page_token=token)
    return await home.store.read(lambda tx: administration.list_overdue(tx, home.region, request))


async def test_the_list_begins_when_the_attempt_is_overdue_and_ends_with_it(world: World) -> None:
    case = await silent(world)
    world.clock.now += OVERDUE - timedelta(microseconds=1)
    assert not (await listed(world)).attempts
    world.clock.now += timedelta(microseconds=1)
    (entry,) = (await listed(world)).attempts
    assert content_of(entry.attempt, Attempt).attempt_id == case.attempt.attempt_id
    await adjudicate(world, decision(world, case.attempt, handed_over=False))
    assert not (await listed(world)).attempts


async def test_an_entry_shows_the_evidence_and_whom_to_call(world: World) -> None:
    case = await overdue(world)
    (entry,) = (await listed(world)).attempts
    pharmacy = world.platforms[DISPENSING].cast
    listed_as = pharmacy.region.entry(pharmacy.pharmacy)
    assert entry.commitment == case.request.commitment
    assert entry.HasField("settlement")
    assert (entry.pharmacy_name, entry.pharmacy_phone) == (listed_as.name, listed_as.phone)
    assert entry.issuer_institution_code == world.platforms[HOME].hospital.institution_code
    assert entry.commit_time.ToDatetime(world.clock.now.tzinfo) + OVERDUE == world.clock.now


async def test_the_list_comes_in_pages_oldest_commit_first(world: World) -> None:
    cases = []
    for _ in range(5):
        cases.append(await silent(world, insured=False))
        world.clock.now += timedelta(minutes=1)
    world.clock.now += OVERDUE
    seen, token = [], ""
    while True:
        page = await listed(world, 2, token)
        assert len(page.attempts) <= 2
        seen += [content_of(each.attempt, Attempt).prescription_number for each in page.attempts]
        token = page.next_page_token
        if not token:
            break
    assert seen == [case.number for case in cases]


async def test_a_page_ends_before_its_answer_is_too_large(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administration, "PAGE_BYTES", 10)
    first, second = await silent(world, insured=False), await overdue(world, insured=False)
    page = await listed(world)
    assert len(page.attempts) == 1
    rest = await listed(world, token=page.next_page_token)
    numbers = [
        content_of(each.attempt, Attempt).prescription_number
        for each in (*page.attempts, *rest.attempts)
    ]
    assert sorted(numbers) == sorted([first.number, second.number])


@pytest.mark.parametrize("token", ["x", "2026-03-02T01:00:00+00:00", "2026-99-02T01:00:00+00:00/1"])
async def test_a_page_token_of_nobody_is_refused(world: World, token: str) -> None:
    assert await refused(lambda: listed(world, token=token)) is Reason.FIELD_INVALID


def test_a_statement_of_the_harness_has_two_signatures(world: World) -> None:
    attempt = Attempt(prescription_number=world.prescription(HOME, PAYER).prescription_number)
    statement: SignedStatement = decision(world, attempt, handed_over=True)
    assert len(statement.signatures) == 2
