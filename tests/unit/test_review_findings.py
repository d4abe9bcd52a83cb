"""What must hold when regions race, crash, are too busy or lie."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow.v1.payer_service_pb2 import HoldBenefitRequest
from rxoutflow.v1.peer_service_pb2 import DeliverEventsRequest, DeliverEventsResponse, PeerEvent
from rxoutflow.v1.pharmacy_service_pb2 import CommitClaimRequest
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.dispensing import claims, settling
from rxoutflow_server.application.exchange import inbox, outbox
from rxoutflow_server.application.exchange.evidence import keep, tell_region
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.catalogue import Catalogue
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal, Unavailable
from rxoutflow_server.domain.settlement import SettlementState
from rxoutflow_server.platform import tasks
from support.world import DRUGS, PERSON, Platform, World, content_of, person, priced

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
Attempt = attempt_pb2.Attempt


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def ready_to_commit(world: World) -> tuple[str, Attempt, CommitClaimRequest]:
    """A claimed prescription with an insured commitment to send."""
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    return number, attempt, world.commit_request(DISPENSING, attempt, amounts)


async def state_of(world: World, attempt: Attempt) -> str:
    number, attempt_id = attempt.prescription_number, attempt.attempt_id
    dispense = await world.platforms[DISPENSING].store.read(
        lambda tx: tx.dispensing.dispense_of_attempt(number, attempt_id)
    )
    assert dispense is not None
    return dispense.state.value


def first_answer(
    monkeypatch: pytest.MonkeyPatch,
    platform: Platform,
    method: str,
    instead: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
) -> None:
    """Let ``instead`` answer the first call of a desk's method; it may carry the call out."""
    real = getattr(platform.desk, method)
    calls = []

    async def answer(caller: object, request: Message) -> Any:
        calls.append(request)
        if len(calls) > 1:
            return await real(caller, request)
        return await instead(lambda: real(caller, request))

    monkeypatch.setattr(platform.desk, method, answer)


async def refuse(reason: Reason) -> Any:
    raise Refusal(reason, "not now")


# --- commitments: nothing but a decision of home or payer ends them -------------------------------


@pytest.mark.parametrize("method", ["hold_benefit", "commit_attempt"])
async def test_a_region_that_is_too_busy_has_not_refused_a_commitment(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    number, _, request = await ready_to_commit(world)
    platform = world.platforms[PAYER if method == "hold_benefit" else HOME]
    first_answer(monkeypatch, platform, method, lambda _: refuse(Reason.OVERLOADED))
    with pytest.raises((Refusal, Unavailable)):
        await world.commit(DISPENSING, request)
    await world.commit(DISPENSING, request)
    assert (await world.status(number)).lines[0].committed == 20


async def test_a_commit_whose_answer_was_lost_outlives_a_trust_list_that_lapsed(
    world: World,
) -> None:
    number, attempt, request = await ready_to_commit(world)
    world.losing = {"commit_attempt"}
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, request)
    gone = world.platforms.pop(HOME)
    with pytest.raises((Refusal, Unavailable)):
        await world.commit(DISPENSING, request)
    world.platforms[HOME] = gone
    await world.commit(DISPENSING, request)
    assert await state_of(world, attempt) == "committed"
    assert (await world.status(number)).lines[0].committed == 20


async def test_an_answer_that_does_not_verify_leaves_a_commit_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, attempt, request = await ready_to_commit(world)

    async def garbled(carry_out: Callable[[], Awaitable[Any]]) -> Any:
        answer = await carry_out()
        answer.attempt.signatures[0].value = b"\x30\x00"
        return answer

    first_answer(monkeypatch, world.platforms[HOME], "commit_attempt", garbled)
    with pytest.raises(Unavailable):
        await world.commit(DISPENSING, request)
    await world.commit(DISPENSING, request)
    assert await state_of(world, attempt) == "committed"


