"""One request to every method of the contract that would succeed, each kept until it is made.

Requests that one platform makes of another are taken from the real flow: the work is done up to the
call, which is withheld. Every request is about a prescription of its own, so none disturbs another.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any, TypeVar

from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.statements import statement_sha256
from rxoutflow.v1 import (
    administration_service_pb2,
    attempt_pb2,
    clearing_pb2,
    clearing_service_pb2,
    dispense_pb2,
    his_service_pb2,
    home_service_pb2,
    hospital_service_pb2,
    payer_service_pb2,
    peer_service_pb2,
    pharmacy_service_pb2,
    pos_service_pb2,
    prescription_pb2,
    prescription_status_pb2,
    settlement_pb2,
    supervision_service_pb2,
)
from rxoutflow.v1.credential_pb2 import ECredential, ECredentialProof
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.clearing import stating
from rxoutflow_server.application.dispensing import claims, settling
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.credential_codes import CredentialCodes
from support.premises import (
    DISPENSING,
    HIS,
    HOME,
    PAYER,
    POS,
    STATEMENTS,
    Call,
    Premises,
    operator,
    regulator,
)
from support.sheets import signed
from support.world import PERSON, World, content_of, person, priced

M = TypeVar("M", bound=Message)
Attempt = attempt_pb2.Attempt
Amounts = settlement_pb2.Amounts
SECRET = "0123456789ABCDEF"

_people = count(1001)

_DAY, _PERIOD = "2026-02-27", "2026-02"
"""A day and a month that are over at the time of the tests."""


async def prepared() -> Premises:
    """The servers with everything that the requests are about, and the requests."""
    premises = Premises.open()
    for fill in (
        _hospital,
        _collecting,
        _claimed,
        _dispensed,
        _peers,
        _events,
        _trace_codes,
        _clearing,
        _supervision,
        _administration,
        _his,
        _pos,
    ):
        await fill(premises)
    await premises.remember()
    return premises


def _add(
    premises: Premises,
    door: str,
    caller: CallerName,
    method: str,
    request: Message,
    variant: str = "",
) -> None:
    path = f"/rxoutflow.v1.{method}"
    premises.calls.setdefault(path, []).append(Call(door, caller, path, request, variant))


async def _done(
    premises: Premises, door: str, caller: CallerName, method: str, request: Message
) -> Any:
    """Make a call that has to succeed now; its response."""
    answer = await premises.make(Call(door, caller, f"/rxoutflow.v1.{method}", request))
    assert answer.reason == "OK", f"{method}: {answer.reason} {answer.message}"
    return answer.response


def _registration(world: World) -> hospital_service_pb2.RegisterPrescriptionRequest:
    content = world.prescription(HOME, PAYER, lines=2)
    return hospital_service_pb2.RegisterPrescriptionRequest(
        request_id=world.request_id(),
        prescription=world.signed(HOME, content),
        pickup_secret=SECRET,
    )


def _revocation(world: World, number: str) -> prescription_status_pb2.Revocation:
    code = world.platforms[HOME].hospital.institution_code
    return prescription_status_pb2.Revocation(
        prescription_number=number, institution_code=code, reason="wrong dose"
    )


async def _hospital(premises: Premises) -> None:
    world = premises.world
    hospital = world.platforms[HOME].hospital
    messages = hospital_service_pb2

    def add(method: str, request: Message) -> None:
        _add(premises, HOME, hospital, f"HospitalService/{method}", request)

    number, _ = await _issue(world)
    registered = _registration(world)
    await _done(premises, HOME, hospital, "HospitalService/RegisterPrescription", registered)
    add(
        "PrecheckPrescription",
        messages.PrecheckPrescriptionRequest(prescription=world.prescription(HOME, PAYER, lines=2)),
    )
    add("RegisterPrescription", _registration(world))
    add(
        "BatchRegisterPrescriptions",
        messages.BatchRegisterPrescriptionsRequest(requests=[_registration(world)]),
    )
    add(
        "StreamRegisterPrescriptions",
        messages.StreamRegisterPrescriptionsRequest(registration=_registration(world)),
    )
    revocation = world.signed(HOME, _revocation(world, number))
    add(
        "RevokePrescription",
        messages.RevokePrescriptionRequest(request_id=world.request_id(), revocation=revocation),
    )
    add("GetPrescription", messages.GetPrescriptionRequest(prescription_number=number))
    history = messages.HospitalServiceListStatementsRequest(
        prescription_number=number, page_size=10, page_token="0"
    )
    add("ListStatements", history)
    add("ListPrescriptions", messages.ListPrescriptionsRequest(page_size=10, page_token="9" * 30))
    add("WatchNotices", messages.HospitalServiceWatchNoticesRequest(resume_token="1"))
    outcome = messages.HospitalServiceGetOutcomeRequest(
        prescription_number=_number(registered.prescription, prescription_pb2.Prescription),
        request_id=registered.request_id,
    )
    add("GetOutcome", outcome)


async def _collecting(premises: Premises) -> None:
    """What a pharmacy asks with a proof of the right to collect."""
    world = premises.world
    pharmacy = world.platforms[DISPENSING].pharmacy
    messages = pharmacy_service_pb2

    def add(method: str, request: Message, variant: str = "") -> None:
        _add(premises, DISPENSING, pharmacy, f"PharmacyService/{method}", request, variant)

    number, code = await _issue(world, PERSON)
    token = await _token(premises)
    proof = ECredentialProof(prescription_number=number, token=token)
    shown = messages.PresentECredentialRequest(credential_code=_credential_code(premises))
    add("PresentECredential", shown)
    add("FindPrescription", messages.FindPrescriptionRequest(pickup_code=code))
    add("FindPrescription", messages.FindPrescriptionRequest(e_credential=proof), "e-credential")
    _, code = await _issue(world)
    add("ClaimPrescription", _claim(world, code))
    number, code = await _issue(world, PERSON)
    by_credential = _claim(world, code)
    by_credential.e_credential.prescription_number = number
    by_credential.e_credential.token.CopyFrom(token)
    add("ClaimPrescription", by_credential, "e-credential")
    number, code = await _issue(world)
    quote = messages.QuoteSettlementRequest(
        prescription_number=number, pickup_code=code, lines=_both_lines()
    )
    add("QuoteSettlement", quote, "pickup code")


async def _claimed(premises: Premises) -> None:
    """What a pharmacy asks about its claims, up to the commit."""
    world = premises.world
    pharmacy = world.platforms[DISPENSING].pharmacy
    messages = pharmacy_service_pb2

    def add(method: str, request: Message, variant: str = "") -> None:
        _add(premises, DISPENSING, pharmacy, f"PharmacyService/{method}", request, variant)

    attempt = await _claimed_attempt(world)
    quote = messages.QuoteSettlementRequest(
        prescription_number=attempt.prescription_number,
        attempt_id=attempt.attempt_id,
        lines=priced(attempt.lines),
    )
    add("QuoteSettlement", quote)
    attempt = await _claimed_attempt(world)
    add("CommitClaim", await _commitment(world, attempt))
    attempt = await _claimed_attempt(world)
    add("CommitClaim", world.commit_request(DISPENSING, attempt, None), "self-pay")
    for variant, correction in await _corrections(world):
        add("CorrectCall", correction, variant)
    attempt = await _claimed_attempt(world)
    release = world.signed(DISPENSING, _release(attempt))
    add(
        "ReleaseClaim",
        messages.ReleaseClaimRequest(request_id=world.request_id(), release=release),
    )


async def _dispensed(premises: Premises) -> None:
    """What a pharmacy asks about its dispenses."""
    world = premises.world
    pharmacy = world.platforms[DISPENSING].pharmacy
    messages = pharmacy_service_pb2

    def add(method: str, request: Message) -> None:
        _add(premises, DISPENSING, pharmacy, f"PharmacyService/{method}", request)

    committed = await _committed(world)
    add("RecordDispense", world.record_request(DISPENSING, committed.commitment))
    done = await _committed(world)
    record = world.record_request(DISPENSING, done.commitment)
    await world.record(DISPENSING, record)
    content = content_of(done.commitment, attempt_pb2.Commitment)
    number = content.prescription_number
    get = messages.GetDispenseRequest(prescription_number=number, attempt_id=content.attempt_id)
    add("GetDispense", get)
    history = messages.PharmacyServiceListStatementsRequest(
        prescription_number=number, page_size=10, page_token="0"
    )
    add("ListStatements", history)
    add("ListDispenses", messages.ListDispensesRequest(page_size=10, page_token="g"))
    add("ReturnDispense", world.return_request(DISPENSING, await _recorded(world)))
    add("UpdateDelivery", await _under_way(world))
    add("WatchNotices", messages.PharmacyServiceWatchNoticesRequest(resume_token="1"))
    outcome = messages.PharmacyServiceGetOutcomeRequest(
        prescription_number=number, request_id=record.request_id
    )
    add("GetOutcome", outcome)


async def _peers(premises: Premises) -> None:
    """What the dispensing region's platform asks of home and payer."""
    world = premises.world
    platform = world.platforms[DISPENSING]
    exchange, pharmacy, itself = platform.exchange, platform.pharmacy, _itself(premises, DISPENSING)

    def add(door: str, method: str, request: Message, variant: str = "") -> None:
        _add(premises, door, itself, method, request, variant)

    number, code = await _issue(world, PERSON)
    find = pharmacy_service_pb2.FindPrescriptionRequest(pickup_code=code)
    asked = await premises.withhold("open_prescription", claims.find(exchange, pharmacy, find))
    add(HOME, "HomeService/OpenPrescription", asked)
    proof = ECredentialProof(prescription_number=number, token=await _token(premises))
    find = pharmacy_service_pb2.FindPrescriptionRequest(e_credential=proof)
    asked = await premises.withhold("open_prescription", claims.find(exchange, pharmacy, find))
    add(HOME, "HomeService/OpenPrescription", asked, "e-credential")
    _, code = await _issue(world)
    claim = claims.claim(exchange, pharmacy, _claim(world, code))
    add(HOME, "HomeService/GrantClaim", await premises.withhold("grant_claim", claim))
    attempt = await _claimed_attempt(world)
    commit = settling.commit(exchange, pharmacy, await _commitment(world, attempt))
    add(PAYER, "PayerService/HoldBenefit", await premises.withhold("hold_benefit", commit))
    attempt = await _claimed_attempt(world, PERSON)
    request = await _commitment(world, attempt)
    commit = settling.commit(exchange, pharmacy, request)
    add(HOME, "HomeService/CommitAttempt", await premises.withhold("commit_attempt", commit))
    settlement_id = content_of(request.commitment, attempt_pb2.Commitment).settlement_id
    settlement = payer_service_pb2.GetSettlementRequest(
        insured_person_id=PERSON, settlement_id=settlement_id
    )
    add(PAYER, "PayerService/GetSettlement", settlement)
    found = home_service_pb2.GetAttemptRequest(
        prescription_number=attempt.prescription_number, attempt_id=attempt.attempt_id
    )
    add(HOME, "HomeService/GetAttempt", found)
    for variant, correction in await _corrections(world):
        correct = world.correct(DISPENSING, correction)
        asked = await premises.withhold("correct_attempt", correct)
        add(HOME, "HomeService/CorrectAttempt", asked, variant)
    attempt = await _claimed_attempt(world)
    release = world.release(DISPENSING, attempt)
    add(HOME, "HomeService/ReleaseAttempt", await premises.withhold("release_attempt", release))
    attempt = await _claimed_attempt(world)
    quote = world.quote(DISPENSING, attempt)
    add(PAYER, "PayerService/QuoteBenefit", await premises.withhold("quote_benefit", quote))
    shown = pharmacy_service_pb2.PresentECredentialRequest(
        credential_code=_credential_code(premises)
    )
    present = claims.present_e_credential(exchange, pharmacy, shown)
    asked = await premises.withhold("issue_e_credential", present)
    add(PAYER, "PayerService/IssueECredential", asked)
    add(HOME, "PeerService/GetTrustList", peer_service_pb2.GetTrustListRequest(region_code=PAYER))


