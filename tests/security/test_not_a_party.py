"""L8 behind the gate: strangers of the right kind, and institutions that are suspended.

Who is no party to a prescription, an attempt, a settlement, a dispense or a request is told that it
does not exist: same reason, same sentence, same details as for one that really does not. Each case
makes the same request twice, about something real and about something made up, and compares.

A suspended institution begins nothing new and finishes what it began (R19).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from rxoutflow.identity import CallerName
from rxoutflow.v1 import (
    attempt_pb2,
    dispense_pb2,
    home_service_pb2,
    hospital_service_pb2,
    payer_service_pb2,
    peer_service_pb2,
    pharmacy_service_pb2,
    prescription_status_pb2,
    settlement_pb2,
)
from rxoutflow.v1.credential_pb2 import ECredential, ECredentialProof
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.domain.errors import Reason
from support.board import Ran
from support.doors import Answer
from support.members import methods
from support.premises import DISPENSING, HOME, PAYER, Call, Premises
from support.sheets import Cast, signed
from support.world import PERSON, World, content_of, priced

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOT_FOUND = {
    Reason.PRESCRIPTION_NOT_FOUND,
    Reason.PICKUP_CODE_INVALID,
    Reason.ATTEMPT_NOT_FOUND,
    Reason.SETTLEMENT_NOT_FOUND,
    Reason.OUTCOME_NOT_FOUND,
}
ABSENT_ID = "019ce000-0000-7000-8000-000000000000"
WRONG_SECRET = "ZZZZZZZZZZZZZZZZ"

desk = pharmacy_service_pb2


@dataclass(frozen=True)
class Affair:
    """Something real, to which the callers here are no party; or made up."""

    number: str
    attempt_id: str
    settlement_id: str
    request_id: str
    person: str
    fence: int = 1


Ask = Callable[[Premises, Affair], Call]


async def real(premises: Premises) -> Affair:
    """A prescription of the home region, dispensed and paid there, with nobody else involved."""
    world = premises.world
    number, code = await world.issue(HOME, HOME)
    request = world.claim_request(HOME, code)
    door = Call(
        HOME, premises.cast(HOME).pharmacy, _path("PharmacyService/ClaimPrescription"), request
    )
    claimed = await _succeeded(premises, door)
    attempt = content_of(claimed.attempt, attempt_pb2.Attempt)
    commit = world.commit_request(HOME, attempt, await world.quote(HOME, attempt))
    await world.commit(HOME, commit)
    settlement_id = content_of(commit.commitment, attempt_pb2.Commitment).settlement_id
    return Affair(number, attempt.attempt_id, settlement_id, request.request_id, PERSON)


def made_up(premises: Premises) -> Affair:
    """The like of it, which does not exist."""
    number = premises.world.prescription(HOME, HOME).prescription_number
    return Affair(number, ABSENT_ID, ABSENT_ID, ABSENT_ID, PERSON)


async def _succeeded(premises: Premises, call: Call) -> Any:
    answer = await premises.make(call)
    assert answer.reason == "OK", answer
    return answer.response


def _path(method: str) -> str:
    return f"/rxoutflow.v1.{method}"


def _signed(
    world: World, cast: Cast, content: Message, audience: str | None = None
) -> SignedStatement:
    return signed(content, cast.sheet(type(content)), at=world.clock.now, audience=audience)


def at_hospitals_desk(method: str) -> Callable[[Callable[[Premises, Affair], Message]], Ask]:
    """Another hospital of the home region asks."""
    return _at(
        HOME, f"HospitalService/{method}", lambda premises: premises.strangers[HOME].hospital
    )


def at_pharmacies_desk(method: str) -> Callable[[Callable[[Premises, Affair], Message]], Ask]:
    """Another pharmacy of the home region asks."""
    return _at(
        HOME, f"PharmacyService/{method}", lambda premises: premises.strangers[HOME].pharmacy
    )


def at_platform(
    method: str, region: str = DISPENSING
) -> Callable[[Callable[[Premises, Affair], Message]], Ask]:
    """The platform of another region asks that of the home region."""
    return _at(HOME, method, lambda premises: premises.region(region).platform)


def _at(
    door: str, method: str, caller: Callable[[Premises], CallerName]
) -> Callable[[Callable[[Premises, Affair], Message]], Ask]:
    def asking(request: Callable[[Premises, Affair], Message]) -> Ask:
        def ask(premises: Premises, affair: Affair) -> Call:
            return Call(door, caller(premises), _path(method), request(premises, affair))

        CASES.append((f"{method}: {request.__name__.replace('_', ' ')}", ask))
        COVERED.add(method)
        return ask

    return asking


CASES: list[tuple[str, Ask]] = []
COVERED: set[str] = set()

# hospitals


@at_hospitals_desk("GetPrescription")
def anothers_prescription(premises: Premises, affair: Affair) -> Message:
    return hospital_service_pb2.GetPrescriptionRequest(prescription_number=affair.number)


@at_hospitals_desk("ListStatements")
def anothers_history(premises: Premises, affair: Affair) -> Message:
    return hospital_service_pb2.HospitalServiceListStatementsRequest(
        prescription_number=affair.number
    )


@at_hospitals_desk("RevokePrescription")
def revoked_by_another_hospital(premises: Premises, affair: Affair) -> Message:
    world, cast = premises.world, premises.strangers[HOME]
    content = prescription_status_pb2.Revocation(
        prescription_number=affair.number,
        institution_code=cast.hospital.institution_code,
        reason="none of its business",
    )
    return hospital_service_pb2.RevokePrescriptionRequest(
        request_id=world.request_id(), revocation=_signed(world, cast, content)
    )


@at_hospitals_desk("GetOutcome")
def anothers_request(premises: Premises, affair: Affair) -> Message:
    return hospital_service_pb2.HospitalServiceGetOutcomeRequest(
        prescription_number=affair.number, request_id=affair.request_id
    )


# pharmacies


def _release(premises: Premises, cast: Cast, affair: Affair) -> SignedStatement:
    content = attempt_pb2.ClaimRelease(
        prescription_number=affair.number,
        attempt_id=affair.attempt_id,
        fence=affair.fence,
        pharmacy_code=cast.pharmacy.institution_code,
        reason="none of its business",
    )
    return _signed(premises.world, cast, content)


def _lines() -> list[settlement_pb2.PricedLine]:
    return priced([attempt_pb2.LineQuantity(line_id=1, quantity=20)])


def _commitment(premises: Premises, cast: Cast, affair: Affair) -> SignedStatement:
    content = attempt_pb2.Commitment(
        prescription_number=affair.number,
        attempt_id=affair.attempt_id,
        fence=affair.fence,
        pharmacy_code=cast.pharmacy.institution_code,
        settlement_id=affair.settlement_id,
        mode=settlement_pb2.SETTLEMENT_MODE_SELF_PAY,
        lines=_lines(),
    )
    return _signed(premises.world, cast, content)


def _record(premises: Premises, cast: Cast, affair: Affair) -> SignedStatement:
    content = dispense_pb2.DispenseRecord(
        prescription_number=affair.number,
        attempt_id=affair.attempt_id,
        fence=affair.fence,
        pharmacy_code=cast.pharmacy.institution_code,
        settlement_id=affair.settlement_id,
        lines=[
            dispense_pb2.DispensedLine(
                line_id=line.line_id,
                drug_code=line.drug_code,
                quantity=line.quantity,
                batch_numbers=["B1"],
                trace_codes=[dispense_pb2.TraceCode(code="1" * 20)],
            )
            for line in _lines()
        ],
    )
    content.dispense_time.FromDatetime(premises.world.clock.now)
    return _signed(premises.world, cast, content)


@at_pharmacies_desk("ReleaseClaim")
def anothers_claim_let_go(premises: Premises, affair: Affair) -> Message:
    release = _release(premises, premises.strangers[HOME], affair)
    return desk.ReleaseClaimRequest(request_id=premises.world.request_id(), release=release)


@at_pharmacies_desk("CommitClaim")
def anothers_claim_committed(premises: Premises, affair: Affair) -> Message:
    commitment = _commitment(premises, premises.strangers[HOME], affair)
    return desk.CommitClaimRequest(request_id=premises.world.request_id(), commitment=commitment)


@at_pharmacies_desk("RecordDispense")
def anothers_handover_recorded(premises: Premises, affair: Affair) -> Message:
    record = _record(premises, premises.strangers[HOME], affair)
    return desk.RecordDispenseRequest(
        request_id=premises.world.request_id(), dispense_record=record
    )


@at_pharmacies_desk("ReturnDispense")
def anothers_handover_returned(premises: Premises, affair: Affair) -> Message:
    world, cast = premises.world, premises.strangers[HOME]
    content = dispense_pb2.DispenseReturn(
        reversal_id=world.request_id(),
        prescription_number=affair.number,
        attempt_id=affair.attempt_id,
        pharmacy_code=cast.pharmacy.institution_code,
        settlement_id=world.request_id(),
        cause=dispense_pb2.DispenseReturn.CAUSE_PATIENT,
        lines=[dispense_pb2.ReturnedLine(line_id=1, quantity=1)],
        reason="none of its business",
    )
    content.return_time.FromDatetime(world.clock.now)
    return desk.ReturnDispenseRequest(
        request_id=world.request_id(), dispense_return=_signed(world, cast, content)
    )


@at_pharmacies_desk("UpdateDelivery")
def anothers_delivery_brought_on(premises: Premises, affair: Affair) -> Message:
    world, cast = premises.world, premises.strangers[HOME]
    content = dispense_pb2.DeliveryUpdate(
        prescription_number=affair.number,
        settlement_id=affair.settlement_id,
        pharmacy_code=cast.pharmacy.institution_code,
        state=dispense_pb2.Delivery.STATE_SIGNED_FOR,
        carrier="courier",
    )
    content.state_time.FromDatetime(world.clock.now)
    return desk.UpdateDeliveryRequest(
        request_id=world.request_id(), delivery_update=_signed(world, cast, content)
    )


@at_pharmacies_desk("GetDispense")
def anothers_dispense(premises: Premises, affair: Affair) -> Message:
    return desk.GetDispenseRequest(prescription_number=affair.number, attempt_id=affair.attempt_id)


@at_pharmacies_desk("ListStatements")
def the_history_of_anothers_attempt(premises: Premises, affair: Affair) -> Message:
    return desk.PharmacyServiceListStatementsRequest(prescription_number=affair.number)


@at_pharmacies_desk("QuoteSettlement")
def anothers_attempt_quoted(premises: Premises, affair: Affair) -> Message:
    return desk.QuoteSettlementRequest(
        prescription_number=affair.number, attempt_id=affair.attempt_id, lines=_lines()
    )


@at_pharmacies_desk("GetOutcome")
def anothers_request_asked_for(premises: Premises, affair: Affair) -> Message:
    return desk.PharmacyServiceGetOutcomeRequest(
        prescription_number=affair.number, request_id=affair.request_id
    )


def _code(affair: Affair) -> str:
    return f"{affair.number}.{WRONG_SECRET}"


@at_pharmacies_desk("FindPrescription")
def found_with_a_wrong_code(premises: Premises, affair: Affair) -> Message:
    return desk.FindPrescriptionRequest(pickup_code=_code(affair))


@at_pharmacies_desk("ClaimPrescription")
def claimed_with_a_wrong_code(premises: Premises, affair: Affair) -> Message:
    return desk.ClaimPrescriptionRequest(
        request_id=premises.world.request_id(),
        claim=_claim(premises, premises.strangers[HOME], affair),
        pickup_code=_code(affair),
    )


@at_pharmacies_desk("QuoteSettlement")
def quoted_with_a_wrong_code(premises: Premises, affair: Affair) -> Message:
    return desk.QuoteSettlementRequest(
        prescription_number=affair.number, pickup_code=_code(affair), lines=_lines()
    )


def _claim(premises: Premises, cast: Cast, affair: Affair) -> SignedStatement:
    content = attempt_pb2.Claim(
        prescription_number=affair.number, pharmacy_code=cast.pharmacy.institution_code
    )
    content.collector.kind = attempt_pb2.Collector.KIND_PATIENT
    return _signed(premises.world, cast, content)


def _anothers_token(premises: Premises, cast: Cast, affair: Affair) -> ECredentialProof:
    """An honest token of another person, for a prescription that is not that person's."""
    content = ECredential(
        credential_id=premises.world.request_id(),
        insured_person_id="SOMEBODY-ELSE",
        payer_region_code=HOME,
        pharmacy_code=cast.pharmacy.institution_code,
    )
    now = premises.world.clock.now
    content.issue_time.FromDatetime(now)
    content.expire_time.FromSeconds(int(now.timestamp()) + 600)
    token = premises.world.signed(HOME, content)
    return ECredentialProof(prescription_number=affair.number, token=token)


