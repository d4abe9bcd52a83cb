"""What other regions tell the home region after a handover: goods and money that came back."""

from __future__ import annotations

from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import dispense_pb2, settlement_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow.v1.prescription_status_pb2 import Revocation
from rxoutflow_server.application.agreements import count_reversal
from rxoutflow_server.application.exchange.evidence import (
    keep,
    step,
    tell_institution,
    tell_region,
)
from rxoutflow_server.application.exchange.idempotency import require_same_return
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.messages import cause_of, returned_lines
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.domain.attempt import Attempt
from rxoutflow_server.domain.prescription import Prescription, take_back, unknown_attempt
from rxoutflow_server.domain.returns import BookedReturn, quantities, returned_before


def book_return(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[dispense_pb2.DispenseReturn],
    now: datetime,
) -> None:
    """Book what came back of a handover. Once, and never before the handover itself.

    Raises:
        Refusal: see ``domain.prescription.take_back``; ATTEMPT_NOT_FOUND if it is another's, or
            REQUEST_ID_REUSED if its id belongs to another return.
    """
    content, number = verified.content, verified.content.prescription_number
    require_own_region(caller, verified.signers[-1].region_code)
    prescription, attempt = facts.require_attempt(tx, number, content.attempt_id)
    if not _handed_over_for(attempt, content):
        raise unknown_attempt()
    known = tx.home.booked_return(number, content.reversal_id)
    if known is not None:
        require_same_return(known.statement_sha256, verified.sha256)
        return
    back = quantities(returned_lines(content))
    earlier = tx.home.booked_returns(number, attempt.attempt_id)
    before = returned_before(each.lines for each in earlier)
    change, again = take_back(
        prescription,
        attempt,
        back,
        before,
        cause_of(content),
        now=now,
        wanted_back=_was_wanted_back(tx, number),
    )
    keep(tx, number, event.statement, now, verified)
    tx.home.save(change)
    tx.home.add_booked_return(
        BookedReturn(
            content.reversal_id, number, attempt.attempt_id, back, again, verified.sha256, now
        )
    )
    if attempt.settlement_id:
        _tell_payer(tx, region, prescription, verified.sha256, now)
    facts.answer_return(tx, region, change.prescription, attempt, verified.sha256, now)


def note_reversal(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[settlement_pb2.Reversal],
    now: datetime,
) -> None:
    """Keep the payer's word on what it gave back, and let the hospital hear of it.

    Raises:
        Refusal: PRESCRIPTION_NOT_FOUND, also if another than the payer says it.
    """
    content = verified.content
    prescription = facts.require_prescription(tx, content.prescription_number)
    if caller.region_code != prescription.payer_region_code:
        raise facts.not_found()
    number, issuer = prescription.number, prescription.issuer_code
    digest = keep(tx, number, event.statement, now, verified)
    count_reversal(tx, issuer, content, digest)
    payer = caller.region_code
    step(tx, number, RegionRole.HOME, Flow.MONEY, "reversal known", payer, digest, now)
    summary = f"{content.amounts.pool_fen} fen went back to the fund for what was returned"
    tell_institution(tx, issuer, "REVERSED", number, content.pharmacy_code, digest, summary, now)


def _was_wanted_back(tx: Transaction, number: str) -> bool:
    """Whether its hospital revoked it, also too late for what had been handed over by then."""
    return bool(tx.journal.statements_of(number, rule_for(Revocation).payload_type))


def _tell_payer(
    tx: Transaction, region: Region, prescription: Prescription, sha256: bytes, now: datetime
) -> None:
    """The dispensing region tells it too; but who is paid has no reason to see that it arrives."""
    payer, person = prescription.payer_region_code, prescription.insured_person_id
    tell_region(tx, region, payer, prescription.number, sha256, now, insured_person_id=person)


def _handed_over_for(attempt: Attempt, content: dispense_pb2.DispenseReturn) -> bool:
    """Whether the return is of the pharmacy, and of the settlement, of the attempt."""
    ours = attempt.pharmacy_code == content.pharmacy_code
    return ours and attempt.settlement_id in ("", content.settlement_id)