async def _events(premises: Premises) -> None:
    """Every kind of fact that a platform tells another, just before it is told."""
    world = premises.world
    await world.settle()
    number, code = await _issue(world)
    _tell(premises, HOME, PAYER, number, "index")
    attempt = await world.claim(DISPENSING, code)
    await _revoke(premises, number)
    _tell(premises, HOME, DISPENSING, number, "marked for revocation")
    await world.release(DISPENSING, attempt)
    _tell(premises, HOME, DISPENSING, number, "released")
    committed = await _committed(world)
    content = content_of(committed.commitment, attempt_pb2.Commitment)
    await world.record(DISPENSING, world.record_request(DISPENSING, committed.commitment))
    _tell(premises, DISPENSING, HOME, content.prescription_number, "book")
    _tell(premises, DISPENSING, PAYER, content.prescription_number, "post")
    held = await _committed(world)
    content = content_of(held.commitment, attempt_pb2.Commitment)
    await world.release(DISPENSING, _reference(content))
    _tell(premises, HOME, PAYER, content.prescription_number, "void", Attempt)
    posted = await _committed(world)
    content = content_of(posted.commitment, attempt_pb2.Commitment)
    await world.record(DISPENSING, world.record_request(DISPENSING, posted.commitment))
    for origin, to in ((DISPENSING, PAYER), (DISPENSING, HOME), (HOME, PAYER)):
        await _deliver(premises, origin, to, content.prescription_number)
    _tell(premises, PAYER, HOME, content.prescription_number, "settled")
    _tell(premises, PAYER, DISPENSING, content.prescription_number, "paid")
    number = await _paid_and_returned(premises)
    _tell(premises, DISPENSING, HOME, number, "returned")
    _tell(premises, DISPENSING, PAYER, number, "to be reversed")
    number = await _paid_and_returned(premises)
    for to in (HOME, PAYER):
        await _deliver(premises, DISPENSING, to, number)
    status = prescription_status_pb2.PrescriptionStatus
    _tell(premises, HOME, DISPENSING, number, "return booked", status)
    _tell(premises, PAYER, HOME, number, "reversed", settlement_pb2.Reversal)
    _tell(premises, PAYER, DISPENSING, number, "given back", settlement_pb2.Reversal)