@at_pharmacies_desk("FindPrescription")
def found_with_anothers_e_credential(premises: Premises, affair: Affair) -> Message:
    proof = _anothers_token(premises, premises.strangers[HOME], affair)
    return desk.FindPrescriptionRequest(e_credential=proof)


@at_pharmacies_desk("ClaimPrescription")
def claimed_with_anothers_e_credential(premises: Premises, affair: Affair) -> Message:
    cast = premises.strangers[HOME]
    return desk.ClaimPrescriptionRequest(
        request_id=premises.world.request_id(),
        claim=_claim(premises, cast, affair),
        e_credential=_anothers_token(premises, cast, affair),
    )


@at_pharmacies_desk("QuoteSettlement")
def quoted_with_anothers_e_credential(premises: Premises, affair: Affair) -> Message:
    proof = _anothers_token(premises, premises.strangers[HOME], affair)
    return desk.QuoteSettlementRequest(
        prescription_number=affair.number, e_credential=proof, lines=_lines()
    )


# platforms


@at_platform("HomeService/OpenPrescription")
def opened_with_a_wrong_code(premises: Premises, affair: Affair) -> Message:
    return home_service_pb2.OpenPrescriptionRequest(
        pharmacy_code=premises.cast(DISPENSING).pharmacy.institution_code, pickup_code=_code(affair)
    )


