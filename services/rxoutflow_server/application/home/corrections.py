"""Corrections (冲正) at home: what a pharmacy's lost call had led to is undone, or never happens.

The call is looked up among the outcomes of the platform that forwards, and counts only if its
attempt is that of the pharmacy that sealed the correction. To everybody else it is as if the call
had never been made, so that nobody learns or undoes anything of another's. A call that never
arrived is marked. That takes a row for each signed correction, of institutions that are on a trust
list, and about numbers that a hospital of this region can have given.
"""

from __future__ import annotations

from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2
from rxoutflow.v1.home_service_pb2 import (
    CommitAttemptResponse,
    CorrectAttemptRequest,
    CorrectAttemptResponse,
    GrantClaimResponse,
)
from rxoutflow_server.application.exchange.corrected import mark
from rxoutflow_server.application.exchange.evidence import keep, step
from rxoutflow_server.application.exchange.idempotency import RequestKey, once, unverified_number
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.home.attempts import (
    COMMIT_ATTEMPT,
    GRANT_CLAIM,
    corrected_as,
)
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region, routed
from rxoutflow_server.application.validation import check_required, check_uuid, mismatch
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.prescription import AttemptReference, Prescription

_CORRECT = "/rxoutflow.v1.HomeService/CorrectAttempt"
_ANSWERS: dict[str, type[GrantClaimResponse | CommitAttemptResponse]] = {
    GRANT_CLAIM: GrantClaimResponse,
    COMMIT_ATTEMPT: CommitAttemptResponse,
}


def correct_attempt(
    tx: Transaction, region: Region, caller: CallerName, request: CorrectAttemptRequest
) -> CorrectAttemptResponse:
    """Undo what a call of a pharmacy had led to, or see to it that it never has an effect.

    Raises:
        StatementError: the correction does not verify.
        Refusal: ATTEMPT_ALREADY_COMMITTED if a claim is corrected that was committed since, or
            CALLER_REGION_NOT_ALLOWED for a pharmacy of another region than the caller's.
    """
    now = region.now()
    number = unverified_number(request.correction, attempt_pb2.Correction)
    key = RequestKey(number, str(caller), request.request_id, _CORRECT)
    return once(
        tx.journal,
        key,
        request,
        CorrectAttemptResponse,
        now,
        lambda: _correct_attempt(tx, region, caller, request, now),
    )


def _correct_attempt(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: CorrectAttemptRequest,
    now: datetime,
) -> CorrectAttemptResponse:
    verified = region.verified(request.correction, attempt_pb2.Correction, now)
    content = verified.content
    check_correction(content)
    require_own_region(caller, content.pharmacy_code[1:7])
    prescription = tx.home.prescription(content.prescription_number)
    attempt = _led_to(tx, caller, content)
    if prescription is None or attempt is None:
        if prescription is not None or _can_be_registered(region, content.prescription_number):
            _mark(tx, caller, content, request, now, known=prescription is not None)
        return CorrectAttemptResponse(outcome=attempt_pb2.CORRECTION_OUTCOME_NOTHING_TO_UNDO)
    _require_no_commit_since(tx, caller, content, attempt)
    keep(tx, prescription.number, request.correction, now)
    outcome, corrected = _undone(tx, region, prescription, attempt, verified.sha256, now)
    return CorrectAttemptResponse(
        outcome=outcome, attempt=facts.signed_attempt(region, corrected, prescription, now)
    )


def check_correction(content: attempt_pb2.Correction) -> None:
    """Refuse a correction with missing or malformed fields.

    Raises:
        Refusal: FIELD_INVALID, SIGNED_CONTENT_MISMATCH or PRESCRIPTION_NUMBER_INVALID.
    """
    check_required(content)
    check_uuid("correction.corrected_request_id", content.corrected_request_id)
    if str(routed(content.prescription_number)) != content.prescription_number:
        raise mismatch("prescription_number", "it must have no blanks around it")


def _led_to(tx: Transaction, caller: CallerName, content: attempt_pb2.Correction) -> Attempt | None:
    """The attempt that the corrected call led to, if it is that pharmacy's."""
    number = content.prescription_number
    stored = tx.journal.outcome(number, str(caller), content.corrected_request_id)
    if stored is None or stored.method not in _ANSWERS:
        return None
    answer = _ANSWERS[stored.method].FromString(stored.response)
    stated = attempt_pb2.Attempt.FromString(answer.attempt.payload)  # signed here
    attempt = tx.home.attempt(number, stated.attempt_id)
    if attempt is None:
        raise InvariantBroken("an outcome names an attempt that is not there")
    return attempt if attempt.pharmacy_code == content.pharmacy_code else None


def _require_no_commit_since(
    tx: Transaction, caller: CallerName, content: attempt_pb2.Correction, attempt: Attempt
) -> None:
    """Who committed knew of the claim: its outcome is not the one in doubt, and goods may be out.

    Two tills of a pharmacy can be given one attempt. What one of them doubts does not undo what the
    other one has committed.
    """
    stored = tx.journal.outcome(
        content.prescription_number, str(caller), content.corrected_request_id
    )
    claimed = stored is not None and stored.method == GRANT_CLAIM
    if claimed and attempt.state is AttemptState.COMMITTED:
        raise Refusal(
            Reason.ATTEMPT_ALREADY_COMMITTED,
            "the claim was committed since: correct that commit if its outcome is not known, or"
            " release the attempt",
            settlement_id=attempt.settlement_id,
        )


def _undone(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    attempt: Attempt,
    correction_sha256: bytes,
    now: datetime,
) -> tuple[attempt_pb2.CorrectionOutcome.ValueType, Attempt]:
    if attempt.state is AttemptState.DISPENSED:
        return attempt_pb2.CORRECTION_OUTCOME_ALREADY_DISPENSED, attempt
    if attempt.lease_is_over(now):
        change = transitions.expire_lease(prescription, now=now)
        facts.save(tx, region, change, now)
        return attempt_pb2.CORRECTION_OUTCOME_ALREADY_ENDED, change.attempt
    if not attempt.state.is_live:
        return attempt_pb2.CORRECTION_OUTCOME_ALREADY_ENDED, attempt
    reference = AttemptReference(
        attempt.attempt_id, attempt.fence, attempt.pharmacy_code, correction_sha256
    )
    change = transitions.release(prescription, attempt, reference, now=now)
    facts.save(tx, region, change, now)
    return attempt_pb2.CORRECTION_OUTCOME_RELEASED, change.attempt


def _can_be_registered(region: Region, number: str) -> bool:
    """Whether a hospital of this region can have given the number; it may not have come yet."""
    serial = routed(number).institution_serial
    return region.institution(region.code, f"H{region.code}{serial}") is not None


def _mark(
    tx: Transaction,
    caller: CallerName,
    content: attempt_pb2.Correction,
    request: CorrectAttemptRequest,
    now: datetime,
    *,
    known: bool,
) -> None:
    number, pharmacy = content.prescription_number, content.pharmacy_code
    digest = keep(tx, number, request.correction, now)
    scope = corrected_as(caller, pharmacy)
    mark(tx.journal, number, scope, content.corrected_request_id, digest, now)
    if known:
        flow = Flow.INFORMATION
        step(tx, number, RegionRole.HOME, flow, "call corrected", pharmacy, digest, now)
