"""A delivery beside the dispense: its own states, forward only, told by the pharmacy itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rxoutflow.v1.attempt_pb2 import Commitment
from rxoutflow.v1.dispense_pb2 import Delivery as DeliveryMessage
from rxoutflow.v1.dispense_pb2 import DeliveryProgress, DeliveryUpdate
from rxoutflow.v1.pharmacy_service_pb2 import GetDispenseRequest, UpdateDeliveryRequest
from rxoutflow_server.application.dispensing import deliveries, records
from rxoutflow_server.domain.delivery import (
    Delivery,
    DeliveryState,
    advanced,
    require_not_arrived,
)
from rxoutflow_server.domain.errors import Reason, Refusal
from support.pki import NOW
from support.world import World, content_of

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
READY, DISPATCHED, SIGNED_FOR = DeliveryState
BEGUN = Delivery("N", "S", READY, NOW, "", "", 600, b"record")


def moved(delivery: Delivery, state: DeliveryState, **changes: Any) -> Delivery:
    said: dict[str, Any] = {
        "at": delivery.state_time,
        "carrier": "courier",
        "parcel_number": "",
        "statement_sha256": f"{state}".encode(),
        **changes,
    }
    return advanced(delivery, state, **said)


@pytest.mark.parametrize("begin", DeliveryState)
@pytest.mark.parametrize("end", DeliveryState)
def test_it_moves_forward_only(begin: DeliveryState, end: DeliveryState) -> None:
    delivery = replace(BEGUN, state=begin)
    if end > begin:
        assert moved(delivery, end).state is end
        return
    with pytest.raises(Refusal) as refused:
        moved(delivery, end)
    assert refused.value.reason is Reason.DELIVERY_NOT_POSSIBLE
    assert refused.value.detail == {"state": begin.name.lower()}


def test_the_same_statement_again_changes_nothing() -> None:
    sent = moved(BEGUN, DISPATCHED)

    assert moved(sent, DISPATCHED) == sent


def test_courier_and_parcel_are_kept_unless_named_anew() -> None:
    sent = moved(BEGUN, DISPATCHED, carrier="first", parcel_number="1")

    assert moved(sent, SIGNED_FOR, carrier="").carrier == "first"
    assert moved(sent, SIGNED_FOR, carrier="").parcel_number == "1"
    assert moved(sent, SIGNED_FOR, carrier="second").carrier == "second"


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"carrier": ""}, "carrier"), ({"at": NOW - timedelta(seconds=1)}, "state_time")],
)
def test_it_leaves_with_a_courier_and_not_before_it_was_ready(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refusal) as refused:
        moved(BEGUN, DISPATCHED, **changes)

    assert refused.value.detail == {"field": field}


@pytest.mark.parametrize(
    ("delivery", "possible"),
    [
        (BEGUN, True),
        (replace(BEGUN, state=DISPATCHED), True),
        (replace(BEGUN, state=SIGNED_FOR), False),
        (None, False),
    ],
)
def test_only_what_has_not_arrived_comes_back_undelivered(
    delivery: Delivery | None, possible: bool
) -> None:
    if possible:
        require_not_arrived(delivery)
        return
    with pytest.raises(Refusal) as refused:
        require_not_arrived(delivery)
    assert refused.value.reason is Reason.DELIVERY_NOT_POSSIBLE


class Sent:
    """A dispense in another region that goes to the patient by courier."""

    def __init__(self, *, by_courier: bool = True) -> None:
        self.world = World.create(HOME, DISPENSING, PAYER)
        self.platform = self.world.platforms[DISPENSING]
        self.content = asyncio.run(self._dispense(by_courier=by_courier))

    async def _dispense(self, *, by_courier: bool) -> Commitment:
        world = self.world
        _, code = await world.issue(HOME, PAYER)
        self.attempt = await world.claim(DISPENSING, code)
        request = world.commit_request(
            DISPENSING, self.attempt, await world.quote(DISPENSING, self.attempt)
        )
        await world.commit(DISPENSING, request)
        delivery = DeliveryMessage(state=DeliveryMessage.STATE_READY, fee_fen=600)
        named = {"delivery": delivery} if by_courier else {}
        record = world.record_request(DISPENSING, request.commitment, **named)
        await world.record(DISPENSING, record)
        return content_of(request.commitment, Commitment)

    def update(self, state: int, **changes: Any) -> DeliveryProgress:
        content = DeliveryUpdate(
            **{
                "prescription_number": self.attempt.prescription_number,
                "settlement_id": self.content.settlement_id,
                "pharmacy_code": self.attempt.pharmacy_code,
                "state": state,
                "carrier": "courier",
                "parcel_number": "P1",
                **changes,
            }
        )
        content.state_time.FromDatetime(self.world.clock.now)
        request = UpdateDeliveryRequest(
            request_id=self.world.request_id(),
            delivery_update=self.world.signed(DISPENSING, content),
        )
        platform = self.platform
        return asyncio.run(
            platform.store.transact(
                lambda tx: deliveries.update(tx, platform.region, platform.pharmacy, request)
            )
        ).delivery

    def shown(self) -> Any:
        request = GetDispenseRequest(
            prescription_number=self.attempt.prescription_number,
            attempt_id=self.attempt.attempt_id,
        )
        platform = self.platform
        return asyncio.run(
            platform.store.read(lambda tx: records.get(tx, platform.pharmacy, request))
        ).progress


def test_the_record_begins_it_and_updates_bring_it_on() -> None:
    sent = Sent()

    begun = sent.shown().delivery
    assert (begun.delivery.state, begun.delivery.fee_fen) == (DeliveryMessage.STATE_READY, 600)
    sent.update(DeliveryMessage.STATE_DISPATCHED)
    sent.world.clock.now += timedelta(hours=2)
    sent.update(DeliveryMessage.STATE_SIGNED_FOR, carrier="", parcel_number="")

    arrived = sent.shown().delivery.delivery
    assert arrived.state == DeliveryMessage.STATE_SIGNED_FOR
    assert (arrived.carrier, arrived.parcel_number, arrived.fee_fen) == ("courier", "P1", 600)


def test_the_way_of_the_goods_is_in_the_life_of_the_prescription() -> None:
    sent = Sent()
    sent.update(DeliveryMessage.STATE_DISPATCHED)
    number = sent.attempt.prescription_number

    steps = asyncio.run(sent.platform.store.read(lambda tx: tx.journal.steps(number)))

    assert steps[-1].action == "delivery dispatched"
    assert steps[-1].actor_code == sent.attempt.pharmacy_code


def test_what_was_handed_over_at_the_counter_has_no_delivery() -> None:
    counter = Sent(by_courier=False)

    assert not counter.shown().HasField("delivery")
    with pytest.raises(Refusal) as refused:
        counter.update(DeliveryMessage.STATE_DISPATCHED)
    assert refused.value.reason is Reason.DELIVERY_NOT_POSSIBLE


def test_another_settlement_or_pharmacy_is_unknown() -> None:
    sent = Sent()

    with pytest.raises(Refusal) as refused:
        sent.update(DeliveryMessage.STATE_DISPATCHED, settlement_id=sent.world.request_id())
    assert refused.value.reason is Reason.ATTEMPT_NOT_FOUND


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"state": 0}, "state"), ({"carrier": "x" * 81}, "carrier")],
)
def test_a_malformed_update_names_its_field(changes: dict[str, Any], field: str) -> None:
    sent = Sent()

    with pytest.raises(Refusal) as refused:
        sent.update(**{"state": DeliveryMessage.STATE_DISPATCHED, **changes})
    assert refused.value.detail == {"field": field}