@at_platform("HomeService/OpenPrescription")
def opened_with_anothers_e_credential(premises: Premises, affair: Affair) -> Message:
    cast = premises.cast(DISPENSING)
    return home_service_pb2.OpenPrescriptionRequest(
        pharmacy_code=cast.pharmacy.institution_code,
        e_credential=_anothers_token(premises, cast, affair),
    )


@at_platform("HomeService/GrantClaim")
def granted_with_a_wrong_code(premises: Premises, affair: Affair) -> Message:
    return home_service_pb2.GrantClaimRequest(
        request_id=premises.world.request_id(),
        claim=_claim(premises, premises.cast(DISPENSING), affair),
        pickup_code=_code(affair),
    )


@at_platform("HomeService/GrantClaim")
def granted_with_anothers_e_credential(premises: Premises, affair: Affair) -> Message:
    cast = premises.cast(DISPENSING)
    return home_service_pb2.GrantClaimRequest(
        request_id=premises.world.request_id(),
        claim=_claim(premises, cast, affair),
        e_credential=_anothers_token(premises, cast, affair),
    )


def _commit_attempt(premises: Premises, cast: Cast, affair: Affair) -> Message:
    return home_service_pb2.CommitAttemptRequest(
        request_id=premises.world.request_id(), commitment=_commitment(premises, cast, affair)
    )


