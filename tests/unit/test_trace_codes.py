"""Trace codes (R17): a box is sold once in the federation, whoever sells it, crashes, or lies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow.v1 import attempt_pb2, dispense_pb2, peer_service_pb2
from rxoutflow.v1.pharmacy_service_pb2 import CommitClaimRequest, RecordDispenseRequest
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.dispensing import boxes
from rxoutflow_server.application.trace_codes import MAX_BOXES
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.domain.trace_codes import registrar_of
from support.world import World, content_of

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
REGISTRARS = (HOME, DISPENSING, PAYER)
Progress = dispense_pb2.DispenseProgress


@pytest.fixture
def world() -> World:
    return World.create(*REGISTRARS, registrars=REGISTRARS)


def code_of(world: World, registrar: str) -> str:
    """A new box of which this region keeps the register."""
    while True:
        code = world.trace_code()
        if registrar_of(code, REGISTRARS) == registrar:
            return code


async def committed(world: World, at: str, *, insured: bool = True) -> CommitClaimRequest:
    world.clock.now += timedelta(milliseconds=1)
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(at, code)
    amounts = await world.quote(at, attempt) if insured else None
    request = world.commit_request(at, attempt, amounts)
    await world.commit(at, request)
    return request


def handing_over(
    world: World, at: str, commit: CommitClaimRequest, *codes: str, loose: bool = False
) -> RecordDispenseRequest:
    """The record of the handover of these boxes."""
    request = world.record_request(at, commit.commitment)
    content = content_of(request.dispense_record, dispense_pb2.DispenseRecord)
    del content.lines[0].trace_codes[:]
    for code in codes:
        content.lines[0].trace_codes.add(code=code, loose_sale=loose)
    request.dispense_record.CopyFrom(world.signed(at, content))
    return request


async def outcome(work: Awaitable[Any]) -> str:
    try:
        await work
    except (Refusal, Unavailable) as error:
        return str(error.reason)
    return "OK"


async def sell(world: World, at: str, *codes: str, loose: bool = False) -> str:
    """Claim, commit and hand over these boxes at a region's pharmacy; what comes of it."""
    commit = await committed(world, at, insured=False)
    return await outcome(world.record(at, handing_over(world, at, commit, *codes, loose=loose)))


async def take_back_what_is_due(world: World) -> None:
    world.clock.now += boxes.LATE
    for platform in world.platforms.values():
        await boxes.finish(platform.exchange, 100)


def open_boxes(world: World, at: str) -> list[str]:
    rows = world.platforms[at].store.connection.execute("SELECT code FROM open_boxes")
    return [code for (code,) in rows]


def sold(world: World) -> Counter[str]:
    """How often each code stands in a register, all regions together."""
    found: Counter[str] = Counter()
    for platform in world.platforms.values():
        rows = platform.store.connection.execute("SELECT code FROM trace_codes").fetchall()
        found.update(code for (code,) in rows)
    return found


# who keeps what


codes = st.text("0123456789", min_size=20, max_size=20)


@given(codes, st.permutations(REGISTRARS))
def test_the_registrar_of_a_code_does_not_depend_on_the_order_of_the_list(
    code: str, order: list[str]
) -> None:
    assert registrar_of(code, tuple(order)) == registrar_of(code, REGISTRARS)


@given(codes)
def test_when_a_registrar_joins_only_its_own_codes_move(code: str) -> None:
    before, after = registrar_of(code, REGISTRARS), registrar_of(code, (*REGISTRARS, "430400"))
    assert after in (before, "430400")


def test_the_registrars_share_the_codes_about_evenly() -> None:
    counted = Counter(registrar_of(f"{number:020}", REGISTRARS) for number in range(3000))
    assert set(counted) == set(REGISTRARS)
    assert all(800 < count < 1200 for count in counted.values())


# one box, several sellers


@pytest.mark.parametrize("registrar", REGISTRARS)
async def test_two_regions_that_sell_one_box_at_once_sell_it_once(
    world: World, registrar: str
) -> None:
    code = code_of(world, registrar)
    commits = {at: await committed(world, at, insured=False) for at in (DISPENSING, PAYER)}
    ends = await asyncio.gather(
        *(
            outcome(world.record(at, handing_over(world, at, commit, code)))
            for at, commit in commits.items()
        )
    )
    assert sorted(ends) == ["OK", "TRACE_CODE_ALREADY_SOLD"]
    assert sold(world)[code] == 1


