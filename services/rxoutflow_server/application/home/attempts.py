"""Claims and attempts: opening, claiming, committing and releasing, forwarded by other platforms.

The caller is always a platform, this region's own included. It forwards what one of its pharmacies
sealed, and may not speak for pharmacies of another region.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.v1 import attempt_pb2, prescription_pb2, settlement_pb2
from rxoutflow.v1.home_service_pb2 import (
    CommitAttemptRequest,
    CommitAttemptResponse,
    GetAttemptRequest,
    GetAttemptResponse,
    GrantClaimRequest,
    GrantClaimResponse,
    OpenPrescriptionRequest,
    OpenPrescriptionResponse,
    ReleaseAttemptRequest,
    ReleaseAttemptResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow.v1.trust_pb2 import Institution
from rxoutflow_server.application.exchange.corrected import require_uncorrected
from rxoutflow_server.application.exchange.evidence import keep
from rxoutflow_server.application.exchange.idempotency import (
    RequestKey,
    once,
    unverified_number,
)
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.home.collecting import check_collector, collected
from rxoutflow_server.application.messages import line_quantities, priced_quantities
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region, require_in_scope, require_own_region
from rxoutflow_server.application.validation import check_priced_lines, check_required
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.prescription import AttemptReference, ClaimTerms, Prescription

GRANT_CLAIM = "/rxoutflow.v1.HomeService/GrantClaim"
COMMIT_ATTEMPT = "/rxoutflow.v1.HomeService/CommitAttempt"
_RELEASE = "/rxoutflow.v1.HomeService/ReleaseAttempt"

CLAIM_FRESHNESS = timedelta(minutes=15)
"""How old the seal of a claim may be: long enough for a call that is repeated over a bad line, and
short enough that a platform which kept a claim and a pickup code cannot claim with them again when
the patient has gone elsewhere."""


def open_prescription(
    tx: Transaction, region: Region, caller: CallerName, request: OpenPrescriptionRequest
) -> OpenPrescriptionResponse:
    """Show a prescription to a designated pharmacy that proves the right to collect.

    Raises:
        Refusal: INSTITUTION_NOT_ACTIVE and those of ``collected``.
    """
    _require_pharmacy(region, caller, request.pharmacy_code)
    prescription = collected(tx, region, request.pharmacy_code, request)
    return OpenPrescriptionResponse(
        prescription=tx.journal.statement(prescription.number, prescription.statement_sha256),
        status=facts.signed_status(region, prescription, region.now()),
    )


def grant_claim(
    tx: Transaction, region: Region, caller: CallerName, request: GrantClaimRequest
) -> GrantClaimResponse:
    """Decide on a claim.

    Raises:
        StatementError: the claim does not verify.
        Refusal: see PharmacyService.ClaimPrescription.
    """
    now = region.now()
    key = _key(caller, request.request_id, request.claim, attempt_pb2.Claim, GRANT_CLAIM)
    return once(
        tx.journal,
        key,
        request,
        GrantClaimResponse,
        now,
        lambda: _grant_claim(tx, region, caller, request, now),
    )


def _grant_claim(
    tx: Transaction, region: Region, caller: CallerName, request: GrantClaimRequest, now: datetime
) -> GrantClaimResponse:
    verified = region.verified(request.claim, attempt_pb2.Claim, now)
    content = verified.content
    check_required(content)
    pharmacy = _require_pharmacy(region, caller, content.pharmacy_code)
    _require_uncorrected(tx, caller, request, content)
    _require_fresh(verified, now)
    check_collector(content.collector)
    prescription = collected(tx, region, content.pharmacy_code, request)
    if content.prescription_number != prescription.number:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH,
            "prescription_number: the proof is for another prescription",
            field="prescription_number",
        )
    sheet = tx.journal.statement(prescription.number, prescription.statement_sha256)
    require_in_scope(
        pharmacy, prescription_pb2.Prescription.FromString(sheet.payload).outflow_basis
    )
    keep(tx, prescription.number, request.claim, now, verified)
    terms = ClaimTerms(
        content.pharmacy_code, caller.region_code, line_quantities(content.lines), verified.sha256
    )
    change = _claimed(region, prescription, terms, now)
    attempt = facts.save_attempt(tx, region, prescription, change, now)
    return GrantClaimResponse(attempt=attempt, prescription=sheet)


def _claimed(
    region: Region, prescription: Prescription, terms: ClaimTerms, now: datetime
) -> transitions.Change:
    """The claim's change; a refusal that names a holder gets its name and telephone."""
    try:
        return transitions.claim(
            prescription, terms, attempt_id=region.new_id(now), now=now, lease=region.lease
        )
    except Refusal as refusal:
        if refusal.reason is not Reason.PRESCRIPTION_HELD:
            raise
        raise _held(region, refusal) from None


