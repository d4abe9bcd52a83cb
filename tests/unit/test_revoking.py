"""Taking prescriptions back: before they were registered, and when a mark takes effect.

A hospital once voided a prescription while its upload was still running; it became valid and was
settled. So a number that its issuer revoked is never registered afterwards, whatever is on its way.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2, hospital_service_pb2, prescription_status_pb2
from rxoutflow.v1.notice_pb2 import Notice
from rxoutflow.v1.statement_pb2 import SIGNER_ROLE_PRESCRIBER
from rxoutflow_server.application.home import registration
from rxoutflow_server.application.ports import BarredNumber, Transaction
from rxoutflow_server.domain.errors import Reason, Refusal
from support.sheets import Cast, signed
from support.world import PERSON, World, content_of

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
SECRET = "0123456789ABCDEF"
Status = prescription_status_pb2.PrescriptionStatus
NEVER = prescription_status_pb2.REVOCATION_OUTCOME_NEVER_REGISTERED


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


def registering(world: World) -> tuple[str, hospital_service_pb2.RegisterPrescriptionRequest]:
    content = world.prescription(HOME, PAYER)
    request = hospital_service_pb2.RegisterPrescriptionRequest(
        request_id=world.request_id(),
        prescription=world.signed(HOME, content),
        pickup_secret=SECRET,
    )
    return content.prescription_number, request


async def register(
    world: World, request: hospital_service_pb2.RegisterPrescriptionRequest
) -> hospital_service_pb2.RegisterPrescriptionResponse:
    platform = world.platforms[HOME]
    return await platform.store.transact(
        lambda tx: registration.register(tx, platform.region, platform.hospital, request)
    )


def revoking(
    world: World, number: str, cast: Cast | None = None
) -> hospital_service_pb2.RevokePrescriptionRequest:
    cast = cast or world.platforms[HOME].cast
    content = prescription_status_pb2.Revocation(
        prescription_number=number,
        institution_code=cast.hospital.institution_code,
        reason="wrong dose",
    )
    sheet = signed(content, cast.sheet(type(content)), at=world.clock.now, audience=HOME)
    return hospital_service_pb2.RevokePrescriptionRequest(
        request_id=world.request_id(), revocation=sheet
    )


async def revoke(
    world: World,
    request: hospital_service_pb2.RevokePrescriptionRequest,
    caller: CallerName | None = None,
) -> hospital_service_pb2.RevokePrescriptionResponse:
    platform = world.platforms[HOME]
    return await platform.store.transact(
        lambda tx: registration.revoke(tx, platform.region, caller or platform.hospital, request)
    )


async def told(world: World) -> list[tuple[str, str]]:
    """Kind and number of every notice to the home region's hospital, oldest first."""
    platform = world.platforms[HOME]
    code = platform.hospital.institution_code
    found = await platform.store.read(lambda tx: tx.journal.notices(code, 0, 100))
    return [(each.kind, each.prescription_number) for each in found]


# --- never registered -----------------------------------------------------------------------------


async def test_what_was_revoked_before_it_arrived_is_never_registered(world: World) -> None:
    number, request = registering(world)
    answer = await revoke(world, revoking(world, number))
    assert answer.outcome == NEVER
    status = content_of(answer.status, Status)
    assert (status.prescription_number, status.validity) == (number, Status.VALIDITY_REVOKED)
    again = hospital_service_pb2.RegisterPrescriptionRequest()
    again.CopyFrom(request)
    again.request_id = world.request_id()
    for _ in range(2):
        for each in (request, again):
            with pytest.raises(Refusal) as refused:
                await register(world, each)
            assert refused.value.reason is Reason.PRESCRIPTION_REVOKED
        world.clock.now += timedelta(hours=2)
    with pytest.raises(Refusal) as unknown:
        await world.status(number)
    assert unknown.value.reason is Reason.PRESCRIPTION_NOT_FOUND
    with pytest.raises(Refusal) as opened:
        await world.claim(DISPENSING, f"{number}.{SECRET}")
    assert opened.value.reason is Reason.PICKUP_CODE_INVALID


async def test_it_is_refused_as_revoked_whatever_else_is_wrong_with_it(world: World) -> None:
    content = world.prescription(HOME, PAYER, quantity=20)
    content.lines[0].supply_days = 100
    await revoke(world, revoking(world, content.prescription_number))
    with pytest.raises(Refusal) as refused:
        await world.register(HOME, content)
    assert refused.value.reason is Reason.PRESCRIPTION_REVOKED


async def test_revoking_it_again_says_the_same_and_tells_nobody_twice(world: World) -> None:
    number, _ = registering(world)
    request = revoking(world, number)
    first = await revoke(world, request)
    repeated = await revoke(world, request)
    assert repeated.SerializeToString() == first.SerializeToString()
    world.clock.now += timedelta(minutes=5)
    anew = await revoke(world, revoking(world, number))
    assert anew.outcome == NEVER
    before, after = (content_of(each.status, Status) for each in (first, anew))
    assert before == after
    assert await told(world) == [("REVOKED", number)]