async def test_a_box_that_another_region_sold_is_refused_by_its_line(world: World) -> None:
    fresh, code = code_of(world, HOME), code_of(world, PAYER)
    assert await sell(world, PAYER, code) == "OK"
    commit = await committed(world, DISPENSING)
    with pytest.raises(Refusal) as refused:
        await world.record(DISPENSING, handing_over(world, DISPENSING, commit, fresh, code))
    assert refused.value.reason is Reason.TRACE_CODE_ALREADY_SOLD
    assert refused.value.detail["line_id"] == "1"
    assert refused.value.detail["code"] == code
    assert refused.value.message.startswith("line 1: ")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (True, True, "OK"),
        (True, False, "TRACE_CODE_ALREADY_SOLD"),
        (False, True, "TRACE_CODE_ALREADY_SOLD"),
    ],
)
async def test_parts_of_a_box_are_sold_apart_and_never_beside_the_whole(
    world: World, first: bool, second: bool, expected: str
) -> None:
    code = code_of(world, HOME)
    assert await sell(world, DISPENSING, code, loose=first) == "OK"
    assert await sell(world, PAYER, code, loose=second) == expected


@pytest.mark.parametrize("registrar", [HOME, DISPENSING])
async def test_a_box_is_named_once_in_a_handover(world: World, registrar: str) -> None:
    code = code_of(world, registrar)
    assert await sell(world, DISPENSING, code, code) == "TRACE_CODE_ALREADY_SOLD"
    assert sold(world)[code] == 0
    assert await sell(world, DISPENSING, code, code, loose=True) == "OK"


@pytest.mark.parametrize(
    "spelled", ["1" * 19, "1" * 21, "１" * 20, " " + "1" * 20, "1" * 20 + "\n", "1" * 10 + "-" * 10]
)
async def test_a_box_has_one_spelling(world: World, spelled: str) -> None:
    assert await sell(world, DISPENSING, spelled) == "FIELD_INVALID"


# lost answers, regions out of reach, crashes


async def test_a_handover_whose_answer_was_lost_is_recorded_once(world: World) -> None:
    code = code_of(world, HOME)
    commit = await committed(world, DISPENSING)
    request = handing_over(world, DISPENSING, commit, code)
    world.losing = {"sell_trace_codes"}
    assert await outcome(world.record(DISPENSING, request)) == "PEER_UNAVAILABLE"
    assert sold(world)[code] == 1
    assert (await world.record(DISPENSING, request)).state == Progress.STATE_DISPENSED
    assert (await world.record(DISPENSING, request)).state == Progress.STATE_DISPENSED
    assert open_boxes(world, DISPENSING) == []
    await world.settle()
    await take_back_what_is_due(world)
    assert sold(world)[code] == 1


async def test_while_a_registrar_is_out_of_reach_its_boxes_wait_and_others_do_not(
    world: World,
) -> None:
    commit = await committed(world, DISPENSING)
    away, here = code_of(world, HOME), code_of(world, DISPENSING)
    request = handing_over(world, DISPENSING, commit, away)
    world.unreachable = {HOME}
    assert await outcome(world.record(DISPENSING, request)) == "PEER_UNAVAILABLE"
    other = handing_over(world, DISPENSING, commit, here)
    assert await outcome(world.record(DISPENSING, other)) == "OK"
    world.unreachable = set()
    await take_back_what_is_due(world)
    assert sold(world) == Counter([here])
    assert open_boxes(world, DISPENSING) == []