def _release_attempt(premises: Premises, cast: Cast, affair: Affair) -> Message:
    return home_service_pb2.ReleaseAttemptRequest(
        request_id=premises.world.request_id(), release=_release(premises, cast, affair)
    )


@at_platform("HomeService/CommitAttempt")
def committed_for_a_pharmacy_of_another_region(premises: Premises, affair: Affair) -> Message:
    return _commit_attempt(premises, premises.cast(DISPENSING), affair)


@at_platform("HomeService/CommitAttempt", HOME)
def committed_for_another_pharmacy_of_the_same_region(
    premises: Premises, affair: Affair
) -> Message:
    return _commit_attempt(premises, premises.strangers[HOME], affair)


@at_platform("HomeService/ReleaseAttempt")
def released_for_a_pharmacy_of_another_region(premises: Premises, affair: Affair) -> Message:
    return _release_attempt(premises, premises.cast(DISPENSING), affair)


@at_platform("HomeService/ReleaseAttempt", HOME)
def released_for_another_pharmacy_of_the_same_region(premises: Premises, affair: Affair) -> Message:
    return _release_attempt(premises, premises.strangers[HOME], affair)


@at_platform("HomeService/ReleaseAttempt")
def released_with_the_claimants_own_words(premises: Premises, affair: Affair) -> Message:
    return _release_attempt(premises, premises.cast(HOME), affair)


@at_platform("HomeService/GetAttempt")
def anothers_attempt(premises: Premises, affair: Affair) -> Message:
    return home_service_pb2.GetAttemptRequest(
        prescription_number=affair.number, attempt_id=affair.attempt_id
    )


