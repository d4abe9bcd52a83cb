"""The right to collect: by pickup code or e-credential, with counted tries and a named proof."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rxoutflow.v1 import attempt_pb2, notice_pb2, prescription_status_pb2
from rxoutflow.v1.credential_pb2 import ECredential, ECredentialProof
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    FindPrescriptionRequest,
    PresentECredentialRequest,
    PresentECredentialResponse,
)
from rxoutflow_server.application.dispensing import claims
from rxoutflow_server.credential_codes import CredentialCodes
from rxoutflow_server.domain.errors import Reason, Refusal
from support.world import PERSON, World, content_of, credential_codes

HOME, DISPENSING, PAYER = "350200", "350500", "320600"


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


@pytest.fixture
def codes() -> CredentialCodes:
    return credential_codes(PAYER)


async def present(world: World, region: str, code: str) -> PresentECredentialResponse:
    platform = world.platforms[region]
    request = PresentECredentialRequest(credential_code=code)
    return await claims.present_e_credential(platform.exchange, platform.pharmacy, request)


async def find(world: World, region: str, request: FindPrescriptionRequest) -> None:
    platform = world.platforms[region]
    await claims.find(platform.exchange, platform.pharmacy, request)


async def refusal(world: World, region: str, request: FindPrescriptionRequest) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await find(world, region, request)
    return refused.value


def by_code(code: str) -> FindPrescriptionRequest:
    return FindPrescriptionRequest(pickup_code=code)


def wrong(code: str) -> str:
    return code[:-1] + ("0" if code[-1] != "0" else "1")


async def test_an_e_credential_lists_and_opens_what_was_issued_anywhere(
    world: World, codes: CredentialCodes
) -> None:
    number, _ = await world.issue(HOME, PAYER)
    await world.settle()
    shown = await present(world, DISPENSING, codes.show(PERSON, world.clock.now))
    (statement,) = shown.statuses
    status = content_of(statement, prescription_status_pb2.PrescriptionStatus)
    assert status.prescription_number == number
    proof = ECredentialProof(prescription_number=number, token=shown.token)
    await find(world, DISPENSING, FindPrescriptionRequest(e_credential=proof))
    platform = world.platforms[DISPENSING]
    request = world.claim_request(DISPENSING, f"{number}.x", pickup_code=None)
    request.e_credential.CopyFrom(proof)
    response = await claims.claim(platform.exchange, platform.pharmacy, request)
    attempt = content_of(response.attempt, attempt_pb2.Attempt)
    assert attempt.state == attempt_pb2.Attempt.STATE_RESERVED


async def test_a_revoked_prescription_is_not_listed(world: World, codes: CredentialCodes) -> None:
    number, _ = await world.issue(HOME, PAYER)
    await world.revoke(number)
    await world.settle()
    shown = await present(world, DISPENSING, codes.show(PERSON, world.clock.now))
    assert list(shown.statuses) == []


async def test_a_code_works_at_one_pharmacy_only(world: World, codes: CredentialCodes) -> None:
    code = codes.show(PERSON, world.clock.now)
    await present(world, DISPENSING, code)
    await present(world, DISPENSING, code)
    with pytest.raises(Refusal) as refused:
        await present(world, HOME, code)
    assert refused.value.reason is Reason.E_CREDENTIAL_NOT_ACCEPTED


@pytest.mark.parametrize("age", [timedelta(minutes=5), -timedelta(minutes=1, seconds=1)])
async def test_a_code_is_good_for_five_minutes(
    world: World, codes: CredentialCodes, age: timedelta
) -> None:
    code = codes.show(PERSON, world.clock.now - age)
    with pytest.raises(Refusal) as refused:
        await present(world, DISPENSING, code)
    assert refused.value.reason is Reason.E_CREDENTIAL_NOT_ACCEPTED


@pytest.mark.parametrize("broken", ["320600", "320600...", "320600.X.1.ABC", "320600.é.1.ABC"])
async def test_a_code_that_nobody_made_is_refused(world: World, broken: str) -> None:
    with pytest.raises(Refusal) as refused:
        await present(world, DISPENSING, broken)
    assert refused.value.reason is Reason.E_CREDENTIAL_NOT_ACCEPTED


async def test_a_token_of_another_pharmacy_opens_nothing(
    world: World, codes: CredentialCodes
) -> None:
    number, _ = await world.issue(HOME, PAYER)
    await world.settle()
    shown = await present(world, HOME, codes.show(PERSON, world.clock.now))
    proof = ECredentialProof(prescription_number=number, token=shown.token)
    stolen = await refusal(world, DISPENSING, FindPrescriptionRequest(e_credential=proof))
    assert stolen.reason is Reason.E_CREDENTIAL_NOT_ACCEPTED


async def test_a_token_lapses_after_ten_minutes(world: World, codes: CredentialCodes) -> None:
    number, _ = await world.issue(HOME, PAYER)
    await world.settle()
    shown = await present(world, DISPENSING, codes.show(PERSON, world.clock.now))
    proof = ECredentialProof(prescription_number=number, token=shown.token)
    request = FindPrescriptionRequest(e_credential=proof)
    world.clock.now += timedelta(minutes=10) - timedelta(microseconds=1)
    await find(world, DISPENSING, request)
    world.clock.now += timedelta(microseconds=1)
    late = await refusal(world, DISPENSING, request)
    assert late.reason is Reason.E_CREDENTIAL_NOT_ACCEPTED


async def test_a_token_opens_only_the_prescriptions_of_its_holder(
    world: World, codes: CredentialCodes
) -> None:
    content = world.prescription(HOME, PAYER)
    content.patient.insured_person_id = "SOMEBODYELSE"
    await world.register(HOME, content)
    shown = await present(world, DISPENSING, codes.show(PERSON, world.clock.now))
    proof = ECredentialProof(prescription_number=content.prescription_number, token=shown.token)
    refused = await refusal(world, DISPENSING, FindPrescriptionRequest(e_credential=proof))
    assert refused.reason is Reason.PRESCRIPTION_NOT_FOUND


async def test_a_token_forged_by_the_dispensing_region_opens_nothing(
    world: World, codes: CredentialCodes
) -> None:
    number, _ = await world.issue(HOME, PAYER)
    region = world.platforms[DISPENSING].region
    shown = await present(world, DISPENSING, codes.show(PERSON, world.clock.now))
    forged = content_of(shown.token, ECredential)
    token = region.seal(forged, now=world.clock.now)
    proof = ECredentialProof(prescription_number=number, token=token)
    platform = world.platforms[DISPENSING]
    request = FindPrescriptionRequest(e_credential=proof)
    with pytest.raises(Exception) as refused:  # noqa: PT011 - the reason is what matters
        await claims.find(platform.exchange, platform.pharmacy, request)
    assert getattr(refused.value, "reason", None) == "SIGNED_CONTENT_MISMATCH"


async def test_five_wrong_codes_lock_the_prescription_and_the_hospital_hears_of_it(
    world: World,
) -> None:
    number, code = await world.issue(HOME, PAYER)
    for _ in range(5):
        refused = await refusal(world, DISPENSING, by_code(wrong(code)))
        assert refused.reason is Reason.PICKUP_CODE_INVALID
    locked = await refusal(world, DISPENSING, by_code(code))
    assert locked.reason is Reason.PICKUP_CODE_LOCKED
    hospital = world.platforms[HOME].hospital.institution_code
    notices = await world.platforms[HOME].store.read(lambda tx: tx.journal.notices(hospital, 0, 10))
    assert [notice.kind for notice in notices] == ["REGISTERED", "PICKUP_CODE_LOCKED"]
    assert notice_pb2.Notice.Kind.Value("KIND_PICKUP_CODE_LOCKED")
    assert notices[-1].prescription_number == number
    world.clock.now += timedelta(minutes=15)
    await find(world, DISPENSING, by_code(code))


async def test_wrong_codes_of_one_prescription_do_not_lock_another(world: World) -> None:
    _, first = await world.issue(HOME, PAYER)
    _, second = await world.issue(HOME, PAYER)
    for _ in range(5):
        await refusal(world, DISPENSING, by_code(wrong(first)))
    await find(world, DISPENSING, by_code(second))


async def test_an_unknown_number_looks_like_a_wrong_secret(world: World) -> None:
    number, code = await world.issue(HOME, PAYER)
    unknown = world.prescription(HOME, PAYER).prescription_number
    stranger = await refusal(world, DISPENSING, by_code(code.replace(number, unknown)))
    mistaken = await refusal(world, DISPENSING, by_code(wrong(code)))
    assert (stranger.reason, stranger.message) == (mistaken.reason, mistaken.message)


@pytest.mark.parametrize(("proof", "accepted"), [("", False), ("resident cards of both", True)])
async def test_a_representative_shows_who_both_are(
    world: World, proof: str, accepted: bool
) -> None:
    number, code = await world.issue(HOME, PAYER)
    platform = world.platforms[DISPENSING]
    content = attempt_pb2.Claim(
        prescription_number=number, pharmacy_code=platform.pharmacy.institution_code
    )
    content.collector.kind = attempt_pb2.Collector.KIND_REPRESENTATIVE
    content.collector.identity_proof = proof
    request = ClaimPrescriptionRequest(
        request_id=world.request_id(),
        claim=world.signed(DISPENSING, content),
        pickup_code=code,
    )
    if accepted:
        await claims.claim(platform.exchange, platform.pharmacy, request)
        return
    with pytest.raises(Refusal) as refused:
        await claims.claim(platform.exchange, platform.pharmacy, request)
    assert refused.value.detail["field"] == "collector.identity_proof"
