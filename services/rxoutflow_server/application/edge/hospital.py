"""What a hospital's systems ask of their edge: pre-check, issue, revoke, look.

Issuing never waits for the platform: the prescription is stored and has its pickup code, and the
platform gets it now or later. Revoking does wait, except for a prescription that the platform
cannot have.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial

from rxoutflow.numbers import PickupCode, PrescriptionNumber, new_pickup_secret
from rxoutflow.statements import Verified, statement_sha256
from rxoutflow.v1 import his_service_pb2
from rxoutflow.v1.his_service_pb2 import (
    HisServiceGetOutcomeRequest,
    HisServiceGetOutcomeResponse,
    HisServiceGetPrescriptionRequest,
    HisServiceGetPrescriptionResponse,
    HisServiceListStatementsRequest,
    HisServiceListStatementsResponse,
    HisServicePrecheckPrescriptionRequest,
    HisServicePrecheckPrescriptionResponse,
    HisServiceRevokePrescriptionRequest,
    HisServiceRevokePrescriptionResponse,
    IssuePrescriptionRequest,
    IssuePrescriptionResponse,
)
from rxoutflow.v1.hospital_service_pb2 import (
    GetPrescriptionRequest,
    GetPrescriptionResponse,
    HospitalServiceListStatementsRequest,
    PrecheckPrescriptionRequest,
)
from rxoutflow.v1.outcome_pb2 import Outcome
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import (
    REVOCATION_OUTCOME_ALREADY_REVOKED,
    REVOCATION_OUTCOME_REVOKED,
    PrescriptionStatus,
    Revocation,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.edge import refusals
from rxoutflow_server.application.edge.answers import trusted
from rxoutflow_server.application.edge.platform import HospitalPlatform
from rxoutflow_server.application.edge.registration import (
    REVOKE,
    bring,
    heard,
    receipt_of,
    require_issued,
    revoke_at_platform,
)
from rxoutflow_server.application.edge.sealing import Sheet, answered, concluded, conclusion, sealed
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import (
    EdgeTransaction,
    IssuedPrescription,
    Registration,
)
from rxoutflow_server.application.exchange.idempotency import (
    RequestKey,
    find_outcome,
    unverified_number,
)
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.region import routed
from rxoutflow_server.application.validation import check_prescription
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable

ISSUE = "/rxoutflow.v1.HisService/IssuePrescription"

_REGISTRATIONS = {
    Registration.QUEUED: his_service_pb2.REGISTRATION_QUEUED,
    Registration.REGISTERED: his_service_pb2.REGISTRATION_REGISTERED,
    Registration.REFUSED: his_service_pb2.REGISTRATION_REFUSED,
    Registration.WITHDRAWN: his_service_pb2.REGISTRATION_WITHDRAWN,
}


async def precheck(
    platform: HospitalPlatform, request: HisServicePrecheckPrescriptionRequest
) -> HisServicePrecheckPrescriptionResponse:
    """Everything that the rules of the platform have to say about a prescription.

    Raises:
        Refusal: see HospitalService.PrecheckPrescription.
        Unavailable: the platform cannot be reached.
    """
    answer = await platform.precheck_prescription(
        PrecheckPrescriptionRequest(prescription=request.prescription)
    )
    return HisServicePrecheckPrescriptionResponse(findings=answer.findings)


async def issue(
    edge: Edge, platform: HospitalPlatform, request: IssuePrescriptionRequest
) -> IssuePrescriptionResponse:
    """Seal and store a prescription, and bring it to the platform if that can be done now.

    Raises:
        StatementError: the people's signatures do not verify.
        Refusal: the content cannot be issued here, or the platform refused it.
    """
    number = unverified_number(request.prescription, Prescription)
    key = edge.key(number, request.request_id, ISSUE)
    reachable = await platform.reachable()
    issued = await edge.store.transact(lambda tx: _accept(tx, edge, key, request, reachable))
    if reachable and issued.registration is Registration.QUEUED:
        await _bring_now(edge, platform, number)
    elif issued.registration is Registration.QUEUED:
        edge.due.ring()
    answer = await edge.store.read(lambda tx: _issued_answer(tx, edge, number))
    if isinstance(answer, Refusal):
        raise answer
    return answer


async def revoke(
    edge: Edge, platform: HospitalPlatform, request: HisServiceRevokePrescriptionRequest
) -> HisServiceRevokePrescriptionResponse:
    """Take a prescription back: here if the platform cannot have it, else at the platform.

    Raises:
        StatementError: the prescriber's signature does not verify.
        Refusal: see HospitalService.RevokePrescription.
        Unavailable: the platform did not decide; repeat with the same request id.
    """
    number = unverified_number(request.revocation, Revocation)
    key = edge.key(number, request.request_id, REVOKE)
    known = await edge.store.transact(lambda tx: _begin_revocation(tx, edge, key, request))
    if known is not None:
        return known
    async with edge.turns.of(number):
        decided_here = await edge.store.transact(lambda tx: _revoke_here(tx, edge, key))
        if decided_here is not None:
            return decided_here
        return await _revoke_there(edge, platform, key)


async def get(
    edge: Edge, platform: HospitalPlatform, request: HisServiceGetPrescriptionRequest
) -> HisServiceGetPrescriptionResponse:
    """A prescription, with its status fresh from the platform or, failing that, as heard last.

    Raises:
        Refusal: PRESCRIPTION_NUMBER_INVALID, PRESCRIPTION_NOT_FOUND.
        Unavailable: it was not issued through this edge, and the platform cannot be reached.
    """
    number = str(routed(request.prescription_number))
    local = await edge.store.read(lambda tx: _local(tx, number))
    if local is not None and local.registration != his_service_pb2.REGISTRATION_REGISTERED:
        return local
    try:
        answer = await platform.get_prescription(GetPrescriptionRequest(prescription_number=number))
        return await _fresh(edge, number, local, answer)
    except Unavailable:
        if local is None:
            raise
        return local


async def list_statements(
    platform: HospitalPlatform, request: HisServiceListStatementsRequest
) -> HisServiceListStatementsResponse:
    """The history of a prescription at its platform; whoever reads it verifies it.

    Raises:
        Refusal: see HospitalService.ListStatements.
        Unavailable: the platform cannot be reached.
    """
    answer = await platform.list_statements(
        HospitalServiceListStatementsRequest(
            prescription_number=str(routed(request.prescription_number)),
            page_size=request.page_size,
            page_token=request.page_token,
        )
    )
    return HisServiceListStatementsResponse(
        events=answer.events, next_page_token=answer.next_page_token
    )


def get_outcome(
    tx: EdgeTransaction, edge: Edge, request: HisServiceGetOutcomeRequest
) -> HisServiceGetOutcomeResponse:
    """What became of a request. Of a request to issue, the answer as it would be given now.

    Raises:
        Refusal: OUTCOME_NOT_FOUND.
    """
    number = request.prescription_number
    issued = tx.edge.issued(number)
    if issued is not None and issued.request_id == request.request_id:
        outcome = Outcome(method=ISSUE, effect_time=timestamp(issued.create_time))
        outcome.response.Pack(_issue_response(tx, edge, issued))
        return HisServiceGetOutcomeResponse(outcome=outcome)
    found = find_outcome(tx.journal, number, str(edge.institution), request.request_id)
    return HisServiceGetOutcomeResponse(outcome=found)


def _accept(
    tx: EdgeTransaction,
    edge: Edge,
    key: RequestKey,
    request: IssuePrescriptionRequest,
    reachable: bool,
) -> IssuedPrescription:
    """Seal and store, with a fresh pickup code; or what was stored for this request before."""
    sheet = Sheet(request.prescription, Prescription, partial(_check_content, edge))
    statement = sealed(tx, edge, key, request, sheet)
    stored = tx.edge.issued(key.prescription_number)
    if stored is None:
        stored = IssuedPrescription(
            prescription_number=key.prescription_number,
            request_id=key.request_id,
            statement_sha256=statement_sha256(statement),
            pickup_secret=new_pickup_secret(edge.random_bytes),
            registration=Registration.QUEUED,
            create_time=edge.now(),
            sent=reachable,  # it is sent right away; see ``registration``
        )
        tx.edge.add_issued(stored)
    if stored.request_id != key.request_id:
        raise Refusal(
            Reason.PRESCRIPTION_ALREADY_REGISTERED,
            "this number was issued by another request; use a new number for a new prescription",
            prescription_number=key.prescription_number,
        )
    return stored


def _check_content(edge: Edge, content: Prescription) -> None:
    check_prescription(content)
    number = routed(content.prescription_number)
    if number.institution_serial != edge.code[-5:]:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH,
            "prescription_number: it must carry the serial of the issuing hospital",
            field="prescription_number",
        )


async def _bring_now(edge: Edge, platform: HospitalPlatform, number: str) -> None:
    """Try once. Whatever comes between, the prescription is stored and is brought later."""
    decided = False
    try:
        async with edge.turns.of(number):
            await bring(edge, platform, number, late=False)
        decided = True
    except Unavailable:
        pass
    finally:
        if not decided:
            edge.due.ring()


def _issued_answer(
    tx: EdgeTransaction, edge: Edge, number: str
) -> IssuePrescriptionResponse | Refusal:
    issued = require_issued(tx, number)
    if issued.registration is Registration.REFUSED:
        return refusals.read(issued.refusal)
    return _issue_response(tx, edge, issued)


def _issue_response(
    tx: EdgeTransaction, edge: Edge, issued: IssuedPrescription
) -> IssuePrescriptionResponse:
    number = PrescriptionNumber.parse(issued.prescription_number)
    return IssuePrescriptionResponse(
        prescription_number=issued.prescription_number,
        pickup_code=str(PickupCode(number, issued.pickup_secret)),
        registration=_REGISTRATIONS[issued.registration],
        prescription=tx.journal.statement(issued.prescription_number, issued.statement_sha256),
        status=_status(tx, issued),
        receipt=receipt_of(tx, edge, issued),
    )


def _status(tx: EdgeTransaction, issued: IssuedPrescription) -> SignedStatement | None:
    if not issued.status_sha256:
        return None
    return tx.journal.statement(issued.prescription_number, issued.status_sha256)


def _begin_revocation(
    tx: EdgeTransaction,
    edge: Edge,
    key: RequestKey,
    request: HisServiceRevokePrescriptionRequest,
) -> HisServiceRevokePrescriptionResponse | None:
    """The stored answer; else none, and the revocation is sealed."""
    known = answered(tx, key, request, HisServiceRevokePrescriptionResponse, edge.now())
    if known is None:
        sealed(tx, edge, key, request, Sheet(request.revocation, Revocation))
    return known


def _revoke_here(
    tx: EdgeTransaction, edge: Edge, key: RequestKey
) -> HisServiceRevokePrescriptionResponse | None:
    """The answer if the platform has no part in it; else none, and the request is noted."""
    known = conclusion(tx, key, HisServiceRevokePrescriptionResponse)
    issued = tx.edge.issued(key.prescription_number)
    if known is not None or issued is None:
        return known
    match issued.registration:
        case Registration.REGISTERED:
            return None
        case Registration.QUEUED if issued.sent:
            tx.edge.save_issued(replace(issued, revocation_request_id=key.request_id))
            return None
        case Registration.QUEUED:
            tx.edge.save_issued(replace(issued, registration=Registration.WITHDRAWN))
            outcome = REVOCATION_OUTCOME_REVOKED
        case Registration.REFUSED:
            outcome = REVOCATION_OUTCOME_REVOKED
        case Registration.WITHDRAWN:
            outcome = REVOCATION_OUTCOME_ALREADY_REVOKED
    response = HisServiceRevokePrescriptionResponse(outcome=outcome)
    return concluded(tx, key, response, edge.now())


async def _revoke_there(
    edge: Edge, platform: HospitalPlatform, key: RequestKey
) -> HisServiceRevokePrescriptionResponse:
    """Whatever became of the registration; what is still on its way is brought to its end after."""
    try:
        return await revoke_at_platform(edge, platform, key)
    finally:
        edge.due.ring()


def _local(tx: EdgeTransaction, number: str) -> HisServiceGetPrescriptionResponse | None:
    issued = tx.edge.issued(number)
    if issued is None:
        return None
    return HisServiceGetPrescriptionResponse(
        registration=_REGISTRATIONS[issued.registration],
        prescription=tx.journal.statement(number, issued.statement_sha256),
        status=_status(tx, issued),
        status_time=timestamp(issued.status_time),
    )


async def _fresh(
    edge: Edge,
    number: str,
    local: HisServiceGetPrescriptionResponse | None,
    answer: GetPrescriptionResponse,
) -> HisServiceGetPrescriptionResponse:
    """What is known here with the platform's word, unless a newer one was heard before."""
    now = edge.now()
    status = trusted(edge, answer.status, PrescriptionStatus, number, now)
    if local is None:
        trusted(edge, answer.prescription, Prescription, number, now)
    elif status.content.version < _version(local):
        return local
    elif status.content.version > _version(local):
        await edge.store.transact(lambda tx: _hear(tx, number, answer.status, status, now))
    return HisServiceGetPrescriptionResponse(
        registration=his_service_pb2.REGISTRATION_REGISTERED,
        prescription=answer.prescription if local is None else local.prescription,
        status=answer.status,
        status_time=timestamp(now),
    )


def _version(local: HisServiceGetPrescriptionResponse) -> int:
    return PrescriptionStatus.FromString(local.status.payload).version


def _hear(
    tx: EdgeTransaction,
    number: str,
    statement: SignedStatement,
    status: Verified[PrescriptionStatus],
    now: datetime,
) -> None:
    tx.edge.save_issued(heard(tx, require_issued(tx, number), statement, status, now))
