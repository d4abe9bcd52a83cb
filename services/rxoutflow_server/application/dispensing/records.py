"""Recording handovers, and telling pharmacies how far their dispenses have come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.verification import MAX_CLOCK_AHEAD
from rxoutflow.v1 import dispense_pb2
from rxoutflow.v1.pharmacy_service_pb2 import (
    GetDispenseRequest,
    GetDispenseResponse,
    ListDispensesRequest,
    ListDispensesResponse,
    RecordDispenseRequest,
    RecordDispenseResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.clearing.books import book_sale
from rxoutflow_server.application.dispensing import boxes, deliveries
from rxoutflow_server.application.dispensing.claims import require_claim, require_own
from rxoutflow_server.application.dispensing.events import is_adjudication
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.exchange.evidence import keep, step, tell_region
from rxoutflow_server.application.exchange.idempotency import (
    RequestKey,
    once,
    require_unused,
    unverified,
    unverified_number,
)
from rxoutflow_server.application.messages import (
    committed_lines,
    delivery_message,
    instant,
    progress_message,
)
from rxoutflow_server.application.paging import page_size
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import (
    check_dispense_record,
    check_uuid,
    invalid,
)
from rxoutflow_server.domain.catalogue import DrugFlag
from rxoutflow_server.domain.dispense import Dispense, recorded, require_as_found
from rxoutflow_server.domain.errors import Reason, Refusal

_RECORD_DISPENSE = "/rxoutflow.v1.PharmacyService/RecordDispense"


async def record_dispense(
    exchange: Exchange, caller: CallerName, request: RecordDispenseRequest
) -> RecordDispenseResponse:
    """Have the boxes of a handover noted as sold, store its record, and put that on its way.

    Raises:
        StatementError: the record does not verify.
        Refusal: see PharmacyService.RecordDispense.
        Unavailable: a registrar of the boxes cannot be reached; repeat with the same request id.
    """
    region, store, sales = exchange.region, exchange.store, list[SignedStatement]()
    content = unverified(request.dispense_record, dispense_pb2.DispenseRecord)
    if boxes.elsewhere(region, (box for line in content.lines for box in line.trace_codes)):
        asking = await store.transact(lambda tx: _about_to_sell(tx, region, caller, request))
        if asking:
            sales = await boxes.sold_elsewhere(exchange, content, request.request_id)
    return await store.transact(lambda tx: record(tx, region, caller, request, sales))


def record(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: RecordDispenseRequest,
    sales: Sequence[SignedStatement] = (),
) -> RecordDispenseResponse:
    """Store the record of a handover and put it on its way to home and payer.

    ``sales`` are the receipts of other regions that keep the register of its boxes.

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
        lambda: _record(tx, region, caller, request, sales, now),
    )


def _about_to_sell(
    tx: Transaction, region: Region, caller: CallerName, request: RecordDispenseRequest
) -> bool:
    """Store which boxes other regions are going to be asked to note; false if all is done already.

    Whatever would refuse the record refuses it now, before anybody is asked.
    """
    now = region.now()
    number = unverified_number(request.dispense_record, dispense_pb2.DispenseRecord)
    key = RequestKey(number, str(caller), request.request_id, _RECORD_DISPENSE)
    check_uuid("request_id", request.request_id)
    require_unused(tx.journal, key, request)
    verified = _verified(tx, region, caller, request, now)
    content, dispense = verified.content, _committed(tx, verified.content)
    if dispense.record_sha256 == verified.sha256:
        return False
    _handed_over(tx, dispense, content, now)
    _require_scanned(region, dispense, content.lines)
    abroad = boxes.elsewhere(region, boxes.all_boxes(content.lines)).values()
    boxes.ask_later(tx, dispense, (box for asked in abroad for box in asked), now)
    return True


def _verified(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: RecordDispenseRequest,
    now: datetime,
) -> Verified[dispense_pb2.DispenseRecord]:
    """A record of the caller's own."""
    verified = region.verified(request.dispense_record, dispense_pb2.DispenseRecord, now)
    content = verified.content
    check_dispense_record(content)
    if instant(content.dispense_time) > now + MAX_CLOCK_AHEAD:
        raise invalid("dispense_time", "is in the future: set the clock")
    require_own(caller, content.pharmacy_code)
    require_claim(tx, caller, content.prescription_number, content.attempt_id)
    return verified


def _committed(tx: Transaction, content: dispense_pb2.DispenseRecord) -> Dispense:
    dispense = tx.dispensing.dispense(content.prescription_number, content.settlement_id)
    if dispense is None or dispense.attempt_id != content.attempt_id:
        raise Refusal(Reason.ATTEMPT_NOT_COMMITTED, "commit the claim before handing anything over")
    return dispense


def _record(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: RecordDispenseRequest,
    sales: Sequence[SignedStatement],
    now: datetime,
) -> RecordDispenseResponse:
    verified = _verified(tx, region, caller, request, now)
    content, dispense = verified.content, _committed(tx, verified.content)
    if dispense.record_sha256 == verified.sha256:
        return RecordDispenseResponse(progress=progress_message(dispense))
    dispensed = _handed_over(tx, dispense, content, now)
    _require_scanned(region, dispensed, content.lines)
    boxes.sell(tx, region, dispensed, content.lines, sales, now)
    dispensed = replace(dispensed, record_sha256=verified.sha256)
    tx.dispensing.save_dispense(dispensed)
    book_sale(tx, dispensed, content)
    deliveries.begin(tx, content, verified.sha256)
    keep(tx, dispense.prescription_number, request.dispense_record, now, verified)
    _state_handover(tx, region, dispensed, now)
    return RecordDispenseResponse(progress=progress_message(dispensed))


def _handed_over(
    tx: Transaction, dispense: Dispense, content: dispense_pb2.DispenseRecord, now: datetime
) -> Dispense:
    """The dispense after its record, which may come after two people found the handover."""
    lines, kept = committed_lines(content.lines), dispense.record_sha256
    if kept and is_adjudication(tx.journal.statement(dispense.prescription_number, kept)):
        require_as_found(dispense, content.fence, lines)
        return dispense
    return recorded(dispense, content.fence, lines, now=now)


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
        response.progress.CopyFrom(_progress(tx, dispense))
        delivery = tx.dispensing.delivery(number, dispense.settlement_id)
        if delivery is not None:
            response.progress.delivery.CopyFrom(delivery_message(delivery))
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
        dispenses=[_progress(tx, dispense) for dispense in found],
        next_page_token=found[-1].settlement_id if len(found) == size else "",
    )


def _progress(tx: Transaction, dispense: Dispense) -> dispense_pb2.DispenseProgress:
    returns = tx.dispensing.returns(dispense.prescription_number, dispense.settlement_id)
    return progress_message(dispense, returns)


def _require_scanned(
    region: Region, dispense: Dispense, lines: Iterable[dispense_pb2.DispensedLine]
) -> None:
    """R17: boxes are scanned before the fund pays."""
    for line in lines:
        herbal = DrugFlag.HERBAL in region.catalogue.flags_of(line.drug_code)
        if dispense.insured and not line.trace_codes and not herbal:
            raise Refusal(
                Reason.TRACE_CODE_MISSING,
                f"line {line.line_id}: scan the trace codes of its boxes",
                line_id=str(line.line_id),
            )


def _state_handover(
    tx: Transaction,
    region: Region,
    dispense: Dispense,
    now: datetime,
) -> None:
    number, actor, digest = (
        dispense.prescription_number,
        dispense.pharmacy_code,
        dispense.record_sha256,
    )
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