async def test_boxes_of_a_handover_that_was_refused_are_free_once_another_is_recorded(
    world: World,
) -> None:
    good, kept, bad = code_of(world, HOME), code_of(world, HOME), code_of(world, PAYER)
    assert await sell(world, PAYER, bad) == "OK"
    commit = await committed(world, DISPENSING)
    refused = handing_over(world, DISPENSING, commit, good, kept, bad)
    assert await outcome(world.record(DISPENSING, refused)) == "TRACE_CODE_ALREADY_SOLD"
    await take_back_what_is_due(world)
    assert sold(world)[good] == 1, "the pharmacy may still hand it over"
    corrected = handing_over(world, DISPENSING, commit, kept)
    assert await outcome(world.record(DISPENSING, corrected)) == "OK"
    await take_back_what_is_due(world)
    assert (sold(world)[good], sold(world)[kept]) == (0, 1)
    assert await sell(world, PAYER, good) == "OK"


@pytest.mark.parametrize("end", ["release", "correct"])
async def test_boxes_of_an_attempt_that_ended_are_free(world: World, end: str) -> None:
    code = code_of(world, HOME)
    commit = await committed(world, DISPENSING)
    request = handing_over(world, DISPENSING, commit, code)
    world.losing = {"sell_trace_codes"}
    assert await outcome(world.record(DISPENSING, request)) == "PEER_UNAVAILABLE"
    content = content_of(commit.commitment, attempt_pb2.Commitment)
    number = content.prescription_number
    if end == "release":
        live = (await world.status(number)).live_attempt
        await world.release(DISPENSING, live)
    else:
        correction = world.correction_request(DISPENSING, number, commit.request_id)
        await world.correct(DISPENSING, correction)
    assert await outcome(world.record(DISPENSING, request)) == "ATTEMPT_ENDED"
    world.unreachable = {HOME}
    with pytest.raises(Unavailable):
        await take_back_what_is_due(world)
    assert open_boxes(world, DISPENSING) == [code]
    world.unreachable = set()
    await take_back_what_is_due(world)
    assert sold(world)[code] == 0
    assert open_boxes(world, DISPENSING) == []
    assert await sell(world, PAYER, code) == "OK"


async def test_a_call_that_may_still_be_on_its_way_is_waited_for(world: World) -> None:
    code = code_of(world, HOME)
    commit = await committed(world, DISPENSING)
    world.losing = {"sell_trace_codes"}
    await outcome(world.record(DISPENSING, handing_over(world, DISPENSING, commit, code)))
    number = content_of(commit.commitment, attempt_pb2.Commitment).prescription_number
    await world.release(DISPENSING, (await world.status(number)).live_attempt)
    await boxes.finish(world.platforms[DISPENSING].exchange, 100)
    assert sold(world)[code] == 1


@pytest.mark.parametrize("registrar", [HOME, DISPENSING])
@pytest.mark.parametrize(
    ("cause", "again"),
    [
        (dispense_pb2.DispenseReturn.CAUSE_DISPENSING_ERROR, "OK"),
        (dispense_pb2.DispenseReturn.CAUSE_QUALITY, "TRACE_CODE_ALREADY_SOLD"),
    ],
)
async def test_a_box_that_came_back_is_sold_again_if_nobody_can_have_opened_it(
    world: World, registrar: str, cause: dispense_pb2.DispenseReturn.Cause.ValueType, again: str
) -> None:
    code = code_of(world, registrar)
    commit = await committed(world, DISPENSING, insured=False)
    record = handing_over(world, DISPENSING, commit, code)
    await world.record(DISPENSING, record)
    await world.settle()
    returned = world.return_request(DISPENSING, record.dispense_record, cause=cause)
    await world.take_back(DISPENSING, returned)
    await take_back_what_is_due(world)
    assert await sell(world, PAYER, code) == again


# the registrar trusts no platform, and the payer trusts no dispensing region


def asking(world: World, code: str, **changes: Any) -> peer_service_pb2.SellTraceCodesRequest:
    return peer_service_pb2.SellTraceCodesRequest(
        **{
            "request_id": world.request_id(),
            "prescription_number": world.prescription(HOME, PAYER).prescription_number,
            "attempt_id": world.request_id(),
            "pharmacy_code": world.platforms[DISPENSING].pharmacy.institution_code,
            "trace_codes": [dispense_pb2.TraceCode(code=code)],
            **changes,
        }
    )


async def asked(world: World, registrar: str, request: Any, caller: str = DISPENSING) -> str:
    platform = world.platforms[caller].cast.region.platform
    return await outcome(world.platforms[registrar].desk.sell_trace_codes(platform, request))


