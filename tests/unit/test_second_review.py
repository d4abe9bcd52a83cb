"""What must hold when somebody tries to be paid twice, or when two facts cross on their way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from rxoutflow.statements import statement_sha256
from rxoutflow.v1 import dispense_pb2, settlement_pb2
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from support.adjudications import OVERDUE, Silent, adjudicate, decision, silent
from support.world import World, content_of, person

HOME, DISPENSING, PAYER = "350200", "350500", "320600"


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def handed_over(world: World, code: str) -> SignedStatement:
    attempt = await world.claim(DISPENSING, code)
    commit = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, commit)
    request = world.record_request(DISPENSING, commit.commitment)
    await world.record(DISPENSING, request)
    await world.settle()
    return request.dispense_record


async def dispense_of(world: World, case: Silent) -> Dispense:
    found = await world.platforms[DISPENSING].store.read(
        lambda tx: tx.dispensing.dispense(case.number, case.settlement_id)
    )
    assert found is not None
    return found


async def no_dead_letters(world: World) -> bool:
    return not any([await world.dead_events(region) for region in world.platforms])


# --- returns --------------------------------------------------------------------------------------


async def test_returns_of_two_prescriptions_under_one_id_both_give_the_money_back(
    world: World,
) -> None:
    reversal_id = world.request_id()
    for _ in range(2):
        _, code = await world.issue(HOME, PAYER)
        record = await handed_over(world, code)
        request = world.return_request(DISPENSING, record, reversal_id=reversal_id)
        await world.take_back(DISPENSING, request)
        await world.settle()
    assert await no_dead_letters(world)
    assert await world.person(PAYER) == person()


async def test_a_return_that_its_region_tells_home_alone_gives_the_money_back_too(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    record = await handed_over(world, code)
    back = world.return_request(DISPENSING, record).dispense_return
    assert await world.tell(DISPENSING, HOME, back) == ""
    assert (await world.status(number)).lines[0].available == 20
    await world.settle()
    assert await world.person(PAYER) == person()


@pytest.mark.parametrize("revoked_before_the_handover", [True, False])
async def test_what_its_hospital_wanted_back_is_not_filled_again_after_a_return(
    world: World, revoked_before_the_handover: bool
) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    commit = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, commit)
    if revoked_before_the_handover:
        await world.revoke(number)
    request = world.record_request(DISPENSING, commit.commitment)
    await world.record(DISPENSING, request)
    await world.settle()
    if not revoked_before_the_handover:
        await world.revoke(number)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, request.dispense_record))
    await world.settle()
    assert await world.person(PAYER) == person()
    with pytest.raises(Refusal):
        await world.claim(PAYER, code)


async def test_a_status_that_names_another_statement_as_its_return_is_no_defect(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    record = await handed_over(world, code)
    kept = world.platforms[DISPENSING].store
    digests = {statement_sha256(record)}
    steps = await kept.read(lambda tx: tx.journal.steps(number))
    digests |= {each.statement_sha256 for each in steps}
    for digest in sorted(digests):
        status = await world.status(number)
        status.cause_sha256 = digest
        statement = world.platforms[HOME].region.seal(status, now=world.clock.now)
        assert await world.tell(HOME, DISPENSING, statement, insured_person_id="") == ""
    assert await no_dead_letters(world)


@pytest.mark.parametrize(("ahead", "accepted"), [(600, True), (601, False)])
async def test_nothing_is_recorded_as_handed_over_in_days_to_come(
    world: World, ahead: int, accepted: bool
) -> None:
    """No day of a pharmacy's book could have it, and nothing of it could ever come back."""
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    commit = world.commit_request(DISPENSING, attempt, None)
    await world.commit(DISPENSING, commit)
    request = world.record_request(DISPENSING, commit.commitment)
    record = content_of(request.dispense_record, dispense_pb2.DispenseRecord)
    record.dispense_time.FromDatetime(world.clock.now + timedelta(seconds=ahead))
    request.dispense_record.CopyFrom(world.signed(DISPENSING, record))
    if accepted:
        await world.record(DISPENSING, request)
        return
    with pytest.raises(Refusal, match="dispense_time"):
        await world.record(DISPENSING, request)


async def test_a_payer_posts_what_it_held(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    commit = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    answer = await world.commit(DISPENSING, commit)
    held = content_of(answer.settlement, settlement_pb2.Settlement)
    await world.record(DISPENSING, world.record_request(DISPENSING, commit.commitment))
    held.state = settlement_pb2.Settlement.STATE_POSTED
    held.amounts.pool_fen -= 100
    held.amounts.ratio_self_fen += 100
    held.amounts.person_fen += 100
    held.amounts.cash_fen += 100
    posted = world.platforms[PAYER].region.seal(held, now=world.clock.now)
    reason = await world.tell(PAYER, DISPENSING, posted, insured_person_id="")
    assert reason == "SIGNED_CONTENT_MISMATCH"


# --- facts that cross -----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["correction", "release"])
@pytest.mark.parametrize("insured", [True, False])
async def test_what_was_found_handed_over_stands_though_its_pharmacy_was_letting_go_of_it(
    world: World, by: str, insured: bool
) -> None:
    case = await silent(world, insured=insured)
    world.clock.now += OVERDUE
    correction = world.correction_request(DISPENSING, case.number, case.request.request_id)
    letting_go: dict[str, Callable[[], Awaitable[object]]] = {
        "release": lambda: world.release(DISPENSING, case.attempt),
        "correction": lambda: world.correct(DISPENSING, correction),
    }
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await letting_go[by]()
    world.unreachable = set()
    await adjudicate(world, decision(world, case.attempt, handed_over=True))
    await world.settle()
    assert (await dispense_of(world, case)).state == "completed"
    request = world.record_request(DISPENSING, case.request.commitment)
    await world.record(DISPENSING, request)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, request.dispense_record))
    await world.settle()
    assert await no_dead_letters(world)
    (back,) = (await world.progress(DISPENSING, case.attempt)).progress.returns
    assert (back.booked_by_home, back.HasField("amounts")) == (True, True)
    assert await world.person(PAYER) == person()


async def test_a_patient_alone_commits_nothing_anew_on_a_commit_that_is_being_corrected(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    first = world.commit_request(DISPENSING, attempt, None)
    world.losing = {"commit_attempt"}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, first)
    correction = world.correction_request(DISPENSING, number, first.request_id)
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await world.correct(DISPENSING, correction)
    world.unreachable = set()
    second = world.commit_request(DISPENSING, attempt, None)
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, second)
    assert refused.value.reason is Reason.ATTEMPT_ALREADY_COMMITTED
    await world.correct(DISPENSING, correction)
    await world.settle()
    assert (await world.status(number)).lines[0].available == 20