async def test_a_claim_is_believed_only_if_it_is_about_what_was_claimed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, other_code = await world.issue(HOME, PAYER)
    _, code = await world.issue(HOME, PAYER)
    platform = world.platforms[DISPENSING]
    other = world.claim_request(DISPENSING, other_code)
    desk = world.platforms[HOME].desk
    forwarded = []

    async def listen(carry_out: Callable[[], Awaitable[Any]]) -> Any:
        forwarded.append(await carry_out())
        return forwarded[0]

    first_answer(monkeypatch, world.platforms[HOME], "grant_claim", listen)
    await claims.claim(platform.exchange, platform.pharmacy, other)

    async def another(caller: object, request: Message) -> Any:
        return forwarded[0]

    monkeypatch.setattr(desk, "grant_claim", another)
    request = world.claim_request(DISPENSING, code)
    with pytest.raises(Unavailable):
        await claims.claim(platform.exchange, platform.pharmacy, request)


async def test_a_commitment_that_was_refused_meanwhile_permits_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, attempt, request = await ready_to_commit(world)
    exchange = world.platforms[DISPENSING].exchange

    async def slow(carry_out: Callable[[], Awaitable[Any]]) -> Any:
        answer = await carry_out()
        (left,) = await settling.undecided(exchange, 10)
        world.clock.now += timedelta(hours=1)
        with pytest.raises(Refusal):
            await settling.drive(exchange, left)
        return answer

    first_answer(monkeypatch, world.platforms[PAYER], "hold_benefit", slow)
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, request)
    assert refused.value.reason is not Reason.INTERNAL
    assert await state_of(world, attempt) == "refused"


async def test_a_request_id_that_was_used_is_refused_before_anything_is_committed(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    attempt.lines[0].quantity = 8
    request = world.commit_request(DISPENSING, attempt, None)
    await world.commit(DISPENSING, request)
    record = world.record_request(DISPENSING, request.commitment)
    await world.record(DISPENSING, record)
    await world.settle()
    rest = await world.claim(DISPENSING, code)
    again = world.commit_request(DISPENSING, rest, None)
    again.request_id = record.request_id
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, again)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert (await world.status(number)).lines[0].committed == 0


async def test_a_commitment_with_another_fence_is_refused_before_anything_is_held(
    world: World,
) -> None:
    _, attempt, _ = await ready_to_commit(world)
    amounts = await world.quote(DISPENSING, attempt)
    for fence in (0, 7):
        request = world.commit_request(DISPENSING, attempt, amounts, fence=fence)
        with pytest.raises(Refusal) as refused:
            await world.commit(DISPENSING, request)
        assert refused.value.reason is Reason.FENCE_STALE
    assert await world.person(PAYER) == person()


async def test_an_undecidable_commitment_starves_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []
    world.unreachable = {PAYER}
    for _ in range(2):
        world.unreachable = set()
        _, attempt, request = await ready_to_commit(world)
        world.unreachable = {PAYER}
        with pytest.raises(Unavailable):
            await world.commit(DISPENSING, request)
        requests.append(attempt)
        world.clock.now += timedelta(seconds=1)
    world.unreachable = set()
    world.clock.now += timedelta(minutes=1)

    async def defect(_: object) -> Any:
        raise InvariantBroken("a defect that this commitment meets every time")

    first_answer(monkeypatch, world.platforms[PAYER], "hold_benefit", defect)
    await tasks.finish_commitments(world.platforms[DISPENSING].exchange)
    assert await state_of(world, requests[0]) == "committing"
    assert await state_of(world, requests[1]) == "committed"


async def test_the_dispense_that_stands_is_found_though_the_clock_went_back(world: World) -> None:
    _, attempt, request = await ready_to_commit(world)
    content = content_of(request.commitment, attempt_pb2.Commitment)
    content.accepted_amounts.pool_fen += 1
    content.accepted_amounts.person_fen -= 1
    content.settlement_id = world.request_id()
    request.commitment.CopyFrom(world.signed(DISPENSING, content))
    with pytest.raises(Refusal):
        await world.commit(DISPENSING, request)
    world.clock.now -= timedelta(seconds=5)
    anew = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, anew)
    assert await state_of(world, attempt) == "committed"


