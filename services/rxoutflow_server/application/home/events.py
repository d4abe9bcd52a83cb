"""Facts that other regions tell the home region: handovers to book, settlements to keep."""

from __future__ import annotations

from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow_server.application.agreements import count_settlement
from rxoutflow_server.application.exchange.evidence import keep, step, tell_institution
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.messages import committed_lines, instant
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt, AttemptState, LineQuantity
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.prescription import AttemptReference


def book_dispense(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[dispense_pb2.DispenseRecord],
    now: datetime,
) -> None:
    """Book a handover in the ledger. Telling it again changes nothing.

    Raises:
        Refusal: see ``domain.prescription.dispense``; ATTEMPT_NOT_FOUND if it is another's,
            DISPENSE_MISMATCH if it names another settlement.
    """
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    number = content.prescription_number
    prescription, attempt = facts.require_attempt(tx, number, content.attempt_id)
    reference = AttemptReference(
        content.attempt_id, content.fence, content.pharmacy_code, verified.sha256
    )
    handed_over = tuple(
        LineQuantity(line.line_id, line.quantity) for line in committed_lines(content.lines)
    )
    if attempt.settlement_id not in ("", content.settlement_id):
        raise Refusal(
            Reason.DISPENSE_MISMATCH,
            "settlement_id: the attempt is committed with another settlement",
            field="settlement_id",
        )
    if _was_found(tx, attempt):
        transitions.require_as_found(attempt, reference, handed_over)
        _keep_late_record(tx, attempt, event, verified, now)
        return
    change = transitions.dispense(
        prescription,
        attempt,
        reference,
        handed_over,
        now=now,
        handover_time=instant(content.dispense_time),
    )
    keep(tx, prescription.number, event.statement, now, verified)
    if change.prescription is not prescription:
        facts.save(tx, region, change, now)


def _was_found(tx: Transaction, attempt: Attempt) -> bool:
    """Whether two people found the handover, while no record of it was there."""
    if attempt.state is not AttemptState.DISPENSED:
        return False
    cause = tx.journal.statement(attempt.prescription_number, attempt.cause_sha256)
    return cause.payload_type == rule_for(attempt_pb2.Adjudication).payload_type


def _keep_late_record(
    tx: Transaction,
    attempt: Attempt,
    event: PeerEvent,
    verified: Verified[dispense_pb2.DispenseRecord],
    now: datetime,
) -> None:
    number, pharmacy = attempt.prescription_number, attempt.pharmacy_code
    digest = keep(tx, number, event.statement, now, verified)
    step(tx, number, RegionRole.HOME, Flow.GOODS, "record known", pharmacy, digest, now)


def note_settlement(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[settlement_pb2.Settlement],
    now: datetime,
) -> None:
    """Keep the payer's word on a settlement, and let the hospital hear of a payment.

    Raises:
        Refusal: PRESCRIPTION_NOT_FOUND, also if another than the payer says it.
    """
    content = verified.content
    prescription = facts.require_prescription(tx, content.prescription_number)
    if caller.region_code != prescription.payer_region_code:
        raise facts.not_found()
    number = prescription.number
    digest = keep(tx, number, event.statement, now, verified)
    if content.state != settlement_pb2.Settlement.STATE_POSTED:
        return
    count_settlement(tx, prescription.issuer_code, content, digest)
    step(
        tx, number, RegionRole.HOME, Flow.MONEY, "settlement known", caller.region_code, digest, now
    )
    tell_institution(
        tx,
        prescription.issuer_code,
        "SETTLED",
        number,
        content.pharmacy_code,
        digest,
        f"the fund paid {content.amounts.pool_fen} of {content.amounts.total_fen} fen",
        now,
    )
