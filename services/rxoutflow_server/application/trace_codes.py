"""The register of trace codes: which boxes are sold, of all codes that this region keeps (R17).

One region decides on a code, so a box is sold once however many regions sell at the same moment.
The answer is a signed receipt, on which the payer region relies and which this region's own log
keeps. Nobody takes a box back but the region that sold it. A code says nothing about a person.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1.dispense_pb2 import TraceCode, TraceCodeSale
from rxoutflow.v1.peer_service_pb2 import (
    SellTraceCodesRequest,
    SellTraceCodesResponse,
    TakeBackTraceCodesRequest,
    TakeBackTraceCodesResponse,
)
from rxoutflow_server.application.exchange.evidence import stated
from rxoutflow_server.application.exchange.idempotency import RequestKey, once
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import BoxSale, Transaction
from rxoutflow_server.application.region import Region, require_own_region, routed
from rxoutflow_server.application.validation import (
    check_required,
    check_trace_code,
    check_uuid,
    invalid,
)
from rxoutflow_server.domain.errors import Reason, Refusal

MAX_BOXES = 1000
"""Boxes of one handover, and of one request to a registrar, at most."""

_SELL = "/rxoutflow.v1.PeerService/SellTraceCodes"
_TAKE_BACK = "/rxoutflow.v1.PeerService/TakeBackTraceCodes"


def sell(
    tx: Transaction, region: Region, caller: CallerName, request: SellTraceCodesRequest
) -> SellTraceCodesResponse:
    """Note boxes as sold by an attempt: all of them, or none.

    Raises:
        Refusal: see PeerService.SellTraceCodes.
    """
    now = region.now()
    _check(region, caller, request, [each.code for each in request.trace_codes])
    key = RequestKey(request.prescription_number, str(caller), request.request_id, _SELL)
    return once(
        tx.journal,
        key,
        request,
        SellTraceCodesResponse,
        now,
        lambda: _sold(tx, region, request, now),
    )


def take_back(
    tx: Transaction, region: Region, caller: CallerName, request: TakeBackTraceCodesRequest
) -> TakeBackTraceCodesResponse:
    """Let boxes of an attempt be sold again. What it has not sold is left as it is.

    Raises:
        Refusal: see PeerService.TakeBackTraceCodes.
    """
    now = region.now()
    _check(region, caller, request, request.codes)
    key = RequestKey(request.prescription_number, str(caller), request.request_id, _TAKE_BACK)
    return once(
        tx.journal,
        key,
        request,
        TakeBackTraceCodesResponse,
        now,
        lambda: _taken_back(tx, request),
    )


def note_sales(
    tx: Transaction,
    number: str,
    attempt_id: str,
    pharmacy_code: str,
    trace_codes: Collection[TraceCode],
) -> None:
    """Note boxes of this region's register as sold by an attempt; again, it changes nothing.

    Raises:
        Refusal: TRACE_CODE_ALREADY_SOLD; the transaction has to be undone then.
    """
    for each in sorted(trace_codes, key=lambda each: each.code):
        sale = BoxSale(each.code, each.loose_sale, number, attempt_id, pharmacy_code)
        if not tx.trace_codes.sell(sale):
            raise already_sold(each.code)


def already_sold(code: str) -> Refusal:
    """What whoever sells a box a second time hears."""
    return Refusal(
        Reason.TRACE_CODE_ALREADY_SOLD,
        "a box with this trace code was sold before; take it off sale",
        code=code,
    )


def receipt(
    region: Region,
    number: str,
    attempt_id: str,
    pharmacy_code: str,
    trace_codes: Collection[TraceCode],
    now: datetime,
) -> TraceCodeSale:
    """What this registrar states of boxes that it has noted."""
    return TraceCodeSale(
        registrar_region_code=region.code,
        prescription_number=number,
        attempt_id=attempt_id,
        pharmacy_code=pharmacy_code,
        trace_codes=trace_codes,
        sell_time=timestamp(now),
    )


def _sold(
    tx: Transaction, region: Region, request: SellTraceCodesRequest, now: datetime
) -> SellTraceCodesResponse:
    number, boxes = request.prescription_number, request.trace_codes
    attempt_id, pharmacy = request.attempt_id, request.pharmacy_code
    note_sales(tx, number, attempt_id, pharmacy, boxes)
    content = receipt(region, number, attempt_id, pharmacy, boxes, now)
    statement, _ = stated(tx, region, number, content, now)
    return SellTraceCodesResponse(sale=statement)


def _taken_back(tx: Transaction, request: TakeBackTraceCodesRequest) -> TakeBackTraceCodesResponse:
    number, attempt_id, pharmacy = (
        request.prescription_number,
        request.attempt_id,
        request.pharmacy_code,
    )
    for code in sorted(request.codes):
        tx.trace_codes.take_back(code, number, attempt_id, pharmacy)
    return TakeBackTraceCodesResponse()


def _check(
    region: Region,
    caller: CallerName,
    request: SellTraceCodesRequest | TakeBackTraceCodesRequest,
    codes: Collection[str],
) -> None:
    check_required(request)
    check_uuid("attempt_id", request.attempt_id)
    if str(routed(request.prescription_number)) != request.prescription_number:
        raise invalid("prescription_number", "must have no blanks around it")
    require_own_region(caller, request.pharmacy_code[1:7])
    field = "trace_codes" if isinstance(request, SellTraceCodesRequest) else "codes"
    if len(codes) > MAX_BOXES or len(set(codes)) < len(codes):
        raise invalid(field, f"must be 1 to {MAX_BOXES} different codes")
    for index, code in enumerate(codes):
        check_trace_code(f"{field}[{index}]", code)
        if region.registrar_of(code) != region.code:
            raise invalid(
                f"{field}[{index}]",
                "another region keeps the register of this code: compare [trace_codes] of the"
                " configurations",
            )