async def _recorded(world: World, **changes: Any) -> SignedStatement:
    """The record of a handover, stored in the dispensing region."""
    committed = await _committed(world)
    request = world.record_request(DISPENSING, committed.commitment, **changes)
    await world.record(DISPENSING, request)
    return request.dispense_record


async def _under_way(world: World) -> pharmacy_service_pb2.UpdateDeliveryRequest:
    """That a courier has taken what was recorded as packed."""
    packed = dispense_pb2.Delivery(state=dispense_pb2.Delivery.STATE_READY, fee_fen=600)
    record = content_of(await _recorded(world, delivery=packed), dispense_pb2.DispenseRecord)
    content = dispense_pb2.DeliveryUpdate(
        prescription_number=record.prescription_number,
        settlement_id=record.settlement_id,
        pharmacy_code=record.pharmacy_code,
        state=dispense_pb2.Delivery.STATE_DISPATCHED,
        carrier="courier",
        parcel_number="1",
    )
    content.state_time.FromDatetime(world.clock.now)
    return pharmacy_service_pb2.UpdateDeliveryRequest(
        request_id=world.request_id(), delivery_update=world.signed(DISPENSING, content)
    )


async def _paid_and_returned(premises: Premises) -> str:
    """A prescription that was handed over and paid, and of which everything just came back."""
    world = premises.world
    record = await _recorded(world)
    number = content_of(record, dispense_pb2.DispenseRecord).prescription_number
    for origin, to in (
        (DISPENSING, PAYER),
        (DISPENSING, HOME),
        (HOME, PAYER),
        (PAYER, DISPENSING),
        (PAYER, HOME),
        (HOME, DISPENSING),
    ):
        await _deliver(premises, origin, to, number)
    await world.take_back(DISPENSING, world.return_request(DISPENSING, record))
    return number


