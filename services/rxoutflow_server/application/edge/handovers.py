"""Recording what a pharmacy has handed over: accepted here, and brought to the platform.

The medicine has left the counter, so a record is stored before anything else and is never lost:
the platform gets it now or later. Only the platform can refuse it, as to its content; a corrected
record, signed anew, then takes the place of the refused one.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from rxoutflow.statements import statement_sha256
from rxoutflow.v1.dispense_pb2 import DispenseRecord
from rxoutflow.v1.outcome_pb2 import Outcome
from rxoutflow.v1.pharmacy_service_pb2 import RecordDispenseRequest
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceRecordDispenseRequest,
    PosServiceRecordDispenseResponse,
)
from rxoutflow_server.application.edge.platform import PharmacyPlatform, decided
from rxoutflow_server.application.edge.sealing import (
    Sheet,
    answered,
    concluded,
    sealed,
    sealed_before,
    when_sealed,
)
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import EdgeTransaction, Handover
from rxoutflow_server.application.exchange.idempotency import RequestKey, unverified_number
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import NoticeRecord
from rxoutflow_server.application.validation import check_dispense_record
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable

RECORD = "/rxoutflow.v1.PosService/RecordDispense"

log = structlog.get_logger()


async def record(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceRecordDispenseRequest
) -> PosServiceRecordDispenseResponse:
    """Seal and store a record, and bring it to the platform if that can be done now.

    Raises:
        StatementError: the people's signatures do not verify.
        Refusal: see PharmacyService.RecordDispense.
    """
    number = unverified_number(request.dispense_record, DispenseRecord)
    key = edge.key(number, request.request_id, RECORD)
    begun = await edge.store.transact(lambda tx: _accept(tx, edge, key, request))
    if isinstance(begun, PosServiceRecordDispenseResponse):
        return begun
    try:
        return await _deliver(edge, platform, begun)
    except Unavailable:
        return PosServiceRecordDispenseResponse()
    finally:
        edge.due.ring()  # also if the caller has gone away; finding nothing due costs little


async def offer(edge: Edge, platform: PharmacyPlatform, handover: Handover) -> bool:
    """Bring a stored record to the platform, with nobody waiting; whether it decided.

    Raises:
        Unavailable: the platform did not decide.
    """
    try:
        await _deliver(edge, platform, handover)
    except Refusal as refusal:
        if refusal.reason is Reason.OVERLOADED:  # of the store here: nothing was decided
            return False
        log.warning("handover_refused", attempt_id=handover.attempt_id, reason=str(refusal.reason))
        notice = _refusal_notice(edge, handover, refusal)
        await edge.store.transact(lambda tx: tx.journal.add_notice(notice))
    return True


def _refusal_notice(edge: Edge, handover: Handover, refusal: Refusal) -> NoticeRecord:
    """What the pharmacy hears when a record that was taken here is refused later."""
    return NoticeRecord(
        institution_code=edge.code,
        kind="DISPENSE_REFUSED",
        prescription_number=handover.prescription_number,
        other_institution_code="",
        statement_sha256=handover.statement_sha256,
        summary=f"{refusal.reason}: {refusal.message}",
        time=edge.now(),
    )


def accepted(tx: EdgeTransaction, edge: Edge, number: str, request_id: str) -> Outcome | None:
    """The outcome of a request to record that was accepted here and not refused since."""
    key = edge.key(number, request_id, RECORD)
    accept_time = when_sealed(tx, key)
    if accept_time is None:
        return None
    statement = sealed_before(tx, key)
    handover = tx.edge.handover(number, DispenseRecord.FromString(statement.payload).attempt_id)
    stands = handover is not None and handover.statement_sha256 == statement_sha256(statement)
    if handover is None or not stands or handover.refusal:
        return None
    outcome = Outcome(method=RECORD, effect_time=timestamp(accept_time))
    outcome.response.Pack(PosServiceRecordDispenseResponse())
    return outcome


def _accept(
    tx: EdgeTransaction, edge: Edge, key: RequestKey, request: PosServiceRecordDispenseRequest
) -> PosServiceRecordDispenseResponse | Handover:
    """The stored answer; else the handover, sealed and stored, that is to be delivered."""
    known = answered(tx, key, request, PosServiceRecordDispenseResponse, edge.now())
    if known is not None:
        return known
    sheet = Sheet(request.dispense_record, DispenseRecord, check_dispense_record)
    statement = sealed(tx, edge, key, request, sheet)
    handover = Handover(
        prescription_number=key.prescription_number,
        attempt_id=DispenseRecord.FromString(statement.payload).attempt_id,
        request_id=key.request_id,
        statement_sha256=statement_sha256(statement),
        delivered=False,
        create_time=edge.now(),
    )
    _store(tx, handover)
    return handover


def _store(tx: EdgeTransaction, handover: Handover) -> None:
    before = tx.edge.handover(handover.prescription_number, handover.attempt_id)
    if before is None:
        tx.edge.add_handover(handover)
    elif before.refusal:
        tx.edge.save_handover(handover)
    elif before.statement_sha256 != handover.statement_sha256:
        raise Refusal(
            Reason.DISPENSE_MISMATCH,
            "another record of this handover is stored here; repeat that request with its id",
            field="attempt_id",
        )


async def _deliver(
    edge: Edge, platform: PharmacyPlatform, handover: Handover
) -> PosServiceRecordDispenseResponse:
    number = handover.prescription_number
    statement = await edge.store.read(
        lambda tx: tx.journal.statement(number, handover.statement_sha256)
    )
    request = RecordDispenseRequest(request_id=handover.request_id, dispense_record=statement)
    try:
        answer = await decided(platform.record_dispense(request), edge.institution.region_code)
    except Refusal as refusal:
        reason = refusal.reason
        await edge.store.transact(lambda tx: _save(tx, replace(handover, refusal=reason)))
        raise
    response = PosServiceRecordDispenseResponse(
        progress=answer.progress,
        dispense_record=statement,
        receipt=answer.receipt if answer.HasField("receipt") else None,
    )
    return await edge.store.transact(lambda tx: _delivered(tx, edge, handover, response))


def _delivered(
    tx: EdgeTransaction,
    edge: Edge,
    handover: Handover,
    response: PosServiceRecordDispenseResponse,
) -> PosServiceRecordDispenseResponse:
    _save(tx, replace(handover, delivered=True, refusal=""))
    key = edge.key(handover.prescription_number, handover.request_id, RECORD)
    return concluded(tx, key, response, edge.now())


def _save(tx: EdgeTransaction, handover: Handover) -> None:
    """Store what became of a record, unless a corrected one has taken its place."""
    current = tx.edge.handover(handover.prescription_number, handover.attempt_id)
    if current is not None and current.statement_sha256 == handover.statement_sha256:
        tx.edge.save_handover(handover)
