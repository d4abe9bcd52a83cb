"""Facts that other regions tell the payer: handovers to pay, attempts that ended, the index."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import attempt_pb2, dispense_pb2, prescription_status_pb2, settlement_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow_server.application.clearing.books import book_settlement, posting_time
from rxoutflow_server.application.exchange.evidence import keep, step, tell_region
from rxoutflow_server.application.messages import committed_lines, settlement_message
from rxoutflow_server.application.payer.benefits import state_settlement
from rxoutflow_server.application.payer.boxes import receipted, require_registered
from rxoutflow_server.application.ports import Flow, IndexEntry, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.domain import accounts
from rxoutflow_server.domain import settlement as transitions
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import Book
from rxoutflow_server.domain.settlement import Settlement, SettlementState

ENDED = (
    attempt_pb2.Attempt.STATE_DISPENSED,
    attempt_pb2.Attempt.STATE_RELEASED,
    attempt_pb2.Attempt.STATE_EXPIRED,
)
"""The states of an attempt in which nothing is held for it any more."""


def post_settlement(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[dispense_pb2.DispenseRecord],
    now: datetime,
) -> None:
    """Keep the signed record of a handover, and pay if the home region has booked it.

    Once, however often it is told.

    Raises:
        StatementError: a receipt does not verify.
        Refusal: SETTLEMENT_NOT_FOUND, SETTLEMENT_ENDED, DISPENSE_MISMATCH if something else was
            handed over than was held for, or than home has booked, EARLIER_FACT_MISSING if what
            home has booked is another statement, which is not here yet, or those of
            ``boxes.receipted`` and ``boxes.require_registered``.
    """
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    held = tx.payer.settlement(event.insured_person_id, content.settlement_id)
    if held is None or not _pays(held, content):
        raise Refusal(Reason.SETTLEMENT_NOT_FOUND, "nothing is held for this handover and attempt")
    sales = receipted(region, content, event.trace_code_sales, now)
    if held.state is not SettlementState.HELD:
        transitions.post(held, cause_sha256=verified.sha256, now=now)  # paid before, or it says why
        if _as_priced(tx, held, content):
            _keep_shown(tx, event, verified, now)
        return
    if not _as_priced(tx, held, content):
        raise _mismatch()
    require_registered(tx, region, content, sales)
    _require_booked(tx, held, verified.sha256)
    _keep_shown(tx, event, verified, now)
    _pay_if_shown(tx, region, replace(held, record_sha256=verified.sha256), now)


def _keep_shown(
    tx: Transaction,
    event: PeerEvent,
    verified: Verified[dispense_pb2.DispenseRecord],
    now: datetime,
) -> None:
    """Keep the record of a handover and the receipts of its boxes."""
    keep(tx, event.prescription_number, event.statement, now, verified)
    for sale in event.trace_code_sales:
        keep(tx, event.prescription_number, sale, now)


def note_attempt_end(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[attempt_pb2.Attempt],
    now: datetime,
) -> None:
    """Set free every hold of an attempt that has ended, but the one that its dispense is paid by.

    That one is paid if the pharmacy's record is here too.

    The end is remembered, so that a hold that is asked for later is refused. A region ends attempts
    on its own prescriptions only, whatever other attempts it names.

    Raises:
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it, or
            SIGNED_CONTENT_MISMATCH if the attempt has not ended.
    """
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    if content.state not in ENDED:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH, "state: the attempt has not ended", field="state"
        )
    person_id = event.insured_person_id
    state = attempt_pb2.Attempt.State.Name(content.state).removeprefix("STATE_").lower()
    tx.payer.note_attempt_end(person_id, content.attempt_id, state)
    digest = keep(tx, content.prescription_number, event.statement, now, verified)
    for settlement in tx.payer.settlements_of_attempt(person_id, content.attempt_id):
        ours = settlement.prescription_number == content.prescription_number
        if not ours or settlement.state is not SettlementState.HELD:
            continue
        if _is_dispensed_for(content, settlement):
            booked = replace(settlement, booked_sha256=content.cause_sha256)
            _pay_if_shown(tx, region, booked, now)
        else:
            _void(tx, region, settlement, digest, now)


def note_adjudication(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[attempt_pb2.Adjudication],
    now: datetime,
) -> None:
    """Keep what two people of the home region found, in place of the record of a silent pharmacy.

    It pays nothing by itself: home must have ended the attempt by this very adjudication.

    Raises:
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    content = verified.content
    require_own_region(caller, verified.signers[0].region_code)
    person_id, number = event.insured_person_id, content.prescription_number
    digest = keep(tx, number, event.statement, now, verified)
    for settlement in tx.payer.settlements_of_attempt(person_id, content.attempt_id):
        if settlement.prescription_number != number:
            continue
        home = caller.region_code
        flow, action = Flow.INFORMATION, "adjudication known"
        step(tx, number, RegionRole.PAYER, flow, action, home, digest, now)
        if settlement.state is SettlementState.HELD:
            _pay_if_shown(tx, region, settlement, now)