async def _trace_codes(premises: Premises) -> None:
    """What a platform asks the registrar of a box, and the receipt that it shows the payer."""
    world = premises.world
    itself, messages = _itself(premises, DISPENSING), peer_service_pb2
    committed = await _committed(world)
    content = content_of(committed.commitment, attempt_pb2.Commitment)

    def selling() -> peer_service_pb2.SellTraceCodesRequest:
        return messages.SellTraceCodesRequest(
            request_id=world.request_id(),
            prescription_number=content.prescription_number,
            attempt_id=content.attempt_id,
            pharmacy_code=content.pharmacy_code,
            trace_codes=[dispense_pb2.TraceCode(code=world.trace_code())],
        )

    _add(premises, HOME, itself, "PeerService/SellTraceCodes", selling())
    sold = selling()
    answer = await _done(premises, HOME, itself, "PeerService/SellTraceCodes", sold)
    taking = messages.TakeBackTraceCodesRequest(
        request_id=world.request_id(),
        prescription_number=sold.prescription_number,
        attempt_id=sold.attempt_id,
        pharmacy_code=sold.pharmacy_code,
        codes=[each.code for each in sold.trace_codes],
    )
    _add(premises, HOME, itself, "PeerService/TakeBackTraceCodes", taking)
    person = prescription_pb2.Prescription.FromString(
        await _sheet_of(world, content)
    ).patient.insured_person_id
    event = messages.PeerEvent(
        event_id=world.request_id(),
        prescription_number=content.prescription_number,
        insured_person_id=person,
        statement=world.record_request(DISPENSING, committed.commitment).dispense_record,
        trace_code_sales=[answer.sale],
    )
    request = messages.DeliverEventsRequest(events=[event])
    _add(premises, PAYER, itself, "PeerService/DeliverEvents", request, "boxes")


