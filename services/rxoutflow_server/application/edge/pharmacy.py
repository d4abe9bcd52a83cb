"""What a pharmacy's systems ask of their edge: find, claim, quote, commit, let go, look.

Every step needs the platform; if it cannot be reached the step fails as Unavailable and is
repeated with the same request id. Only the record of a handover does not wait for it, see
``handovers``. No answer is passed on that does not verify, so that nothing is handed over on the
word of somebody in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from rxoutflow.v1.attempt_pb2 import Attempt, Claim, ClaimRelease, Commitment
from rxoutflow.v1.credential_pb2 import ECredential
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    CommitClaimRequest,
    CommitClaimResponse,
    FindPrescriptionRequest,
    GetDispenseRequest,
    PharmacyServiceReconcileDayRequest,
    PresentECredentialRequest,
    QuoteSettlementRequest,
    ReleaseClaimRequest,
)
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceClaimPrescriptionRequest,
    PosServiceClaimPrescriptionResponse,
    PosServiceCommitClaimRequest,
    PosServiceCommitClaimResponse,
    PosServiceFindPrescriptionRequest,
    PosServiceFindPrescriptionResponse,
    PosServiceGetDispenseRequest,
    PosServiceGetDispenseResponse,
    PosServiceGetOutcomeRequest,
    PosServiceGetOutcomeResponse,
    PosServicePresentECredentialRequest,
    PosServicePresentECredentialResponse,
    PosServiceQuoteSettlementRequest,
    PosServiceQuoteSettlementResponse,
    PosServiceReconcileDayRequest,
    PosServiceReconcileDayResponse,
    PosServiceReleaseClaimRequest,
    PosServiceReleaseClaimResponse,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import SETTLEMENT_MODE_INSURANCE, Quote, Settlement
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.edge import handovers
from rxoutflow_server.application.edge.answers import believed, require, trusted
from rxoutflow_server.application.edge.platform import PharmacyPlatform
from rxoutflow_server.application.edge.sealing import Sheet, answered, concluded, sealed
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.exchange.idempotency import (
    RequestKey,
    find_outcome,
    unverified_number,
)
from rxoutflow_server.application.region import opened, routed
from rxoutflow_server.application.validation import check_priced_lines, check_required, invalid
from rxoutflow_server.domain.errors import Reason, Refusal

_SERVICE = "/rxoutflow.v1.PosService"
_MAY_HAND_OVER = (Attempt.STATE_COMMITTED, Attempt.STATE_DISPENSED)

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
_Collecting: TypeAlias = (
    PosServiceFindPrescriptionRequest
    | PosServiceClaimPrescriptionRequest
    | PosServiceQuoteSettlementRequest
)
_Forwarded: TypeAlias = FindPrescriptionRequest | ClaimPrescriptionRequest | QuoteSettlementRequest
Send = Callable[[SignedStatement], Awaitable[R]]
"""Sends a sealed statement to the platform and makes the answer of what comes back, verified."""


async def present_e_credential(
    edge: Edge, platform: PharmacyPlatform, request: PosServicePresentECredentialRequest
) -> PosServicePresentECredentialResponse:
    """Turn the code that the patient's app shows into a token for this pharmacy.

    Raises:
        Refusal: see PharmacyService.PresentECredential.
        Unavailable: the platform cannot be reached, or its answer does not verify.
    """
    answer = await platform.present_e_credential(
        PresentECredentialRequest(credential_code=request.credential_code)
    )
    now = edge.now()
    require(edge, believed(edge, answer.token, ECredential, now).pharmacy_code == edge.code)
    for status in answer.statuses:
        believed(edge, status, PrescriptionStatus, now)
    return PosServicePresentECredentialResponse(token=answer.token, statuses=answer.statuses)


async def find(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceFindPrescriptionRequest
) -> PosServiceFindPrescriptionResponse:
    """Open a prescription and verify its three signatures (R10).

    Raises:
        Refusal: see PharmacyService.FindPrescription; SIGNED_CONTENT_MISMATCH if something else
            than was asked for came back.
        StatementError: the prescription's signatures do not verify; dispense nothing on it.
        Unavailable: the platform cannot be reached, or its status does not verify.
    """
    forwarded = FindPrescriptionRequest()
    number, now = _prove(forwarded, request), edge.now()
    answer = await platform.find_prescription(forwarded)
    prescription = edge.verifier.verify(answer.prescription, Prescription, now)
    status = trusted(edge, answer.status, PrescriptionStatus, number, now).content
    same = prescription.content.prescription_number == number
    if not same or status.prescription_sha256 != prescription.sha256:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH,
            "what came back is not the prescription that is registered under this number;"
            " dispense nothing on it and tell the operator",
            field="prescription",
        )
    return PosServiceFindPrescriptionResponse(
        prescription=answer.prescription, status=answer.status
    )


async def claim(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceClaimPrescriptionRequest
) -> PosServiceClaimPrescriptionResponse:
    """Claim a prescription.

    Raises:
        StatementError: the pharmacist's signature does not verify.
        Refusal: see PharmacyService.ClaimPrescription.
        Unavailable: not decided; repeat with the same request id.
    """
    key = _key(edge, request.request_id, "ClaimPrescription", request.claim, Claim)
    forwarded = ClaimPrescriptionRequest(request_id=request.request_id)
    _prove(forwarded, request)

    async def send(sheet: SignedStatement) -> PosServiceClaimPrescriptionResponse:
        forwarded.claim.CopyFrom(sheet)
        answer = await platform.claim_prescription(forwarded)
        _attempt(edge, answer.attempt, key.prescription_number)
        return PosServiceClaimPrescriptionResponse(attempt=answer.attempt)

    return await _forwarded(
        edge, key, request, Sheet(request.claim, Claim), PosServiceClaimPrescriptionResponse, send
    )


async def release(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceReleaseClaimRequest
) -> PosServiceReleaseClaimResponse:
    """Let go of a claim.

    Raises:
        StatementError: the pharmacist's signature does not verify.
        Refusal: see PharmacyService.ReleaseClaim.
        Unavailable: not decided; repeat with the same request id.
    """
    key = _key(edge, request.request_id, "ReleaseClaim", request.release, ClaimRelease)

    async def send(sheet: SignedStatement) -> PosServiceReleaseClaimResponse:
        answer = await platform.release_claim(
            ReleaseClaimRequest(request_id=request.request_id, release=sheet)
        )
        released = ClaimRelease.FromString(sheet.payload)
        _attempt(edge, answer.attempt, key.prescription_number, released.attempt_id)
        return PosServiceReleaseClaimResponse(attempt=answer.attempt)

    return await _forwarded(
        edge,
        key,
        request,
        Sheet(request.release, ClaimRelease),
        PosServiceReleaseClaimResponse,
        send,
    )


async def quote(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceQuoteSettlementRequest
) -> PosServiceQuoteSettlementResponse:
    """What patient and fund would pay. Binds nobody.

    Raises:
        Refusal: see PharmacyService.QuoteSettlement.
        Unavailable: the platform cannot be reached, or the quote does not verify.
    """
    number = str(routed(request.prescription_number))
    forwarded = QuoteSettlementRequest(prescription_number=number, lines=request.lines)
    if request.HasField("attempt_id"):
        forwarded.attempt_id = request.attempt_id
    else:
        _prove(forwarded, request)
    answer = await platform.quote_settlement(forwarded)
    trusted(edge, answer.quote, Quote, number, edge.now())
    return PosServiceQuoteSettlementResponse(quote=answer.quote)


async def commit(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceCommitClaimRequest
) -> PosServiceCommitClaimResponse:
    """Commit a claim. Only the answer of this permits handing over.

    Raises:
        StatementError: the pharmacist's signature does not verify.
        Refusal: see PharmacyService.CommitClaim.
        Unavailable: not decided; hand nothing over, repeat with the same request id.
    """
    key = _key(edge, request.request_id, "CommitClaim", request.commitment, Commitment)

    async def send(sheet: SignedStatement) -> PosServiceCommitClaimResponse:
        answer = await platform.commit_claim(
            CommitClaimRequest(request_id=request.request_id, commitment=sheet)
        )
        return _committed(edge, Commitment.FromString(sheet.payload), answer)

    return await _forwarded(
        edge,
        key,
        request,
        Sheet(request.commitment, Commitment, _check_commitment),
        PosServiceCommitClaimResponse,
        send,
    )


async def get_dispense(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceGetDispenseRequest
) -> PosServiceGetDispenseResponse:
    """How far a dispense has come.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND.
        Unavailable: the platform cannot be reached, or its answer does not verify.
    """
    number, attempt_id = str(routed(request.prescription_number)), request.attempt_id
    answer = await platform.get_dispense(
        GetDispenseRequest(prescription_number=number, attempt_id=attempt_id)
    )
    _attempt(edge, answer.attempt, number, attempt_id)
    response = PosServiceGetDispenseResponse(progress=answer.progress, attempt=answer.attempt)
    if answer.HasField("settlement"):
        trusted(edge, answer.settlement, Settlement, number, edge.now())
        response.settlement.CopyFrom(answer.settlement)
    return response


def get_outcome(
    tx: EdgeTransaction, edge: Edge, request: PosServiceGetOutcomeRequest
) -> PosServiceGetOutcomeResponse:
    """What became of a request. A record that waits for the platform has been accepted.

    Raises:
        Refusal: OUTCOME_NOT_FOUND.
    """
    number, request_id = request.prescription_number, request.request_id
    try:
        outcome = find_outcome(tx.journal, number, str(edge.institution), request_id)
    except Refusal:
        accepted = handovers.accepted(tx, edge, number, request_id)
        if accepted is None:
            raise
        outcome = accepted
    return PosServiceGetOutcomeResponse(outcome=outcome)


async def reconcile_day(
    platform: PharmacyPlatform, request: PosServiceReconcileDayRequest
) -> PosServiceReconcileDayResponse:
    """Compare the pharmacy's book of a day with the platform's.

    Raises:
        Refusal: see PharmacyService.ReconcileDay.
        Unavailable: the platform cannot be reached.
    """
    answer = await platform.reconcile_day(PharmacyServiceReconcileDayRequest(book=request.book))
    return PosServiceReconcileDayResponse(comparison=answer.comparison)


def _prove(forwarded: _Forwarded, request: _Collecting) -> str:
    """Pass the proof of the right to collect on; the number of the prescription that it names.

    Raises:
        Refusal: PICKUP_CODE_INVALID if it is mistyped, or FIELD_INVALID without a proof.
    """
    if request.HasField("e_credential"):
        forwarded.e_credential.CopyFrom(request.e_credential)
        return str(routed(request.e_credential.prescription_number))
    if not request.HasField("pickup_code"):
        raise invalid("proof", "is required: a pickup code or an e-credential")
    code = opened(request.pickup_code)
    forwarded.pickup_code = str(code)
    return str(code.number)


def _key(
    edge: Edge,
    request_id: str,
    method: str,
    statement: SignedStatement,
    expected: type[Message],
) -> RequestKey:
    number = unverified_number(statement, expected)
    return edge.key(number, request_id, f"{_SERVICE}/{method}")


async def _forwarded(
    edge: Edge,
    key: RequestKey,
    request: Message,
    sheet: Sheet[M],
    response_type: type[R],
    send: Send[R],
) -> R:
    """Seal and store, send, store the answer: in this order, each once for a request."""
    now = edge.now()

    def begin(tx: EdgeTransaction) -> R | SignedStatement:
        known = answered(tx, key, request, response_type, now)
        return known or sealed(tx, edge, key, request, sheet)

    begun = await edge.store.transact(begin)
    if not isinstance(begun, SignedStatement):
        return begun
    response = await send(begun)
    return await edge.store.transact(lambda tx: concluded(tx, key, response, edge.now()))


def _check_commitment(content: Commitment) -> None:
    check_required(content)
    check_priced_lines(content.lines)


def _attempt(edge: Edge, statement: SignedStatement, number: str, attempt_id: str = "") -> Attempt:
    """An attempt of this pharmacy as its home region states it, verified."""
    attempt = trusted(edge, statement, Attempt, number, edge.now()).content
    require(edge, attempt.pharmacy_code == edge.code)
    require(edge, attempt_id in ("", attempt.attempt_id))
    return attempt


def _committed(
    edge: Edge, commitment: Commitment, answer: CommitClaimResponse
) -> PosServiceCommitClaimResponse:
    """The permission to hand over, with the settlement that was accepted."""
    number, attempt_id = commitment.prescription_number, commitment.attempt_id
    attempt = _attempt(edge, answer.attempt, number, attempt_id)
    require(edge, attempt.state in _MAY_HAND_OVER)
    response = PosServiceCommitClaimResponse(attempt=answer.attempt)
    if commitment.mode == SETTLEMENT_MODE_INSURANCE:
        settlement = trusted(edge, answer.settlement, Settlement, number, edge.now()).content
        require(edge, settlement.settlement_id == commitment.settlement_id)
        require(edge, settlement.attempt_id == attempt_id)
        require(edge, settlement.amounts == commitment.accepted_amounts)
        response.settlement.CopyFrom(answer.settlement)
    return response
