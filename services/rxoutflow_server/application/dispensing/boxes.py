"""The boxes of a handover: noted as sold by their registrars before its record is stored (R17).

Which boxes other regions are asked to note is stored first. So whatever happens in between, those
that were not handed over after all are found and taken back (``finish``): after a crash, a refusal
of another box, a release or an adjudication. Boxes of this region's own register need none of that:
they are noted in the transaction that stores the record.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.dispense_pb2 import DispensedLine, DispenseRecord, TraceCode, TraceCodeSale
from rxoutflow.v1.peer_service_pb2 import SellTraceCodesRequest, TakeBackTraceCodesRequest
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application import trace_codes
from rxoutflow_server.application.dispensing.exchange import Exchange, believed, require_asked
from rxoutflow_server.application.exchange.evidence import keep, stated
from rxoutflow_server.application.ports import OpenBox, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.dispense import Dispense, DispenseState
from rxoutflow_server.domain.errors import InvariantBroken, Refusal

LATE = timedelta(seconds=30)
"""For how long boxes are left alone after they were asked for: a call that noted them may still be
on its way."""

_LET_GO = (DispenseState.REFUSED, DispenseState.RELEASED)
_HANDED_OVER = (DispenseState.DISPENSED, DispenseState.COMPLETED)


def all_boxes(lines: Iterable[DispensedLine]) -> list[TraceCode]:
    """The boxes of a handover, each once.

    Raises:
        Refusal: TRACE_CODE_ALREADY_SOLD for a box that is named twice, but as a part each time.
    """
    boxes: dict[str, TraceCode] = {}
    for line in lines:
        for box in line.trace_codes:
            known = boxes.setdefault(box.code, box)
            if known is not box and not (known.loose_sale and box.loose_sale):
                raise _of_line(trace_codes.already_sold(box.code), [line])
    return list(boxes.values())


def elsewhere(region: Region, boxes: Iterable[TraceCode]) -> Mapping[str, list[TraceCode]]:
    """The boxes of which other regions keep the register, by region."""
    found: dict[str, list[TraceCode]] = defaultdict(list)
    for box in boxes:
        registrar = region.registrar_of(box.code)
        if registrar != region.code:
            found[registrar].append(box)
    return found


def ask_later(
    tx: Transaction, dispense: Dispense, boxes: Iterable[TraceCode], now: datetime
) -> None:
    """Store which boxes other regions are going to be asked to note."""
    number, attempt_id = dispense.prescription_number, dispense.attempt_id
    for box in boxes:
        tx.dispensing.open_box(OpenBox(number, attempt_id, box.code, False, now))


async def sold_elsewhere(
    exchange: Exchange, record: DispenseRecord, request_id: str
) -> list[SignedStatement]:
    """Have boxes noted by the other regions that keep their registers; their receipts.

    Raises:
        Refusal: TRACE_CODE_ALREADY_SOLD, naming the line.
        Unavailable: a registrar cannot be reached; repeat with the same request id.
    """
    asked = elsewhere(exchange.region, all_boxes(record.lines))
    calls = (_sold_at(exchange, each, record, asked[each], request_id) for each in asked)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for error in sorted((each for each in answers if isinstance(each, BaseException)), key=_weight):
        raise error
    return [each for each in answers if isinstance(each, SignedStatement)]


def _weight(error: BaseException) -> bool:
    """Refusals first: what is definite is worth more than what is not known."""
    return not isinstance(error, Refusal)


async def _sold_at(
    exchange: Exchange,
    registrar: str,
    record: DispenseRecord,
    boxes: Sequence[TraceCode],
    request_id: str,
) -> SignedStatement:
    request = SellTraceCodesRequest(
        request_id=request_id,
        prescription_number=record.prescription_number,
        attempt_id=record.attempt_id,
        pharmacy_code=record.pharmacy_code,
        trace_codes=boxes,
    )
    try:
        sale = (await exchange.peers.region(registrar).sell_trace_codes(request)).sale
    except Refusal as refusal:
        raise _of_line(refusal, record.lines) from None
    region = exchange.region
    content = believed(region, sale, TraceCodeSale, region.now(), origin=registrar).content
    require_asked(registrar, content.registrar_region_code == registrar)
    require_asked(registrar, content.attempt_id == record.attempt_id)
    require_asked(registrar, list(content.trace_codes) == list(boxes))
    return sale


def _of_line(refusal: Refusal, lines: Iterable[DispensedLine]) -> Refusal:
    """The refusal of a box, as its pharmacy knows it: by the line of the prescription."""
    code = refusal.detail.get("code", "")
    for line in lines:
        if code and any(box.code == code for box in line.trace_codes):
            message = f"line {line.line_id}: {refusal.message}"
            detail = {**refusal.detail, "line_id": str(line.line_id)}
            return Refusal(refusal.reason, message, **detail)
    return refusal


def sell(
    tx: Transaction,
    region: Region,
    dispense: Dispense,
    lines: Sequence[DispensedLine],
    sales: Sequence[SignedStatement],
    now: datetime,
) -> None:
    """Note the boxes of a handover as sold, and keep the receipts, which go with its record.

    ``sales`` are the receipts of the other regions that were asked.

    Raises:
        Refusal: TRACE_CODE_ALREADY_SOLD, naming the line.
    """
    boxes = all_boxes(lines)
    abroad = elsewhere(region, boxes)
    if len(sales) != len(abroad):
        raise InvariantBroken("a registrar was not asked before the record is stored")
    own = [box for box in boxes if region.registrar_of(box.code) == region.code]
    number, attempt_id, pharmacy = (
        dispense.prescription_number,
        dispense.attempt_id,
        dispense.pharmacy_code,
    )
    try:
        trace_codes.note_sales(tx, number, attempt_id, pharmacy, own)
    except Refusal as refusal:
        raise _of_line(refusal, lines) from None
    tx.dispensing.close_boxes(
        number, attempt_id, [box.code for asked in abroad.values() for box in asked]
    )
    for sale in sales:
        keep(tx, number, sale, now)
    if own and region.registrars:
        content = trace_codes.receipt(region, number, attempt_id, pharmacy, own, now)
        stated(tx, region, number, content, now)


def receipts(tx: Transaction, record: DispenseRecord) -> list[SignedStatement]:
    """What the registrars have stated of the boxes of a handover, for its payer."""
    payload_type = rule_for(TraceCodeSale).payload_type
    return [
        statement
        for statement in tx.journal.statements_of(record.prescription_number, payload_type)
        if TraceCodeSale.FromString(statement.payload).attempt_id == record.attempt_id
    ]


def give_back(
    tx: Transaction, region: Region, dispense: Dispense, codes: Iterable[str], now: datetime
) -> None:
    """Let boxes be sold again that came back unopened; for returns with such a cause only.

    At once where this region keeps the register; elsewhere as soon as the registrar is reached.
    """
    number, attempt_id = dispense.prescription_number, dispense.attempt_id
    for code in codes:
        if region.registrar_of(code) == region.code:
            tx.trace_codes.take_back(code, number, attempt_id, dispense.pharmacy_code)
        else:
            tx.dispensing.open_box(OpenBox(number, attempt_id, code, True, now))


async def finish(exchange: Exchange, limit: int) -> None:
    """Take back what other regions noted and was not handed over, or came back.

    Raises:
        Unavailable: a registrar cannot be reached; what it keeps waits behind the others.
        Refusal: likewise, or the registrars disagree about who keeps a code.
    """
    region = exchange.region
    before = region.now() - LATE
    due = await exchange.store.read(lambda tx: tx.dispensing.open_boxes(before, limit))
    attempts = {(box.prescription_number, box.attempt_id) for box in due}
    for number, attempt_id in sorted(attempts):
        of_attempt = [box for box in due if box.attempt_id == attempt_id]
        await _finish(exchange, number, attempt_id, of_attempt)


async def _finish(
    exchange: Exchange, number: str, attempt_id: str, boxes: Sequence[OpenBox]
) -> None:
    store, now = exchange.store, exchange.region.now()
    unwanted, pharmacy = await store.transact(
        lambda tx: _sorted_out(tx, number, attempt_id, boxes, now)
    )
    by_registrar = elsewhere(exchange.region, [TraceCode(code=code) for code in unwanted])
    for registrar, group in by_registrar.items():
        codes = [box.code for box in group]
        request = TakeBackTraceCodesRequest(
            request_id=exchange.region.new_id(now),
            prescription_number=number,
            attempt_id=attempt_id,
            pharmacy_code=pharmacy,
            codes=codes,
        )
        await exchange.peers.region(registrar).take_back_trace_codes(request)
        await store.transact(
            lambda tx, codes=codes: tx.dispensing.close_boxes(number, attempt_id, codes)  # type: ignore[misc] # mypy cannot infer a lambda with a default
        )


def _sorted_out(
    tx: Transaction, number: str, attempt_id: str, boxes: Sequence[OpenBox], now: datetime
) -> tuple[list[str], str]:
    """Which of the boxes are to be taken back; those that cannot be decided on yet wait."""
    dispense = tx.dispensing.dispense_of_attempt(number, attempt_id)
    if dispense is None:
        raise InvariantBroken("boxes were asked for without a dispense")
    unwanted = []
    for box in boxes:
        if box.unwanted or dispense.state in _LET_GO or _is_recorded(tx, dispense):
            unwanted.append(box.code)
        elif dispense.state in _HANDED_OVER:
            tx.dispensing.close_boxes(number, attempt_id, [box.code])  # found to be handed over
        # Whatever becomes of it, it waits behind the others now.
        tx.dispensing.put_off_box(replace(box, update_time=now))
    return unwanted, dispense.pharmacy_code


def _is_recorded(tx: Transaction, dispense: Dispense) -> bool:
    """Whether the pharmacy's own record tells which boxes were handed over."""
    if dispense.state not in _HANDED_OVER:
        return False
    record = tx.journal.statement(dispense.prescription_number, dispense.record_sha256)
    return record.payload_type == rule_for(DispenseRecord).payload_type