async def _sheet_of(world: World, content: attempt_pb2.Commitment) -> bytes:
    """The prescription of a commitment."""

    def read(tx: Any) -> bytes:
        claim = tx.dispensing.claim(content.prescription_number, content.attempt_id)
        sheet = tx.journal.statement(content.prescription_number, claim.prescription_sha256)
        return bytes(sheet.payload)

    return await world.platforms[DISPENSING].store.read(read)


async def _clearing(premises: Premises) -> None:
    """Comparing the books of a day, and clearing months that are over."""
    payer = premises.world.platforms[PAYER]
    itself = _itself(premises, PAYER)
    messages = clearing_service_pb2
    reconcile = messages.ClearingServiceReconcileDayRequest(
        payer_region_code=PAYER, dispensing_region_code=DISPENSING, book=_book(premises.world)
    )
    _add(premises, DISPENSING, itself, "ClearingService/ReconcileDay", reconcile)
    february = messages.ClearPeriodRequest(period="2026-02", dispensing_region_code=DISPENSING)
    clear = stating.clear_period(payer.exchange, february)
    proposed = await premises.withhold("propose_clearing", clear)
    _add(premises, DISPENSING, itself, "ClearingService/ProposeClearing", proposed)
    january = messages.ClearPeriodRequest(period="2026-01", dispensing_region_code=DISPENSING)
    _add(premises, PAYER, operator(PAYER), "ClearingService/ClearPeriod", january)
    desk = pharmacy_service_pb2.PharmacyServiceReconcileDayRequest(book=_book(premises.world))
    pharmacy = premises.world.platforms[DISPENSING].pharmacy
    _add(premises, DISPENSING, pharmacy, "PharmacyService/ReconcileDay", desk)
    till = pos_service_pb2.PosServiceReconcileDayRequest(book=_book(premises.world))
    _add(premises, POS, pharmacy, "PosService/ReconcileDay", till)


async def _supervision(premises: Premises) -> None:
    committed = await _committed(premises.world)
    number = _number(committed.commitment, attempt_pb2.Commitment)
    request = supervision_service_pb2.TracePrescriptionRequest(prescription_number=number)
    _add(premises, HOME, regulator(HOME), "SupervisionService/TracePrescription", request)
    sha256 = statement_sha256(committed.commitment)
    for method, asked in {
        "ExportEvidence": supervision_service_pb2.ExportEvidenceRequest(prescription_number=number),
        "GetCheckpoint": supervision_service_pb2.SupervisionServiceGetCheckpointRequest(),
        "GetConsistencyProof": supervision_service_pb2.GetConsistencyProofRequest(first_size=1),
        "GetInclusionProof": supervision_service_pb2.GetInclusionProofRequest(
            prescription_number=number, statement_sha256=sha256
        ),
        "ListLogEntries": supervision_service_pb2.ListLogEntriesRequest(page_size=10),
    }.items():
        _add(premises, HOME, regulator(HOME), f"SupervisionService/{method}", asked)
    seen = peer_service_pb2.GetCheckpointRequest(held_size=1)
    _add(premises, HOME, _itself(premises, PAYER), "PeerService/GetCheckpoint", seen)


async def _administration(premises: Premises) -> None:
    """What an operator of the home region decides, and how the others hear of it."""
    messages = administration_service_pb2

    def add(method: str, request: Message) -> None:
        _add(premises, HOME, operator(HOME), f"AdministrationService/{method}", request)

    add("ListOverdueAttempts", messages.ListOverdueAttemptsRequest(page_size=10))
    request = await _decided(premises)
    add("AdjudicateAttempt", request)
    await _done(
        premises,
        HOME,
        operator(HOME),
        "AdministrationService/AdjudicateAttempt",
        request := await _decided(premises),
    )
    number = _number(request.adjudication, attempt_pb2.Adjudication)
    for to in (PAYER, DISPENSING):
        _tell(premises, HOME, to, number, "adjudicated", attempt_pb2.Adjudication)
    add("ListDeadLetters", messages.ListDeadLettersRequest(page_size=10))
    key = await _set_aside(premises)
    add("RetryDeadLetter", messages.RetryDeadLetterRequest(**key))
    key = await _set_aside(premises)
    add("DiscardDeadLetter", messages.DiscardDeadLetterRequest(reason="told by letter", **key))


