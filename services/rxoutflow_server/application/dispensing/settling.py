"""Quote and commit: the payer holds, then the home region commits, each answer stored in between.

``drive`` brings a dispense from any stored step to its decision. The call of the pharmacy and the
recovery after a crash both use it, and every request it makes is idempotent at its receiver: by
settlement at the payer, by request at home.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2, prescription_pb2, settlement_pb2
from rxoutflow.v1.home_service_pb2 import CommitAttemptRequest
from rxoutflow.v1.payer_service_pb2 import HoldBenefitRequest, QuoteBenefitRequest
from rxoutflow.v1.pharmacy_service_pb2 import (
    CommitClaimRequest,
    CommitClaimResponse,
    QuoteSettlementRequest,
    QuoteSettlementResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.dispensing.claims import open_at_home, require_claim
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.dispensing.pricing import priced
from rxoutflow_server.application.exchange.evidence import keep, step
from rxoutflow_server.application.exchange.idempotency import RequestKey, once
from rxoutflow_server.application.messages import committed_lines
from rxoutflow_server.application.ports import ClaimCopy, Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import check_priced_lines, check_required, invalid
from rxoutflow_server.domain.dispense import Dispense, DispenseState, advanced
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal

_INSURANCE = settlement_pb2.SETTLEMENT_MODE_INSURANCE

_COMMIT_CLAIM = "/rxoutflow.v1.PharmacyService/CommitClaim"


async def quote(
    exchange: Exchange, caller: CallerName, request: QuoteSettlementRequest
) -> QuoteSettlementResponse:
    """What person and fund would pay for lines of a prescription that the caller may see.

    Raises:
        Refusal: see PharmacyService.QuoteSettlement.
        Unavailable: home or payer cannot be reached.
    """
    region, now = exchange.region, exchange.region.now()
    statement = await _visible_prescription(exchange, caller, request)
    prescription = region.verified(
        statement, prescription_pb2.Prescription, now, decides=False
    ).content
    if prescription.prescription_number != request.prescription_number:
        raise invalid("prescription_number", "is not that of the pickup code or attempt")
    pricing = priced(
        region,
        prescription,
        request.lines,
        pharmacy_code=caller.institution_code,
        settlement_id="",
        attempt_id=request.attempt_id,
        now=now,
    )
    payer = exchange.peers.region(prescription.patient.payer_region_code)
    quoted = await payer.quote_benefit(QuoteBenefitRequest(prescription=statement, pricing=pricing))
    return QuoteSettlementResponse(quote=quoted.quote, pricing=pricing)


async def commit(
    exchange: Exchange, caller: CallerName, request: CommitClaimRequest
) -> CommitClaimResponse:
    """Bring a commitment to its decision: hold at the payer, commit at home.

    Raises:
        StatementError: the commitment does not verify.
        Refusal: see PharmacyService.CommitClaim; the claim is as it was.
        Unavailable: home or payer cannot be reached; repeat with the same request id.
    """
    dispense = await exchange.store.transact(
        lambda tx: _intend(tx, exchange.region, caller, request)
    )
    dispense = await drive(exchange, dispense)
    _require_not_let_go(dispense)
    return await exchange.store.transact(
        lambda tx: _commit_answer(tx, exchange.region, caller, request, dispense)
    )


def _require_not_let_go(dispense: Dispense) -> None:
    """The pharmacy may have released the attempt while home was being asked to commit it."""
    if dispense.state is DispenseState.RELEASED:
        raise Refusal(
            Reason.ATTEMPT_ENDED,
            "the attempt was released or has expired; hand nothing over for it; claim again",
            state=dispense.state,
        )


async def drive(exchange: Exchange, dispense: Dispense) -> Dispense:
    """Bring a dispense from its stored step to its decision.

    Raises:
        Refusal: home or payer refused; the dispense is stored as refused.
        Unavailable: home or payer cannot be reached; the dispense stays where it is.
    """
    try:
        if dispense.state is DispenseState.COMMITTING:
            dispense = await _hold(exchange, dispense)
        if dispense.state is DispenseState.HELD:
            dispense = await _commit_at_home(exchange, dispense)
    except Refusal:
        await exchange.store.transact(lambda tx: _refused(tx, exchange.region, dispense))
        raise
    return dispense


async def undecided(exchange: Exchange, limit: int) -> list[Dispense]:
    """Dispenses that a crash or an unreachable region left undecided, longest untouched first."""
    return list(await exchange.store.read(lambda tx: tx.dispensing.undecided(limit)))


async def put_off(exchange: Exchange, dispense: Dispense) -> None:
    """Let a dispense that cannot be decided now wait behind the others."""
    await exchange.store.transact(lambda tx: _touch(tx, exchange.region, dispense))


def _touch(tx: Transaction, region: Region, dispense: Dispense) -> None:
    current = _current(tx, dispense)
    tx.dispensing.save_dispense(replace(current, update_time=region.now()))


async def _visible_prescription(
    exchange: Exchange, caller: CallerName, request: QuoteSettlementRequest
) -> SignedStatement:
    """The prescription, by the caller's own attempt or by a proof of the right to collect."""
    number = request.prescription_number
    if request.WhichOneof("right") == "attempt_id":
        return await exchange.store.read(
            lambda tx: _copy(tx, require_claim(tx, caller, number, request.attempt_id))
        )
    return (await open_at_home(exchange, caller, request)).prescription