def _held(region: Region, refusal: Refusal) -> Refusal:
    detail = dict(refusal.detail)
    code = detail["holder_code"]
    holder = region.institution(detail.pop("holder_region"), code)
    name, phone = (holder.name, holder.phone) if holder is not None else (code, "")
    reached = f", telephone {phone}" if phone else ""
    return Refusal(
        Reason.PRESCRIPTION_HELD,
        f"{name}{reached} holds this prescription; ask it to release, or wait for its lease to end",
        **detail,
        holder_name=name,
        holder_phone=phone,
    )


def commit_attempt(
    tx: Transaction, region: Region, caller: CallerName, request: CommitAttemptRequest
) -> CommitAttemptResponse:
    """Commit an attempt: from the answer on the pharmacy may hand over and no timer intervenes.

    Raises:
        StatementError: commitment or settlement do not verify.
        Refusal: see PharmacyService.CommitClaim.
    """
    now = region.now()
    commitment, method = request.commitment, COMMIT_ATTEMPT
    key = _key(caller, request.request_id, commitment, attempt_pb2.Commitment, method)
    return once(
        tx.journal,
        key,
        request,
        CommitAttemptResponse,
        now,
        lambda: _commit_attempt(tx, region, caller, request, now),
    )


def _commit_attempt(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: CommitAttemptRequest,
    now: datetime,
) -> CommitAttemptResponse:
    verified = region.verified(request.commitment, attempt_pb2.Commitment, now)
    content = verified.content
    check_required(content)
    check_priced_lines(content.lines)
    prescription, attempt = _forwarded_attempt(tx, caller, content)
    _require_uncorrected(tx, caller, request, content)
    insured = content.mode != settlement_pb2.SETTLEMENT_MODE_SELF_PAY
    change = transitions.commit(
        prescription,
        attempt,
        _reference(content, verified.sha256),
        priced_quantities(content.lines),
        settlement_id=content.settlement_id if insured else "",
        now=now,
    )
    if insured:
        hold = _require_hold(region, prescription, content, request, now)
        keep(tx, prescription.number, request.settlement, now, hold)
    keep(tx, prescription.number, request.commitment, now, verified)
    return CommitAttemptResponse(attempt=facts.save_attempt(tx, region, prescription, change, now))


def release_attempt(
    tx: Transaction, region: Region, caller: CallerName, request: ReleaseAttemptRequest
) -> ReleaseAttemptResponse:
    """End an attempt of which nothing was handed over, before or after commit.

    Raises:
        StatementError: the release does not verify.
        Refusal: ATTEMPT_NOT_FOUND, ATTEMPT_ENDED or FENCE_STALE.
    """
    now = region.now()
    release, method = request.release, _RELEASE
    key = _key(caller, request.request_id, release, attempt_pb2.ClaimRelease, method)
    return once(
        tx.journal,
        key,
        request,
        ReleaseAttemptResponse,
        now,
        lambda: _release_attempt(tx, region, caller, request, now),
    )


def _release_attempt(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: ReleaseAttemptRequest,
    now: datetime,
) -> ReleaseAttemptResponse:
    verified = region.verified(request.release, attempt_pb2.ClaimRelease, now)
    content = verified.content
    check_required(content)
    prescription, attempt = _forwarded_attempt(tx, caller, content)
    reference = _reference(content, verified.sha256)
    change = transitions.release(prescription, attempt, reference, now=now)
    keep(tx, prescription.number, request.release, now, verified)
    return ReleaseAttemptResponse(attempt=facts.save_attempt(tx, region, prescription, change, now))