async def _decided(premises: Premises) -> administration_service_pb2.AdjudicateAttemptRequest:
    """What two people found about a pharmacy that has committed."""
    world = premises.world
    committed = await _committed(world)
    content = content_of(committed.commitment, attempt_pb2.Commitment)
    adjudication = attempt_pb2.Adjudication(
        adjudication_id=world.request_id(),
        prescription_number=content.prescription_number,
        attempt_id=content.attempt_id,
        fence=content.fence,
        finding=attempt_pb2.Adjudication.FINDING_HANDED_OVER,
        evidence="the pharmacy's stock book",
        document_sha256=[bytes(32)],
    )
    return administration_service_pb2.AdjudicateAttemptRequest(
        request_id=world.request_id(), adjudication=world.signed(HOME, adjudication)
    )


async def _set_aside(premises: Premises) -> dict[str, str]:
    """An event that another region refused, as the home region names it."""
    world = premises.world
    number, _ = await _issue(world)

    def refuse(tx: Transaction) -> dict[str, str]:
        found = tx.journal.due_events(PAYER, world.clock.now, 1000)
        (event,) = (each for each in found if each.prescription_number == number)
        tx.journal.event_refused(event, "the other region refused it")
        return {
            "prescription_number": number,
            "peer_region_code": PAYER,
            "event_id": event.event_id,
        }

    return await world.platforms[HOME].store.transact(refuse)


async def _his(premises: Premises) -> None:
    world = premises.world
    hospital = world.platforms[HOME].hospital
    messages = his_service_pb2

    def add(method: str, request: Message) -> None:
        _add(premises, HIS, hospital, f"HisService/{method}", request)

    def issuing() -> his_service_pb2.IssuePrescriptionRequest:
        content = world.prescription(HOME, PAYER, lines=2)
        return messages.IssuePrescriptionRequest(
            request_id=world.request_id(), prescription=_by_people(world, HOME, content)
        )

    issued = issuing()
    answer = await _done(premises, HIS, hospital, "HisService/IssuePrescription", issued)
    number = answer.prescription_number
    content = world.prescription(HOME, PAYER, lines=2)
    add(
        "PrecheckPrescription",
        messages.HisServicePrecheckPrescriptionRequest(prescription=content),
    )
    add("IssuePrescription", issuing())
    revocation = _by_people(world, HOME, _revocation(world, number))
    add(
        "RevokePrescription",
        messages.HisServiceRevokePrescriptionRequest(
            request_id=world.request_id(), revocation=revocation
        ),
    )
    add("GetPrescription", messages.HisServiceGetPrescriptionRequest(prescription_number=number))
    history = messages.HisServiceListStatementsRequest(
        prescription_number=number, page_size=10, page_token="0"
    )
    add("ListStatements", history)
    add("WatchNotices", messages.HisServiceWatchNoticesRequest(resume_token="1"))
    outcome = messages.HisServiceGetOutcomeRequest(
        prescription_number=number, request_id=issued.request_id
    )
    add("GetOutcome", outcome)


async def _pos(premises: Premises) -> None:
    world = premises.world
    pharmacy = world.platforms[DISPENSING].pharmacy
    messages = pos_service_pb2

    def add(method: str, request: Message) -> None:
        _add(premises, POS, pharmacy, f"PosService/{method}", request)

    def claiming(code: str) -> pos_service_pb2.PosServiceClaimPrescriptionRequest:
        content = content_of(_claim(world, code).claim, attempt_pb2.Claim)
        return messages.PosServiceClaimPrescriptionRequest(
            request_id=world.request_id(),
            claim=_by_people(world, DISPENSING, content),
            pickup_code=code,
        )

    def again(statement: SignedStatement, kind: type[M]) -> SignedStatement:
        return _by_people(world, DISPENSING, content_of(statement, kind))

    shown = messages.PosServicePresentECredentialRequest(credential_code=_credential_code(premises))
    add("PresentECredential", shown)
    _, code = await _issue(world)
    add("FindPrescription", messages.PosServiceFindPrescriptionRequest(pickup_code=code))
    add("ClaimPrescription", claiming(code))
    number, code = await _issue(world)
    claimed = claiming(code)
    answer = await _done(premises, POS, pharmacy, "PosService/ClaimPrescription", claimed)
    outcome = messages.PosServiceGetOutcomeRequest(
        prescription_number=number, request_id=claimed.request_id
    )
    add("GetOutcome", outcome)
    attempt = content_of(answer.attempt, Attempt)
    quote = messages.PosServiceQuoteSettlementRequest(
        prescription_number=number, attempt_id=attempt.attempt_id, lines=priced(attempt.lines)
    )
    add("QuoteSettlement", quote)
    commitment = (await _commitment(world, attempt)).commitment
    add(
        "CommitClaim",
        messages.PosServiceCommitClaimRequest(
            request_id=world.request_id(), commitment=again(commitment, attempt_pb2.Commitment)
        ),
    )
    release = _by_people(world, DISPENSING, _release(await _claimed_attempt(world)))
    add(
        "ReleaseClaim",
        messages.PosServiceReleaseClaimRequest(request_id=world.request_id(), release=release),
    )
    (_, correcting), _ = await _corrections(world)
    correction = again(correcting.correction, attempt_pb2.Correction)
    add(
        "CorrectCall",
        messages.PosServiceCorrectCallRequest(request_id=world.request_id(), correction=correction),
    )
    committed = (await _committed(world)).commitment
    record = world.record_request(DISPENSING, committed).dispense_record
    add(
        "RecordDispense",
        messages.PosServiceRecordDispenseRequest(
            request_id=world.request_id(),
            dispense_record=again(record, dispense_pb2.DispenseRecord),
        ),
    )
    returned = world.return_request(DISPENSING, await _recorded(world)).dispense_return
    add(
        "ReturnDispense",
        messages.PosServiceReturnDispenseRequest(
            request_id=world.request_id(),
            dispense_return=again(returned, dispense_pb2.DispenseReturn),
        ),
    )
    update = (await _under_way(world)).delivery_update
    add(
        "UpdateDelivery",
        messages.PosServiceUpdateDeliveryRequest(
            request_id=world.request_id(),
            delivery_update=again(update, dispense_pb2.DeliveryUpdate),
        ),
    )
    content = content_of(committed, attempt_pb2.Commitment)
    get = messages.PosServiceGetDispenseRequest(
        prescription_number=content.prescription_number, attempt_id=content.attempt_id
    )
    add("GetDispense", get)
    history = messages.PosServiceListStatementsRequest(
        prescription_number=content.prescription_number, page_size=10, page_token="0"
    )
    add("ListStatements", history)
    add("WatchNotices", messages.PosServiceWatchNoticesRequest(resume_token="1"))