@at_platform("PayerService/GetSettlement")
def anothers_settlement(premises: Premises, affair: Affair) -> Message:
    return payer_service_pb2.GetSettlementRequest(
        insured_person_id=affair.person, settlement_id=affair.settlement_id
    )


# facts told by platforms that they do not concern


def _told(
    premises: Premises, affair: Affair, statement: SignedStatement, person: str = ""
) -> Message:
    event = peer_service_pb2.PeerEvent(
        event_id=premises.world.request_id(),
        prescription_number=affair.number,
        insured_person_id=person,
        statement=statement,
    )
    return peer_service_pb2.DeliverEventsRequest(events=[event])


@at_platform("PeerService/DeliverEvents")
def a_handover_told_by_another_region(premises: Premises, affair: Affair) -> Message:
    return _told(premises, affair, _record(premises, premises.cast(DISPENSING), affair))


@at_platform("PeerService/DeliverEvents")
def a_handover_to_pay_told_by_another_region(premises: Premises, affair: Affair) -> Message:
    record = _record(premises, premises.cast(DISPENSING), affair)
    return _told(premises, affair, record, affair.person)


@at_platform("PeerService/DeliverEvents", PAYER)
def a_settlement_told_by_a_region_that_does_not_pay(premises: Premises, affair: Affair) -> Message:
    content = settlement_pb2.Settlement(
        settlement_id=affair.settlement_id,
        attempt_id=affair.attempt_id,
        prescription_number=affair.number,
        payer_region_code=PAYER,
        dispensing_region_code=HOME,
        pharmacy_code=premises.cast(HOME).pharmacy.institution_code,
        state=settlement_pb2.Settlement.STATE_POSTED,
    )
    return _told(premises, affair, premises.world.signed(PAYER, content))


WITHOUT_OBJECT = {
    "HospitalService/RegisterPrescription": "whoever signed it is its issuer",
    "HospitalService/BatchRegisterPrescriptions": "as RegisterPrescription",
    "HospitalService/StreamRegisterPrescriptions": "as RegisterPrescription",
    "HospitalService/ListPrescriptions": "lists the caller's own: see below",
    "HospitalService/WatchNotices": "tells the caller's own: see below",
    "PharmacyService/PresentECredential": "whoever scans the code",
    "PharmacyService/ListDispenses": "lists the caller's own: see below",
    "PharmacyService/WatchNotices": "tells the caller's own: see below",
    "PharmacyService/CorrectCall": "what is another's looks like nothing: see below",
    "HomeService/CorrectAttempt": "what is another's looks like nothing: see below",
    "PeerService/SellTraceCodes": "whoever sells the box first",
    "PeerService/TakeBackTraceCodes": "what another sold is left as it is: see below",
    "PharmacyService/ReconcileDay": "compares with the caller's own book",
    "ClearingService/ReconcileDay": "compares with the book about the caller",
    "ClearingService/ProposeClearing": "compares with the book about the caller",
    "ClearingService/ClearPeriod": "clears the region's own book",
    "AdministrationService/ListOverdueAttempts": "lists the region's own",
    "AdministrationService/AdjudicateAttempt": "operators see all of their region; two people sign",
    "AdministrationService/ListDeadLetters": "lists the region's own",
    "AdministrationService/RetryDeadLetter": "the region's own outbox",
    "AdministrationService/DiscardDeadLetter": "the region's own outbox",
}
"""Methods with a relation that have no object to which somebody could be a stranger."""