async def test_a_release_just_before_the_answer_to_a_commit_leaves_no_permission(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, attempt, request = await ready_to_commit(world)

    async def meanwhile(carry_out: Callable[[], Awaitable[Any]]) -> Any:
        committed = await carry_out()
        await world.release(DISPENSING, attempt)
        return committed

    first_answer(monkeypatch, world.platforms[HOME], "commit_attempt", meanwhile)
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, request)
    assert refused.value.reason is Reason.ATTEMPT_ENDED


# --- releases and records -------------------------------------------------------------------------


async def test_nothing_is_recorded_once_a_release_is_on_its_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, attempt, request = await ready_to_commit(world)
    await world.commit(DISPENSING, request)
    record = world.record_request(DISPENSING, request.commitment)

    async def meanwhile(carry_out: Callable[[], Awaitable[Any]]) -> Any:
        with pytest.raises(Refusal) as refused:
            await world.record(DISPENSING, record)
        assert refused.value.reason is Reason.ATTEMPT_ENDED
        return await carry_out()

    first_answer(monkeypatch, world.platforms[HOME], "release_attempt", meanwhile)
    await world.release(DISPENSING, attempt)
    await world.settle()
    assert (await world.status(number)).lines[0].available == 20
    assert await world.dead_events(DISPENSING) == []


async def test_a_release_that_did_not_reach_home_can_be_repeated(world: World) -> None:
    number, attempt, request = await ready_to_commit(world)
    await world.commit(DISPENSING, request)
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await world.release(DISPENSING, attempt)
    world.unreachable = set()
    await world.release(DISPENSING, attempt)
    await world.settle()
    assert (await world.status(number)).lines[0].available == 20
    assert await world.person(PAYER) == person()


async def test_a_release_with_another_fence_leaves_the_commit_alone(world: World) -> None:
    _, attempt, request = await ready_to_commit(world)
    await world.commit(DISPENSING, request)
    stale = Attempt()
    stale.CopyFrom(attempt)
    stale.fence += 1
    with pytest.raises(Refusal) as refused:
        await world.release(DISPENSING, stale)
    assert refused.value.reason is Reason.FENCE_STALE
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    assert await state_of(world, attempt) == "dispensed"


@pytest.mark.parametrize("step", ["commit", "record"])
async def test_a_pharmacy_does_not_speak_with_the_seal_of_another(world: World, step: str) -> None:
    _, attempt, request = await ready_to_commit(world)
    stranger = world.platforms[PAYER].pharmacy.institution_code
    if step == "record":
        await world.commit(DISPENSING, request)
        record = world.record_request(DISPENSING, request.commitment)
        content = content_of(record.dispense_record, dispense_pb2.DispenseRecord)
        content.pharmacy_code = stranger
        record.dispense_record.CopyFrom(world.signed(PAYER, content))
        call: Awaitable[object] = world.record(DISPENSING, record)
    else:
        commitment = content_of(request.commitment, attempt_pb2.Commitment)
        commitment.pharmacy_code = stranger
        request.commitment.CopyFrom(world.signed(PAYER, commitment))
        call = world.commit(DISPENSING, request)
    with pytest.raises(Refusal) as refused:
        await call
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH
    if step == "record":
        assert await state_of(world, attempt) == "committed"


async def test_a_handover_is_recorded_though_the_catalogue_has_dropped_the_drug(
    world: World,
) -> None:
    _, attempt, request = await ready_to_commit(world)
    await world.commit(DISPENSING, request)
    platform = world.platforms[DISPENSING]
    platform.region = replace(platform.region, catalogue=Catalogue(DISPENSING, "newer", []))
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    assert await state_of(world, attempt) == "dispensed"


