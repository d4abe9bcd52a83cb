"""Finding, claiming and releasing for the pharmacies of this region: the home region decides."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2, prescription_pb2
from rxoutflow.v1.home_service_pb2 import (
    GrantClaimRequest,
    GrantClaimResponse,
    OpenPrescriptionRequest,
    OpenPrescriptionResponse,
    ReleaseAttemptRequest,
)
from rxoutflow.v1.payer_service_pb2 import IssueECredentialRequest
from rxoutflow.v1.pharmacy_service_pb2 import (
    ClaimPrescriptionRequest,
    ClaimPrescriptionResponse,
    FindPrescriptionRequest,
    FindPrescriptionResponse,
    PharmacyServiceGetOutcomeRequest,
    PharmacyServiceGetOutcomeResponse,
    PresentECredentialRequest,
    PresentECredentialResponse,
    QuoteSettlementRequest,
    ReleaseClaimRequest,
    ReleaseClaimResponse,
)
from rxoutflow_server.application.dispensing.exchange import (
    Exchange,
    RefusedHere,
    believed,
    require_asked,
)
from rxoutflow_server.application.exchange.corrected import require_uncorrected
from rxoutflow_server.application.exchange.evidence import keep, step
from rxoutflow_server.application.exchange.idempotency import (
    RequestKey,
    find_outcome,
    once,
    unverified_number,
)
from rxoutflow_server.application.ports import (
    ClaimCopy,
    Flow,
    RegionRole,
    Transaction,
)
from rxoutflow_server.application.region import Region, opened, receipted, routed
from rxoutflow_server.domain.dispense import DispenseState, let_go
from rxoutflow_server.domain.errors import Reason, Refusal

CLAIM_PRESCRIPTION = "/rxoutflow.v1.PharmacyService/ClaimPrescription"
_RELEASE_CLAIM = "/rxoutflow.v1.PharmacyService/ReleaseClaim"


async def present_e_credential(
    exchange: Exchange, caller: CallerName, request: PresentECredentialRequest
) -> PresentECredentialResponse:
    """Let the payer region turn a scanned code into a token for the caller.

    Raises:
        Refusal: E_CREDENTIAL_NOT_ACCEPTED or REGION_UNKNOWN.
        Unavailable: the payer region cannot be reached.
    """
    payer = exchange.peers.region(request.credential_code[:6])
    issued = await payer.issue_e_credential(
        IssueECredentialRequest(
            credential_code=request.credential_code, pharmacy_code=caller.institution_code
        )
    )
    return PresentECredentialResponse(token=issued.token, statuses=issued.statuses)


async def find(
    exchange: Exchange, caller: CallerName, request: FindPrescriptionRequest
) -> FindPrescriptionResponse:
    """Open a prescription at its home region.

    Raises:
        Refusal: see PharmacyService.FindPrescription.
        Unavailable: the home region cannot be reached.
    """
    found = await open_at_home(exchange, caller, request)
    return FindPrescriptionResponse(prescription=found.prescription, status=found.status)


async def open_at_home(
    exchange: Exchange,
    caller: CallerName,
    request: FindPrescriptionRequest | QuoteSettlementRequest,
) -> OpenPrescriptionResponse:
    """Open a prescription at its home region with the proof that a request carries.

    Raises:
        Refusal: see PharmacyService.FindPrescription.
        Unavailable: the home region cannot be reached.
    """
    exchange.region.require_active(exchange.region.code, caller.institution_code)
    opening = OpenPrescriptionRequest(pharmacy_code=caller.institution_code)
    if request.HasField("e_credential"):
        number = request.e_credential.prescription_number
        opening.e_credential.CopyFrom(request.e_credential)
    else:
        number = str(opened(request.pickup_code).number)
        opening.pickup_code = request.pickup_code
    return await exchange.home_of(number).open_prescription(opening)


async def claim(
    exchange: Exchange, caller: CallerName, request: ClaimPrescriptionRequest
) -> ClaimPrescriptionResponse:
    """Claim a prescription at its home region, and keep a copy of what was granted.

    Raises:
        StatementError: the claim does not verify.
        Refusal: see PharmacyService.ClaimPrescription.
        Unavailable: the home region cannot be reached; repeat with the same request id.
    """
    region, store, now = exchange.region, exchange.store, exchange.region.now()
    number = unverified_number(request.claim, attempt_pb2.Claim)
    key = RequestKey(number, str(caller), request.request_id, CLAIM_PRESCRIPTION)
    asked = _with_proof(
        GrantClaimRequest(request_id=request.request_id, claim=request.claim), request
    )

    def granted_here(tx: Transaction) -> ClaimPrescriptionResponse:
        is_kept = _is_kept(tx, region, caller, request, key, now)
        granted = GrantClaimResponse() if is_kept else exchange.own.grant_claim(tx, asked)
        return _kept(tx, region, caller, request, key, granted, now)

    if routed(number).region_code == region.code:
        with suppress(RefusedHere):
            response = await store.transact(granted_here)
            return await receipted(region, store, response, request.claim)
    is_kept = await store.read(lambda tx: _is_kept(tx, region, caller, request, key, now))
    granted = GrantClaimResponse() if is_kept else await exchange.home_of(number).grant_claim(asked)
    return await store.transact(lambda tx: _kept(tx, region, caller, request, key, granted, now))


async def release(
    exchange: Exchange, caller: CallerName, request: ReleaseClaimRequest
) -> ReleaseClaimResponse:
    """Let go of a claim at its home region.

    Raises:
        StatementError: the release does not verify.
        Refusal: see PharmacyService.ReleaseClaim.
        Unavailable: the home region cannot be reached; repeat with the same request id.
    """
    region, now = exchange.region, exchange.region.now()
    content = region.verified(request.release, attempt_pb2.ClaimRelease, now, decides=False).content
    require_own(caller, content.pharmacy_code)
    number = content.prescription_number
    await exchange.store.transact(lambda tx: _begin_release(tx, caller, content, now))
    released = await exchange.home_of(number).release_attempt(
        ReleaseAttemptRequest(request_id=request.request_id, release=request.release)
    )
    response = ReleaseClaimResponse(
        attempt=released.attempt,
        receipt=released.receipt if released.HasField("receipt") else None,
    )
    key = RequestKey(number, str(caller), request.request_id, _RELEASE_CLAIM)
    return await exchange.store.transact(
        lambda tx: once(
            tx.journal,
            key,
            request,
            ReleaseClaimResponse,
            now,
            lambda: _keep_release(tx, region, caller, request, response, now),
        )
    )


def require_claim(tx: Transaction, caller: CallerName, number: str, attempt_id: str) -> ClaimCopy:
    """The copy of a claim of the caller's.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND.
    """
    claim_copy = tx.dispensing.claim(number, attempt_id)
    if claim_copy is None or claim_copy.pharmacy_code != caller.institution_code:
        raise Refusal(Reason.ATTEMPT_NOT_FOUND, "you have no such attempt on this prescription")
    return claim_copy


def require_own(caller: CallerName, pharmacy_code: str) -> None:
    """A pharmacy speaks only for itself, and with its own seal.

    Raises:
        Refusal: SIGNED_CONTENT_MISMATCH.
    """
    if pharmacy_code != caller.institution_code:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH,
            "pharmacy_code: a pharmacy speaks only for itself",
            field="pharmacy_code",
        )


def _begin_release(
    tx: Transaction, caller: CallerName, content: attempt_pb2.ClaimRelease, now: datetime
) -> None:
    """From here on no handover is recorded: the pharmacy has signed that there was none.

    Stored before the home region hears of it, so that a record cannot overtake the release.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND, FENCE_STALE, or ATTEMPT_ENDED once a dispense was recorded here.
    """
    number, attempt_id = content.prescription_number, content.attempt_id
    require_claim(tx, caller, number, attempt_id)
    dispense = tx.dispensing.dispense_of_attempt(number, attempt_id)
    if dispense is None:
        return
    if dispense.state in (DispenseState.DISPENSED, DispenseState.COMPLETED):
        raise Refusal(
            Reason.ATTEMPT_ENDED,
            "the handover was recorded; what was handed over cannot be released",
            state=dispense.state,
        )
    if dispense.fence != content.fence:
        raise Refusal(
            Reason.FENCE_STALE, f"the attempt's fence is {dispense.fence}, not {content.fence}"
        )
    tx.dispensing.save_dispense(let_go(dispense, now=now))


def get_outcome(
    tx: Transaction, caller: CallerName, request: PharmacyServiceGetOutcomeRequest
) -> PharmacyServiceGetOutcomeResponse:
    """What became of a request of the caller's, as far as this region knows.

    Raises:
        Refusal: OUTCOME_NOT_FOUND, or REQUEST_CORRECTED.
    """
    number, request_id = request.prescription_number, request.request_id
    require_uncorrected(tx.journal, number, str(caller), request_id)
    return PharmacyServiceGetOutcomeResponse(
        outcome=find_outcome(
            tx.journal, request.prescription_number, str(caller), request.request_id
        )
    )


def _with_proof(
    granting: GrantClaimRequest, request: ClaimPrescriptionRequest
) -> GrantClaimRequest:
    if request.HasField("e_credential"):
        granting.e_credential.CopyFrom(request.e_credential)
    else:
        granting.pickup_code = request.pickup_code
    return granting


def _is_kept(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: ClaimPrescriptionRequest,
    key: RequestKey,
    now: datetime,
) -> bool:
    """Whether the claim was granted and kept before; if not, the caller must be able to claim."""
    require_uncorrected(tx.journal, key.prescription_number, key.caller, key.request_id)
    if tx.journal.outcome(key.prescription_number, key.caller, key.request_id) is not None:
        return True
    region.require_active(region.code, caller.institution_code)
    verified = region.verified(request.claim, attempt_pb2.Claim, now, decides=False)
    require_own(caller, verified.content.pharmacy_code)
    return False


def _kept(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: ClaimPrescriptionRequest,
    key: RequestKey,
    granted: GrantClaimResponse,
    now: datetime,
) -> ClaimPrescriptionResponse:
    """The answer to a claim, which is kept once."""
    return once(
        tx.journal,
        key,
        request,
        ClaimPrescriptionResponse,
        now,
        lambda: _keep_claim(tx, region, caller, request, granted, now),
    )


def _keep_claim(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: ClaimPrescriptionRequest,
    granted: GrantClaimResponse,
    now: datetime,
) -> ClaimPrescriptionResponse:
    """Keep prescription, claim and attempt; the pharmacy must keep the prescription two years."""
    number = unverified_number(request.claim, attempt_pb2.Claim)
    require_uncorrected(tx.journal, number, str(caller), request.request_id)
    home = number[:6]
    stated = believed(region, granted.attempt, attempt_pb2.Attempt, now, origin=home)
    attempt = stated.content
    prescription = believed(
        region,
        granted.prescription,
        prescription_pb2.Prescription,
        now,
        origin=home,
        decides=False,
    )
    require_asked(home, attempt.prescription_number == number)
    require_asked(home, attempt.pharmacy_code == caller.institution_code)
    require_asked(home, prescription.content.prescription_number == number)
    keep(tx, number, granted.prescription, now, prescription)
    claim_sha256 = keep(tx, number, request.claim, now)
    attempt_sha256 = keep(tx, number, granted.attempt, now, stated)
    is_new = tx.dispensing.claim(number, attempt.attempt_id) is None
    tx.dispensing.save_claim(
        ClaimCopy(
            prescription_number=number,
            attempt_id=attempt.attempt_id,
            pharmacy_code=caller.institution_code,
            prescription_sha256=prescription.sha256,
            attempt_sha256=attempt_sha256,
            update_time=now,
        )
    )
    _step(tx, number, "claim forwarded", caller.institution_code, claim_sha256, now)
    if is_new:
        _step(tx, number, "claim confirmed", home, attempt_sha256, now)
    return ClaimPrescriptionResponse(
        attempt=granted.attempt,
        receipt=granted.receipt if granted.HasField("receipt") else None,
    )


def _keep_release(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: ReleaseClaimRequest,
    response: ReleaseClaimResponse,
    now: datetime,
) -> ReleaseClaimResponse:
    asked = attempt_pb2.ClaimRelease.FromString(request.release.payload)
    number, home = asked.prescription_number, asked.prescription_number[:6]
    attempt = believed(region, response.attempt, attempt_pb2.Attempt, now, origin=home).content
    require_asked(home, attempt.attempt_id == asked.attempt_id)
    require_asked(home, attempt.prescription_number == number)
    release_sha256 = keep(tx, number, request.release, now)
    keep(tx, number, response.attempt, now)
    dispense = tx.dispensing.dispense_of_attempt(number, attempt.attempt_id)
    if dispense is not None:
        tx.dispensing.save_dispense(let_go(dispense, now=now))
    _step(tx, number, "release forwarded", caller.institution_code, release_sha256, now)
    return response


def _step(
    tx: Transaction, number: str, action: str, actor: str, sha256: bytes, now: datetime
) -> None:
    step(tx, number, RegionRole.DISPENSING, Flow.INFORMATION, action, actor, sha256, now)
