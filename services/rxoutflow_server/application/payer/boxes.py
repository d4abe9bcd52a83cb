"""The boxes behind a handover, as the payer sees them: no box is paid for twice (R17).

Where regions keep a register of trace codes together, the word of the dispensing region is not
enough. The payer wants each box's receipt, signed by the registrar that everybody can compute, for
this very attempt, and at least one box for every line. A region that skips the registrar is not
paid, and neither is one that sells a box which another attempt has sold.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.dispense_pb2 import DispenseRecord, TraceCodeSale
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import mismatch
from rxoutflow_server.domain.errors import Reason, Refusal


def require_registered(
    tx: Transaction, region: Region, record: DispenseRecord, sales: Iterable[TraceCodeSale]
) -> None:
    """The registrars have noted every box of a handover as sold by its attempt.

    Where no register is kept together, nothing is asked for. ``sales`` are the verified receipts.

    Raises:
        Refusal: TRACE_CODE_MISSING for a line without boxes, unless it is a formula of herbs, or
            for a box without the receipt of its registrar.
    """
    if not region.registrars:
        return
    _require_scanned(tx, record)
    receipted = {
        (sale.registrar_region_code, box.code, box.loose_sale)
        for sale in sales
        for box in sale.trace_codes
    }
    for line in record.lines:
        for box in line.trace_codes:
            registrar = region.registrar_of(box.code)
            if (registrar, box.code, box.loose_sale) not in receipted:
                raise Refusal(
                    Reason.TRACE_CODE_MISSING,
                    f"line {line.line_id}: the receipt of region {registrar}, which keeps the"
                    " register of the box, does not come with the record; have it noted there",
                    line_id=str(line.line_id),
                    region=registrar,
                )


def receipted(
    region: Region, record: DispenseRecord, sales: Iterable[SignedStatement], now: datetime
) -> list[TraceCodeSale]:
    """What registrars have stated of a handover, verified: one receipt of each.

    Raises:
        StatementError: a receipt does not verify.
        Refusal: SIGNED_CONTENT_MISMATCH for a receipt of another handover, or a second one of a
            registrar.
    """
    found: dict[str, TraceCodeSale] = {}
    handover = (record.prescription_number, record.attempt_id, record.pharmacy_code)
    for index, statement in enumerate(sales):
        sale = region.verified(statement, TraceCodeSale, now).content
        if (sale.prescription_number, sale.attempt_id, sale.pharmacy_code) != handover:
            raise mismatch(f"trace_code_sales[{index}]", "it is of another handover")
        if sale.registrar_region_code in found:
            raise mismatch(f"trace_code_sales[{index}]", "its registrar has given another")
        found[sale.registrar_region_code] = sale
    return list(found.values())


def _require_scanned(tx: Transaction, record: DispenseRecord) -> None:
    for line in record.lines:
        if not line.trace_codes and not _is_herbal(tx, record.prescription_number):
            raise Refusal(
                Reason.TRACE_CODE_MISSING,
                f"line {line.line_id}: no fund pays for boxes that were not scanned",
                line_id=str(line.line_id),
            )


def _is_herbal(tx: Transaction, number: str) -> bool:
    sheets = tx.journal.statements_of(number, rule_for(Prescription).payload_type)
    return any(
        Prescription.FromString(each.payload).type == Prescription.TYPE_HERBAL for each in sheets
    )
