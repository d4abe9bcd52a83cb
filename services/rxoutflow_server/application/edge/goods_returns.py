"""Recording what a pharmacy has taken back: accepted here, and brought to the platform.

As with handovers, the goods have changed hands already, so a return is stored before anything else
and is never lost. It goes to the platform after the record of its handover. What the platform
refuses, as to its content, can be corrected under the same id.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from rxoutflow.statements import statement_sha256
from rxoutflow.v1.dispense_pb2 import DispenseReturn
from rxoutflow.v1.outcome_pb2 import Outcome
from rxoutflow.v1.pharmacy_service_pb2 import ReturnDispenseRequest
from rxoutflow.v1.pos_service_pb2 import (
    PosServiceReturnDispenseRequest,
    PosServiceReturnDispenseResponse,
)
from rxoutflow_server.application.edge import handovers
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
from rxoutflow_server.application.edge_ports import EdgeTransaction, GoodsReturn
from rxoutflow_server.application.exchange.idempotency import RequestKey, unverified_number
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import NoticeRecord
from rxoutflow_server.application.validation import check_dispense_return
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable

RETURN = "/rxoutflow.v1.PosService/ReturnDispense"

log = structlog.get_logger()


async def take_back(
    edge: Edge, platform: PharmacyPlatform, request: PosServiceReturnDispenseRequest
) -> PosServiceReturnDispenseResponse:
    """Seal and store a return, and bring it to the platform if that can be done now.

    Raises:
        StatementError: the pharmacist's signature does not verify.
        Refusal: see PharmacyService.ReturnDispense.
    """
    number = unverified_number(request.dispense_return, DispenseReturn)
    key = edge.key(number, request.request_id, RETURN)
    begun = await edge.store.transact(lambda tx: _accept(tx, edge, key, request))
    if isinstance(begun, PosServiceReturnDispenseResponse):
        return begun
    try:
        if not await _handover_is_there(edge, platform, begun):
            return PosServiceReturnDispenseResponse()
        return await _deliver(edge, platform, begun)
    except Unavailable:
        return PosServiceReturnDispenseResponse()
    finally:
        edge.due.ring()  # also if the caller has gone away; finding nothing due costs little


async def offer(edge: Edge, platform: PharmacyPlatform, returned: GoodsReturn) -> bool:
    """Bring a stored return to the platform, with nobody waiting; whether it decided.

    Raises:
        Unavailable: the platform did not decide.
    """
    try:
        await _deliver(edge, platform, returned)
    except Refusal as refusal:
        if refusal.reason is Reason.OVERLOADED:  # of the store here: nothing was decided
            return False
        log.warning("return_refused", attempt_id=returned.attempt_id, reason=str(refusal.reason))
        notice = _refusal_notice(edge, returned, refusal)
        await edge.store.transact(lambda tx: tx.journal.add_notice(notice))
        edge.noticed.ring()
    return True


def accepted(tx: EdgeTransaction, edge: Edge, number: str, request_id: str) -> Outcome | None:
    """The outcome of a request to take back that was accepted here and not refused since."""
    key = edge.key(number, request_id, RETURN)
    accept_time = when_sealed(tx, key)
    if accept_time is None:
        return None
    statement = sealed_before(tx, key)
    content = DispenseReturn.FromString(statement.payload)
    returned = tx.edge.goods_return(number, content.reversal_id)
    stands = returned is not None and returned.statement_sha256 == statement_sha256(statement)
    if returned is None or not stands or returned.refusal:
        return None
    outcome = Outcome(method=RETURN, effect_time=timestamp(accept_time))
    outcome.response.Pack(PosServiceReturnDispenseResponse())
    return outcome


def _refusal_notice(edge: Edge, returned: GoodsReturn, refusal: Refusal) -> NoticeRecord:
    """What the pharmacy hears when a return that was taken here is refused later."""
    return NoticeRecord(
        institution_code=edge.code,
        kind="RETURN_REFUSED",
        prescription_number=returned.prescription_number,
        other_institution_code="",
        statement_sha256=returned.statement_sha256,
        summary=f"{refusal.reason}: {refusal.message}",
        time=edge.now(),
    )


async def _handover_is_there(edge: Edge, platform: PharmacyPlatform, returned: GoodsReturn) -> bool:
    """Whether the record of the handover does not wait here; it is brought first.

    Raises:
        Unavailable: it waits, and the platform cannot be reached.
    """
    number, attempt_id = returned.prescription_number, returned.attempt_id
    handover = await edge.store.read(lambda tx: tx.edge.handover(number, attempt_id))
    if handover is None or handover.delivered or handover.refusal:
        return True
    return await handovers.offer(edge, platform, handover)


def _accept(
    tx: EdgeTransaction, edge: Edge, key: RequestKey, request: PosServiceReturnDispenseRequest
) -> PosServiceReturnDispenseResponse | GoodsReturn:
    """The stored answer; else the return, sealed and stored, that is to be delivered."""
    known = answered(tx, key, request, PosServiceReturnDispenseResponse, edge.now())
    if known is not None:
        return known
    sheet = Sheet(request.dispense_return, DispenseReturn, check_dispense_return)
    statement = sealed(tx, edge, key, request, sheet)
    content = DispenseReturn.FromString(statement.payload)
    returned = GoodsReturn(
        prescription_number=key.prescription_number,
        reversal_id=content.reversal_id,
        attempt_id=content.attempt_id,
        request_id=key.request_id,
        statement_sha256=statement_sha256(statement),
        delivered=False,
        create_time=edge.now(),
    )
    _store(tx, returned)
    return returned


def _store(tx: EdgeTransaction, returned: GoodsReturn) -> None:
    before = tx.edge.goods_return(returned.prescription_number, returned.reversal_id)
    if before is None:
        tx.edge.add_goods_return(returned)
    elif before.refusal:
        tx.edge.save_goods_return(returned)
    elif before.statement_sha256 != returned.statement_sha256:
        raise Refusal(
            Reason.REQUEST_ID_REUSED,
            "reversal_id: another return is stored here under it; repeat that request with its id,"
            " or use a new id for a new return",
        )


async def _deliver(
    edge: Edge, platform: PharmacyPlatform, returned: GoodsReturn
) -> PosServiceReturnDispenseResponse:
    number = returned.prescription_number
    statement = await edge.store.read(
        lambda tx: tx.journal.statement(number, returned.statement_sha256)
    )
    request = ReturnDispenseRequest(request_id=returned.request_id, dispense_return=statement)
    try:
        answer = await decided(platform.return_dispense(request), edge.institution.region_code)
    except Refusal as refusal:
        reason = refusal.reason
        await edge.store.transact(lambda tx: _save(tx, replace(returned, refusal=reason)))
        raise
    response = PosServiceReturnDispenseResponse(progress=answer.progress)
    return await edge.store.transact(lambda tx: _delivered(tx, edge, returned, response))


def _delivered(
    tx: EdgeTransaction,
    edge: Edge,
    returned: GoodsReturn,
    response: PosServiceReturnDispenseResponse,
) -> PosServiceReturnDispenseResponse:
    _save(tx, replace(returned, delivered=True, refusal=""))
    key = edge.key(returned.prescription_number, returned.request_id, RETURN)
    return concluded(tx, key, response, edge.now())


def _save(tx: EdgeTransaction, returned: GoodsReturn) -> None:
    """Store what became of a return, unless a corrected one has taken its place."""
    current = tx.edge.goods_return(returned.prescription_number, returned.reversal_id)
    if current is not None and current.statement_sha256 == returned.statement_sha256:
        tx.edge.save_goods_return(returned)