async def test_a_registrar_notes_only_codes_of_its_own_for_pharmacies_of_the_caller(
    world: World,
) -> None:
    own = code_of(world, HOME)
    assert await asked(world, HOME, asking(world, own), PAYER) == "CALLER_REGION_NOT_ALLOWED"
    assert await asked(world, PAYER, asking(world, own)) == "FIELD_INVALID"
    assert await asked(world, HOME, asking(world, own, attempt_id="x")) == "FIELD_INVALID"
    twice = [dispense_pb2.TraceCode(code=own)] * 2
    assert await asked(world, HOME, asking(world, own, trace_codes=twice)) == "FIELD_INVALID"
    many = [dispense_pb2.TraceCode(code=f"{n:020}") for n in range(MAX_BOXES + 1)]
    assert await asked(world, HOME, asking(world, own, trace_codes=many)) == "FIELD_INVALID"
    assert sold(world) == Counter()
    assert await asked(world, HOME, asking(world, own)) == "OK"


async def test_all_boxes_of_a_request_are_noted_or_none(world: World) -> None:
    first, second = code_of(world, HOME), code_of(world, HOME)
    assert await asked(world, HOME, asking(world, second)) == "OK"
    both = [dispense_pb2.TraceCode(code=each) for each in (first, second)]
    refused = await asked(world, HOME, asking(world, first, trace_codes=both))
    assert refused == "TRACE_CODE_ALREADY_SOLD"
    assert sold(world)[first] == 0


async def test_another_region_takes_no_box_back(world: World) -> None:
    request = asking(world, code_of(world, HOME))
    assert await asked(world, HOME, request) == "OK"
    taking = peer_service_pb2.TakeBackTraceCodesRequest(
        request_id=world.request_id(),
        prescription_number=request.prescription_number,
        attempt_id=request.attempt_id,
        pharmacy_code=world.platforms[PAYER].pharmacy.institution_code,
        codes=[each.code for each in request.trace_codes],
    )
    desk = world.platforms[HOME].desk
    await desk.take_back_trace_codes(world.platforms[PAYER].cast.region.platform, taking)
    taking.pharmacy_code = request.pharmacy_code
    stranger = desk.take_back_trace_codes(world.platforms[PAYER].cast.region.platform, taking)
    assert await outcome(stranger) == "CALLER_REGION_NOT_ALLOWED"
    assert sum(sold(world).values()) == 1


async def test_a_registrar_answers_the_same_request_with_the_same_receipt(world: World) -> None:
    request = asking(world, code_of(world, HOME))
    desk, caller = world.platforms[HOME].desk, world.platforms[DISPENSING].cast.region.platform
    first = await desk.sell_trace_codes(caller, request)
    world.clock.now += timedelta(minutes=1)
    assert await desk.sell_trace_codes(caller, request) == first


@pytest.mark.parametrize("registrar", REGISTRARS)
async def test_a_handover_with_receipts_is_paid(world: World, registrar: str) -> None:
    commit = await committed(world, DISPENSING)
    code = code_of(world, registrar)
    await world.record(DISPENSING, handing_over(world, DISPENSING, commit, code))
    await world.settle()
    assert await settled(world, commit) == "posted"
    for region in REGISTRARS:
        assert await world.dead_events(region) == []


async def settled(world: World, commit: CommitClaimRequest) -> str:
    settlement_id = content_of(commit.commitment, attempt_pb2.Commitment).settlement_id
    rows = world.platforms[PAYER].store.connection.execute(
        "SELECT state FROM settlements WHERE settlement_id = ?", (settlement_id,)
    )
    ((state,),) = rows.fetchall()
    return str(state)


async def sale_by(world: World, registrar: str, request: Any) -> SignedStatement:
    """The receipt of a registrar for what the dispensing region asks it."""
    caller = world.platforms[DISPENSING].cast.region.platform
    return (await world.platforms[registrar].desk.sell_trace_codes(caller, request)).sale


