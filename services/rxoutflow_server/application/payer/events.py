"""Facts that other regions tell the payer: handovers to pay, attempts that ended, the index."""

from __future__ import annotations

from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1 import attempt_pb2, dispense_pb2, prescription_status_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow_server.application.exchange.evidence import keep, tell_region
from rxoutflow_server.application.payer.benefits import state_settlement
from rxoutflow_server.application.ports import IndexEntry, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.domain import settlement as transitions
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.settlement import Settlement, SettlementState


def post_settlement(
    tx: Transaction, region: Region, caller: CallerName, event: PeerEvent, now: datetime
) -> None:
    """Pay what was held, on the signed record of the handover. Once, however often it is told.

    Raises:
        StatementError: the record does not verify.
        Refusal: SETTLEMENT_NOT_FOUND or SETTLEMENT_ENDED.
    """
    verified = region.verified(event.statement, dispense_pb2.DispenseRecord, now)
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    held = tx.payer.settlement(event.insured_person_id, content.settlement_id)
    if held is None or not _pays(held, content):
        raise Refusal(Reason.SETTLEMENT_NOT_FOUND, "nothing is held for this handover and attempt")
    posted = transitions.post(held, cause_sha256=verified.sha256, now=now)
    if posted is held:
        return
    keep(tx, held.prescription_number, event.statement, now)
    _settle(tx, region, posted, "posted", now)


def note_attempt_end(
    tx: Transaction, region: Region, caller: CallerName, event: PeerEvent, now: datetime
) -> None:
    """Set free every hold of an attempt that has ended, but the one that its dispense pays.

    The end is remembered, so that a hold that is asked for later is refused.

    Raises:
        StatementError: the attempt does not verify.
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    verified = region.verified(event.statement, attempt_pb2.Attempt, now)
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    person_id = event.insured_person_id
    state = attempt_pb2.Attempt.State.Name(content.state).removeprefix("STATE_").lower()
    tx.payer.note_attempt_end(person_id, content.attempt_id, state)
    digest = keep(tx, content.prescription_number, event.statement, now)
    for settlement in tx.payer.settlements_of_attempt(person_id, content.attempt_id):
        paid = settlement.settlement_id == content.settlement_id
        dispensed = content.state == attempt_pb2.Attempt.STATE_DISPENSED
        if settlement.state is SettlementState.HELD and not (paid and dispensed):
            _void(tx, region, settlement, digest, now)


def index_prescription(
    tx: Transaction, region: Region, caller: CallerName, event: PeerEvent, now: datetime
) -> None:
    """Keep the newest reference to a prescription of one of our insured.

    Raises:
        StatementError: the status does not verify.
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    verified = region.verified(event.statement, prescription_status_pb2.PrescriptionStatus, now)
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    digest = keep(tx, content.prescription_number, event.statement, now)
    tx.payer.index(
        IndexEntry(event.insured_person_id, content.prescription_number, content.version, digest)
    )


def _pays(settlement: Settlement, record: dispense_pb2.DispenseRecord) -> bool:
    return (settlement.attempt_id, settlement.pharmacy_code, settlement.prescription_number) == (
        record.attempt_id,
        record.pharmacy_code,
        record.prescription_number,
    )


def _void(
    tx: Transaction, region: Region, settlement: Settlement, cause: bytes, now: datetime
) -> None:
    person = tx.payer.person(settlement.insured_person_id)
    if person is not None:
        tx.payer.save_person(transitions.give_back(person, settlement))
    voided = transitions.void(settlement, cause_sha256=cause, now=now)
    _settle(tx, region, voided, "voided", now)


def _settle(
    tx: Transaction, region: Region, settlement: Settlement, action: str, now: datetime
) -> None:
    """Store the settlement's end and tell the other two regions."""
    tx.payer.save_settlement(settlement)
    number = settlement.prescription_number
    _, digest = state_settlement(tx, region, settlement, action, now)
    for peer in dict.fromkeys((settlement.dispensing_region_code, number[:6])):
        tell_region(tx, region, peer, number, digest, now)