def get_attempt(
    tx: Transaction, region: Region, caller: CallerName, request: GetAttemptRequest
) -> GetAttemptResponse:
    """An attempt as it stands, for the regions that are parties to it.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND.
    """
    number = request.prescription_number
    prescription, attempt = facts.require_attempt(tx, number, request.attempt_id)
    if caller.region_code not in (attempt.dispensing_region_code, prescription.payer_region_code):
        raise transitions.unknown_attempt()
    return GetAttemptResponse(
        attempt=facts.signed_attempt(region, attempt, prescription, region.now())
    )


def expire_leases(tx: Transaction, region: Region, limit: int) -> int:
    """End reserved attempts whose lease is over; the number of those that were ended."""
    now = region.now()
    numbers = tx.home.overdue_leases(now, limit)
    for number in numbers:
        prescription = facts.require_prescription(tx, number)
        facts.save(tx, region, transitions.expire_lease(prescription, now=now), now)
    return len(numbers)


def corrected_as(caller: CallerName, pharmacy_code: str) -> str:
    """Under whose name a pharmacy's calls are marked as corrected.

    A platform forwards for many pharmacies, and none of them corrects the calls of another.
    """
    return f"{caller}/{pharmacy_code}"


def _require_uncorrected(
    tx: Transaction,
    caller: CallerName,
    request: GrantClaimRequest | CommitAttemptRequest,
    content: attempt_pb2.Claim | attempt_pb2.Commitment,
) -> None:
    scope = corrected_as(caller, content.pharmacy_code)
    require_uncorrected(tx.journal, content.prescription_number, scope, request.request_id)


def _require_fresh(claim: Verified[attempt_pb2.Claim], now: datetime) -> None:
    """The pharmacy wants the prescription now, and did not only want it some time ago."""
    if claim.signers[-1].sign_time < now - CLAIM_FRESHNESS:
        minutes = int(CLAIM_FRESHNESS.total_seconds() // 60)
        raise Refusal(
            Reason.FIELD_INVALID,
            f"claim.signatures.sign_time: the claim was sealed more than {minutes} minutes ago;"
            " claim anew, with a new request_id",
            field="claim.signatures.sign_time",
        )


def _key(
    caller: CallerName,
    request_id: str,
    statement: SignedStatement,
    expected: type[Message],
    method: str,
) -> RequestKey:
    return RequestKey(unverified_number(statement, expected), str(caller), request_id, method)


def _require_pharmacy(region: Region, caller: CallerName, pharmacy_code: str) -> Institution:
    """The pharmacy, which is active in the region of the platform that forwards for it."""
    require_own_region(caller, pharmacy_code[1:7])
    return region.require_active(caller.region_code, pharmacy_code)


def _forwarded_attempt(
    tx: Transaction,
    caller: CallerName,
    content: attempt_pb2.Commitment | attempt_pb2.ClaimRelease,
) -> tuple[Prescription, Attempt]:
    """An attempt in the region of the platform that forwards for its claimant."""
    number = content.prescription_number
    prescription, attempt = facts.require_attempt(tx, number, content.attempt_id)
    if caller.region_code != attempt.dispensing_region_code:
        raise transitions.unknown_attempt()
    return prescription, attempt


def _reference(
    content: attempt_pb2.Commitment | attempt_pb2.ClaimRelease, sha256: bytes
) -> AttemptReference:
    return AttemptReference(content.attempt_id, content.fence, content.pharmacy_code, sha256)


def _require_hold(
    region: Region,
    prescription: Prescription,
    content: attempt_pb2.Commitment,
    request: CommitAttemptRequest,
    now: datetime,
) -> Verified[settlement_pb2.Settlement]:
    """The payer has set exactly the accepted money aside for this commitment."""
    hold = region.verified(request.settlement, settlement_pb2.Settlement, now)
    settlement = hold.content
    check_required(settlement)
    fitting = (
        settlement.settlement_id == content.settlement_id
        and settlement.attempt_id == content.attempt_id
        and settlement.prescription_number == content.prescription_number
        and settlement.pharmacy_code == content.pharmacy_code
        and settlement.dispensing_region_code == content.pharmacy_code[1:7]
        and settlement.payer_region_code == prescription.payer_region_code
        and settlement.state == settlement_pb2.Settlement.STATE_HELD
        and settlement.amounts == content.accepted_amounts
    )
    if not fitting:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH,
            "settlement: the payer's hold is not for this commitment and attempt",
            field="settlement",
        )
    return hold