async def test_a_registration_and_a_revocation_at_the_same_time_agree(world: World) -> None:
    for turn in range(10):
        number, request = registering(world)
        calls = [register(world, request), revoke(world, revoking(world, number))]
        done = await asyncio.gather(*(calls if turn % 2 else calls[::-1]), return_exceptions=True)
        registered, answer = done if turn % 2 else done[::-1]
        assert isinstance(answer, hospital_service_pb2.RevokePrescriptionResponse)
        if answer.outcome == NEVER:
            assert isinstance(registered, Refusal)
            assert registered.reason is Reason.PRESCRIPTION_REVOKED
        else:
            assert answer.outcome == prescription_status_pb2.REVOCATION_OUTCOME_REVOKED
            assert (await world.status(number)).validity == Status.VALIDITY_REVOKED


def second_hospital(world: World) -> Cast:
    """Another hospital of the home region, with people and a seal that everybody trusts."""
    cast = world.platforms[HOME].cast
    region, hospital = cast.region, cast.region.hospital()
    other = replace(
        cast,
        hospital=hospital,
        prescriber=region.person(hospital, "D009", SIGNER_ROLE_PRESCRIBER),
        hospital_seal=region.seal(hospital),
    )
    region.trust_list.sequence += 1
    for platform in world.platforms.values():
        platform.region.trust.offer(region.signed_list(), world.clock.now)
    return other


async def test_another_hospital_hears_of_nothing_and_bars_nothing(world: World) -> None:
    other = second_hospital(world)
    number, request = registering(world)
    with pytest.raises(Refusal) as of_unknown:
        await revoke(world, revoking(world, number, other), other.hospital)
    await register(world, request)
    with pytest.raises(Refusal) as of_registered:
        await revoke(world, revoking(world, number, other), other.hospital)
    assert of_unknown.value.reason is Reason.PRESCRIPTION_NOT_FOUND
    assert of_registered.value.reason is Reason.PRESCRIPTION_NOT_FOUND
    assert of_unknown.value.message == of_registered.value.message


async def test_only_a_number_that_the_hospital_could_have_made_is_barred(world: World) -> None:
    other = second_hospital(world)
    own = world.prescription(HOME, PAYER).prescription_number
    for number in (own, own[:-1] + str((int(own[-1]) + 1) % 10), own[:6] + "x" * 24):
        with pytest.raises(Refusal) as refused:
            await revoke(world, revoking(world, number, other), other.hospital)
        assert refused.value.reason is Reason.PRESCRIPTION_NOT_FOUND
        mistyped = number != own
        if mistyped:
            with pytest.raises(Refusal) as refused:
                await revoke(world, revoking(world, number))
            assert refused.value.reason is Reason.PRESCRIPTION_NOT_FOUND
        barred = await world.platforms[HOME].store.read(partial(_barred, number))
        assert barred is None


def _barred(number: str, tx: Transaction) -> BarredNumber | None:
    return tx.home.barred(number)


# --- the mark -------------------------------------------------------------------------------------


async def marked(world: World) -> tuple[str, attempt_pb2.Attempt]:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    answer = await world.revoke(number)
    assert answer.outcome == prescription_status_pb2.REVOCATION_OUTCOME_MARKED
    return number, attempt


@pytest.mark.parametrize("ending", ["release", "lease"])
async def test_the_hospital_hears_when_its_mark_takes_effect(world: World, ending: str) -> None:
    number, attempt = await marked(world)
    if ending == "release":
        await world.release(DISPENSING, attempt)
    else:
        world.clock.now += timedelta(minutes=30)
        await world.expire_leases(HOME)
    assert (await world.status(number)).validity == Status.VALIDITY_REVOKED
    kinds = [kind for kind, _ in await told(world)]
    assert kinds == ["REGISTERED", "CLAIMED", "MARKED_FOR_REVOCATION", "ATTEMPT_ENDED", "REVOKED"]
    assert all(Notice.Kind.Value(f"KIND_{kind}") for kind in kinds)
    await world.settle()
    assert await _indexed(world, number) == Status.VALIDITY_REVOKED


async def test_the_hospital_hears_of_no_revocation_when_all_was_handed_over(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    request = world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))
    await world.commit(DISPENSING, request)
    await world.revoke(number)
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    await world.settle()
    assert "REVOKED" not in [kind for kind, _ in await told(world)]


async def test_a_mark_that_takes_effect_while_it_is_revoked_again_is_told_once(
    world: World,
) -> None:
    number, _ = await marked(world)
    world.clock.now += timedelta(minutes=30)
    answer = await world.revoke(number)
    assert answer.outcome == prescription_status_pb2.REVOCATION_OUTCOME_ALREADY_REVOKED
    assert [kind for kind, _ in await told(world)].count("REVOKED") == 1


async def _indexed(world: World, number: str) -> Status.Validity.ValueType:
    """What the payer region's index says of it."""

    def newest(tx: Transaction) -> Status:
        (entry,) = (each for each in tx.payer.indexed(PERSON) if each.prescription_number == number)
        return content_of(tx.journal.statement(number, entry.status_sha256), Status)

    return (await world.platforms[PAYER].store.read(newest)).validity
