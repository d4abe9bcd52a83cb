"""The boxes behind a handover, as the payer sees them: no box is paid for twice (R17).

Where regions keep a register of trace codes together, the word of the dispensing region is not
enough. The payer wants each box's receipt, signed by the registrar that everybody can compute, for
this very attempt, and at least one box for every line. A region that skips the registrar is not
paid, and neither is one that sells a box which another attempt has sold.
"""

from __future__ import annotations

from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.dispense_pb2 import DispenseRecord, TraceCodeSale
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow_server.application.exchange.evidence import keep
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.errors import Reason, Refusal


def note_sale(
    tx: Transaction, region: Region, caller: CallerName, event: PeerEvent, now: datetime
) -> None:
    """Keep a registrar's receipt for boxes of a handover for which money is held here.

    Raises:
        StatementError: the receipt does not verify, or another region signed it.
        Refusal: SETTLEMENT_NOT_FOUND if nothing is held for that attempt of the caller's.
    """
    content = region.verified(event.statement, TraceCodeSale, now).content
    held = tx.payer.settlements_of_attempt(event.insured_person_id, content.attempt_id)
    ours = (content.prescription_number, caller.region_code)
    if ours not in [(each.prescription_number, each.dispensing_region_code) for each in held]:
        raise Refusal(Reason.SETTLEMENT_NOT_FOUND, "nothing is held for these boxes")
    keep(tx, content.prescription_number, event.statement, now)


def require_registered(tx: Transaction, region: Region, record: DispenseRecord) -> None:
    """The registrars have noted every box of a handover as sold by its attempt.

    Where no register is kept together, nothing is asked for.

    Raises:
        Refusal: TRACE_CODE_MISSING for a line without boxes, unless it is a formula of herbs, or
            EARLIER_FACT_MISSING while a receipt is missing here.
    """
    if not region.registrars:
        return
    _require_scanned(tx, record)
    receipted = _receipted(tx, record)
    for line in record.lines:
        for box in line.trace_codes:
            registrar = region.registrar_of(box.code)
            if (registrar, box.code, box.loose_sale) not in receipted:
                raise Refusal(
                    Reason.EARLIER_FACT_MISSING,
                    f"line {line.line_id}: the receipt of region {registrar}, which keeps the"
                    " register of the box, is missing here; send it, then the record again",
                    line_id=str(line.line_id),
                    region=registrar,
                )


def _require_scanned(tx: Transaction, record: DispenseRecord) -> None:
    number = record.prescription_number
    sheets = tx.journal.statements_of(number, rule_for(Prescription).payload_type)
    herbal = any(
        Prescription.FromString(each.payload).type == Prescription.TYPE_HERBAL for each in sheets
    )
    for line in record.lines:
        if not herbal and not line.trace_codes:
            raise Refusal(
                Reason.TRACE_CODE_MISSING,
                f"line {line.line_id}: no fund pays for boxes that were not scanned",
                line_id=str(line.line_id),
            )


def _receipted(tx: Transaction, record: DispenseRecord) -> set[tuple[str, str, bool]]:
    """The boxes of the attempt with their registrars, out of the receipts that are kept here."""
    payload_type = rule_for(TraceCodeSale).payload_type
    sales = (
        TraceCodeSale.FromString(each.payload)  # verified before it was kept
        for each in tx.journal.statements_of(record.prescription_number, payload_type)
    )
    return {
        (sale.registrar_region_code, box.code, box.loose_sale)
        for sale in sales
        if (sale.attempt_id, sale.pharmacy_code) == (record.attempt_id, record.pharmacy_code)
        for box in sale.trace_codes
    }
