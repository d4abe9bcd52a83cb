"""What is left of a prescription, by part, fill or dose: at other counters and on other days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rxoutflow.v1 import attempt_pb2, dispense_pb2, prescription_pb2, prescription_status_pb2
from rxoutflow.v1.hospital_service_pb2 import PrecheckPrescriptionRequest
from rxoutflow_server.application.dispensing import claims
from rxoutflow_server.application.home import registration
from rxoutflow_server.application.messages import instant
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.local_time import LOCAL_TIME, local_day
from support.world import HERBS, World, content_of, priced

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
DAY = timedelta(days=1)
Line = attempt_pb2.LineQuantity


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


def lines_of(status: prescription_status_pb2.PrescriptionStatus) -> list[tuple[int, int, int]]:
    """Handed over, owing, and open now, line by line."""
    return [(line.dispensed, line.available, line.open) for line in status.lines]


async def claim(
    world: World, dispensing: str, code: str, lines: list[Line] | None = None
) -> attempt_pb2.Attempt:
    """Claim some lines, or everything that is open."""
    platform = world.platforms[dispensing]
    content = attempt_pb2.Claim(
        prescription_number=code.partition(".")[0],
        pharmacy_code=platform.pharmacy.institution_code,
        lines=lines or (),
    )
    content.collector.kind = attempt_pb2.Collector.KIND_PATIENT
    request = world.claim_request(dispensing, code, claim=world.signed(dispensing, content))
    response = await claims.claim(platform.exchange, platform.pharmacy, request)
    return content_of(response.attempt, attempt_pb2.Attempt)


async def hand_over(
    world: World,
    dispensing: str,
    code: str,
    lines: list[Line] | None = None,
    boxes: list[dispense_pb2.TraceCode] | None = None,
) -> None:
    """Claim, pay by insurance, hand over the lines or all that was claimed, record."""
    attempt = await claim(world, dispensing, code)
    if lines is not None:
        del attempt.lines[:]
        attempt.lines.extend(lines)
    amounts = await world.quote(dispensing, attempt)
    request = world.commit_request(dispensing, attempt, amounts)
    await world.commit(dispensing, request)
    record = world.record_request(dispensing, request.commitment)
    if boxes is not None:
        content = content_of(record.dispense_record, dispense_pb2.DispenseRecord)
        del content.lines[0].trace_codes[:]
        content.lines[0].trace_codes.extend(boxes)
        record.dispense_record.CopyFrom(world.signed(dispensing, content))
    await world.record(dispensing, record)


async def refused(
    world: World, dispensing: str, code: str, lines: list[Line] | None = None
) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await claim(world, dispensing, code, lines)
    return refusal.value


# --- parts ----------------------------------------------------------------------------------------


async def test_what_one_pharmacy_does_not_have_is_owing_and_left_to_another_region(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER, lines=2)
    await hand_over(
        world, DISPENSING, code, [Line(line_id=1, quantity=20), Line(line_id=2, quantity=5)]
    )
    held = await world.status(number)
    assert [(line.committed, line.available) for line in held.lines] == [(20, 0), (5, 15)]
    await world.settle()
    assert lines_of(await world.status(number)) == [(20, 0, 0), (5, 15, 15)]
    rest = await claim(world, PAYER, code)
    assert list(rest.lines) == [Line(line_id=2, quantity=15)]
    await world.release(PAYER, rest)
    await hand_over(world, HOME, code)
    await world.settle()
    assert lines_of(await world.status(number)) == [(20, 0, 0), (20, 0, 0)]
    assert (await refused(world, PAYER, code)).reason is Reason.PRESCRIPTION_USED_UP
    for region in world.platforms:
        assert await world.dead_events(region) == []


async def test_each_part_is_paid_by_itself(world: World) -> None:
    _, code = await world.issue(HOME, PAYER)
    before = await world.person(PAYER)
    await hand_over(world, DISPENSING, code, [Line(line_id=1, quantity=5)])
    await world.settle()
    await hand_over(world, HOME, code)
    await world.settle()
    after = await world.person(PAYER)
    # 5 × 1.50 and 15 × 1.50 yuan; 10.00 of the deductible was left; 60 % of the rest.
    assert after.used_deductible_fen - before.used_deductible_fen == 1000
    assert after.used_cap_fen - before.used_cap_fen == 1200


async def test_what_is_owing_ends_with_the_validity(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    await hand_over(world, DISPENSING, code, [Line(line_id=1, quantity=5)])
    await world.settle()
    world.clock.now = instant((await world.status(number)).expire_time)
    assert (await refused(world, DISPENSING, code)).reason is Reason.PRESCRIPTION_EXPIRED


@pytest.mark.parametrize(
    ("first", "second", "sold"), [(True, True, True), (True, False, False), (False, True, False)]
)
async def test_a_box_is_shared_by_loose_sales_only(
    world: World, first: bool, second: bool, sold: bool
) -> None:
    _, code = await world.issue(HOME, PAYER)
    box = world.trace_code()
    part = [Line(line_id=1, quantity=5)]
    await hand_over(
        world, DISPENSING, code, part, [dispense_pb2.TraceCode(code=box, loose_sale=first)]
    )
    await world.settle()
    again = hand_over(
        world, DISPENSING, code, part, [dispense_pb2.TraceCode(code=box, loose_sale=second)]
    )
    if sold:
        await again
        return
    with pytest.raises(Refusal) as refusal:
        await again
    assert refusal.value.reason is Reason.TRACE_CODE_ALREADY_SOLD


# --- fills ----------------------------------------------------------------------------------------


async def issue_repeat(world: World) -> tuple[str, str]:
    """Twenty tablets in three fills, two days apart: six, six, eight."""
    content = world.prescription(HOME, PAYER)
    plan = content.long_prescription
    plan.reason, plan.fill_count, plan.fill_interval_days = "hypertension", 3, 2
    content.expire_time.FromDatetime(world.clock.now + timedelta(days=6))
    return content.prescription_number, await world.register(HOME, content)


def local_midnight(world: World, days: int) -> datetime:
    """The beginning of the local day that comes so many days after today."""
    day = local_day(world.clock.now) + days * DAY
    return datetime(day.year, day.month, day.day, tzinfo=LOCAL_TIME).astimezone(UTC)


async def test_the_next_fill_opens_on_its_local_day_at_any_pharmacy(world: World) -> None:
    number, code = await issue_repeat(world)
    status = await world.status(number)
    assert (lines_of(status), status.opened_fills, status.next_fill_day) == ([(0, 20, 6)], 1, "")
    opens = local_midnight(world, 2)
    await hand_over(world, DISPENSING, code)
    await world.settle()
    status = await world.status(number)
    day = local_day(opens).isoformat()
    assert (lines_of(status), status.opened_fills, status.next_fill_day) == ([(6, 14, 0)], 1, day)
    world.clock.now = opens - timedelta(microseconds=1)
    refusal = await refused(world, PAYER, code)
    assert refusal.reason is Reason.FILL_TOO_EARLY
    assert refusal.detail == {"open_day": day, "line_id": "1"}
    world.clock.now = opens
    status = await world.status(number)
    assert (lines_of(status), status.opened_fills, status.next_fill_day) == ([(6, 14, 6)], 2, "")
    assert [line.quantity for line in (await claim(world, PAYER, code)).lines] == [6]


async def test_a_fill_is_counted_from_the_handover_and_not_from_the_arrival_of_its_record(
    world: World,
) -> None:
    number, code = await issue_repeat(world)
    opens = local_midnight(world, 2)
    await hand_over(world, DISPENSING, code)
    world.clock.now += DAY
    await world.settle()
    assert (await world.status(number)).next_fill_day == local_day(opens).isoformat()


async def test_the_plan_is_refused_where_it_cannot_be_carried_out(world: World) -> None:
    content = world.prescription(HOME, PAYER, quantity=2)
    plan = content.long_prescription
    plan.reason, plan.fill_count, plan.fill_interval_days = "hypertension", 3, 2
    content.expire_time.FromDatetime(world.clock.now + timedelta(days=6))
    with pytest.raises(Refusal) as refusal:
        await world.register(HOME, content)
    assert refusal.value.reason is Reason.PRESCRIPTION_RULE_VIOLATED
    assert refusal.value.detail["rules"] == "R6"
    found = registration.precheck(
        world.platforms[HOME].region,
        PrecheckPrescriptionRequest(prescription=content),
    )
    assert [(each.rule_id, each.field) for each in found.findings] == [("R6", "lines[0].quantity")]


# --- doses ----------------------------------------------------------------------------------------


def formula(world: World, *, dose_count: int = 7) -> prescription_pb2.Prescription:
    """Two herbs; 21 of the first and 14 of the second make seven doses."""
    content = world.prescription(HOME, PAYER, lines=2)
    content.type = prescription_pb2.Prescription.TYPE_HERBAL
    herbal = content.herbal_formula
    herbal.dose_count, herbal.route, herbal.frequency = dose_count, "口服", "bid"
    for line, herb, quantity in zip(content.lines, HERBS, (21, 14), strict=False):
        line.drug_code, line.quantity = herb, quantity
    return content


def doses(count: int) -> list[Line]:
    return [Line(line_id=1, quantity=3 * count), Line(line_id=2, quantity=2 * count)]


async def test_a_formula_leaves_in_whole_doses_and_the_rest_is_owing(world: World) -> None:
    content = formula(world)
    number, code = content.prescription_number, await world.register(HOME, content)
    refusal = await refused(world, DISPENSING, code, doses(3)[:1])
    assert refusal.reason is Reason.DOSES_INCOMPLETE
    assert refusal.detail == {"line_id": "2"}
    attempt = await claim(world, DISPENSING, code)
    assert list(attempt.lines) == doses(7)
    odd = priced([Line(line_id=1, quantity=9), Line(line_id=2, quantity=5)], HERBS)
    with pytest.raises(Refusal) as committed:
        await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, None, lines=odd))
    assert committed.value.reason is Reason.DOSES_INCOMPLETE
    whole = world.commit_request(DISPENSING, attempt, None, lines=priced(doses(3), HERBS))
    await world.commit(DISPENSING, whole)
    await world.record(DISPENSING, world.record_request(DISPENSING, whole.commitment))
    await world.settle()
    assert lines_of(await world.status(number)) == [(9, 12, 12), (6, 8, 8)]
    assert list((await claim(world, PAYER, code)).lines) == doses(4)


async def test_a_formula_that_makes_no_whole_doses_is_not_registered(world: World) -> None:
    with pytest.raises(Refusal) as refusal:
        await world.register(HOME, formula(world, dose_count=5))
    assert refusal.value.reason is Reason.PRESCRIPTION_RULE_VIOLATED
    assert refusal.value.detail["rules"] == "R3,R3"