def _copy(tx: Transaction, claim: ClaimCopy) -> SignedStatement:
    return tx.journal.statement(claim.prescription_number, claim.prescription_sha256)


def _intend(
    tx: Transaction, region: Region, caller: CallerName, request: CommitClaimRequest
) -> Dispense:
    """Store the intent to commit, with everything that is needed to carry it on after a crash."""
    now = region.now()
    verified = region.verified(request.commitment, attempt_pb2.Commitment, now, decides=False)
    content = verified.content
    check_required(content)
    check_priced_lines(content.lines)
    claim = require_claim(tx, caller, content.prescription_number, content.attempt_id)
    before = tx.dispensing.dispense(content.prescription_number, content.settlement_id)
    if before is not None:
        return _same_commitment(before, verified.sha256)
    _require_no_other(tx, content)
    prescription = region.verified(
        _copy(tx, claim), prescription_pb2.Prescription, now, decides=False
    ).content
    pricing = priced(
        region,
        prescription,
        content.lines,
        pharmacy_code=claim.pharmacy_code,
        settlement_id=content.settlement_id,
        attempt_id=content.attempt_id,
        now=now,
    )
    dispense = _new_dispense(tx, region, request, content, prescription, pricing, now)
    tx.dispensing.add_dispense(dispense)
    actor, digest = caller.institution_code, dispense.commitment_sha256
    _step(tx, dispense, Flow.INFORMATION, "commit requested", actor, digest, now)
    return dispense


def _require_no_other(tx: Transaction, content: attempt_pb2.Commitment) -> None:
    """An attempt is committed once, by one settlement, unless that was refused."""
    other = tx.dispensing.dispense_of_attempt(content.prescription_number, content.attempt_id)
    if other is not None and other.state is not DispenseState.REFUSED:
        raise Refusal(
            Reason.ATTEMPT_ALREADY_COMMITTED,
            f"the attempt has a commitment that is {other.state}; repeat that one, or release the"
            " attempt and claim again",
            settlement_id=other.settlement_id,
        )


def _same_commitment(before: Dispense, commitment_sha256: bytes) -> Dispense:
    if before.commitment_sha256 != commitment_sha256:
        raise Refusal(
            Reason.REQUEST_ID_REUSED,
            "settlement_id: it was used for another commitment; make a new one",
        )
    if before.state is DispenseState.REFUSED:
        raise Refusal(
            Reason.SETTLEMENT_ENDED,
            "this commitment was refused; quote again and commit with a new settlement_id",
            state=before.state,
        )
    return before


def _new_dispense(
    tx: Transaction,
    region: Region,
    request: CommitClaimRequest,
    content: attempt_pb2.Commitment,
    prescription: prescription_pb2.Prescription,
    pricing: SignedStatement,
    now: datetime,
) -> Dispense:
    number = content.prescription_number
    insured = content.mode == _INSURANCE
    return Dispense(
        prescription_number=number,
        settlement_id=content.settlement_id,
        attempt_id=content.attempt_id,
        fence=content.fence,
        pharmacy_code=content.pharmacy_code,
        payer_region_code=prescription.patient.payer_region_code,
        insured_person_id=prescription.patient.insured_person_id,
        insured=insured,
        lines=committed_lines(content.lines),
        # Without insurance there is nothing to hold: the next step is the commit itself.
        state=DispenseState.COMMITTING if insured else DispenseState.HELD,
        create_time=now,
        update_time=now,
        request_id=request.request_id,
        commitment_sha256=keep(tx, number, request.commitment, now),
        pricing_sha256=keep(tx, number, pricing, now),
    )


async def _hold(exchange: Exchange, dispense: Dispense) -> Dispense:
    request = await exchange.store.read(lambda tx: _hold_request(tx, dispense))
    payer = exchange.peers.region(dispense.payer_region_code)
    held = await payer.hold_benefit(request)
    return await exchange.store.transact(
        lambda tx: _keep_hold(tx, exchange.region, dispense, held.settlement)
    )