# --- events ---------------------------------------------------------------------------------------


async def test_a_fact_survives_a_receiver_that_is_too_busy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, code = await world.issue(HOME, PAYER)
    await world.dispense(DISPENSING, code)
    home = world.platforms[HOME]
    with monkeypatch.context() as patch:
        patch.setattr(home.store, "transact", lambda _: refuse(Reason.OVERLOADED))
        await outbox.deliver(
            world.platforms[DISPENSING].region,
            world.platforms[DISPENSING].store,
            world.platforms[DISPENSING].exchange.peers,
            HOME,
            lambda: 0.0,
        )
    await world.settle()
    assert await world.dead_events(DISPENSING) == []
    assert (await world.status(number)).lines[0].dispensed == 20


async def test_a_fact_waits_for_the_trust_list_that_vouches_for_its_signers(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    await world.dispense(DISPENSING, code)
    cast = world.platforms[DISPENSING].cast
    checker = cast.checker.sha256
    listed = next(
        each for each in cast.region.trust_list.signers if each.certificate_sha256 == checker
    )
    cast.region.trust_list.signers.remove(listed)
    offer_lists(world)
    await world.settle()
    assert await world.dead_events(DISPENSING) == []
    cast.region.trust_list.signers.append(listed)
    offer_lists(world)
    await world.settle()
    assert (await world.status(number)).lines[0].dispensed == 20


def offer_lists(world: World) -> None:
    for platform in world.platforms.values():
        platform.cast.region.trust_list.sequence += 1
        for other in world.platforms.values():
            other.region.trust.offer(platform.cast.region.signed_list(), world.clock.now)


async def test_a_call_carries_no_more_than_a_platform_takes(world: World) -> None:
    platform = world.platforms[DISPENSING]
    number, _, request = await ready_to_commit(world)
    large = world.record_request(DISPENSING, request.commitment)
    content = content_of(large.dispense_record, dispense_pb2.DispenseRecord)
    sizes = []

    class Listener:
        """A platform that only counts."""

        def region(self, code: str) -> Any:
            return self

        async def deliver_events(self, request: DeliverEventsRequest) -> Any:
            sizes.append(request.ByteSize())
            raise Unavailable(Reason.PEER_UNAVAILABLE, "only counting")

    for index in range(8):
        content.lines[0].batch_numbers[:] = [str(index) * 200_000]
        statement = world.signed(DISPENSING, content)

        def put(tx: Transaction, statement: SignedStatement = statement) -> None:
            digest = keep(tx, number, statement, world.clock.now)
            tell_region(tx, platform.region, HOME, number, digest, world.clock.now)

        await platform.store.transact(put)
    peers: Any = Listener()
    await outbox.deliver(platform.region, platform.store, peers, HOME, lambda: 0.0)
    assert 0 < sizes[0] < 1024 * 1024


async def test_an_event_that_meets_a_defect_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, first = await world.issue(HOME, PAYER)
    good, second = await world.issue(HOME, PAYER)
    await world.dispense(DISPENSING, first)
    await world.dispense(DISPENSING, second)
    real = inbox.take_effect

    def take_effect(tx: Transaction, region: Region, caller: CallerName, event: PeerEvent) -> None:
        if event.prescription_number == bad:
            raise InvariantBroken("a defect that this event meets every time")
        real(tx, region, caller, event)

    monkeypatch.setattr(inbox, "take_effect", take_effect)
    await world.settle()
    assert (await world.status(good)).lines[0].dispensed == 20
    monkeypatch.setattr(inbox, "take_effect", real)
    await world.settle()
    assert (await world.status(bad)).lines[0].dispensed == 20


# --- what the payer and the home region take from a platform that is wrong or lies ----------------


async def hold_request(
    world: World, attempt: Attempt, request: CommitClaimRequest, **pricing: Any
) -> HoldBenefitRequest:
    """What a dispensing platform sends, were it to ask for whatever it likes."""
    platform = world.platforms[DISPENSING]
    number, attempt_id = attempt.prescription_number, attempt.attempt_id
    claim = await platform.store.read(lambda tx: tx.dispensing.claim(number, attempt_id))
    assert claim is not None
    sheet, granted = await platform.store.read(
        lambda tx: (
            tx.journal.statement(number, claim.prescription_sha256),
            tx.journal.statement(number, claim.attempt_sha256),
        )
    )
    content = content_of(request.commitment, attempt_pb2.Commitment)
    stated = settlement_pb2.Pricing(
        **{
            "prescription_number": number,
            "settlement_id": content.settlement_id,
            "attempt_id": attempt_id,
            "pharmacy_code": content.pharmacy_code,
            "catalogue_version": "any",
            "dispense_day": "2026-03-02",
            "lines": [
                settlement_pb2.CataloguedLine(
                    line=line, category=settlement_pb2.CataloguedLine.CATEGORY_A
                )
                for line in content.lines
            ],
            **pricing,
        }
    )
    return HoldBenefitRequest(
        prescription=sheet,
        attempt=granted,
        commitment=request.commitment,
        pricing=platform.region.seal(stated, now=world.clock.now, audience=PAYER),
    )


async def hold(world: World, request: HoldBenefitRequest) -> settlement_pb2.Settlement:
    caller = world.platforms[DISPENSING].cast.region.platform
    answer = await world.platforms[PAYER].desk.hold_benefit(caller, request)
    return content_of(answer.settlement, settlement_pb2.Settlement)


async def test_money_is_held_once_for_an_attempt(world: World) -> None:
    _, attempt, first = await ready_to_commit(world)
    held = await hold(world, await hold_request(world, attempt, first))
    second = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    with pytest.raises(Refusal) as refused:
        await hold(world, await hold_request(world, attempt, second))
    assert refused.value.reason is Reason.ATTEMPT_ALREADY_COMMITTED
    assert refused.value.detail["settlement_id"] == held.settlement_id
    assert await hold(world, await hold_request(world, attempt, first)) == held


async def test_a_new_attempt_is_held_after_the_old_one_was_released(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    for _ in range(2):
        attempt = await world.claim(DISPENSING, code)
        amounts = await world.quote(DISPENSING, attempt)
        await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, amounts))
        await world.release(DISPENSING, attempt)
        await world.settle()
    assert await world.person(PAYER) == person()