def index_prescription(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[prescription_status_pb2.PrescriptionStatus],
    now: datetime,
) -> None:
    """Keep the newest reference to a prescription of one of our insured.

    Raises:
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    content = verified.content
    require_own_region(caller, verified.signers[-1].region_code)
    digest = keep(tx, content.prescription_number, event.statement, now, verified)
    tx.payer.index(
        IndexEntry(event.insured_person_id, content.prescription_number, content.version, digest)
    )


def _pays(settlement: Settlement, record: dispense_pb2.DispenseRecord) -> bool:
    return (settlement.attempt_id, settlement.pharmacy_code, settlement.prescription_number) == (
        record.attempt_id,
        record.pharmacy_code,
        record.prescription_number,
    )


def _as_priced(tx: Transaction, held: Settlement, record: dispense_pb2.DispenseRecord) -> bool:
    """Whether the record names what was priced. Of a settlement of old that cannot be told."""
    statement = tx.journal.find_statement(held.prescription_number, held.pricing_sha256)
    if statement is None:
        return False
    pricing = settlement_pb2.Pricing.FromString(statement.payload)
    return committed_lines(line.line for line in pricing.lines) == committed_lines(record.lines)


def _require_booked(tx: Transaction, held: Settlement, record_sha256: bytes) -> None:
    """Home has booked nothing else than this record, as far as that can be told."""
    booked = held.booked_sha256
    if booked in (b"", record_sha256):
        return
    if tx.journal.find_statement(held.prescription_number, booked) is None:
        raise Refusal(
            Reason.EARLIER_FACT_MISSING,
            "home has booked another statement, which has not arrived here yet; send it again",
        )
    raise _mismatch()


def _mismatch() -> Refusal:
    return Refusal(
        Reason.DISPENSE_MISMATCH,
        "lines, products and quantities must be those for which the money is held",
        field="lines",
    )


def _with_finding(tx: Transaction, settlement: Settlement) -> Settlement:
    """The settlement with the adjudication as its record, if it is by that that home has booked."""
    booked = settlement.booked_sha256
    if booked in (b"", settlement.record_sha256):
        return settlement
    cause = tx.journal.find_statement(settlement.prescription_number, booked)
    if cause is None or cause.payload_type != rule_for(attempt_pb2.Adjudication).payload_type:
        return settlement
    content = attempt_pb2.Adjudication.FromString(cause.payload)  # verified before it was kept
    handed_over = content.finding == attempt_pb2.Adjudication.FINDING_HANDED_OVER
    if handed_over and content.attempt_id == settlement.attempt_id:
        return replace(settlement, record_sha256=booked)
    return settlement


def _is_dispensed_for(attempt: attempt_pb2.Attempt, settlement: Settlement) -> bool:
    """Whether home says that a handover was booked for this settlement."""
    dispensed = attempt.state == attempt_pb2.Attempt.STATE_DISPENSED
    return dispensed and attempt.settlement_id == settlement.settlement_id


def _pay_if_shown(tx: Transaction, region: Region, settlement: Settlement, now: datetime) -> None:
    """Store what has been shown of a handover; pay when both sides have shown it."""
    settlement = _with_finding(tx, settlement)
    if not settlement.is_payable:
        tx.payer.save_settlement(settlement)
        return
    at = posting_time(tx, settlement.dispensing_region_code, now)
    posted = transitions.post(settlement, cause_sha256=settlement.record_sha256, now=at)
    tx.payer.add_account_entries(accounts.posted(posted))
    _settle(tx, region, posted, "posted", now)


def _void(
    tx: Transaction, region: Region, settlement: Settlement, cause: bytes, now: datetime
) -> None:
    person = tx.payer.person(settlement.insured_person_id)
    if person is not None:
        tx.payer.save_person(transitions.give_back(person, settlement))
    voided = transitions.void(settlement, cause_sha256=cause, now=now)
    tx.payer.add_account_entries(accounts.voided(voided))
    _settle(tx, region, voided, "voided", now)


def _settle(
    tx: Transaction, region: Region, settlement: Settlement, action: str, now: datetime
) -> None:
    """Store the settlement's end, book it, and tell the other two regions."""
    tx.payer.save_settlement(settlement)
    message = settlement_message(settlement, region.code)
    book_settlement(tx, Book.PAYABLE, settlement.dispensing_region_code, message)
    number = settlement.prescription_number
    _, digest = state_settlement(tx, region, message, action, now)
    for peer in dict.fromkeys((settlement.dispensing_region_code, number[:6])):
        tell_region(tx, region, peer, number, digest, now)
