"""The delivery of a dispense that is sent rather than handed over at the counter.

It belongs to the dispense record that names it, and its fee is a line of its own, always cash
(R12). It moves forward only: ready, dispatched, signed for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

from rxoutflow_server.domain.errors import Reason, Refusal


class DeliveryState(IntEnum):
    """Where a delivery stands, in the order of its way."""

    READY = 1
    DISPATCHED = 2
    SIGNED_FOR = 3

    @property
    def label(self) -> str:
        """The state in messages and metadata."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery; ``fee_fen`` is what the patient pays for it, ``statement_sha256`` who says so."""

    prescription_number: str
    settlement_id: str
    state: DeliveryState
    state_time: datetime
    carrier: str
    parcel_number: str
    fee_fen: int
    statement_sha256: bytes


def advanced(
    delivery: Delivery,
    state: DeliveryState,
    *,
    at: datetime,
    carrier: str,
    parcel_number: str,
    statement_sha256: bytes,
) -> Delivery:
    """The delivery at a later state. Courier and parcel, once named, are kept unless named anew.

    The statement that brought it to its present state changes nothing a second time.

    Raises:
        Refusal: DELIVERY_NOT_POSSIBLE, it is at that state already or further; FIELD_INVALID, it
            leaves without a courier, or earlier than it got ready.
    """
    if statement_sha256 == delivery.statement_sha256:
        return delivery
    if state <= delivery.state:
        raise Refusal(
            Reason.DELIVERY_NOT_POSSIBLE,
            f"the delivery is {delivery.state.label} already, and moves forward only",
            state=delivery.state.name.lower(),
        )
    if at < delivery.state_time:
        raise Refusal(
            Reason.FIELD_INVALID,
            f"state_time: must not be before it was {delivery.state.label}",
            field="state_time",
        )
    if not (carrier or delivery.carrier):
        raise Refusal(Reason.FIELD_INVALID, "carrier: name who brings it", field="carrier")
    return replace(
        delivery,
        state=state,
        state_time=at,
        carrier=carrier or delivery.carrier,
        parcel_number=parcel_number or delivery.parcel_number,
        statement_sha256=statement_sha256,
    )


def require_not_arrived(delivery: Delivery | None) -> None:
    """What was signed for did arrive: it cannot come back as not delivered.

    Raises:
        Refusal: DELIVERY_NOT_POSSIBLE.
    """
    if delivery is None or delivery.state is DeliveryState.SIGNED_FOR:
        raise Refusal(
            Reason.DELIVERY_NOT_POSSIBLE,
            "cause: it was handed over or signed for, so it was delivered; name another cause",
            state="signed_for" if delivery is not None else "handed_over",
        )
