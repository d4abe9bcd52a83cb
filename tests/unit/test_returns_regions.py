"""Taking medicine back over three regions, without a network: goods, money and books, once each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from rxoutflow.statements import statement_sha256
from rxoutflow.v1 import (
    attempt_pb2,
    dispense_pb2,
    pharmacy_service_pb2,
    settlement_pb2,
)
from rxoutflow.v1.clearing_service_pb2 import ClearPeriodRequest
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.clearing import books, reconciling
from rxoutflow_server.application.clearing.books import local_day
from rxoutflow_server.application.clearing.reconciling import Pair
from rxoutflow_server.application.clearing.reports import positions
from rxoutflow_server.application.clearing.stating import clear_period
from rxoutflow_server.application.messages import amounts_message
from rxoutflow_server.application.ports import NoticeRecord, Transaction
from rxoutflow_server.domain.clearing import Obligation, Period, net_positions
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import Book, Entry
from support.invariants import check_always, check_quiescent, read_region
from support.pki import NOW
from support.sheets import signed
from support.world import DRUGS, PERSON, World, content_of, person

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
REGIONS = [
    (HOME, DISPENSING, PAYER),
    (HOME, HOME, HOME),
    (HOME, HOME, PAYER),
    (HOME, PAYER, PAYER),
    (HOME, DISPENSING, HOME),
]
Return = dispense_pb2.DispenseReturn
TODAY = local_day(NOW)


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def dispensed(
    world: World,
    home: str = HOME,
    dispensing: str = DISPENSING,
    payer: str = PAYER,
    *,
    lines: int = 1,
    insured: bool = True,
) -> tuple[str, SignedStatement]:
    """A handover that its pharmacy recorded; the pickup code and the record."""
    _, code = await world.issue(home, payer, lines=lines)
    return code, await handed_over(world, dispensing, code, insured=insured)


async def handed_over(
    world: World,
    dispensing: str,
    code: str,
    *,
    insured: bool = True,
    lines: Sequence[dispense_pb2.DispensedLine] = (),
    by_courier: bool = False,
) -> SignedStatement:
    attempt = await world.claim(dispensing, code)
    amounts = await world.quote(dispensing, attempt) if insured else None
    commitment = world.commit_request(dispensing, attempt, amounts)
    await world.commit(dispensing, commitment)
    changes: dict[str, Any] = {"lines": lines} if lines else {}
    if by_courier:
        changes["delivery"] = dispense_pb2.Delivery(state=dispense_pb2.Delivery.STATE_READY)
    request = world.record_request(dispensing, commitment.commitment, **changes)
    await world.record(dispensing, request)
    return request.dispense_record


async def progress(world: World, record: SignedStatement) -> dispense_pb2.DispenseProgress:
    sold = content_of(record, dispense_pb2.DispenseRecord)
    attempt = attempt_pb2.Attempt(
        prescription_number=sold.prescription_number, attempt_id=sold.attempt_id
    )
    return (await world.progress(sold.pharmacy_code[1:7], attempt)).progress


async def entries(world: World, region: str, book: Book, other: str) -> list[Entry]:
    return await world.platforms[region].store.read(
        lambda tx: list(books.entries_between(tx, book, other, date(2026, 1, 1), date(2027, 1, 1)))
    )


async def settlement(world: World, record: SignedStatement, payer: str = PAYER) -> Any:
    sold = content_of(record, dispense_pb2.DispenseRecord)
    return await world.platforms[payer].store.read(
        lambda tx: tx.payer.settlement(PERSON, sold.settlement_id)
    )


async def all_is_well(world: World) -> None:
    """Nothing waits, nothing was refused, and every invariant holds."""
    await world.settle()
    regions = {
        code: read_region(code, platform.store.connection)
        for code, platform in world.platforms.items()
    }
    check_always(regions)
    check_quiescent(regions, world.clock.now)


# --- what a return leads to -----------------------------------------------------------------------


@pytest.mark.parametrize(("home", "dispensing", "payer"), REGIONS)
async def test_a_whole_return_gives_everything_back_everywhere(
    world: World, home: str, dispensing: str, payer: str
) -> None:
    _, record = await dispensed(world, home, dispensing, payer)
    await world.settle()
    assert await world.person(payer) != person()
    first = await world.take_back(dispensing, world.return_request(dispensing, record))
    assert not first.booked_by_home
    assert not first.reversed_by_payer
    assert not first.HasField("amounts")
    await world.settle()

    number = first.prescription_number
    (line,) = (await world.status(number)).lines
    assert (line.dispensed, line.returned, line.available) == (20, 20, 20)
    assert await world.person(payer) == person()
    paid = await settlement(world, record, payer)
    assert (paid.state, paid.reversed) == ("reversed", paid.amounts)
    (back,) = (await progress(world, record)).returns
    assert back.booked_by_home
    assert back.reversed_by_payer
    assert (back.amounts.total_fen, back.amounts.pool_fen) == (3000, 1200)
    posted, reversed_ = await entries(world, dispensing, Book.RECEIVABLE, payer)
    assert posted.owed_fen + reversed_.owed_fen == 0
    assert await entries(world, payer, Book.PAYABLE, dispensing) == [posted, reversed_]
    assert len(await entries(world, dispensing, Book.SALES, posted.pharmacy_code)) == 2
    await all_is_well(world)


@pytest.mark.parametrize(("home", "dispensing", "payer"), REGIONS)
async def test_a_return_on_the_heels_of_its_handover_takes_effect_after_it(
    world: World, home: str, dispensing: str, payer: str
) -> None:
    _, record = await dispensed(world, home, dispensing, payer)
    await world.take_back(dispensing, world.return_request(dispensing, record))
    await all_is_well(world)
    (back,) = (await progress(world, record)).returns
    assert (back.booked_by_home, back.reversed_by_payer) == (True, True)
    assert await world.person(payer) == person()


@pytest.mark.parametrize("away", [{HOME}, {PAYER}, {HOME, PAYER}])
async def test_a_return_waits_for_regions_that_are_away(world: World, away: set[str]) -> None:
    _, record = await dispensed(world)
    world.unreachable = set(away)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    await world.settle()
    (back,) = (await progress(world, record)).returns
    assert (back.booked_by_home, back.reversed_by_payer) == (HOME not in away, False)
    world.unreachable = set()
    world.clock.now += timedelta(minutes=2)
    await all_is_well(world)
    (back,) = (await progress(world, record)).returns
    assert (back.booked_by_home, back.reversed_by_payer) == (True, True)


async def test_a_return_that_overtakes_its_record_is_kept_until_that_has_arrived(
    world: World,
) -> None:
    _, record = await dispensed(world)
    request = world.return_request(DISPENSING, record)
    for peer in (HOME, PAYER):
        assert await world.tell(DISPENSING, peer, request.dispense_return) == "EARLIER_FACT_MISSING"
    await world.take_back(DISPENSING, request)
    await all_is_well(world)


async def test_events_that_arrive_twice_take_effect_once(world: World) -> None:
    _, record = await dispensed(world)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    for _ in range(6):
        world.losing = {"deliver_events"}
        await world.settle()
        world.clock.now += timedelta(minutes=2)
    world.losing = set()
    await all_is_well(world)
    assert await world.person(PAYER) == person()


async def test_the_payer_reverses_a_return_that_is_told_anew_only_once(world: World) -> None:
    _, record = await dispensed(world)
    request = world.return_request(DISPENSING, record, {1: 10})
    await world.take_back(DISPENSING, request)
    await world.settle()
    before = await world.person(PAYER)
    for peer in (HOME, PAYER):  # the same statement in another event
        assert await world.tell(DISPENSING, peer, request.dispense_return) == ""
    assert await world.person(PAYER) == before
    await all_is_well(world)


async def test_the_same_return_again_gets_the_same_bytes(world: World) -> None:
    _, record = await dispensed(world)
    request = world.return_request(DISPENSING, record, {1: 7})
    first = await world.take_back(DISPENSING, request)
    await world.settle()
    assert await world.take_back(DISPENSING, request) == first
    again = await world.take_back(DISPENSING, changed(world, request))
    assert (again.reversal_id, again.reversed_by_payer) == (first.reversal_id, True)
    await all_is_well(world)


async def test_the_id_of_a_return_stands_for_nothing_else(world: World) -> None:
    _, record = await dispensed(world)
    first = await world.take_back(
        DISPENSING, world.return_request(DISPENSING, record, {1: 7}, cause=Return.CAUSE_PATIENT)
    )
    other = world.return_request(DISPENSING, record, {1: 6}, reversal_id=first.reversal_id)
    with pytest.raises(Refusal) as refused:
        await world.take_back(DISPENSING, other)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    await world.settle()
    for peer in (HOME, PAYER):
        assert await world.tell(DISPENSING, peer, other.dispense_return) == "REQUEST_ID_REUSED"


def changed(
    world: World, request: pharmacy_service_pb2.ReturnDispenseRequest
) -> pharmacy_service_pb2.ReturnDispenseRequest:
    """The same statement under another request id."""
    return pharmacy_service_pb2.ReturnDispenseRequest(
        request_id=world.request_id(), dispense_return=request.dispense_return
    )


async def test_returns_in_portions_add_up_to_the_settlement(world: World) -> None:
    _, record = await dispensed(world, lines=2)
    await world.settle()
    for quantities, state in [
        ({1: 7}, "posted"),
        ({1: 6, 2: 13}, "posted"),
        ({2: 7}, "posted"),
        ({1: 7}, "reversed"),
    ]:
        request = world.return_request(DISPENSING, record, quantities)
        await world.take_back(DISPENSING, request)
        await world.settle()
        paid = await settlement(world, record)
        assert paid.state == state
        assert paid.reversed.is_within(paid.amounts)
    back = [each.amounts for each in (await progress(world, record)).returns]
    for name in ("total_fen", "pool_fen", "account_fen", "family_fen", "cash_fen"):
        assert sum(getattr(each, name) for each in back) == getattr(paid.amounts, name)
    assert await world.person(PAYER) == person()
    await all_is_well(world)


async def test_two_returns_at_once_never_bring_back_more_than_went_out(world: World) -> None:
    _, record = await dispensed(world)
    requests = [world.return_request(DISPENSING, record, {1: n}) for n in (12, 11, 8)]
    outcomes = await asyncio.gather(
        *(world.take_back(DISPENSING, each) for each in requests), return_exceptions=True
    )
    refused = [each for each in outcomes if isinstance(each, Refusal)]
    assert [(each.reason, each.detail["returnable"]) for each in refused] == [
        (Reason.RETURN_EXCEEDED, "8")
    ]
    await all_is_well(world)
    assert await world.person(PAYER) == person()


async def test_two_returns_that_race_to_the_payer_are_each_reversed_in_full(world: World) -> None:
    _, record = await dispensed(world)
    await world.settle()
    requests = [world.return_request(DISPENSING, record, {1: n}) for n in (7, 6)]
    for request in requests:
        await world.take_back(DISPENSING, request)
    for request in reversed(requests):  # the later one overtakes
        assert await world.tell(DISPENSING, PAYER, request.dispense_return) == ""
    await all_is_well(world)
    paid = await settlement(world, record)
    assert paid.reversed.total_fen == 13 * 150


async def test_without_insurance_cash_goes_back_and_no_payer_hears_of_it(world: World) -> None:
    _, record = await dispensed(world, lines=2, insured=False)
    first = await world.take_back(DISPENSING, world.return_request(DISPENSING, record, {2: 7}))
    assert first.reversed_by_payer
    assert (first.amounts.total_fen, first.amounts.cash_fen) == (1050, 1050)
    second = await world.take_back(
        DISPENSING, world.return_request(DISPENSING, record, {1: 20, 2: 13})
    )
    assert first.amounts.cash_fen + second.amounts.cash_fen == 6000
    await all_is_well(world)
    sold = content_of(record, dispense_pb2.DispenseRecord)
    sale, *back = await entries(world, DISPENSING, Book.SALES, sold.pharmacy_code)
    assert sale.total_fen == sum(each.total_fen for each in back) == 6000
    assert {each.reversal_id for each in back} == {first.reversal_id, second.reversal_id}


# --- what may be filled, and sold, again ----------------------------------------------------------


async def test_what_was_handed_over_at_the_counter_was_delivered(world: World) -> None:
    _, record = await dispensed(world)
    undelivered = Return.CAUSE_NOT_DELIVERED

    with pytest.raises(Refusal) as refused:
        await world.take_back(
            DISPENSING, world.return_request(DISPENSING, record, cause=undelivered)
        )

    assert refused.value.reason is Reason.DELIVERY_NOT_POSSIBLE


CAUSES = [
    (Return.CAUSE_QUALITY, True, False),
    (Return.CAUSE_DISPENSING_ERROR, True, True),
    (Return.CAUSE_NOT_DELIVERED, True, True),
    (Return.CAUSE_PATIENT, False, False),
]


@pytest.mark.parametrize(("cause", "again", "resaleable"), CAUSES)
async def test_the_cause_decides_what_may_be_filled_and_sold_again(
    world: World, cause: Return.Cause.ValueType, again: bool, resaleable: bool
) -> None:
    _, code = await world.issue(HOME, PAYER)
    sent = cause == Return.CAUSE_NOT_DELIVERED
    record = await handed_over(world, DISPENSING, code, by_courier=sent)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record, cause=cause))
    await all_is_well(world)
    if again:
        attempt = await world.claim(PAYER, code)  # at another pharmacy of another region
        assert [line.quantity for line in attempt.lines] == [20]
    else:
        with pytest.raises(Refusal) as refused:
            await world.claim(PAYER, code)
        assert refused.value.reason is Reason.PRESCRIPTION_USED_UP
    (box,) = content_of(record, dispense_pb2.DispenseRecord).lines[0].trace_codes
    _, other = await world.issue(HOME, PAYER)
    with_that_box = [line_with(box.code)]
    if resaleable:
        await handed_over(world, DISPENSING, other, lines=with_that_box)
    else:
        with pytest.raises(Refusal) as refused:
            await handed_over(world, DISPENSING, other, lines=with_that_box)
        assert refused.value.reason is Reason.TRACE_CODE_ALREADY_SOLD


def line_with(trace_code: str) -> dispense_pb2.DispensedLine:
    return dispense_pb2.DispensedLine(
        line_id=1,
        drug_code=DRUGS[0],
        quantity=20,
        batch_numbers=["B1"],
        trace_codes=[dispense_pb2.TraceCode(code=trace_code)],
    )


async def test_what_came_back_can_be_filled_and_returned_once_more(world: World) -> None:
    code, record = await dispensed(world)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    await world.settle()
    second = await handed_over(world, PAYER, code)
    await all_is_well(world)
    (line,) = (await world.status(code.partition(".")[0])).lines
    assert (line.dispensed, line.returned, line.available) == (40, 20, 0)
    await world.take_back(PAYER, world.return_request(PAYER, second))
    await all_is_well(world)
    assert await world.person(PAYER) == person()


async def test_what_comes_back_after_the_validity_is_not_filled_again(world: World) -> None:
    code, record = await dispensed(world)
    await world.settle()
    world.clock.now += timedelta(hours=6)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    await all_is_well(world)
    status = await world.status(code.partition(".")[0])
    assert [(line.returned, line.available) for line in status.lines] == [(0, 0)]
    assert await world.person(PAYER) == person()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantities", "reason"),
    [
        ({1: 21}, Reason.RETURN_EXCEEDED),
        ({3: 1}, Reason.LINE_UNKNOWN),
        ({1: 0}, Reason.FIELD_INVALID),
    ],
)
async def test_only_what_was_handed_over_comes_back(
    world: World, quantities: dict[int, int], reason: Reason
) -> None:
    _, record = await dispensed(world)
    lines = [
        dispense_pb2.ReturnedLine(line_id=line_id, quantity=quantity)
        for line_id, quantity in quantities.items()
    ]
    with pytest.raises(Refusal) as refused:
        await world.take_back(DISPENSING, world.return_request(DISPENSING, record, lines=lines))
    assert refused.value.reason is reason


async def test_a_line_is_named_once(world: World) -> None:
    _, record = await dispensed(world)
    lines = [dispense_pb2.ReturnedLine(line_id=1, quantity=10)] * 2
    with pytest.raises(Refusal) as refused:
        await world.take_back(DISPENSING, world.return_request(DISPENSING, record, lines=lines))
    assert refused.value.reason is Reason.LINE_UNKNOWN


@pytest.mark.parametrize(
    ("quantity", "codes"),
    [
        pytest.param(20, ["0" * 20], id="of another handover"),
        pytest.param(20, ["{own}", "{own}"], id="one box twice"),
        pytest.param(19, ["{own}"], id="more boxes than quantity"),
    ],
)
async def test_boxes_that_cannot_have_come_back_are_refused(
    world: World, quantity: int, codes: list[str]
) -> None:
    _, record = await dispensed(world)
    own = content_of(record, dispense_pb2.DispenseRecord).lines[0].trace_codes[0].code
    lines = [
        dispense_pb2.ReturnedLine(
            line_id=1, quantity=quantity, trace_codes=[code.format(own=own) for code in codes]
        )
    ]
    with pytest.raises(Refusal) as refused:
        await world.take_back(DISPENSING, world.return_request(DISPENSING, record, lines=lines))
    assert refused.value.reason is Reason.SIGNED_CONTENT_MISMATCH


@pytest.mark.parametrize("moved", [timedelta(seconds=-1), timedelta(minutes=11)])
async def test_a_return_is_after_its_handover_and_not_in_the_future(
    world: World, moved: timedelta
) -> None:
    _, record = await dispensed(world)
    now, world.clock.now = world.clock.now, world.clock.now + moved
    request = world.return_request(DISPENSING, record)
    statement = world.signed(DISPENSING, content_of(request.dispense_return, Return))
    world.clock.now = now
    request.dispense_return.CopyFrom(
        signed(
            content_of(statement, Return),
            world.platforms[DISPENSING].cast.sheet(Return),
            at=now,
        )
    )
    with pytest.raises(Refusal) as refused:
        await world.take_back(DISPENSING, request)
    assert refused.value.detail["field"] == "return_time"


async def test_nothing_comes_back_of_what_was_not_recorded(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    commitment = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    record = world.record_request(DISPENSING, commitment.commitment).dispense_record
    request = world.return_request(DISPENSING, record)
    for step in (None, world.commit(DISPENSING, commitment)):
        if step is not None:
            await step
        with pytest.raises(Refusal) as refused:
            await world.take_back(DISPENSING, request)
        assert refused.value.reason is Reason.ATTEMPT_NOT_COMMITTED


async def test_a_pharmacy_takes_back_what_it_handed_over_itself(world: World) -> None:
    _, record = await dispensed(world)
    stranger = world.platforms[PAYER].pharmacy.institution_code
    request = world.return_request(PAYER, record, pharmacy_code=stranger)
    with pytest.raises(Refusal) as refused:
        await world.take_back(PAYER, request)
    assert refused.value.reason is Reason.ATTEMPT_NOT_FOUND
    await world.settle()
    assert await world.tell(PAYER, HOME, request.dispense_return) == "ATTEMPT_NOT_FOUND"


async def test_a_platform_brings_returns_of_its_own_pharmacies_only(world: World) -> None:
    _, record = await dispensed(world)
    await world.settle()
    request = world.return_request(DISPENSING, record)
    told = await world.tell(PAYER, HOME, request.dispense_return)
    assert told == "CALLER_REGION_NOT_ALLOWED"


async def test_a_hold_that_was_voided_is_never_given_back_again(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    commitment = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, commitment)
    await world.release(DISPENSING, attempt)
    await world.settle()
    record = world.record_request(DISPENSING, commitment.commitment).dispense_record
    lie = world.return_request(DISPENSING, record).dispense_return
    assert await world.tell(DISPENSING, PAYER, lie) == "SETTLEMENT_ENDED"
    assert await world.tell(DISPENSING, HOME, lie) == "ATTEMPT_ENDED"
    assert await world.person(PAYER) == person()


# --- what a payer may claim -----------------------------------------------------------------------


async def reversal_of(
    world: World, record: SignedStatement, request: Any, **changes: Any
) -> settlement_pb2.Reversal:
    """A reversal as the payer could state it of a return, before the right one arrives."""
    sold = content_of(record, dispense_pb2.DispenseRecord)
    paid = await settlement(world, record)
    fields = {
        "reversal_id": content_of(request.dispense_return, Return).reversal_id,
        "settlement_id": sold.settlement_id,
        "attempt_id": sold.attempt_id,
        "prescription_number": sold.prescription_number,
        "payer_region_code": PAYER,
        "dispensing_region_code": DISPENSING,
        "pharmacy_code": sold.pharmacy_code,
        "amounts": amounts_message(paid.amounts),
        "cause_sha256": statement_sha256(request.dispense_return),
    }
    content = settlement_pb2.Reversal(**{**fields, **changes})
    content.reverse_time.FromDatetime(world.clock.now)
    return content


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cause_sha256": bytes(32)}, "SIGNED_CONTENT_MISMATCH"),
        ({"attempt_id": "another"}, "SIGNED_CONTENT_MISMATCH"),
        ({"settlement_id": "another"}, "SETTLEMENT_NOT_FOUND"),
        ({"reversal_id": "another"}, "SETTLEMENT_NOT_FOUND"),
    ],
)
async def test_a_payer_takes_back_only_for_a_return_that_was_made(
    world: World, changes: dict[str, Any], reason: str
) -> None:
    _, record = await dispensed(world)
    await world.settle()
    request = world.return_request(DISPENSING, record)
    await world.take_back(DISPENSING, request)
    content = await reversal_of(world, record, request, **changes)
    statement = world.signed(PAYER, content)
    assert await world.tell(PAYER, DISPENSING, statement, insured_person_id="") == reason


async def test_a_payer_takes_back_no_more_than_it_paid(world: World) -> None:
    _, record = await dispensed(world)
    await world.settle()
    for quantity in (15, 5):
        request = world.return_request(DISPENSING, record, {1: quantity})
        await world.take_back(DISPENSING, request)
        content = await reversal_of(world, record, request)  # of everything, each time
        told = await world.tell(
            PAYER, DISPENSING, world.signed(PAYER, content), insured_person_id=""
        )
        assert told == ("" if quantity == 15 else "SIGNED_CONTENT_MISMATCH")


async def test_nobody_but_the_payer_says_what_goes_back(world: World) -> None:
    _, record = await dispensed(world)
    await world.settle()
    request = world.return_request(DISPENSING, record)
    await world.take_back(DISPENSING, request)
    content = await reversal_of(world, record, request, payer_region_code=HOME)
    statement = world.signed(HOME, content)
    for peer, reason in ((DISPENSING, "SETTLEMENT_NOT_FOUND"), (HOME, "PRESCRIPTION_NOT_FOUND")):
        assert await world.tell(HOME, peer, statement, insured_person_id="") == reason


async def test_a_reversal_that_overtakes_its_posting_is_kept_until_that_has_arrived(
    world: World,
) -> None:
    _, record = await dispensed(world)
    request = world.return_request(DISPENSING, record)
    await world.take_back(DISPENSING, request)
    content = await reversal_of(world, record, request)
    statement = world.signed(PAYER, content)
    told = await world.tell(PAYER, DISPENSING, statement, insured_person_id="")
    assert told == "EARLIER_FACT_MISSING"
    await all_is_well(world)


# --- the year, the tariff, the books --------------------------------------------------------------


async def test_a_return_in_the_next_benefit_year_restores_accounts_only(world: World) -> None:
    _, record = await dispensed(world)
    await world.settle()
    paid = await settlement(world, record)
    next_year = (await world.person(PAYER)).in_year(paid.year + 1)
    await world.change_person(PAYER, year=next_year.year, used_deductible_fen=0, used_cap_fen=0)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    await world.settle()
    after = await world.person(PAYER)
    assert after == replace(person(), year=paid.year + 1, used_deductible_fen=0, used_cap_fen=0)


async def test_hospital_and_pharmacy_hear_what_came_back(world: World) -> None:
    _, record = await dispensed(world)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    await world.settle()
    heard = {}
    for region, code in ((HOME, world.platforms[HOME].hospital), (DISPENSING, None)):
        institution = code or world.platforms[DISPENSING].pharmacy
        found = await world.platforms[region].store.read(
            partial(_notices_of, institution_code=institution.institution_code)
        )
        heard[region] = [each.kind for each in found]
    assert set(heard[HOME][-3:]) == {"SETTLED", "RETURNED", "REVERSED"}
    assert heard[DISPENSING][-1] == "REVERSED"


async def ask(world: World) -> reconciling.Reconciliation:
    exchange = world.platforms[PAYER].exchange
    gateway = exchange.peers.region(DISPENSING)
    pair = Pair.owed_by(PAYER, DISPENSING)
    return await reconciling.ask(exchange.store, gateway, pair, local_day(world.clock.now))


async def test_books_agree_after_returns_and_a_missing_reversal_is_named(world: World) -> None:
    _, record = await dispensed(world, lines=2)
    await world.settle()
    for quantities in ({1: 3}, {1: 4, 2: 20}):
        await world.take_back(DISPENSING, world.return_request(DISPENSING, record, quantities))
    await world.settle()
    found = await ask(world)
    assert found.agreed
    assert [each.count for each in found.here] == [3]
    world.platforms[DISPENSING].store.connection.execute(
        "DELETE FROM ledger_entries WHERE book = 'receivable' AND movement = 'reversal'"
    )
    differing = await ask(world)
    assert [each.reversal_id != "" for each in differing.differences] == [True, True]


def renew_trust(world: World) -> None:
    """Every region issues its list anew, so that none lapses."""
    for platform in world.platforms.values():
        trust_list = platform.cast.region.trust_list
        trust_list.sequence += 1
        trust_list.expire_time.FromDatetime(world.clock.now + timedelta(days=7))
        for other in world.platforms.values():
            other.region.trust.offer(platform.cast.region.signed_list(), world.clock.now)


@pytest.mark.parametrize("set_back", [0, 4], ids=["right clock", "clock set back"])
async def test_a_reversal_after_the_cut_off_is_an_adjustment_of_the_next_period(
    world: World, set_back: int
) -> None:
    _, record = await dispensed(world)
    await world.settle()
    april = datetime(2026, 3, 31, 17, 30, tzinfo=UTC)  # an hour and a half into the first of April
    world.clock.now = april
    renew_trust(world)
    exchange = world.platforms[PAYER].exchange
    request = ClearPeriodRequest(period="2026-03", dispensing_region_code=DISPENSING)
    first = await clear_period(exchange, request)
    assert first.HasField("acceptance")
    world.clock.now = april - timedelta(hours=set_back)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record, {1: 10}))
    await all_is_well(world)
    world.clock.now = april
    assert await clear_period(exchange, request) == first
    for region in (PAYER, DISPENSING):
        (position,) = await world.platforms[region].store.read(
            partial(positions, region_code=region, period=Period(2026, 4))
        )
        figures = position.listed.tally.figures
        assert (figures.posting_count, figures.reversal_count) == (0, 1)
        assert figures.adjustment_count == 1
        assert figures.owed_fen == -(600 + 250 + 150)


@pytest.mark.parametrize("back", [{1: 20}, {1: 9}])
async def test_net_positions_sum_to_zero_with_returns(world: World, back: dict[int, int]) -> None:
    _, record = await dispensed(world)
    await dispensed(world, HOME, PAYER, HOME)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record, back))
    await all_is_well(world)
    obligations = []
    for payer, dispensing in ((PAYER, DISPENSING), (HOME, PAYER)):
        payable = await entries(world, payer, Book.PAYABLE, dispensing)
        assert payable == await entries(world, dispensing, Book.RECEIVABLE, payer)
        owed_fen = sum(each.owed_fen for each in payable)
        obligations.append(Obligation(payer, dispensing, owed_fen))
    assert sum(net_positions(obligations).values()) == 0
    assert obligations[0].owed_fen == (0 if back == {1: 20} else 2000 - 900)


def _notices_of(tx: Transaction, institution_code: str) -> Sequence[NoticeRecord]:
    return tx.journal.notices(institution_code, 0, 100)