def told(answer: Answer) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Everything that a refusal says."""
    status = answer.status
    if isinstance(answer.response, peer_service_pb2.DeliverEventsResponse):
        (acknowledgement,) = answer.response.acknowledgements
        status = acknowledgement.error if acknowledgement.HasField("error") else None
    if status is None:
        return "OK", "", ()
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return str(info.reason), str(status.message), tuple(sorted(info.metadata.items()))


@pytest.mark.parametrize(("ask"), [ask for _, ask in CASES], ids=[name for name, _ in CASES])
async def test_a_stranger_hears_what_would_be_said_if_there_were_nothing(
    premises: Premises, ask: Ask
) -> None:
    affair = await real(premises)
    before = premises.state()
    about_real = told(await premises.make(ask(premises, affair)))
    changed = premises.changes(before)
    about_nothing = told(await premises.make(ask(premises, made_up(premises))))
    assert about_real[0] in NOT_FOUND
    assert about_real == about_nothing
    assert changed <= {f"{HOME}.pickup_tries"}


async def test_every_method_with_an_object_has_met_a_stranger(ran: Ran) -> None:
    tied = {
        name
        for name in methods()
        if not name.startswith(("HisService", "PosService", "SupervisionService"))
    }
    missing = tied - COVERED - set(WITHOUT_OBJECT)
    assert missing == {
        "HospitalService/PrecheckPrescription",  # has no effect and no object
        "PayerService/IssueECredential",  # whoever scans the code
        "PayerService/QuoteBenefit",  # computes from what the caller brings
        "PayerService/HoldBenefit",  # below
        "PeerService/GetTrustList",  # public
        "PeerService/GetCheckpoint",  # public among platforms
    }
    ran("L8 strangers", len(CASES), 28)


@pytest.mark.parametrize("position", range(16))
async def test_every_character_of_a_pickup_code_counts(premises: Premises, position: int) -> None:
    call = premises.calls[_path("PharmacyService/FindPrescription")][0]
    request: Any = call.request
    number, _, secret = request.pickup_code.partition(".")
    other = "0" if secret[position] != "0" else "1"
    wrong = f"{number}.{secret[:position]}{other}{secret[position + 1 :]}"
    answer = await premises.make(
        replace(call, request=desk.FindPrescriptionRequest(pickup_code=wrong))
    )
    assert answer.reason == Reason.PICKUP_CODE_INVALID


async def test_a_platform_holds_nothing_for_pharmacies_of_another_region(
    premises: Premises,
) -> None:
    """Not even if it got hold of every statement, nor for a settlement that exists already."""
    (call,) = premises.calls[_path("PayerService/HoldBenefit")]
    request: Any = call.request
    stranger = Call(PAYER, premises.region(HOME).platform, call.method, request)
    refused = told(await premises.make(stranger))
    assert refused[0] == Reason.CALLER_REGION_NOT_ALLOWED
    await _succeeded(premises, call)
    assert told(await premises.make(stranger)) == refused


@pytest.mark.parametrize("at_home", [False, True])
async def test_who_corrects_anothers_call_hears_what_would_be_said_of_none(
    premises: Premises, at_home: bool
) -> None:
    """And the call is as it was."""
    affair = await real(premises)
    before = premises.state()
    heard: list[Any] = []
    for each in (affair, made_up(premises)):
        answer = await premises.make(_correction(premises, each, at_home=at_home))
        assert answer.reason == "OK"
        heard.append(answer.response)
    assert heard[0] == heard[1]
    assert heard[0].outcome == attempt_pb2.CORRECTION_OUTCOME_NOTHING_TO_UNDO
    kept = {"certificates", "log_checkpoints", "log_leaves", "outcomes", "statements", "steps"}
    assert premises.changes(before) <= {
        f"{region}.{table}" for region in (HOME, DISPENSING) for table in kept
    }


def _correction(premises: Premises, affair: Affair, *, at_home: bool) -> Call:
    world = premises.world
    cast = premises.cast(DISPENSING) if at_home else premises.strangers[HOME]
    content = attempt_pb2.Correction(
        prescription_number=affair.number,
        corrected_request_id=affair.request_id,
        pharmacy_code=cast.pharmacy.institution_code,
        reason="none of its business",
    )
    signed_correction = _signed(world, cast, content)
    request_id = world.request_id()
    if at_home:
        method = _path("HomeService/CorrectAttempt")
        asked = home_service_pb2.CorrectAttemptRequest(
            request_id=request_id, correction=signed_correction
        )
        return Call(HOME, premises.region(DISPENSING).platform, method, asked)
    request = desk.CorrectCallRequest(request_id=request_id, correction=signed_correction)
    return Call(HOME, cast.pharmacy, _path("PharmacyService/CorrectCall"), request)


async def test_who_takes_anothers_box_back_changes_nothing(premises: Premises) -> None:
    (call,) = premises.calls[_path("PeerService/TakeBackTraceCodes")]
    own: Any = call.request
    cast = premises.cast(PAYER)
    taking = type(own)(
        request_id=premises.world.request_id(),
        prescription_number=own.prescription_number,
        attempt_id=own.attempt_id,
        pharmacy_code=cast.pharmacy.institution_code,
        codes=own.codes,
    )
    before = premises.state()
    await _succeeded(premises, Call(HOME, cast.region.platform, call.method, taking))
    assert premises.changes(before) == {f"{HOME}.outcomes"}
    premises.restore()


async def test_lists_and_notices_are_the_callers_own(premises: Premises) -> None:
    await real(premises)
    strangers = premises.strangers[HOME]
    for method, caller in [
        ("HospitalService/ListPrescriptions", strangers.hospital),
        ("PharmacyService/ListDispenses", strangers.pharmacy),
    ]:
        (call,) = premises.calls[_path(method)]
        response = await _succeeded(
            premises, Call(HOME, caller, call.method, type(call.request)(page_size=500))
        )
        assert response.ByteSize() == 0, method
    for method, caller in [
        ("HospitalService/WatchNotices", strangers.hospital),
        ("PharmacyService/WatchNotices", strangers.pharmacy),
    ]:
        (call,) = premises.calls[_path(method)]
        answer = await premises.make(Call(HOME, caller, call.method, type(call.request)()))
        assert (answer.reason, answer.written) == ("OK", ())


# suspended institutions

NEW = {
    "HospitalService/RegisterPrescription",
    "HospitalService/BatchRegisterPrescriptions",
    "HospitalService/StreamRegisterPrescriptions",
    "HisService/IssuePrescription",
    "PharmacyService/PresentECredential",
    "PharmacyService/FindPrescription",
    "PharmacyService/ClaimPrescription",
    "PharmacyService/QuoteSettlement (pickup code)",
    "PosService/PresentECredential",
    "PosService/FindPrescription",
    "PosService/ClaimPrescription",
    "HomeService/OpenPrescription",
    "HomeService/GrantClaim",
    "PayerService/IssueECredential",
}
"""What begins something, by hand. Everything else finishes, looks, or is another's."""


