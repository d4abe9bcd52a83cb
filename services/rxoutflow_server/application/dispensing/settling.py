"""Quote and commit: the payer holds, then the home region commits, each answer stored in between.

``_drive`` brings a dispense from any stored step to its decision. The call of the pharmacy and the
recovery after a crash both use it, and every request it makes is idempotent at its receiver: by
settlement at the payer, by request at home. A transaction stores one answer, takes all steps for
which this region is payer or home itself, and loads the next request. So a commitment costs one
transaction, and one more for each other region that has to be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeAlias, TypeVar

from rxoutflow.identity import CallerName
from rxoutflow.statements import StatementError, Verified
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
from rxoutflow_server.application.dispensing.claims import (
    open_at_home,
    require_claim,
    require_own,
)
from rxoutflow_server.application.dispensing.exchange import (
    Exchange,
    OwnRoles,
    RefusedHere,
    believed,
    require_asked,
)
from rxoutflow_server.application.dispensing.pricing import priced
from rxoutflow_server.application.exchange.corrected import require_uncorrected
from rxoutflow_server.application.exchange.evidence import keep, step
from rxoutflow_server.application.exchange.idempotency import RequestKey, once, require_unused
from rxoutflow_server.application.messages import committed_lines
from rxoutflow_server.application.ports import ClaimCopy, Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.application.validation import (
    check_priced_lines,
    check_quoted_lines,
    check_required,
    check_uuid,
    invalid,
)
from rxoutflow_server.domain.dispense import Dispense, DispenseState, advanced
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal

R = TypeVar("R")
_Request: TypeAlias = HoldBenefitRequest | CommitAttemptRequest
_Open: TypeAlias = tuple[Dispense, _Request]
_Change: TypeAlias = Callable[[Transaction], Dispense]

_INSURANCE = settlement_pb2.SETTLEMENT_MODE_INSURANCE

COMMIT_CLAIM = "/rxoutflow.v1.PharmacyService/CommitClaim"

_UNDECIDED = (DispenseState.COMMITTING, DispenseState.HELD)
_PERMITTED = (DispenseState.COMMITTED, DispenseState.DISPENSED, DispenseState.COMPLETED)


@dataclass(frozen=True, slots=True)
class _Decided(Generic[R]):
    """Nobody has to be asked any more."""

    answer: R


async def quote(
    exchange: Exchange, caller: CallerName, request: QuoteSettlementRequest
) -> QuoteSettlementResponse:
    """What person and fund would pay for lines of a prescription that the caller may see.

    Raises:
        Refusal: see PharmacyService.QuoteSettlement.
        Unavailable: home or payer cannot be reached.
    """
    region = exchange.region
    if request.WhichOneof("right") == "attempt_id":
        payer, asked = await exchange.store.read(
            lambda tx: _quote_request(region, caller, request, _claimed(tx, caller, request))
        )
    else:
        opened = await open_at_home(exchange, caller, request)
        payer, asked = _quote_request(region, caller, request, opened.prescription)
    quoted = await exchange.peers.region(payer).quote_benefit(asked)
    return QuoteSettlementResponse(quote=quoted.quote, pricing=asked.pricing)


def _quote_request(
    region: Region,
    caller: CallerName,
    request: QuoteSettlementRequest,
    statement: SignedStatement,
) -> tuple[str, QuoteBenefitRequest]:
    """The payer region of a prescription, and what to ask it."""
    now = region.now()
    prescription = region.verified(
        statement, prescription_pb2.Prescription, now, decides=False
    ).content
    if prescription.prescription_number != request.prescription_number:
        raise invalid("prescription_number", "is not that of the pickup code or attempt")
    check_quoted_lines(request.lines)
    pricing = priced(
        region,
        prescription,
        request.lines,
        pharmacy_code=caller.institution_code,
        settlement_id="",
        attempt_id=request.attempt_id,
        now=now,
    )
    payer = prescription.patient.payer_region_code
    return payer, QuoteBenefitRequest(prescription=statement, pricing=pricing)


async def commit(
    exchange: Exchange, caller: CallerName, request: CommitClaimRequest
) -> CommitClaimResponse:
    """Bring a commitment to its decision: hold at the payer, commit at home.

    Raises:
        StatementError: the commitment does not verify.
        Refusal: see PharmacyService.CommitClaim; the claim is as it was.
        Unavailable: home or payer cannot be reached; repeat with the same request id.
    """
    region = exchange.region
    answer = await _drive(
        exchange,
        lambda tx: _intend(tx, region, caller, request),
        lambda tx, dispense: _commit_answer(tx, region, caller, request, dispense),
    )
    if isinstance(answer, Refusal):
        raise answer
    return answer


def _require_permitted(dispense: Dispense) -> None:
    """A release, or somebody else who drove it, may have ended it while home was being asked."""
    if dispense.state is DispenseState.REFUSED:
        raise _was_refused(dispense)
    if dispense.state not in _PERMITTED:
        raise Refusal(
            Reason.ATTEMPT_ENDED,
            "the attempt was released or has expired; hand nothing over for it; claim again",
            state=dispense.state,
        )


async def drive(exchange: Exchange, dispense: Dispense) -> None:
    """Bring a dispense from its stored step to its decision.

    Raises:
        Refusal: home or payer refused; the dispense is stored as refused, unless nobody decided.
        StatementError: likewise, where this region is home or payer itself.
        Unavailable: home or payer cannot be reached; the dispense stays where it is.
    """
    await _drive(exchange, lambda tx: _current(tx, dispense), lambda _tx, _dispense: None)


async def _drive(
    exchange: Exchange, change: _Change, answer: Callable[[Transaction, Dispense], R]
) -> R:
    """Store a change and take the steps that follow from it, until the dispense is decided.

    ``answer`` is called in the transaction of the last step, with the dispense as it stands there.
    """
    while True:
        step = await _stored(exchange, change, answer)
        if isinstance(step, _Decided):
            return step.answer
        change = await _asked(exchange, *step)


async def _stored(
    exchange: Exchange, change: _Change, answer: Callable[[Transaction, Dispense], R]
) -> _Open | _Decided[R]:
    """Store a change with all own steps behind it; without them if one of them is refused."""

    def carry_out(tx: Transaction, own: OwnRoles | None) -> _Open | _Decided[R]:
        dispense, request = _onwards(tx, exchange.region, own, change(tx))
        return _Decided(answer(tx, dispense)) if request is None else (dispense, request)

    try:
        return await exchange.store.transact(lambda tx: carry_out(tx, exchange.own))
    except RefusedHere:
        return await exchange.store.transact(lambda tx: carry_out(tx, None))


def _onwards(
    tx: Transaction, region: Region, own: OwnRoles | None, dispense: Dispense
) -> tuple[Dispense, _Request | None]:
    """Take the steps of the own roles that come next, and what to ask then; nothing if decided."""
    home = routed(dispense.prescription_number).region_code
    while dispense.state in _UNDECIDED:
        if dispense.state is DispenseState.COMMITTING:
            request = _hold_request(tx, dispense)
            if own is None or dispense.payer_region_code != region.code:
                return dispense, request
            held = own.hold_benefit(tx, request)
            dispense = _keep_hold(tx, region, dispense, held.settlement)
        else:
            asked = _commit_request(tx, dispense)
            if own is None or home != region.code:
                return dispense, asked
            committed = own.commit_attempt(tx, asked)
            dispense = _keep_commit(tx, region, dispense, committed.attempt)
    return dispense, None


async def _asked(exchange: Exchange, dispense: Dispense, request: _Request) -> _Change:
    """Ask payer or home; the change that stores the answer."""
    region = exchange.region
    try:
        if isinstance(request, HoldBenefitRequest):
            held = await exchange.peers.region(dispense.payer_region_code).hold_benefit(request)
            return lambda tx: _keep_hold(tx, region, dispense, held.settlement)
        home = exchange.home_of(dispense.prescription_number)
        committed = await home.commit_attempt(request)
        return lambda tx: _keep_commit(tx, region, dispense, committed.attempt)
    except (Refusal, StatementError) as refusal:
        if _is_decision(refusal, dispense):
            await exchange.store.transact(lambda tx: _refused(tx, region, dispense))
        raise


def _is_decision(refusal: Refusal | StatementError, dispense: Dispense) -> bool:
    """Whether home or payer said no. Too much work, theirs or ours, decides nothing.

    Nor does a home region that is unknown here by now: it may have committed when it was known.
    """
    asked_before = dispense.state is DispenseState.HELD and refusal.reason == Reason.REGION_UNKNOWN
    return refusal.reason != Reason.OVERLOADED and not asked_before


async def undecided(exchange: Exchange, limit: int) -> list[Dispense]:
    """Dispenses that a crash or an unreachable region left undecided, longest untouched first."""
    return list(await exchange.store.read(lambda tx: tx.dispensing.undecided(limit)))


async def put_off(exchange: Exchange, dispense: Dispense) -> None:
    """Let a dispense that cannot be decided now wait behind the others."""
    await exchange.store.transact(lambda tx: _touch(tx, exchange.region, dispense))


def _touch(tx: Transaction, region: Region, dispense: Dispense) -> None:
    current = _current(tx, dispense)
    if current.state in _UNDECIDED:
        tx.dispensing.save_dispense(replace(current, update_time=region.now()))


def _claimed(
    tx: Transaction, caller: CallerName, request: QuoteSettlementRequest
) -> SignedStatement:
    """The prescription that the caller holds by an attempt of its own."""
    number = request.prescription_number
    return _copy(tx, require_claim(tx, caller, number, request.attempt_id))


def _copy(tx: Transaction, claim: ClaimCopy) -> SignedStatement:
    return tx.journal.statement(claim.prescription_number, claim.prescription_sha256)


def _intend(
    tx: Transaction, region: Region, caller: CallerName, request: CommitClaimRequest
) -> Dispense:
    """Store the intent to commit, with everything that is needed to carry it on after a crash."""
    now = region.now()
    verified = region.verified(request.commitment, attempt_pb2.Commitment, now, decides=False)
    content = verified.content
    check_uuid("request_id", request.request_id)
    check_required(content)
    check_uuid("settlement_id", content.settlement_id)
    check_priced_lines(content.lines)
    require_own(caller, content.pharmacy_code)
    _require_uncorrected(tx, caller, request, content.prescription_number)
    claim = require_claim(tx, caller, content.prescription_number, content.attempt_id)
    require_unused(tx.journal, _key(caller, request, content.prescription_number), request)
    before = tx.dispensing.dispense(content.prescription_number, content.settlement_id)
    if before is not None:
        return _same_commitment(before, verified.sha256)
    _require_no_other(tx, content)
    _require_of_attempt(tx, claim, content)
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
    dispense = _new_dispense(tx, request, verified, prescription, pricing, now)
    tx.dispensing.add_dispense(dispense)
    actor, digest = caller.institution_code, dispense.commitment_sha256
    _step(tx, dispense, Flow.INFORMATION, "commit requested", actor, digest, now)
    return dispense


def _require_of_attempt(tx: Transaction, claim: ClaimCopy, content: attempt_pb2.Commitment) -> None:
    """What home would refuse anyway is refused before the payer sets money aside for it."""
    statement = tx.journal.statement(claim.prescription_number, claim.attempt_sha256)
    attempt = attempt_pb2.Attempt.FromString(statement.payload)  # verified before it was kept
    if content.fence != attempt.fence:
        raise Refusal(
            Reason.FENCE_STALE, f"the attempt's fence is {attempt.fence}, not {content.fence}"
        )
    holding = {line.line_id: line.quantity for line in attempt.lines}
    for line in content.lines:
        if line.quantity > holding.get(line.line_id, 0):
            raise Refusal(
                Reason.QUANTITY_EXCEEDED,
                f"line {line.line_id}: {line.quantity} wanted, the attempt holds"
                f" {holding.get(line.line_id, 0)}",
                line_id=str(line.line_id),
                available=str(holding.get(line.line_id, 0)),
            )


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
        raise _was_refused(before)
    return before


def _was_refused(dispense: Dispense) -> Refusal:
    return Refusal(
        Reason.SETTLEMENT_ENDED,
        "this commitment was refused; quote again and commit with a new settlement_id",
        state=dispense.state,
    )


def _new_dispense(
    tx: Transaction,
    request: CommitClaimRequest,
    verified: Verified[attempt_pb2.Commitment],
    prescription: prescription_pb2.Prescription,
    pricing: SignedStatement,
    now: datetime,
) -> Dispense:
    content, number = verified.content, verified.content.prescription_number
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
        commitment_sha256=keep(tx, number, request.commitment, now, verified),
        pricing_sha256=keep(tx, number, pricing, now),
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
    now, payer = region.now(), dispense.payer_region_code
    verified = believed(region, settlement, settlement_pb2.Settlement, now, origin=payer)
    require_asked(payer, verified.content.settlement_id == dispense.settlement_id)
    digest = keep(tx, dispense.prescription_number, settlement, now, verified)
    current = _current(tx, dispense)
    if current.state is not DispenseState.COMMITTING:
        return current
    held = replace(advanced(current, DispenseState.HELD, now=now), settlement_sha256=digest)
    tx.dispensing.save_dispense(held)
    _step(tx, held, Flow.MONEY, "hold confirmed", payer, digest, now)
    return held


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
    now, home = region.now(), dispense.prescription_number[:6]
    verified = believed(region, attempt, attempt_pb2.Attempt, now, origin=home)
    content = verified.content
    require_asked(home, content.attempt_id == dispense.attempt_id)
    require_asked(home, content.prescription_number == dispense.prescription_number)
    current = _current(tx, dispense)
    if current.state is not DispenseState.HELD:
        return current
    digest = keep(tx, dispense.prescription_number, attempt, now, verified)
    renew_claim(tx, dispense, digest, now)
    committed = advanced(current, DispenseState.COMMITTED, now=now)
    tx.dispensing.save_dispense(committed)
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
    if current.state in _UNDECIDED:
        tx.dispensing.save_dispense(advanced(current, DispenseState.REFUSED, now=now))


def _commit_answer(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: CommitClaimRequest,
    dispense: Dispense,
) -> CommitClaimResponse | Refusal:
    """The answer. A refusal is given back, not raised: what home has answered is to be kept."""
    now, number = region.now(), dispense.prescription_number
    key = _key(caller, request, number)
    try:
        _require_uncorrected(tx, caller, request, number)
        _require_permitted(dispense)
        return once(
            tx.journal, key, request, CommitClaimResponse, now, lambda: _committed(tx, dispense)
        )
    except Refusal as refusal:
        return refusal


def _committed(tx: Transaction, dispense: Dispense) -> CommitClaimResponse:
    """The newest words of home and payer on a dispense."""
    number = dispense.prescription_number
    claim = _claim_of(tx, dispense)
    response = CommitClaimResponse(attempt=tx.journal.statement(number, claim.attempt_sha256))
    if dispense.settlement_sha256:
        response.settlement.CopyFrom(tx.journal.statement(number, dispense.settlement_sha256))
    return response


def _require_uncorrected(
    tx: Transaction, caller: CallerName, request: CommitClaimRequest, number: str
) -> None:
    require_uncorrected(tx.journal, number, str(caller), request.request_id)


def _key(caller: CallerName, request: CommitClaimRequest, number: str) -> RequestKey:
    return RequestKey(number, str(caller), request.request_id, COMMIT_CLAIM)


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
