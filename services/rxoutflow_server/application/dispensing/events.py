"""Facts that home and payer tell the dispensing region about its pharmacies' work."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2, prescription_status_pb2, settlement_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow_server.application.clearing.books import book_settlement
from rxoutflow_server.application.exchange.evidence import keep, step, tell_institution
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.domain.dispense import Dispense, acknowledged, let_go
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import Book

_ENDED_WITHOUT_HANDOVER = (
    attempt_pb2.Attempt.STATE_RELEASED,
    attempt_pb2.Attempt.STATE_EXPIRED,
)


def note_attempt(
    tx: Transaction, region: Region, caller: CallerName, event: PeerEvent, now: datetime
) -> None:
    """Keep the home region's word on an attempt: booked, released or expired.

    Raises:
        StatementError: the attempt does not verify.
        Refusal: ATTEMPT_NOT_FOUND if no pharmacy of this region made it.
    """
    verified = region.verified(event.statement, attempt_pb2.Attempt, now)
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    number = content.prescription_number
    claim = tx.dispensing.claim(number, content.attempt_id)
    if claim is None:
        # The answer to the claim was lost and never asked for again: nothing here depends on it.
        return
    digest = keep(tx, number, event.statement, now)
    tx.dispensing.save_claim(replace(claim, attempt_sha256=digest, update_time=now))
    dispense = tx.dispensing.dispense_of_attempt(number, content.attempt_id)
    if content.state == attempt_pb2.Attempt.STATE_DISPENSED and dispense is not None:
        tx.dispensing.save_dispense(acknowledged(dispense, booked=True, now=now))
        home = caller.region_code
        step(tx, number, RegionRole.DISPENSING, Flow.GOODS, "booking known", home, digest, now)
    if content.state in _ENDED_WITHOUT_HANDOVER:
        _attempt_ended(tx, dispense, claim.pharmacy_code, event, digest, now)


def note_settlement(
    tx: Transaction, region: Region, caller: CallerName, event: PeerEvent, now: datetime
) -> None:
    """Keep the payer's word on a settlement: posted or voided.

    Raises:
        StatementError: the settlement does not verify.
        Refusal: SETTLEMENT_NOT_FOUND, also if another than the payer says it.
    """
    content = region.verified(event.statement, settlement_pb2.Settlement, now).content
    number = content.prescription_number
    dispense = tx.dispensing.dispense(number, content.settlement_id)
    if dispense is None or caller.region_code != dispense.payer_region_code:
        raise Refusal(
            Reason.SETTLEMENT_NOT_FOUND, "there is no such settlement here, or it is not yours"
        )
    digest = keep(tx, number, event.statement, now)
    book_settlement(tx, Book.RECEIVABLE, caller.region_code, content)
    posted = content.state == settlement_pb2.Settlement.STATE_POSTED
    heard = replace(dispense, settlement_sha256=digest)
    tx.dispensing.save_dispense(acknowledged(heard, posted=posted, now=now))
    if posted:
        _tell_posted(tx, dispense, caller, content, digest, now)


def warn_claimant(
    tx: Transaction, region: Region, caller: CallerName, event: PeerEvent, now: datetime
) -> None:
    """Let the pharmacy that holds a prescription hear that its issuer wants it back.

    Raises:
        StatementError: the status does not verify.
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    verified = region.verified(event.statement, prescription_status_pb2.PrescriptionStatus, now)
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    number, holding = content.prescription_number, content.live_attempt
    claim = tx.dispensing.claim(number, holding.attempt_id)
    if claim is None or claim.pharmacy_code != holding.pharmacy_code:
        return  # nobody here holds it: no region makes up notices for our institutions
    digest = keep(tx, number, event.statement, now)
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