def asking_for(world: World, commit: CommitClaimRequest, code: str, **changes: Any) -> Any:
    """The request to note a box as sold by the attempt of a commitment."""
    content = content_of(commit.commitment, attempt_pb2.Commitment)
    attempt = {
        "prescription_number": content.prescription_number,
        "attempt_id": content.attempt_id,
        "pharmacy_code": content.pharmacy_code,
    }
    return asking(world, code, **attempt, **changes)


async def test_a_region_that_skips_the_registrar_is_not_paid(world: World) -> None:
    code = code_of(world, HOME)
    assert await sell(world, PAYER, code) == "OK"
    commit = await committed(world, DISPENSING)
    record = handing_over(world, DISPENSING, commit, code).dispense_record
    assert await world.tell(DISPENSING, HOME, record) == ""
    assert await world.tell(DISPENSING, PAYER, record) == "TRACE_CODE_MISSING"
    await world.settle()
    assert await settled(world, commit) == "held"


async def test_a_receipt_of_another_attempt_or_kind_of_sale_pays_nothing(world: World) -> None:
    mine, other = await committed(world, DISPENSING), await committed(world, DISPENSING)
    code, another = code_of(world, HOME), code_of(world, HOME)
    foreign = await sale_by(world, HOME, asking_for(world, other, another))
    part = dispense_pb2.TraceCode(code=code, loose_sale=True)
    loose = await sale_by(world, HOME, asking_for(world, mine, code, trace_codes=[part]))
    record = handing_over(world, DISPENSING, mine, code).dispense_record
    for receipts, answer in [
        ([foreign], "SIGNED_CONTENT_MISMATCH"),
        ([loose], "TRACE_CODE_MISSING"),
        ([loose, loose], "SIGNED_CONTENT_MISMATCH"),
    ]:
        assert await world.tell(DISPENSING, PAYER, record, receipts=receipts) == answer
    assert await settled(world, mine) == "held"


async def test_a_receipt_that_the_registrar_did_not_sign_is_refused(world: World) -> None:
    commit = await committed(world, DISPENSING)
    content = content_of(commit.commitment, attempt_pb2.Commitment)
    code = code_of(world, HOME)
    forged = dispense_pb2.TraceCodeSale(
        registrar_region_code=HOME,
        prescription_number=content.prescription_number,
        attempt_id=content.attempt_id,
        pharmacy_code=content.pharmacy_code,
        trace_codes=[dispense_pb2.TraceCode(code=code)],
    )
    forged.sell_time.FromDatetime(world.clock.now)
    sale = world.signed(DISPENSING, forged)
    record = handing_over(world, DISPENSING, commit, code).dispense_record
    told = world.tell(DISPENSING, PAYER, record, receipts=[sale])
    assert await told == "SIGNED_CONTENT_MISMATCH"


async def test_receipts_go_with_a_record_to_the_payer_and_with_nothing_else(world: World) -> None:
    commit = await committed(world, DISPENSING)
    code = code_of(world, HOME)
    sale = await sale_by(world, HOME, asking_for(world, commit, code))
    record = handing_over(world, DISPENSING, commit, code).dispense_record
    assert await world.tell(DISPENSING, PAYER, sale) == "STATEMENT_TYPE_UNEXPECTED"
    assert await world.tell(DISPENSING, HOME, record, receipts=[sale]) == "FIELD_INVALID"
    assert await world.tell(DISPENSING, PAYER, record, receipts=[sale]) == ""


async def test_a_line_without_boxes_is_not_paid(world: World) -> None:
    commit = await committed(world, DISPENSING)
    record = handing_over(world, DISPENSING, commit).dispense_record
    assert await world.tell(DISPENSING, PAYER, record) == "TRACE_CODE_MISSING"


async def test_a_region_by_itself_keeps_its_own_codes_and_needs_nobody() -> None:
    world = World.create(*REGISTRARS)
    commit = await committed(world, DISPENSING)
    world.unreachable = {HOME, PAYER}
    code = world.trace_code()
    request = handing_over(world, DISPENSING, commit, code)
    assert await outcome(world.record(DISPENSING, request)) == "OK"
    world.unreachable = set()
    await world.settle()
    world.clock.now += timedelta(minutes=2)
    await world.settle()
    assert await settled(world, commit) == "posted"
    assert await sell(world, DISPENSING, code) == "TRACE_CODE_ALREADY_SOLD"
