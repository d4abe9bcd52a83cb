"""Corrections (冲正): a pharmacy undoes a call of which it does not know what became.

First, durably, the call is stopped here: it is marked, and a commit that it began is driven no
further and recorded no more. Then the home region decides, and its answer is kept. Every step can
be repeated; a crash in between leaves a call that is stopped and a correction that is asked again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2
from rxoutflow.v1.home_service_pb2 import CorrectAttemptRequest, CorrectAttemptResponse
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionResponse,
    CommitClaimResponse,
    CorrectCallRequest,
    CorrectCallResponse,
)
from rxoutflow_server.application.dispensing.claims import CLAIM_PRESCRIPTION, require_own
from rxoutflow_server.application.dispensing.exchange import Exchange, believed, require_asked
from rxoutflow_server.application.dispensing.settling import COMMIT_CLAIM
from rxoutflow_server.application.exchange.corrected import mark
from rxoutflow_server.application.exchange.evidence import keep, step
from rxoutflow_server.application.exchange.idempotency import RequestKey, once
from rxoutflow_server.application.ports import Flow, RegionRole, StoredOutcome, Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.application.validation import (
    check_required,
    check_uuid,
    invalid,
    mismatch,
)
from rxoutflow_server.domain.dispense import Dispense, DispenseState, corrected, let_go
from rxoutflow_server.domain.errors import Reason, Refusal

_CORRECT_CALL = "/rxoutflow.v1.PharmacyService/CorrectCall"

_RECORDED = (DispenseState.DISPENSED, DispenseState.COMPLETED)
_ANSWERS: dict[str, type[ClaimPrescriptionResponse | CommitClaimResponse]] = {
    CLAIM_PRESCRIPTION: ClaimPrescriptionResponse,
    COMMIT_CLAIM: CommitClaimResponse,
}
_STATES: dict[int, tuple[attempt_pb2.Attempt.State.ValueType, ...]] = {
    attempt_pb2.CORRECTION_OUTCOME_RELEASED: (attempt_pb2.Attempt.STATE_RELEASED,),
    attempt_pb2.CORRECTION_OUTCOME_ALREADY_ENDED: (
        attempt_pb2.Attempt.STATE_RELEASED,
        attempt_pb2.Attempt.STATE_EXPIRED,
    ),
    attempt_pb2.CORRECTION_OUTCOME_ALREADY_DISPENSED: (attempt_pb2.Attempt.STATE_DISPENSED,),
}
"""In which state each outcome leaves the attempt that comes with it."""


async def correct(
    exchange: Exchange, caller: CallerName, request: CorrectCallRequest
) -> CorrectCallResponse:
    """Undo a claim or a commit of the caller's whose outcome it does not know.

    Raises:
        StatementError: the correction does not verify.
        Refusal: see PharmacyService.CorrectCall.
        Unavailable: the home region cannot be reached; repeat with the same request id.
    """
    region, now = exchange.region, exchange.region.now()
    content = region.verified(
        request.correction, attempt_pb2.Correction, now, decides=False
    ).content
    _check(caller, request, content)
    number = content.prescription_number
    key = RequestKey(number, str(caller), request.request_id, _CORRECT_CALL)
    home = exchange.home_of(number)
    answer = await exchange.store.transact(lambda tx: _stop(tx, caller, key, request, content, now))
    if answer is not None:
        return answer
    decided = await home.correct_attempt(
        CorrectAttemptRequest(request_id=request.request_id, correction=request.correction)
    )
    return await exchange.store.transact(
        lambda tx: once(
            tx.journal,
            key,
            request,
            CorrectCallResponse,
            now,
            lambda: _keep(tx, region, caller, request, decided, now),
        )
    )


def _check(
    caller: CallerName, request: CorrectCallRequest, content: attempt_pb2.Correction
) -> None:
    check_required(content)
    check_uuid("request_id", request.request_id)
    check_uuid("correction.corrected_request_id", content.corrected_request_id)
    if content.corrected_request_id == request.request_id:
        raise invalid("correction.corrected_request_id", "must not be that of the correction")
    if str(routed(content.prescription_number)) != content.prescription_number:
        raise mismatch("prescription_number", "it must have no blanks around it")
    require_own(caller, content.pharmacy_code)


def _stop(
    tx: Transaction,
    caller: CallerName,
    key: RequestKey,
    request: CorrectCallRequest,
    content: attempt_pb2.Correction,
    now: datetime,
) -> CorrectCallResponse | None:
    """Stop the call here. Its outcome, if that is known already; else home has to be asked.

    Raises:
        Refusal: REQUEST_ID_REUSED, FIELD_INVALID or ATTEMPT_ALREADY_COMMITTED.
    """
    if tx.journal.outcome(key.prescription_number, key.caller, key.request_id) is not None:
        return once(tx.journal, key, request, CorrectCallResponse, now, CorrectCallResponse)
    called = replace(key, request_id=content.corrected_request_id)
    stored = tx.journal.outcome(called.prescription_number, called.caller, called.request_id)
    dispense = _dispense_of(tx, caller, called, stored)
    if dispense is not None and dispense.state in _RECORDED:
        response = _dispensed(tx, dispense)
        return once(tx.journal, key, request, CorrectCallResponse, now, lambda: response)
    digest = keep(tx, key.prescription_number, request.correction, now)
    if stored is None:
        mark(tx.journal, *_names(called), digest, now)
    if dispense is not None and dispense.request_id == called.request_id:
        tx.dispensing.save_dispense(corrected(dispense, now=now))
    return None


def _names(key: RequestKey) -> tuple[str, str, str]:
    return key.prescription_number, key.caller, key.request_id


def _dispense_of(
    tx: Transaction, caller: CallerName, called: RequestKey, stored: StoredOutcome | None
) -> Dispense | None:
    """The dispense that the corrected call began, or that its claim has led to."""
    number = called.prescription_number
    if stored is None:
        begun = tx.dispensing.dispense_of_request(number, called.request_id)
        own = begun is not None and begun.pharmacy_code == caller.institution_code
        return begun if own else None
    if stored.method not in _ANSWERS:
        raise invalid(
            "correction.corrected_request_id",
            f"is that of {stored.method}; only ClaimPrescription and CommitClaim are corrected",
        )
    answer = _ANSWERS[stored.method].FromString(stored.response)
    attempt = attempt_pb2.Attempt.FromString(answer.attempt.payload)  # verified before it was kept
    dispense = tx.dispensing.dispense_of_attempt(number, attempt.attempt_id)
    if stored.method == COMMIT_CLAIM and dispense is not None:
        _require_begun_by(dispense, called)
    return dispense


def _require_begun_by(dispense: Dispense, called: RequestKey) -> None:
    """A commitment that was sent under two ids goes by the first one, which home knows."""
    if dispense.request_id != called.request_id:
        raise Refusal(
            Reason.ATTEMPT_ALREADY_COMMITTED,
            f"the attempt was committed by request {dispense.request_id}: correct that one",
            settlement_id=dispense.settlement_id,
            request_id=dispense.request_id,
        )


def _dispensed(tx: Transaction, dispense: Dispense) -> CorrectCallResponse:
    """The record of the handover is here, and on its way to home if it is not there yet."""
    response = CorrectCallResponse(outcome=attempt_pb2.CORRECTION_OUTCOME_ALREADY_DISPENSED)
    claim = tx.dispensing.claim(dispense.prescription_number, dispense.attempt_id)
    if claim is not None:
        statement = tx.journal.statement(claim.prescription_number, claim.attempt_sha256)
        response.attempt.CopyFrom(statement)
    return response


def _keep(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: CorrectCallRequest,
    decided: CorrectAttemptResponse,
    now: datetime,
) -> CorrectCallResponse:
    asked = attempt_pb2.Correction.FromString(request.correction.payload)
    number = asked.prescription_number
    home = number[:6]
    response = CorrectCallResponse(outcome=decided.outcome)
    if decided.HasField("attempt"):
        attempt = believed(region, decided.attempt, attempt_pb2.Attempt, now, origin=home).content
        require_asked(home, attempt.prescription_number == number)
        require_asked(home, attempt.pharmacy_code == caller.institution_code)
        require_asked(home, attempt.state in _STATES.get(decided.outcome, ()))
        _note(tx, attempt, keep(tx, number, decided.attempt, now), now)
        response.attempt.CopyFrom(decided.attempt)
    else:
        nothing = attempt_pb2.CORRECTION_OUTCOME_NOTHING_TO_UNDO
        require_asked(home, decided.outcome == nothing)
    digest, actor = keep(tx, number, request.correction, now), caller.institution_code
    flow = Flow.INFORMATION
    step(tx, number, RegionRole.DISPENSING, flow, "correction forwarded", actor, digest, now)
    return response


def _note(tx: Transaction, attempt: attempt_pb2.Attempt, digest: bytes, now: datetime) -> None:
    """Keep home's newest word on an attempt of which there is a copy."""
    number, attempt_id = attempt.prescription_number, attempt.attempt_id
    claim = tx.dispensing.claim(number, attempt_id)
    if claim is not None:
        tx.dispensing.save_claim(replace(claim, attempt_sha256=digest, update_time=now))
    dispense = tx.dispensing.dispense_of_attempt(number, attempt_id)
    if dispense is not None and attempt.state != attempt_pb2.Attempt.STATE_DISPENSED:
        tx.dispensing.save_dispense(let_go(dispense, now=now))
