"""A delivery: packed, with the courier, signed for. Its fee is cash, beside the settlement."""

from __future__ import annotations

from demonstration.cases import DELIVERED
from demonstration.stage import Stage
from rxoutflow.plain import short_name
from rxoutflow.v1.dispense_pb2 import Delivery, DeliveryProgress


def play(stage: Stage) -> None:
    """Bring the parcel on its way to the end, and try to take it back."""
    filled = next(each for each in stage.report.filled if each.case is DELIVERED)
    client, scene = stage.pharmacies[DELIVERED.pharmacy], stage.report.scene("a delivery")
    attempt, settlement_id = filled.committed.attempt.content, filled.committed.settlement_id
    number, check = str(filled.issued.number), stage.report.check
    kept = client.progress(attempt).progress.delivery
    states = [_state(kept)]
    scene.note(states[0], f"fee {kept.delivery.fee_fen / 100:.2f} yuan, cash")
    for state in (Delivery.STATE_DISPATCHED, Delivery.STATE_SIGNED_FOR):
        client.update_delivery(number, settlement_id, state, "合成快递", "SYN-1")
        kept = client.progress(attempt).progress.delivery
        states.append(_state(kept))
        scene.note(states[-1], f"{kept.delivery.carrier} {kept.delivery.parcel_number}")
    check("the delivery goes its way", states == ["READY", "DISPATCHED", "SIGNED_FOR"], str(states))
    fee = kept.delivery.fee_fen
    check("its fee is kept, all cash", fee == DELIVERED.delivery_fee_fen, str(fee))
    figures, paid = DELIVERED.figures, filled.amounts
    beside = figures is not None and paid is not None and paid.total_fen == figures.total
    check("and stands beside the settlement, not in it", beside)
    stage.report.refused(
        "a parcel that was signed for is on its way again",
        "DELIVERY_NOT_POSSIBLE",
        lambda: client.update_delivery(
            number, settlement_id, Delivery.STATE_DISPATCHED, "合成快递", "SYN-1"
        ),
    )


def _state(progress: DeliveryProgress) -> str:
    return short_name(progress.delivery, "state")
