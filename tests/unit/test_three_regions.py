"""The main job over three regions, and what can come between, without a network."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rxoutflow.v1 import (
    attempt_pb2,
    dispense_pb2,
    prescription_pb2,
    prescription_status_pb2,
    settlement_pb2,
)
from rxoutflow_server.application.dispensing import claims, settling
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.domain.tariff import AreaStatus
from support.adjudications import bring, event
from support.world import PERSON, World, content_of, person

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
REGIONS = [(HOME, DISPENSING, PAYER), (HOME, HOME, HOME), (HOME, HOME, PAYER), (HOME, PAYER, PAYER)]
Status = prescription_status_pb2.PrescriptionStatus


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


@pytest.mark.parametrize(("home", "dispensing", "payer"), REGIONS)
async def test_every_region_shows_the_same_outcome(
    world: World, home: str, dispensing: str, payer: str
) -> None:
    number, code = await world.issue(home, payer)
    settlement_id = await world.dispense(dispensing, code)
    await world.settle()

    status = await world.status(number)
    assert [(line.dispensed, line.available) for line in status.lines] == [(20, 0)]
    settlement = await world.platforms[payer].store.read(
        lambda tx: tx.payer.settlement(PERSON, settlement_id)
    )
    assert settlement is not None
    assert settlement.state == "posted"
    # 20 × 1.50 yuan; 10.00 of the deductible is left; 60 % of the rest; 5.00 and 3.00 on accounts.
    assert settlement.amounts.total_fen == 3000
    assert settlement.amounts.deductible_fen == 1000
    assert settlement.amounts.pool_fen == 1200
    assert (settlement.amounts.account_fen, settlement.amounts.family_fen) == (500, 300)
    assert settlement.amounts.cash_fen == 1000
    dispense = await world.platforms[dispensing].store.read(
        lambda tx: tx.dispensing.dispense(number, settlement_id)
    )
    assert dispense is not None
    assert dispense.state == "completed"
    for region in world.platforms:
        assert await world.dead_events(region) == []


async def test_a_second_pharmacy_hears_who_holds_the_prescription(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    await world.claim(DISPENSING, code)
    with pytest.raises(Refusal) as refused:
        await world.claim(PAYER, code)
    assert refused.value.reason is Reason.PRESCRIPTION_HELD
    assert refused.value.detail["holder_name"] == f"示范P{DISPENSING}00002"
    assert refused.value.detail["holder_phone"] == "000-0000000"
    assert f"示范P{DISPENSING}00002" in refused.value.message


async def test_the_same_claim_again_gets_the_same_bytes(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    platform = world.platforms[DISPENSING]
    request = world.claim_request(DISPENSING, code)
    first = await claims.claim(platform.exchange, platform.pharmacy, request)
    world.clock.now += timedelta(minutes=5)
    assert await claims.claim(platform.exchange, platform.pharmacy, request) == first


async def test_home_keeps_the_very_word_that_it_gives_on_an_attempt(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    platform, home = world.platforms[DISPENSING], world.platforms[HOME]
    request = world.claim_request(DISPENSING, code)
    claimed = await claims.claim(platform.exchange, platform.pharmacy, request)
    attempt = content_of(claimed.attempt, attempt_pb2.Attempt)
    quoted = await world.quote(DISPENSING, attempt)
    committed = await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, quoted))
    kept = await home.store.read(
        lambda tx: tx.journal.statements_of(number, claimed.attempt.payload_type)
    )
    assert len(kept) == 2
    assert claimed.attempt in kept
    assert committed.attempt in kept


async def test_a_claim_whose_answer_was_lost_is_found_again(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    platform = world.platforms[DISPENSING]
    request = world.claim_request(DISPENSING, code)
    world.lost_answers = 1
    with pytest.raises(Unavailable):
        await claims.claim(platform.exchange, platform.pharmacy, request)
    response = await claims.claim(platform.exchange, platform.pharmacy, request)
    attempt = content_of(response.attempt, attempt_pb2.Attempt)
    assert attempt.fence == 1
    assert attempt.state == attempt_pb2.Attempt.STATE_RESERVED


async def test_the_same_request_id_for_another_claim_is_refused(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    platform = world.platforms[DISPENSING]
    first = world.claim_request(DISPENSING, code)
    await claims.claim(platform.exchange, platform.pharmacy, first)
    other = world.claim_request(DISPENSING, code, request_id=first.request_id)
    with pytest.raises(Refusal) as refused:
        await claims.claim(platform.exchange, platform.pharmacy, other)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_commit_whose_answers_were_lost_is_committed_once(world: World, lost: int) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    for _ in range(lost):
        world.lost_answers = 1
        with pytest.raises(Unavailable):
            await world.commit(DISPENSING, request)
    response = await world.commit(DISPENSING, request)
    committed = content_of(response.attempt, attempt_pb2.Attempt)
    assert committed.state == attempt_pb2.Attempt.STATE_COMMITTED
    assert (await world.person(PAYER)).used_cap_fen == 1200
    assert (await world.status(number)).lines[0].committed == 20
    assert await world.commit(DISPENSING, request) == response


async def test_a_commit_that_a_crash_left_behind_is_brought_to_its_end(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, request)
    world.unreachable = set()
    exchange = world.platforms[DISPENSING].exchange
    (left,) = await settling.undecided(exchange, 10)
    await settling.drive(exchange, left)
    assert await settling.undecided(exchange, 10) == []
    progress = (await world.progress(DISPENSING, attempt)).progress
    assert progress.state == dispense_pb2.DispenseProgress.STATE_COMMITTED


async def test_facts_wait_for_a_region_that_is_away(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    await world.settle()
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    world.unreachable = {HOME, PAYER}
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    await world.settle()
    progress = (await world.progress(DISPENSING, attempt)).progress
    assert progress.state == dispense_pb2.DispenseProgress.STATE_DISPENSED
    world.unreachable = set()
    world.clock.now += timedelta(minutes=2)
    await world.settle()
    progress = (await world.progress(DISPENSING, attempt)).progress
    assert progress.state == dispense_pb2.DispenseProgress.STATE_COMPLETED
    assert (await world.status(number)).lines[0].dispensed == 20


async def test_a_lease_that_ran_out_frees_the_prescription_and_the_hold(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, request)
    world.unreachable = set()
    assert (await world.person(PAYER)).used_cap_fen == 1200
    world.clock.now += timedelta(minutes=30)
    assert await world.expire_leases(HOME) == 1
    await world.settle()
    assert await world.person(PAYER) == person()
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, request)
    assert refused.value.reason is Reason.ATTEMPT_ENDED
    again = await world.claim(PAYER, code)
    assert again.fence == 2
    assert (await world.status(number)).lines[0].claimed == 20


async def test_a_hold_for_an_attempt_that_has_ended_is_refused(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    await world.release(DISPENSING, attempt)
    await world.settle()
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, amounts))
    assert refused.value.reason is Reason.SETTLEMENT_ENDED
    assert await world.person(PAYER) == person()


async def test_release_after_commit_gives_everything_back(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    released = await world.release(DISPENSING, attempt)
    assert released.state == attempt_pb2.Attempt.STATE_RELEASED
    await world.settle()
    assert await world.person(PAYER) == person()
    assert (await world.status(number)).lines[0].available == 20
    with pytest.raises(Refusal) as refused:
        await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    assert refused.value.reason is Reason.ATTEMPT_ENDED


async def test_a_release_wins_over_a_commit_whose_answer_was_lost(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    world.losing = {"commit_attempt"}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, request)
    await world.release(DISPENSING, attempt)
    assert await settling.undecided(world.platforms[DISPENSING].exchange, 10) == []
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, request)
    assert refused.value.reason is Reason.ATTEMPT_ENDED
    with pytest.raises(Refusal):
        await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    await world.settle()
    assert await world.person(PAYER) == person()
    assert (await world.status(number)).lines[0].available == 20


async def settled(world: World, settlement_id: str) -> str:
    found = await world.platforms[PAYER].store.read(
        lambda tx: tx.payer.settlement(PERSON, settlement_id)
    )
    assert found is not None
    return found.state


async def test_a_handover_that_home_never_committed_is_not_paid(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, request)
    world.unreachable = set()
    record = world.record_request(DISPENSING, request.commitment).dispense_record
    settlement_id = content_of(request.commitment, attempt_pb2.Commitment).settlement_id
    assert await world.tell(DISPENSING, PAYER, record) == ""
    assert await settled(world, settlement_id) == "held"
    await world.release(DISPENSING, attempt)
    await world.settle()
    assert await settled(world, settlement_id) == "voided"
    assert await world.person(PAYER) == person()


@pytest.mark.parametrize("first", [HOME, PAYER])
async def test_a_handover_is_paid_when_record_and_booking_are_there(
    world: World, first: str
) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    record = world.record_request(DISPENSING, request.commitment)
    await world.record(DISPENSING, record)
    settlement_id = content_of(request.commitment, attempt_pb2.Commitment).settlement_id
    assert await world.tell(DISPENSING, first, record.dispense_record) == ""
    await world.deliver_from(HOME)
    assert await settled(world, settlement_id) == "held"
    await world.settle()
    assert await settled(world, settlement_id) == "posted"


async def test_a_record_that_home_did_not_book_is_not_paid(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    booked = world.record_request(DISPENSING, request.commitment).dispense_record
    other = world.record_request(DISPENSING, request.commitment).dispense_record
    assert await world.tell(DISPENSING, HOME, booked) == ""
    await world.deliver_from(HOME)
    assert await world.tell(DISPENSING, PAYER, other) == "EARLIER_FACT_MISSING"
    settlement_id = content_of(request.commitment, attempt_pb2.Commitment).settlement_id
    assert await settled(world, settlement_id) == "held"
    assert await world.tell(DISPENSING, PAYER, booked) == ""
    assert await settled(world, settlement_id) == "posted"


async def test_a_region_that_is_home_and_payer_knows_what_it_booked(world: World) -> None:
    _, code = await world.issue(PAYER, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    booked = world.record_request(DISPENSING, request.commitment).dispense_record
    other = world.record_request(DISPENSING, request.commitment).dispense_record
    assert await world.tell(DISPENSING, PAYER, booked) == ""
    await world.deliver_from(PAYER)
    told = event(world, other, attempt.prescription_number, to_payer=True)
    assert await bring(world, DISPENSING, PAYER, told) == "DISPENSE_MISMATCH"


@pytest.mark.parametrize("insured", [True, False])
async def test_an_attempt_is_committed_by_one_settlement_only(world: World, insured: bool) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt) if insured else None
    first = world.commit_request(DISPENSING, attempt, amounts)
    second = world.commit_request(DISPENSING, attempt, amounts)
    await world.commit(DISPENSING, first)
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, second)
    assert refused.value.reason is Reason.ATTEMPT_ALREADY_COMMITTED
    await world.record(DISPENSING, world.record_request(DISPENSING, first.commitment))
    await world.settle()
    assert (await world.status(number)).lines[0].dispensed == 20
    assert await world.dead_events(DISPENSING) == []


async def test_a_quote_that_changed_is_not_held(world: World) -> None:
    _, first = await world.issue(HOME, PAYER)
    _, second = await world.issue(HOME, PAYER)
    slow = await world.claim(DISPENSING, first)
    quoted = await world.quote(DISPENSING, slow)
    await world.dispense(PAYER, second)
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, world.commit_request(DISPENSING, slow, quoted))
    assert refused.value.reason is Reason.QUOTE_CHANGED
    assert refused.value.detail["pool_fen"] == "1800"
    anew = world.commit_request(DISPENSING, slow, await world.quote(DISPENSING, slow))
    await world.commit(DISPENSING, anew)


@pytest.mark.parametrize(("dispensing", "pool"), [(DISPENSING, 840), (PAYER, 1200)])
async def test_being_unfiled_counts_away_from_home_only(
    world: World, dispensing: str, pool: int
) -> None:
    await world.change_person(PAYER, area_status=AreaStatus.UNFILED)
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(dispensing, code)
    assert (await world.quote(dispensing, attempt)).pool_fen == pool


async def test_a_patient_who_pays_alone_needs_no_payer(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    world.unreachable = {PAYER}
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, None)
    response = await world.commit(DISPENSING, request)
    assert not response.HasField("settlement")
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    await world.settle()
    progress = (await world.progress(DISPENSING, attempt)).progress
    assert progress.state == dispense_pb2.DispenseProgress.STATE_COMPLETED
    assert (await world.status(number)).lines[0].dispensed == 20


async def test_what_was_not_committed_is_available_elsewhere(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    part = [attempt_pb2.LineQuantity(line_id=1, quantity=8)]
    del attempt.lines[:]
    attempt.lines.extend(part)
    amounts = await world.quote(DISPENSING, attempt)
    request = world.commit_request(DISPENSING, attempt, amounts)
    await world.commit(DISPENSING, request)
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    await world.settle()
    rest = await world.claim(PAYER, code)
    assert [(line.line_id, line.quantity) for line in rest.lines] == [(1, 12)]
    assert (await world.status(number)).lines[0].dispensed == 8


async def test_a_box_is_sold_once(world: World) -> None:
    _, first = await world.issue(HOME, PAYER)
    _, second = await world.issue(HOME, PAYER)
    box = dispense_pb2.TraceCode(code=world.trace_code())
    for index, code in enumerate((first, second)):
        attempt = await world.claim(DISPENSING, code)
        amounts = await world.quote(DISPENSING, attempt)
        request = world.commit_request(DISPENSING, attempt, amounts)
        await world.commit(DISPENSING, request)
        record = world.record_request(DISPENSING, request.commitment)
        content = content_of(record.dispense_record, dispense_pb2.DispenseRecord)
        content.lines[0].trace_codes[0].CopyFrom(box)
        record.dispense_record.CopyFrom(world.signed(DISPENSING, content))
        if index == 0:
            await world.record(DISPENSING, record)
        else:
            with pytest.raises(Refusal) as refused:
                await world.record(DISPENSING, record)
            assert refused.value.reason is Reason.TRACE_CODE_ALREADY_SOLD


async def test_a_fund_does_not_pay_for_boxes_that_were_not_scanned(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    record = world.record_request(DISPENSING, request.commitment)
    content = content_of(record.dispense_record, dispense_pb2.DispenseRecord)
    del content.lines[0].trace_codes[:]
    record.dispense_record.CopyFrom(world.signed(DISPENSING, content))
    with pytest.raises(Refusal) as refused:
        await world.record(DISPENSING, record)
    assert refused.value.reason is Reason.TRACE_CODE_MISSING


async def test_a_price_above_the_catalogue_is_refused(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    request = world.commit_request(DISPENSING, attempt, amounts)
    content = content_of(request.commitment, attempt_pb2.Commitment)
    content.lines[0].unit_price_micro_yuan += 1
    request.commitment.CopyFrom(world.signed(DISPENSING, content))
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, request)
    assert refused.value.reason is Reason.PRICE_ABOVE_CATALOGUE


async def test_settlement_states_reach_all_three_regions(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    settlement_id = await world.dispense(DISPENSING, code)
    await world.settle()
    actions = {
        region: {
            step.action for step in await platform.store.read(lambda tx: tx.journal.steps(number))
        }
        for region, platform in world.platforms.items()
    }
    assert actions == {
        HOME: {"registered", "claimed", "committed", "dispense booked", "settlement known"},
        DISPENSING: {
            "claim forwarded",
            "claim confirmed",
            "commit requested",
            "hold confirmed",
            "commit confirmed",
            "handed over",
            "booking known",
            "payment known",
        },
        PAYER: {"held", "posted"},
    }
    dispense = await world.platforms[DISPENSING].store.read(
        lambda tx: tx.dispensing.dispense(number, settlement_id)
    )
    assert dispense is not None
    settlement = await world.platforms[DISPENSING].store.read(
        lambda tx: tx.journal.statement(number, dispense.settlement_sha256)
    )
    posted = content_of(settlement, settlement_pb2.Settlement)
    assert posted.state == settlement_pb2.Settlement.STATE_POSTED


async def issue_and_claim(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    await world.claim(DISPENSING, code)


@pytest.mark.parametrize("holder", ["hospital", "pharmacy"])
async def test_an_agreement_that_does_not_cover_the_basis_is_out_of_scope(holder: str) -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    double_channel = prescription_pb2.Prescription.OUTFLOW_BASIS_DOUBLE_CHANNEL
    region = HOME if holder == "hospital" else DISPENSING
    world.limit_scope(region, holder, double_channel)
    with pytest.raises(Refusal) as refused:
        await issue_and_claim(world)
    assert refused.value.reason is Reason.INSTITUTION_OUT_OF_SCOPE
    assert refused.value.detail["basis"] == "outpatient_pool"


@pytest.mark.parametrize("holder", ["hospital", "pharmacy"])
async def test_an_agreement_that_names_the_basis_covers_it(holder: str) -> None:
    world = World.create(HOME, DISPENSING, PAYER)
    region = HOME if holder == "hospital" else DISPENSING
    world.limit_scope(region, holder, prescription_pb2.Prescription.OUTFLOW_BASIS_OUTPATIENT_POOL)
    await issue_and_claim(world)
