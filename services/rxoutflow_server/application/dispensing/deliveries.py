"""Deliveries: begun by the dispense record that names one, brought on by the pharmacy's updates."""

from __future__ import annotations

from datetime import datetime

from rxoutflow.identity import CallerName
from rxoutflow.v1.dispense_pb2 import DeliveryUpdate, DispenseRecord
from rxoutflow.v1.pharmacy_service_pb2 import UpdateDeliveryRequest, UpdateDeliveryResponse
from rxoutflow_server.application.dispensing.claims import require_own
from rxoutflow_server.application.exchange.evidence import keep, step
from rxoutflow_server.application.exchange.idempotency import RequestKey, once, unverified_number
from rxoutflow_server.application.messages import delivery_message, instant
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import check_delivery_update
from rxoutflow_server.domain.delivery import Delivery, DeliveryState, advanced
from rxoutflow_server.domain.errors import Reason, Refusal

_UPDATE_DELIVERY = "/rxoutflow.v1.PharmacyService/UpdateDelivery"


def begin(tx: Transaction, record: DispenseRecord, record_sha256: bytes) -> None:
    """Keep the delivery that a dispense record names, if it names one."""
    if not record.HasField("delivery"):
        return
    named = record.delivery
    tx.dispensing.save_delivery(
        Delivery(
            prescription_number=record.prescription_number,
            settlement_id=record.settlement_id,
            state=DeliveryState(named.state),
            state_time=instant(record.dispense_time),
            carrier=named.carrier,
            parcel_number=named.parcel_number,
            fee_fen=named.fee_fen,
            statement_sha256=record_sha256,
        )
    )


def update(
    tx: Transaction, region: Region, caller: CallerName, request: UpdateDeliveryRequest
) -> UpdateDeliveryResponse:
    """Bring a delivery to its next state.

    Raises:
        StatementError: the update does not verify.
        Refusal: see PharmacyService.UpdateDelivery.
    """
    now = region.now()
    number = unverified_number(request.delivery_update, DeliveryUpdate)
    key = RequestKey(number, str(caller), request.request_id, _UPDATE_DELIVERY)
    return once(
        tx.journal,
        key,
        request,
        UpdateDeliveryResponse,
        now,
        lambda: _update(tx, region, caller, request, now),
    )


def _update(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: UpdateDeliveryRequest,
    now: datetime,
) -> UpdateDeliveryResponse:
    verified = region.verified(request.delivery_update, DeliveryUpdate, now)
    content = verified.content
    check_delivery_update(content, now)
    require_own(caller, content.pharmacy_code)
    delivery = advanced(
        _begun(tx, caller, content),
        DeliveryState(content.state),
        at=instant(content.state_time),
        carrier=content.carrier,
        parcel_number=content.parcel_number,
        statement_sha256=verified.sha256,
    )
    number, actor = delivery.prescription_number, caller.institution_code
    digest = keep(tx, number, request.delivery_update, now)
    tx.dispensing.save_delivery(delivery)
    action = f"delivery {delivery.state.label}"
    step(tx, number, RegionRole.DISPENSING, Flow.GOODS, action, actor, digest, now)
    return UpdateDeliveryResponse(delivery=delivery_message(delivery))


def _begun(tx: Transaction, caller: CallerName, content: DeliveryUpdate) -> Delivery:
    """The delivery of a dispense of the caller's."""
    number, settlement_id = content.prescription_number, content.settlement_id
    dispense = tx.dispensing.dispense(number, settlement_id)
    if dispense is None or dispense.pharmacy_code != caller.institution_code:
        raise Refusal(Reason.ATTEMPT_NOT_FOUND, "you have no such dispense of this prescription")
    if not dispense.record_sha256:
        raise Refusal(
            Reason.ATTEMPT_NOT_COMMITTED, "record the dispense first, and name the delivery in it"
        )
    delivery = tx.dispensing.delivery(number, settlement_id)
    if delivery is None:
        raise Refusal(
            Reason.DELIVERY_NOT_POSSIBLE,
            "the dispense record names no delivery: it was handed over at the counter",
            state="handed_over",
        )
    return delivery