# pieces


def _book(world: World) -> clearing_pb2.DayBook:
    """A day's totals, and an entry that the other side does not have."""
    book = clearing_pb2.DayBook(day=world.clock.now.date().isoformat())
    book.totals.add(mode=settlement_pb2.SETTLEMENT_MODE_INSURANCE, count=1, total_fen=5, pool_fen=5)
    book.page.last = True
    book.page.entries.add(
        settlement_id=world.request_id(),
        movement=clearing_pb2.LedgerEntry.MOVEMENT_POSTING,
        prescription_number=world.prescription(HOME, PAYER).prescription_number,
        mode=settlement_pb2.SETTLEMENT_MODE_INSURANCE,
        total_fen=5,
        pool_fen=5,
    )
    return book


def _both_lines() -> list[settlement_pb2.PricedLine]:
    lines = (attempt_pb2.LineQuantity(line_id=line_id, quantity=20) for line_id in (1, 2))
    return priced(lines)


def _claim(world: World, code: str) -> pharmacy_service_pb2.ClaimPrescriptionRequest:
    """A claim that names its lines."""
    content = attempt_pb2.Claim(
        prescription_number=code.partition(".")[0],
        pharmacy_code=world.platforms[DISPENSING].pharmacy.institution_code,
        lines=[attempt_pb2.LineQuantity(line_id=line_id, quantity=20) for line_id in (1, 2)],
    )
    content.collector.kind = attempt_pb2.Collector.KIND_REPRESENTATIVE
    content.collector.identity_proof = "resident card of both, shown"
    return pharmacy_service_pb2.ClaimPrescriptionRequest(
        request_id=world.request_id(), claim=world.signed(DISPENSING, content), pickup_code=code
    )


async def _issue(world: World, insured_person_id: str = "") -> tuple[str, str]:
    """Register a prescription for a person of its own, so that no quote changes another."""
    who = replace(person(), insured_person_id=insured_person_id or f"TEST{next(_people)}")
    content = world.prescription(HOME, PAYER, lines=2)
    content.patient.insured_person_id = who.insured_person_id
    await world.platforms[PAYER].store.transact(lambda tx: tx.payer.add_person(who))
    return content.prescription_number, await world.register(HOME, content)


async def _claimed_attempt(world: World, insured_person_id: str = "") -> attempt_pb2.Attempt:
    _, code = await _issue(world, insured_person_id)
    return await world.claim(DISPENSING, code)


async def _commitment(
    world: World, attempt: attempt_pb2.Attempt
) -> pharmacy_service_pb2.CommitClaimRequest:
    return world.commit_request(DISPENSING, attempt, await world.quote(DISPENSING, attempt))