def _hold_request(tx: Transaction, dispense: Dispense) -> HoldBenefitRequest:
    number = dispense.prescription_number
    claim = _claim_of(tx, dispense)
    return HoldBenefitRequest(
        prescription=_copy(tx, claim),
        attempt=tx.journal.statement(number, claim.attempt_sha256),
        commitment=tx.journal.statement(number, dispense.commitment_sha256),
        pricing=tx.journal.statement(number, dispense.pricing_sha256),
    )


def _claim_of(tx: Transaction, dispense: Dispense) -> ClaimCopy:
    claim = tx.dispensing.claim(dispense.prescription_number, dispense.attempt_id)
    if claim is None:
        raise InvariantBroken("a dispense without a claim")
    return claim


def _keep_hold(
    tx: Transaction, region: Region, dispense: Dispense, settlement: SignedStatement
) -> Dispense:
    now = region.now()
    verified = region.verified(settlement, settlement_pb2.Settlement, now)
    if verified.content.settlement_id != dispense.settlement_id:
        raise InvariantBroken("the payer answered for another settlement")
    digest = keep(tx, dispense.prescription_number, settlement, now)
    current = _current(tx, dispense)
    if current.state is not DispenseState.COMMITTING:
        return current
    held = replace(advanced(current, DispenseState.HELD, now=now), settlement_sha256=digest)
    tx.dispensing.save_dispense(held)
    _step(tx, held, Flow.MONEY, "hold confirmed", dispense.payer_region_code, digest, now)
    return held


async def _commit_at_home(exchange: Exchange, dispense: Dispense) -> Dispense:
    request = await exchange.store.read(lambda tx: _commit_request(tx, dispense))
    committed = await exchange.home_of(dispense.prescription_number).commit_attempt(request)
    return await exchange.store.transact(
        lambda tx: _keep_commit(tx, exchange.region, dispense, committed.attempt)
    )


def _commit_request(tx: Transaction, dispense: Dispense) -> CommitAttemptRequest:
    number = dispense.prescription_number
    settlement = (
        tx.journal.statement(number, dispense.settlement_sha256) if dispense.insured else None
    )
    return CommitAttemptRequest(
        request_id=dispense.request_id,
        commitment=tx.journal.statement(number, dispense.commitment_sha256),
        settlement=settlement,
    )


def _keep_commit(
    tx: Transaction, region: Region, dispense: Dispense, attempt: SignedStatement
) -> Dispense:
    now = region.now()
    verified = region.verified(attempt, attempt_pb2.Attempt, now)
    if verified.content.attempt_id != dispense.attempt_id:
        raise InvariantBroken("the home region answered for another attempt")
    current = _current(tx, dispense)
    if current.state is not DispenseState.HELD:
        return current
    digest = keep(tx, dispense.prescription_number, attempt, now)
    renew_claim(tx, dispense, digest, now)
    committed = advanced(current, DispenseState.COMMITTED, now=now)
    tx.dispensing.save_dispense(committed)
    home = dispense.prescription_number[:6]
    _step(tx, committed, Flow.INFORMATION, "commit confirmed", home, digest, now)
    return committed


def _current(tx: Transaction, dispense: Dispense) -> Dispense:
    """The dispense as it stands: the call and the recovery may both be driving it."""
    current = tx.dispensing.dispense(dispense.prescription_number, dispense.settlement_id)
    if current is None:
        raise InvariantBroken("a dispense vanished")
    return current


def renew_claim(tx: Transaction, dispense: Dispense, attempt_sha256: bytes, now: datetime) -> None:
    """Keep the home region's newest word on the attempt."""
    claim = _claim_of(tx, dispense)
    tx.dispensing.save_claim(replace(claim, attempt_sha256=attempt_sha256, update_time=now))


def _refused(tx: Transaction, region: Region, dispense: Dispense) -> None:
    now = region.now()
    current = _current(tx, dispense)
    if current.state in (DispenseState.COMMITTING, DispenseState.HELD):
        tx.dispensing.save_dispense(advanced(current, DispenseState.REFUSED, now=now))


def _commit_answer(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: CommitClaimRequest,
    dispense: Dispense,
) -> CommitClaimResponse:
    now, number = region.now(), dispense.prescription_number
    key = RequestKey(number, str(caller), request.request_id, _COMMIT_CLAIM)
    claim = _claim_of(tx, dispense)
    response = CommitClaimResponse(attempt=tx.journal.statement(number, claim.attempt_sha256))
    if dispense.settlement_sha256:
        response.settlement.CopyFrom(tx.journal.statement(number, dispense.settlement_sha256))
    return once(tx.journal, key, request, CommitClaimResponse, now, lambda: response)


def _step(
    tx: Transaction,
    dispense: Dispense,
    flow: Flow,
    action: str,
    actor: str,
    sha256: bytes,
    now: datetime,
) -> None:
    step(tx, dispense.prescription_number, RegionRole.DISPENSING, flow, action, actor, sha256, now)