async def test_a_suspended_institution_begins_nothing_and_finishes_what_it_began(
    premises: Premises, ran: Ran
) -> None:
    names = {HOME: premises.cast(HOME).hospital, DISPENSING: premises.cast(DISPENSING).pharmacy}
    await _standing(premises, names, Institution.STATUS_SUSPENDED)
    outcomes: dict[str, str] = {}
    try:
        for call in premises.all_calls():
            outcomes[call.name] = _outcome(await premises.make(call))
            premises.restore()
    finally:
        await _standing(premises, names, Institution.STATUS_ACTIVE)
    new = NEW | {f"{name} (e-credential)" for name in NEW}
    expected = {
        name: str(Reason.INSTITUTION_NOT_ACTIVE) if name in new else "OK" for name in outcomes
    }
    assert outcomes == expected
    ran("L8 calls of suspended institutions", len(outcomes), 55)


async def test_nothing_is_accepted_of_an_institution_that_has_withdrawn(
    premises: Premises,
) -> None:
    """Its statements are refused, too, whoever forwards them."""
    names = {DISPENSING: premises.cast(DISPENSING).pharmacy}
    await _standing(premises, names, Institution.STATUS_WITHDRAWN)
    try:
        for method, expected in {
            "PharmacyService/CommitClaim": Reason.INSTITUTION_NOT_ACTIVE,
            "PosService/RecordDispense": Reason.INSTITUTION_NOT_ACTIVE,
            "HomeService/GrantClaim": Reason.SIGNER_UNTRUSTED,
            "HomeService/CommitAttempt": Reason.SIGNER_UNTRUSTED,
            "HomeService/ReleaseAttempt": Reason.SIGNER_UNTRUSTED,
            "PayerService/HoldBenefit": Reason.SIGNER_UNTRUSTED,
        }.items():
            call = premises.calls[_path(method)][0]
            assert _outcome(await premises.make(call)) == expected, method
    finally:
        await _standing(premises, names, Institution.STATUS_ACTIVE)


async def _standing(
    premises: Premises, names: dict[str, CallerName], status: Institution.Status.ValueType
) -> None:
    for code, name in names.items():
        premises.region(code).entry(name).status = status
    premises.publish()


def _outcome(answer: Answer) -> str:
    if isinstance(answer.response, hospital_service_pb2.BatchRegisterPrescriptionsResponse):
        (result,) = answer.response.results
        return told(Answer(result.error))[0] if result.HasField("error") else "OK"
    if isinstance(answer.response, hospital_service_pb2.StreamRegisterPrescriptionsResponse):
        streamed = answer.response
        return told(Answer(streamed.error))[0] if streamed.HasField("error") else "OK"
    return told(answer)[0]
