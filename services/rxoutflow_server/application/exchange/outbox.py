"""Bringing facts to other regions: again and again until they are acknowledged.

Events to one region go in the order in which they were stored, many to a call. What cannot be
delivered now is tried again with growing pauses, and so is what the other region cannot verify yet,
because its copy of a trust list may be older than a signer. What it refuses otherwise is set aside
for an operator, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from google.rpc import error_details_pb2, status_pb2

from rxoutflow.v1.peer_service_pb2 import (
    DeliverEventsRequest,
    DeliverEventsResponse,
    PeerEvent,
)
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import (
    OutgoingEvent,
    Peers,
    Store,
    Transaction,
)
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable

BATCH = 100
"""Events to a call, at most; the contract allows no more."""

BATCH_BYTES = 512 * 1024
"""Bytes of events to a call, at most: half of what a platform takes. A larger one goes alone."""

FIRST_PAUSE = timedelta(milliseconds=200)
LONGEST_PAUSE = timedelta(seconds=60)

Jitter = Callable[[], float]
"""A random factor, at least 0.5 and below 1.5, so that regions do not knock all at once."""


async def peers_with_events(region: Region, store: Store) -> Sequence[str]:
    """Regions for which something is to be sent now."""
    return await store.read(lambda tx: tx.journal.peers_with_due_events(region.now()))


async def deliver(region: Region, store: Store, peers: Peers, peer: str, jitter: Jitter) -> int:
    """Send what is due to a region, one call; the number of events that left the outbox."""
    events, request = await store.read(lambda tx: _next_batch(tx, peer, region.now()))
    if not events:
        return 0
    try:
        response = await peers.region(peer).deliver_events(request)
    except (Unavailable, Refusal):
        # A region that is unknown or refuses the whole call may be put right; no event is lost.
        await store.transact(lambda tx: _delay(tx, events, region.now(), jitter))
        return 0
    return await store.transact(lambda tx: _settle(tx, events, response, region.now(), jitter))


def _next_batch(
    tx: Transaction, peer: str, now: datetime
) -> tuple[Sequence[OutgoingEvent], DeliverEventsRequest]:
    events = tx.journal.due_events(peer, now, BATCH)
    request, size = DeliverEventsRequest(), 0
    for event in events:
        message = _message(tx, event)
        size += message.ByteSize()
        if request.events and size > BATCH_BYTES:
            break
        request.events.append(message)
    return events[: len(request.events)], request


def _message(tx: Transaction, event: OutgoingEvent) -> PeerEvent:
    number = event.prescription_number
    return PeerEvent(
        event_id=event.event_id,
        prescription_number=number,
        insured_person_id=event.insured_person_id,
        statement=tx.journal.statement(number, event.statement_sha256),
        create_time=timestamp(event.create_time),
    )


def _settle(
    tx: Transaction,
    events: Sequence[OutgoingEvent],
    response: DeliverEventsResponse,
    now: datetime,
    jitter: Jitter,
) -> int:
    decided = {each.event_id: each for each in response.acknowledgements}
    left = 0
    for event in events:
        acknowledgement = decided.get(event.event_id)
        if acknowledgement is None or _awaits_trust(acknowledgement.error):
            _delay(tx, [event], now, jitter)
            continue
        left += 1
        if acknowledgement.HasField("error"):
            tx.journal.event_refused(event, acknowledgement.error.message)
        else:
            tx.journal.event_acknowledged(event)
    return left


def _awaits_trust(error: status_pb2.Status) -> bool:
    """Whether a refusal may pass when the other region gets a newer trust list."""
    info = error_details_pb2.ErrorInfo()
    reasons = [info.reason for detail in error.details if detail.Unpack(info)]
    return Reason.SIGNER_UNTRUSTED in reasons


def _delay(tx: Transaction, events: Sequence[OutgoingEvent], now: datetime, jitter: Jitter) -> None:
    for event in events:
        tx.journal.event_delayed(event, now + pause(event.tries) * jitter())


def pause(tries: int) -> timedelta:
    """How long to wait after that many tries: doubling, up to the longest pause."""
    doublings: int = 2 ** min(tries, 20)
    return min(FIRST_PAUSE * doublings, LONGEST_PAUSE)
