"""Returns that other regions tell the payer: what they undo of a payment goes back."""

from __future__ import annotations

from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.v1 import dispense_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow_server.application.clearing.books import book_reversal, posting_time
from rxoutflow_server.application.exchange.evidence import keep, stated, step, tell_region
from rxoutflow_server.application.exchange.idempotency import require_same_return
from rxoutflow_server.application.messages import returned_lines, reversal_message
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.domain import accounts
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import Book
from rxoutflow_server.domain.returns import quantities, returned_before
from rxoutflow_server.domain.reversal import Reversal, restored, reverse
from rxoutflow_server.domain.settlement import Amounts, InsuredPerson, Settlement


def reverse_settlement(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[dispense_pb2.DispenseReturn],
    now: datetime,
) -> None:
    """Give back what a return undoes. Once, however often it is told, and never before it was paid.

    Raises:
        Refusal: SETTLEMENT_NOT_FOUND, EARLIER_FACT_MISSING while the settlement is not paid,
            SETTLEMENT_ENDED if it was voided, LINE_UNKNOWN, RETURN_EXCEEDED, or
            REQUEST_ID_REUSED if its id belongs to another return.
    """
    content = verified.content
    _require_party(caller, verified.signers[-1].region_code, content)
    person = tx.payer.person(event.insured_person_id)
    paid = tx.payer.settlement(event.insured_person_id, content.settlement_id)
    if person is None or paid is None or not _paid_for(paid, content):
        raise Refusal(Reason.SETTLEMENT_NOT_FOUND, "nothing is paid for this handover and attempt")
    before = tx.payer.reversal(person.insured_person_id, content.settlement_id, content.reversal_id)
    if before is not None:
        require_same_return(before.cause_sha256, verified.sha256)
        return
    keep(tx, paid.prescription_number, event.statement, now, verified)
    _reverse(tx, region, person, paid, content, verified.sha256, now)


def _reverse(
    tx: Transaction,
    region: Region,
    person: InsuredPerson,
    paid: Settlement,
    content: dispense_pb2.DispenseReturn,
    cause: bytes,
    now: datetime,
) -> None:
    """Restore the person, store and book the reversal, and tell the other two regions."""
    dispensing, number = paid.dispensing_region_code, paid.prescription_number
    at = max(posting_time(tx, dispensing, now), paid.update_time)
    earlier = tx.payer.reversals(person.insured_person_id, paid.settlement_id)
    back = quantities(returned_lines(content))
    after, parts = reverse(
        paid, returned_before(each.lines for each in earlier), back, cause_sha256=cause, now=at
    )
    reversal = Reversal(
        reversal_id=content.reversal_id,
        settlement_id=paid.settlement_id,
        insured_person_id=person.insured_person_id,
        lines=back,
        amounts=Amounts.of_lines(parts),
        cause_sha256=cause,
        time=at,
    )
    tx.payer.save_person(restored(person, paid, parts))
    tx.payer.save_settlement(after)
    tx.payer.add_reversal(reversal)
    tx.payer.add_account_entries(accounts.reversed_by(paid, reversal.reversal_id, parts, at))
    message = reversal_message(reversal, after, region.code)
    book_reversal(tx, Book.PAYABLE, dispensing, message)
    _, digest = stated(tx, region, number, message, now)
    step(tx, number, RegionRole.PAYER, Flow.MONEY, "reversed", region.code, digest, now)
    for peer in dict.fromkeys((dispensing, number[:6])):
        tell_region(tx, region, peer, number, digest, now)


def _require_party(
    caller: CallerName, seller_region_code: str, content: dispense_pb2.DispenseReturn
) -> None:
    """Home tells of a return too: what can be filled again is given back, whoever keeps silent."""
    if caller.region_code != content.prescription_number[:6]:
        require_own_region(caller, seller_region_code)


def _paid_for(settlement: Settlement, content: dispense_pb2.DispenseReturn) -> bool:
    return (settlement.attempt_id, settlement.pharmacy_code, settlement.prescription_number) == (
        content.attempt_id,
        content.pharmacy_code,
        content.prescription_number,
    )
