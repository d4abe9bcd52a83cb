"""What a pharmacy's systems ask of their edge: find, claim, quote, commit, let go, correct, look.

Every step needs the platform; if it cannot be reached the step fails as Unavailable and is
repeated with the same request id. Only the record of a handover does not wait for it, see
``handovers``. No answer is passed on that does not verify, so that nothing is handed over on the
word of somebody in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from rxoutflow.statements import statement_sha256
from rxoutflow.v1.attempt_pb2 import (
    CORRECTION_OUTCOME_ALREADY_DISPENSED,
    CORRECTION_OUTCOME_ALREADY_ENDED,
    CORRECTION_OUTCOME_NOTHING_TO_UNDO,
    CORRECTION_OUTCOME_RELEASED,
    Attempt,
    Claim,
    ClaimRelease,
    Commitment,
    Correction,
    CorrectionOutcome,
)
from rxoutflow.v1.credential_pb2 import ECredential
from rxoutflow.v1.dispense_pb2 import DeliveryUpdate
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    CommitClaimRequest,
    CommitClaimResponse,
    CorrectCallRequest,
    CorrectCallResponse,
    FindPrescriptionRequest,
    GetDispenseRequest,
    PharmacyServiceListStatementsRequest,
    PharmacyServiceReconcileDayRequest,
    PresentECredentialRequest,
    QuoteSettlementRequest,
    ReleaseClaimRequest,
    UpdateDeliveryRequest,
)
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceClaimPrescriptionRequest,
    PosServiceClaimPrescriptionResponse,
    PosServiceCommitClaimRequest,
    PosServiceCommitClaimResponse,
    PosServiceCorrectCallRequest,
    PosServiceCorrectCallResponse,
    PosServiceFindPrescriptionRequest,
    PosServiceFindPrescriptionResponse,
    PosServiceGetDispenseRequest,
    PosServiceGetDispenseResponse,
    PosServiceGetOutcomeRequest,
    PosServiceGetOutcomeResponse,
    PosServiceListStatementsRequest,
    PosServiceListStatementsResponse,
    PosServicePresentECredentialRequest,
    PosServicePresentECredentialResponse,
    PosServiceQuoteSettlementRequest,
    PosServiceQuoteSettlementResponse,
    PosServiceReconcileDayRequest,
    PosServiceReconcileDayResponse,
    PosServiceReleaseClaimRequest,
    PosServiceReleaseClaimResponse,
    PosServiceUpdateDeliveryRequest,
    PosServiceUpdateDeliveryResponse,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import SETTLEMENT_MODE_INSURANCE, Quote, Settlement
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.edge import goods_returns, handovers
from rxoutflow_server.application.edge.answers import believed, require, trusted
from rxoutflow_server.application.edge.platform import PharmacyPlatform, out_of_reach
from rxoutflow_server.application.edge.sealing import (
    Sheet,
    answered,
    concluded,
    sealed,
    sealed_before,
)
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.exchange.corrected import mark, require_uncorrected
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
_STATES: dict[CorrectionOutcome.ValueType, tuple[Attempt.State.ValueType, ...]] = {
    CORRECTION_OUTCOME_RELEASED: (Attempt.STATE_RELEASED,),
    CORRECTION_OUTCOME_ALREADY_ENDED: (Attempt.STATE_RELEASED, Attempt.STATE_EXPIRED),
    # The platform has the record and home may not have booked it yet.
    CORRECTION_OUTCOME_ALREADY_DISPENSED: (Attempt.STATE_COMMITTED, Attempt.STATE_DISPENSED),
}
"""In which state each outcome of a correction leaves the attempt that comes with it."""

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
        return PosServiceClaimPrescriptionResponse(
            attempt=answer.attempt,
            claim=sheet,
            receipt=answer.receipt if answer.HasField("receipt") else None,
        )

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
        return PosServiceReleaseClaimResponse(
            attempt=answer.attempt,
            release=sheet,
            receipt=answer.receipt if answer.HasField("receipt") else None,
        )

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


async def correct(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceCorrectCallRequest
) -> PosServiceCorrectCallResponse:
    """Undo a claim or a commit of which nobody knows what became (冲正).

    A record of a handover that still waits here is brought to the platform first, so that what has
    left the counter is not taken for what has not.

    Raises:
        StatementError: the pharmacist's signature does not verify.
        Refusal: see PharmacyService.CorrectCall.
        Unavailable: not decided; repeat with the same request id.
    """
    key = _key(edge, request.request_id, "CorrectCall", request.correction, Correction)
    await _bring_handover(edge, platform, key.prescription_number)

    async def send(sheet: SignedStatement) -> PosServiceCorrectCallResponse:
        answer = await platform.correct_call(
            CorrectCallRequest(request_id=request.request_id, correction=sheet)
        )
        return _corrected(edge, key.prescription_number, answer)

    response = await _forwarded(
        edge,
        key,
        request,
        Sheet(request.correction, Correction),
        PosServiceCorrectCallResponse,
        send,
    )
    await edge.store.transact(lambda tx: _mark_corrected(tx, edge, key, response))
    return response


async def update_delivery(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceUpdateDeliveryRequest
) -> PosServiceUpdateDeliveryResponse:
    """Say where a delivery stands. A record of the handover that waits here is brought first.

    Raises:
        StatementError: the pharmacist's signature does not verify.
        Refusal: see PharmacyService.UpdateDelivery.
        Unavailable: not decided; repeat with the same request id.
    """
    sheet = Sheet(request.delivery_update, DeliveryUpdate)
    key = _key(edge, request.request_id, "UpdateDelivery", sheet.statement, DeliveryUpdate)
    await _bring_handover(edge, platform, key.prescription_number)

    async def send(sealed: SignedStatement) -> PosServiceUpdateDeliveryResponse:
        answer = await platform.update_delivery(
            UpdateDeliveryRequest(request_id=request.request_id, delivery_update=sealed)
        )
        return PosServiceUpdateDeliveryResponse(delivery=answer.delivery)

    return await _forwarded(edge, key, request, sheet, PosServiceUpdateDeliveryResponse, send)


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
    """What became of a request. A record or return that waits for the platform is accepted.

    Raises:
        Refusal: OUTCOME_NOT_FOUND, or REQUEST_CORRECTED.
    """
    number, request_id = request.prescription_number, request.request_id
    require_uncorrected(tx.journal, number, str(edge.institution), request_id)
    try:
        outcome = find_outcome(tx.journal, number, str(edge.institution), request_id)
    except Refusal:
        accepted = handovers.accepted(tx, edge, number, request_id)
        accepted = accepted or goods_returns.accepted(tx, edge, number, request_id)
        if accepted is None:
            raise
        outcome = accepted
    return PosServiceGetOutcomeResponse(outcome=outcome)


async def list_statements(
    platform: PharmacyPlatform, request: PosServiceListStatementsRequest
) -> PosServiceListStatementsResponse:
    """The history of the pharmacy's attempts on a prescription; whoever reads it verifies it.

    Raises:
        Refusal: see PharmacyService.ListStatements.
        Unavailable: the platform cannot be reached.
    """
    answer = await platform.list_statements(
        PharmacyServiceListStatementsRequest(
            prescription_number=str(routed(request.prescription_number)),
            page_size=request.page_size,
            page_token=request.page_token,
        )
    )
    return PosServiceListStatementsResponse(
        events=answer.events, next_page_token=answer.next_page_token
    )


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
        if known is None:
            _require_uncorrected(tx, key)
        return known or sealed(tx, edge, key, request, sheet)

    def end(tx: EdgeTransaction, response: R) -> R:
        _require_uncorrected(tx, key)
        return concluded(tx, key, response, edge.now())

    begun = await edge.store.transact(begin)
    if not isinstance(begun, SignedStatement):
        return begun
    response = await send(begun)
    return await edge.store.transact(lambda tx: end(tx, response))


def _require_uncorrected(tx: EdgeTransaction, key: RequestKey) -> None:
    require_uncorrected(tx.journal, key.prescription_number, key.caller, key.request_id)


async def _bring_handover(edge: Edge, platform: PharmacyPlatform, number: str) -> None:
    """See to it that no record of a handover of this prescription waits here.

    Raises:
        Unavailable: one does, and the platform cannot be reached.
    """
    waiting = await edge.store.read(lambda tx: tx.edge.waiting_handover(number))
    if waiting is not None and not await handovers.offer(edge, platform, waiting):
        raise out_of_reach(edge.institution.region_code, "does not have the record of the handover")


def _corrected(
    edge: Edge, number: str, answer: CorrectCallResponse
) -> PosServiceCorrectCallResponse:
    response = PosServiceCorrectCallResponse(outcome=answer.outcome)
    if answer.HasField("attempt"):
        attempt = _attempt(edge, answer.attempt, number)
        require(edge, attempt.state in _STATES.get(answer.outcome, ()))
        response.attempt.CopyFrom(answer.attempt)
    else:
        require(edge, answer.outcome == CORRECTION_OUTCOME_NOTHING_TO_UNDO)
    return response


def _mark_corrected(
    tx: EdgeTransaction, edge: Edge, key: RequestKey, response: PosServiceCorrectCallResponse
) -> None:
    """Remember here, too, that the call has no effect, unless its answer is stored."""
    correction = sealed_before(tx, key)
    corrected_id = Correction.FromString(correction.payload).corrected_request_id
    number, caller = key.prescription_number, key.caller
    answered_before = tx.journal.outcome(number, caller, corrected_id) is not None
    if response.outcome != CORRECTION_OUTCOME_ALREADY_DISPENSED and not answered_before:
        mark(tx.journal, number, caller, corrected_id, statement_sha256(correction), edge.now())


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