async def _committed(world: World) -> pharmacy_service_pb2.CommitClaimRequest:
    request = await _commitment(world, await _claimed_attempt(world))
    await world.commit(DISPENSING, request)
    return request


async def _corrections(
    world: World,
) -> list[tuple[str, pharmacy_service_pb2.CorrectCallRequest]]:
    """Of a claim that was made, and of a commit."""
    number, code = await _issue(world)
    claim = world.claim_request(DISPENSING, code)
    platform = world.platforms[DISPENSING]
    await claims.claim(platform.exchange, platform.pharmacy, claim)
    committed = await _committed(world)
    other = _number(committed.commitment, attempt_pb2.Commitment)
    return [
        ("", world.correction_request(DISPENSING, number, claim.request_id)),
        ("commit", world.correction_request(DISPENSING, other, committed.request_id)),
    ]


def _release(attempt: attempt_pb2.Attempt) -> attempt_pb2.ClaimRelease:
    return attempt_pb2.ClaimRelease(
        prescription_number=attempt.prescription_number,
        attempt_id=attempt.attempt_id,
        fence=attempt.fence,
        pharmacy_code=attempt.pharmacy_code,
        reason="the patient went away",
    )


def _reference(content: attempt_pb2.Commitment) -> attempt_pb2.Attempt:
    return Attempt(
        prescription_number=content.prescription_number,
        attempt_id=content.attempt_id,
        fence=content.fence,
        pharmacy_code=content.pharmacy_code,
    )


def _by_people(world: World, region: str, content: Message) -> SignedStatement:
    """Everybody's signature but the seal."""
    sheet = world.platforms[region].cast.sheet(type(content))[:-1]
    return signed(content, sheet, at=world.clock.now)


def _number(statement: SignedStatement, kind: type[Message]) -> str:
    return str(getattr(kind.FromString(statement.payload), "prescription_number"))  # noqa: B009 - every payload type has it


def _itself(premises: Premises, code: str) -> CallerName:
    return premises.region(code).platform


def _credential_code(premises: Premises) -> str:
    key = sha256(PAYER.encode()).digest()
    return CredentialCodes(PAYER, key).show(PERSON, premises.world.clock.now)


async def _token(premises: Premises) -> SignedStatement:
    """A token for the pharmacy."""
    world = premises.world
    pharmacy = world.platforms[DISPENSING].pharmacy
    content = ECredential(
        credential_id=world.request_id(),
        insured_person_id=PERSON,
        payer_region_code=PAYER,
        pharmacy_code=pharmacy.institution_code,
    )
    content.issue_time.FromDatetime(world.clock.now)
    content.expire_time.FromSeconds(int(world.clock.now.timestamp()) + 600)
    return world.signed(PAYER, content)


async def _revoke(premises: Premises, number: str) -> None:
    world = premises.world
    request = hospital_service_pb2.RevokePrescriptionRequest(
        request_id=world.request_id(), revocation=world.signed(HOME, _revocation(world, number))
    )
    hospital = world.platforms[HOME].hospital
    await _done(premises, HOME, hospital, "HospitalService/RevokePrescription", request)


def _tell(
    premises: Premises,
    origin: str,
    to: str,
    number: str,
    variant: str,
    kind: type[Message] = Message,
) -> None:
    """Keep the newest event, of a kind, that is on its way between regions on a prescription."""
    on_their_way = _events_on_their_way(premises, origin, to, number)
    *_, event = (
        each for each in on_their_way if issubclass(STATEMENTS[each.statement.payload_type], kind)
    )
    request = peer_service_pb2.DeliverEventsRequest(events=[event])
    itself = _itself(premises, origin)
    _add(premises, to, itself, "PeerService/DeliverEvents", request, variant)


async def _deliver(premises: Premises, origin: str, to: str, number: str) -> None:
    events = _events_on_their_way(premises, origin, to, number)
    request = peer_service_pb2.DeliverEventsRequest(events=events)
    itself = _itself(premises, origin)
    await _done(premises, to, itself, "PeerService/DeliverEvents", request)


def _events_on_their_way(
    premises: Premises, origin: str, to: str, number: str
) -> list[peer_service_pb2.PeerEvent]:
    store: Any = premises.world.platforms[origin].store
    tx = store._tables
    found = tx.journal.due_events(to, premises.world.clock.now, 1000)
    return [
        peer_service_pb2.PeerEvent(
            event_id=event.event_id,
            prescription_number=number,
            insured_person_id=event.insured_person_id,
            statement=tx.journal.statement(number, event.statement_sha256),
        )
        for event in found
        if event.prescription_number == number
    ]
