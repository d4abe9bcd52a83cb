"""What supervision sees: the life of a prescription as this region stored it."""

from __future__ import annotations

from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import settlement_pb2, statement_pb2
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow.v1.supervision_service_pb2 import (
    TraceEvent,
    TracePrescriptionRequest,
    TracePrescriptionResponse,
    TraceSigner,
)
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import Flow, RegionRole, TraceStep, Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.domain.errors import Reason, Refusal

_FLOWS = {
    Flow.INFORMATION: TraceEvent.FLOW_INFORMATION,
    Flow.MONEY: TraceEvent.FLOW_MONEY,
    Flow.GOODS: TraceEvent.FLOW_GOODS,
}
_ROLES = {
    RegionRole.HOME: TraceEvent.REGION_ROLE_HOME,
    RegionRole.DISPENSING: TraceEvent.REGION_ROLE_DISPENSING,
    RegionRole.PAYER: TraceEvent.REGION_ROLE_PAYER,
}


def trace(
    tx: Transaction, region: Region, request: TracePrescriptionRequest
) -> TracePrescriptionResponse:
    """Everything that this region stored about a prescription, in order.

    Raises:
        Refusal: PRESCRIPTION_NOT_FOUND if this region has no part in it.
    """
    number = request.prescription_number
    routed(number)
    steps = tx.journal.steps(number)
    if not steps:
        raise Refusal(
            Reason.PRESCRIPTION_NOT_FOUND, "this region has no part in such a prescription"
        )
    return TracePrescriptionResponse(events=[_event(tx, region, number, step) for step in steps])


def _event(tx: Transaction, region: Region, number: str, step: TraceStep) -> TraceEvent:
    statement = tx.journal.statement(number, step.statement_sha256)
    return TraceEvent(
        event_time=timestamp(step.time),
        region_code=region.code,
        region_role=_ROLES[step.role],
        flow=_FLOWS[step.flow],
        action=step.action,
        actor_code=step.actor_code,
        signers=[_signer(region, signature) for signature in statement.signatures],
        statement_sha256=step.statement_sha256,
        statement=statement,
        amounts=_amounts(statement) if step.flow is Flow.MONEY else None,
    )


def _signer(region: Region, signature: statement_pb2.Signature) -> TraceSigner:
    """Who signed. The statement was verified before it was stored; here it is only shown."""
    header = ProtectedHeader.FromString(signature.protected)
    listed = region.listed_signer(header.region_code, header.certificate_sha256)
    return TraceSigner(
        role=header.role,
        display_name=listed.display_name if listed is not None else "",
        institution_code=header.institution_code,
    )


def _amounts(statement: SignedStatement) -> settlement_pb2.Amounts | None:
    if statement.payload_type != rule_for(settlement_pb2.Settlement).payload_type:
        return None
    return settlement_pb2.Settlement.FromString(statement.payload).amounts
