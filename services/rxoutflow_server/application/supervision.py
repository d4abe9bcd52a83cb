"""What supervision sees: the life of a prescription as this region stored it."""

from __future__ import annotations

from rxoutflow.v1.supervision_service_pb2 import (
    TracePrescriptionRequest,
    TracePrescriptionResponse,
)
from rxoutflow_server.application.exchange.history import event_of
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.domain.errors import Reason, Refusal


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
    return TracePrescriptionResponse(events=[event_of(tx, region, number, step) for step in steps])
