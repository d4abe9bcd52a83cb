"""Facts that home and payer tell the dispensing region about its pharmacies' work."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import attempt_pb2, prescription_status_pb2, settlement_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.agreements import count_settlement
from rxoutflow_server.application.clearing.books import book_settlement
from rxoutflow_server.application.exchange.evidence import keep, step, tell_institution
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.application.validation import mismatch
from rxoutflow_server.domain.dispense import Dispense, acknowledged, found, let_go
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import Book

_ENDED_WITHOUT_HANDOVER = (
    attempt_pb2.Attempt.STATE_RELEASED,
    attempt_pb2.Attempt.STATE_EXPIRED,
)


def note_attempt(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[attempt_pb2.Attempt],
    now: datetime,
) -> None:
    """Keep the home region's word on an attempt: booked, released or expired.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND if no pharmacy of this region made it.
    """
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    number = content.prescription_number
    claim = tx.dispensing.claim(number, content.attempt_id)
    if claim is None:
        # The answer to the claim was lost and never asked for again: nothing here depends on it.
        return
    digest = keep(tx, number, event.statement, now, verified)
    tx.dispensing.save_claim(replace(claim, attempt_sha256=digest, update_time=now))
    dispense = _dispense_of(tx, content)
    if content.state == attempt_pb2.Attempt.STATE_DISPENSED and dispense is not None:
        dispense = _with_finding(tx, dispense, content.cause_sha256, now)
        tx.dispensing.save_dispense(acknowledged(dispense, booked=True, now=now))
        home = caller.region_code
        step(tx, number, RegionRole.DISPENSING, Flow.GOODS, "booking known", home, digest, now)
    if content.state in _ENDED_WITHOUT_HANDOVER:
        flow, home = Flow.INFORMATION, caller.region_code
        step(tx, number, RegionRole.DISPENSING, flow, "end known", home, digest, now)
        _attempt_ended(tx, dispense, claim.pharmacy_code, event, digest, now)


def note_adjudication(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[attempt_pb2.Adjudication],
    now: datetime,
) -> None:
    """Keep what two people of the home region found about an attempt whose pharmacy is silent.

    The dispense ends when home's word on the attempt, which names this finding, is here too.

    Raises:
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    content = verified.content
    home = caller.region_code
    require_own_region(caller, verified.signers[0].region_code)
    number = content.prescription_number
    claim = tx.dispensing.claim(number, content.attempt_id)
    if claim is None:
        return  # as with the attempt itself: nothing here depends on it
    digest = keep(tx, number, event.statement, now, verified)
    flow, action = Flow.INFORMATION, "adjudication known"
    step(tx, number, RegionRole.DISPENSING, flow, action, home, digest, now)
    _tell_adjudicated(tx, claim.pharmacy_code, content, digest, now)
    told = tx.journal.statement(number, claim.attempt_sha256)
    attempt = attempt_pb2.Attempt.FromString(told.payload)  # verified before it was kept
    dispense = _dispense_of(tx, attempt)
    if dispense is not None and attempt.state == attempt_pb2.Attempt.STATE_DISPENSED:
        found_so = _with_finding(tx, dispense, attempt.cause_sha256, now)
        tx.dispensing.save_dispense(acknowledged(found_so, booked=True, now=now))


def note_settlement(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[settlement_pb2.Settlement],
    now: datetime,
) -> None:
    """Keep the payer's word on a settlement: posted or voided.

    Raises:
        Refusal: SETTLEMENT_NOT_FOUND, also if another than the payer says it, or
            SIGNED_CONTENT_MISMATCH if it pays anything else than what was committed.
    """
    content = verified.content
    number = content.prescription_number
    dispense = tx.dispensing.dispense(number, content.settlement_id)
    if dispense is None or caller.region_code != dispense.payer_region_code:
        raise Refusal(
            Reason.SETTLEMENT_NOT_FOUND, "there is no such settlement here, or it is not yours"
        )
    posted = content.state == settlement_pb2.Settlement.STATE_POSTED
    if posted:
        _require_as_committed(tx, dispense, content)
    digest = keep(tx, number, event.statement, now, verified)
    book_settlement(tx, Book.RECEIVABLE, caller.region_code, content)
    count_settlement(tx, dispense.pharmacy_code, content, digest)
    heard = replace(dispense, settlement_sha256=digest)
    tx.dispensing.save_dispense(acknowledged(heard, posted=posted, now=now))
    if posted:
        _tell_posted(tx, dispense, caller, content, digest, now)