async def test_no_more_is_held_than_the_attempt_holds(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    platform = world.platforms[DISPENSING]
    part = world.claim_request(DISPENSING, code)
    claim = content_of(part.claim, attempt_pb2.Claim)
    claim.lines.add(line_id=1, quantity=8)
    part.claim.CopyFrom(world.signed(DISPENSING, claim))
    granted = await claims.claim(platform.exchange, platform.pharmacy, part)
    attempt = content_of(granted.attempt, Attempt)
    whole = priced([attempt_pb2.LineQuantity(line_id=1, quantity=20)])
    amounts = await world.quote(DISPENSING, attempt)
    request = world.commit_request(DISPENSING, attempt, amounts, lines=whole)
    with pytest.raises(Refusal) as refused:
        await hold(world, await hold_request(world, attempt, request))
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


@pytest.mark.parametrize(
    "changes",
    [
        {"fence": 7},
        {"mode": settlement_pb2.SETTLEMENT_MODE_SELF_PAY},
    ],
)
async def test_nothing_is_held_that_home_could_not_commit(
    world: World, changes: dict[str, Any]
) -> None:
    _, attempt, _ = await ready_to_commit(world)
    amounts = await world.quote(DISPENSING, attempt)
    request = world.commit_request(DISPENSING, attempt, amounts, **changes)
    with pytest.raises(Refusal) as refused:
        await hold(world, await hold_request(world, attempt, request))
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


@pytest.mark.parametrize(
    "pricing",
    [
        {"pharmacy_code": f"P{DISPENSING}00009"},
        {"dispense_day": "2026-02-27"},
        {"dispense_day": "2026-03-03"},
    ],
)
async def test_prices_are_of_the_pharmacy_and_the_day(
    world: World, pricing: dict[str, Any]
) -> None:
    _, attempt, request = await ready_to_commit(world)
    with pytest.raises(Refusal) as refused:
        await hold(world, await hold_request(world, attempt, request, **pricing))
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


async def test_a_drug_that_the_prescriber_did_not_allow_is_not_paid(world: World) -> None:
    _, attempt, _ = await ready_to_commit(world)
    amounts = await world.quote(DISPENSING, attempt)
    swapped = priced(attempt.lines)
    swapped[0].drug_code = DRUGS[1]
    request = world.commit_request(DISPENSING, attempt, amounts, lines=swapped)
    with pytest.raises(Refusal) as refused:
        await hold(world, await hold_request(world, attempt, request))
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


async def deliver(
    world: World, to: str, statement: SignedStatement, insured_person_id: str
) -> DeliverEventsResponse.Acknowledgement:
    """Deliver a record to a region without asking the dispensing platform's own rules."""
    record = content_of(statement, dispense_pb2.DispenseRecord)
    event = PeerEvent(
        event_id=world.request_id(),
        prescription_number=record.prescription_number,
        insured_person_id=insured_person_id,
        statement=statement,
    )
    caller = world.platforms[DISPENSING].cast.region.platform
    answer = await world.platforms[to].desk.deliver_events(
        caller, DeliverEventsRequest(events=[event])
    )
    return answer.acknowledgements[0]


@pytest.mark.parametrize("change", ["quantity", "drug"])
async def test_the_fund_pays_for_what_was_held_and_nothing_else(world: World, change: str) -> None:
    _, _, request = await ready_to_commit(world)
    await world.commit(DISPENSING, request)
    content = content_of(
        world.record_request(DISPENSING, request.commitment).dispense_record,
        dispense_pb2.DispenseRecord,
    )
    if change == "quantity":
        content.lines[0].quantity -= 1
    else:
        content.lines[0].drug_code = DRUGS[1]
    answer = await deliver(world, PAYER, world.signed(DISPENSING, content), PERSON)
    assert answer.HasField("error")
    settlement = await world.platforms[PAYER].store.read(
        lambda tx: tx.payer.settlement(PERSON, content.settlement_id)
    )
    assert settlement is not None
    assert settlement.state is SettlementState.HELD


async def test_home_books_the_settlement_that_it_committed(world: World) -> None:
    number, _, request = await ready_to_commit(world)
    await world.commit(DISPENSING, request)
    content = content_of(
        world.record_request(DISPENSING, request.commitment).dispense_record,
        dispense_pb2.DispenseRecord,
    )
    content.settlement_id = world.request_id()
    answer = await deliver(world, HOME, world.signed(DISPENSING, content), "")
    assert answer.HasField("error")
    assert (await world.status(number)).lines[0].committed == 20


# --- hospitals ------------------------------------------------------------------------------------


async def test_a_prescription_is_not_dated_ahead(world: World) -> None:
    content = world.prescription(HOME, PAYER)
    content.issue_time.FromDatetime(world.clock.now + timedelta(days=2))
    content.expire_time.FromDatetime(world.clock.now + timedelta(days=2, hours=5))
    with pytest.raises(Refusal) as refused:
        await world.register(HOME, content)
    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.detail["field"] == "issue_time"


async def test_a_number_with_blanks_around_it_is_no_other_number(world: World) -> None:
    content = world.prescription(HOME, PAYER)
    content.prescription_number += " "
    with pytest.raises(Refusal):
        await world.register(HOME, content)
