"""Recording handovers, and telling pharmacies how far their dispenses have come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1 import dispense_pb2
from rxoutflow.v1.pharmacy_service_pb2 import (
    GetDispenseRequest,
    GetDispenseResponse,
    ListDispensesRequest,
    ListDispensesResponse,
    RecordDispenseRequest,
    RecordDispenseResponse,
)
from rxoutflow_server.application.clearing.books import book_sale
from rxoutflow_server.application.dispensing.claims import require_claim, require_own
from rxoutflow_server.application.exchange.evidence import keep, step, tell_region
from rxoutflow_server.application.exchange.idempotency import RequestKey, once, unverified_number
from rxoutflow_server.application.messages import committed_lines, progress_message
from rxoutflow_server.application.paging import page_size
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import check_dispense_record
from rxoutflow_server.domain.catalogue import DrugFlag
from rxoutflow_server.domain.dispense import Dispense, recorded
from rxoutflow_server.domain.errors import Reason, Refusal

_RECORD_DISPENSE = "/rxoutflow.v1.PharmacyService/RecordDispense"


def record(
    tx: Transaction, region: Region, caller: CallerName, request: RecordDispenseRequest
) -> RecordDispenseResponse:
    """Store the record of a handover and put it on its way to home and payer.

    Raises:
        StatementError: the record does not verify.
        Refusal: see PharmacyService.RecordDispense.
    """
    now = region.now()
    number = unverified_number(request.dispense_record, dispense_pb2.DispenseRecord)
    key = RequestKey(number, str(caller), request.request_id, _RECORD_DISPENSE)
    return once(
        tx.journal,
        key,
        request,
        RecordDispenseResponse,
        now,
        lambda: _record(tx, region, caller, request, now),
    )


def _record(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: RecordDispenseRequest,
    now: datetime,
) -> RecordDispenseResponse:
    verified = region.verified(request.dispense_record, dispense_pb2.DispenseRecord, now)
    content = verified.content
    check_dispense_record(content)
    require_own(caller, content.pharmacy_code)
    require_claim(tx, caller, content.prescription_number, content.attempt_id)
    dispense = tx.dispensing.dispense(content.prescription_number, content.settlement_id)
    if dispense is None or dispense.attempt_id != content.attempt_id:
        raise Refusal(Reason.ATTEMPT_NOT_COMMITTED, "commit the claim before handing anything over")
    if dispense.record_sha256 == verified.sha256:
        return RecordDispenseResponse(progress=progress_message(dispense))
    dispensed = recorded(dispense, content.fence, committed_lines(content.lines), now=now)
    _sell_boxes(tx, region, dispensed, content.lines)
    dispensed = replace(dispensed, record_sha256=verified.sha256)
    tx.dispensing.save_dispense(dispensed)
    book_sale(tx, dispensed, content)
    _state_handover(tx, region, dispensed, request, now)
    return RecordDispenseResponse(progress=progress_message(dispensed))


def get(tx: Transaction, caller: CallerName, request: GetDispenseRequest) -> GetDispenseResponse:
    """How far a dispense of the caller's has come, with the newest words of home and payer.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND.
    """
    number = request.prescription_number
    claim = require_claim(tx, caller, number, request.attempt_id)
    response = GetDispenseResponse(attempt=tx.journal.statement(number, claim.attempt_sha256))
    dispense = tx.dispensing.dispense_of_attempt(number, request.attempt_id)
    if dispense is not None:
        response.progress.CopyFrom(progress_message(dispense))
        if dispense.settlement_sha256:
            response.settlement.CopyFrom(tx.journal.statement(number, dispense.settlement_sha256))
    return response


def list_own(
    tx: Transaction, caller: CallerName, request: ListDispensesRequest
) -> ListDispensesResponse:
    """The caller's dispenses, newest first, a page at a time."""
    size = page_size(request.page_size)
    found = tx.dispensing.dispenses_of(caller.institution_code, request.page_token, size)
    return ListDispensesResponse(
        dispenses=[progress_message(dispense) for dispense in found],
        next_page_token=found[-1].settlement_id if len(found) == size else "",
    )


def _sell_boxes(
    tx: Transaction,
    region: Region,
    dispense: Dispense,
    lines: Iterable[dispense_pb2.DispensedLine],
) -> None:
    """R17: boxes are scanned before the fund pays, and each box is sold once."""
    for line in lines:
        herbal = DrugFlag.HERBAL in region.catalogue.flags_of(line.drug_code)
        if dispense.insured and not line.trace_codes and not herbal:
            raise Refusal(
                Reason.TRACE_CODE_MISSING,
                f"line {line.line_id}: scan the trace codes of its boxes",
                line_id=str(line.line_id),
            )
        for trace_code in line.trace_codes:
            _sell_box(tx, dispense, line.line_id, trace_code)


def _sell_box(
    tx: Transaction, dispense: Dispense, line_id: int, trace_code: dispense_pb2.TraceCode
) -> None:
    sold = tx.dispensing.sell_trace_code(
        trace_code.code,
        dispense.prescription_number,
        dispense.attempt_id,
        loose=trace_code.loose_sale,
    )
    if not sold:
        raise Refusal(
            Reason.TRACE_CODE_ALREADY_SOLD,
            f"line {line_id}: a box with this trace code was sold before; take it off sale",
            line_id=str(line_id),
        )


def _state_handover(
    tx: Transaction,
    region: Region,
    dispense: Dispense,
    request: RecordDispenseRequest,
    now: datetime,
) -> None:
    number, actor = dispense.prescription_number, dispense.pharmacy_code
    digest = keep(tx, number, request.dispense_record, now)
    step(tx, number, RegionRole.DISPENSING, Flow.GOODS, "handed over", actor, digest, now)
    tell_region(tx, region, number[:6], number, digest, now)
    if dispense.insured:
        tell_region(
            tx,
            region,
            dispense.payer_region_code,
            number,
            digest,
            now,
            insured_person_id=dispense.insured_person_id,
        )