def warn_claimant(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[prescription_status_pb2.PrescriptionStatus],
    now: datetime,
) -> None:
    """Let the pharmacy that holds a prescription hear that its issuer wants it back.

    Raises:
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    number, holding = content.prescription_number, content.live_attempt
    claim = tx.dispensing.claim(number, holding.attempt_id)
    if claim is None or claim.pharmacy_code != holding.pharmacy_code:
        return  # nobody here holds it: no region makes up notices for our institutions
    digest = keep(tx, number, event.statement, now, verified)
    tell_institution(
        tx,
        claim.pharmacy_code,
        "MARKED_FOR_REVOCATION",
        content.prescription_number,
        content.issuer_institution_code,
        digest,
        "the hospital wants this prescription back; release it if nothing was handed over",
        now,
    )


def _require_as_committed(
    tx: Transaction, dispense: Dispense, stated: settlement_pb2.Settlement
) -> None:
    """The payer pays for this attempt what pharmacy and patient had accepted, to the fen."""
    kept = tx.journal.statement(dispense.prescription_number, dispense.commitment_sha256)
    accepted = attempt_pb2.Commitment.FromString(kept.payload).accepted_amounts
    if (stated.attempt_id, stated.pharmacy_code) != (dispense.attempt_id, dispense.pharmacy_code):
        raise mismatch("settlement_id", "the settlement is of another attempt")
    if stated.amounts != accepted:
        raise mismatch("amounts", "they are not those that the commitment accepts")


def _dispense_of(tx: Transaction, attempt: attempt_pb2.Attempt) -> Dispense | None:
    """The dispense that an attempt is about: the one that home committed, where it names that."""
    number, attempt_id = attempt.prescription_number, attempt.attempt_id
    if not attempt.settlement_id:
        return tx.dispensing.dispense_of_attempt(number, attempt_id)
    dispense = tx.dispensing.dispense(number, attempt.settlement_id)
    return dispense if dispense is not None and dispense.attempt_id == attempt_id else None


def _with_finding(tx: Transaction, dispense: Dispense, cause: bytes, now: datetime) -> Dispense:
    """The dispense with the adjudication as its record, if it is by that that home has booked."""
    if dispense.record_sha256:
        return dispense
    statement = tx.journal.find_statement(dispense.prescription_number, cause)
    if statement is None or not is_adjudication(statement):
        return dispense
    return replace(found(dispense, now=now), record_sha256=cause)


def is_adjudication(statement: SignedStatement) -> bool:
    """Whether it is a decision of two people, in the place of a pharmacy's record."""
    return statement.payload_type == rule_for(attempt_pb2.Adjudication).payload_type


def _tell_adjudicated(
    tx: Transaction,
    pharmacy_code: str,
    content: attempt_pb2.Adjudication,
    digest: bytes,
    now: datetime,
) -> None:
    number = content.prescription_number
    kind = "ATTEMPT_ENDED"
    summary = "two people of the home region found that nothing was handed over; hand nothing over"
    if content.finding == attempt_pb2.Adjudication.FINDING_HANDED_OVER:
        kind = "DISPENSED"
        summary = "two people of the home region found that you handed it over; send your record"
    tell_institution(tx, pharmacy_code, kind, number, "", digest, summary, now)


def _attempt_ended(
    tx: Transaction,
    dispense: Dispense | None,
    pharmacy_code: str,
    event: PeerEvent,
    digest: bytes,
    now: datetime,
) -> None:
    if dispense is not None:
        tx.dispensing.save_dispense(let_go(dispense, now=now))
    tell_institution(
        tx,
        pharmacy_code,
        "ATTEMPT_ENDED",
        event.prescription_number,
        "",
        digest,
        "the claim has ended; hand nothing over for it",
        now,
    )


def _tell_posted(
    tx: Transaction,
    dispense: Dispense,
    caller: CallerName,
    content: settlement_pb2.Settlement,
    digest: bytes,
    now: datetime,
) -> None:
    number = dispense.prescription_number
    payer = caller.region_code
    step(tx, number, RegionRole.DISPENSING, Flow.MONEY, "payment known", payer, digest, now)
    tell_institution(
        tx,
        dispense.pharmacy_code,
        "SETTLED",
        number,
        "",
        digest,
        f"the fund pays {content.amounts.pool_fen} of {content.amounts.total_fen} fen",
        now,
    )
