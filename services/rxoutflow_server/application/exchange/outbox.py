"""Bringing facts to other regions: again and again until they are acknowledged.

Events to one region go in the order in which they were stored, many to a call. What cannot be
delivered now is tried again with growing pauses, and so is what the other region cannot judge yet,
because its copy of a trust list may be older than a signer, its clock behind the signer's, or an
earlier fact still on its way from somebody else. What it refuses otherwise, and what could not be
delivered for too long, is set aside for an operator, and the rest goes on.

Several processes may share the work. Each takes events for a while before it sends them, so that no
other sends the same or what is behind them on its prescription; what a process took that ended
meanwhile is due again after that while.

A region that does not answer is left alone for a growing pause: it costs one call, however many
events wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from google.rpc import error_details_pb2, status_pb2

from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.dispense_pb2 import DispenseRecord
from rxoutflow.v1.peer_service_pb2 import (
    DeliverEventsRequest,
    DeliverEventsResponse,
    PeerEvent,
)
from rxoutflow_server.application.dispensing import boxes
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

LEASE = timedelta(seconds=60)
"""For how long a process has events to itself that it took: longer than a call may last."""

Jitter = Callable[[], float]
"""A random factor, at least 0.5 and below 1.5, so that regions do not knock all at once."""

_RECORD = rule_for(DispenseRecord).payload_type

_MAY_PASS = (Reason.SIGNER_UNTRUSTED, Reason.EARLIER_FACT_MISSING)
"""Refusals that may be other ones later: they are no decision on the event."""


class Pauses:
    """Regions that did not answer, and until when each is left alone; forgotten at a restart."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, datetime] = {}

    def holds(self, peer: str, now: datetime) -> bool:
        """Whether the region is to be left alone now."""
        return peer in self._until and now < self._until[peer]

    def failed(self, peer: str, now: datetime, jitter: Jitter) -> None:
        """Leave the region alone for a while, longer with every failure in a row."""
        failures = self._failures.get(peer, 0)
        self._until[peer] = now + pause(failures) * jitter()
        self._failures[peer] = failures + 1

    def answered(self, peer: str) -> None:
        """The region answers: it may be called again at once."""
        self._failures.pop(peer, None)
        self._until.pop(peer, None)


async def peers_with_events(region: Region, store: Store) -> Sequence[str]:
    """Regions for which something is to be sent now."""
    return await store.read(lambda tx: tx.journal.peers_with_due_events(region.now()))


async def deliver(
    region: Region,
    store: Store,
    peers: Peers,
    peer: str,
    jitter: Jitter,
    pauses: Pauses | None = None,
    *,
    shared: bool = False,
) -> int:
    """Send what is due to a region, one call; the number of events that left the outbox.

    ``shared`` is whether other processes deliver from the same outbox.
    """
    pauses = Pauses() if pauses is None else pauses
    if pauses.holds(peer, region.now()):
        return 0
    if shared:
        events, request = await store.transact(lambda tx: _taken_batch(tx, peer, region.now()))
    else:
        events, request = await store.read(lambda tx: _next_batch(tx, peer, region.now()))
    if not events:
        return 0
    try:
        response = await peers.region(peer).deliver_events(request)
    except (Unavailable, Refusal):
        # A region that is unknown or refuses the whole call may be put right; no event is lost.
        pauses.failed(peer, region.now(), jitter)
        return await store.transact(lambda tx: _delay(tx, region, events, jitter))
    pauses.answered(peer)
    return await store.transact(lambda tx: _settle(tx, region, events, response, jitter))


def _next_batch(
    tx: Transaction, peer: str, now: datetime
) -> tuple[Sequence[OutgoingEvent], DeliverEventsRequest]:
    return _batch(tx, tx.journal.due_events(peer, now, BATCH))


def _taken_batch(
    tx: Transaction, peer: str, now: datetime
) -> tuple[Sequence[OutgoingEvent], DeliverEventsRequest]:
    taken = tx.journal.take_events(peer, now, now + LEASE, BATCH)
    events, request = _batch(tx, taken)
    for event in taken[len(events) :]:
        tx.journal.event_let_go(event, now)
    return events, request


def _batch(
    tx: Transaction, events: Sequence[OutgoingEvent]
) -> tuple[Sequence[OutgoingEvent], DeliverEventsRequest]:
    """As many of the events as go into one call."""
    request, size = DeliverEventsRequest(), 0
    for event in events[:BATCH]:
        message = _message(tx, event)
        size += message.ByteSize()
        if request.events and size > BATCH_BYTES:
            break
        request.events.append(message)
    return events[: len(request.events)], request


def _message(tx: Transaction, event: OutgoingEvent) -> PeerEvent:
    number = event.prescription_number
    message = PeerEvent(
        event_id=event.event_id,
        prescription_number=number,
        insured_person_id=event.insured_person_id,
        statement=tx.journal.statement(number, event.statement_sha256),
        create_time=timestamp(event.create_time),
    )
    if message.insured_person_id and message.statement.payload_type == _RECORD:
        record = DispenseRecord.FromString(message.statement.payload)
        message.trace_code_sales.extend(boxes.receipts(tx, record))
    return message


def _settle(
    tx: Transaction,
    region: Region,
    events: Sequence[OutgoingEvent],
    response: DeliverEventsResponse,
    jitter: Jitter,
) -> int:
    decided = {each.event_id: each for each in response.acknowledgements}
    left = 0
    for event in events:
        acknowledgement = decided.get(event.event_id)
        if acknowledgement is None:
            left += _delay(tx, region, [event], jitter)
            continue
        reasons = _reasons(acknowledgement.error)
        if any(reason in reasons for reason in _MAY_PASS) or _is_ahead(acknowledgement.error):
            follows = Reason.EARLIER_FACT_MISSING in reasons
            answer = acknowledgement.error.message
            left += _delay(tx, region, [event], jitter, answer, follows=follows)
            continue
        left += 1
        if acknowledgement.HasField("error"):
            tx.journal.event_refused(event, acknowledgement.error.message)
        else:
            tx.journal.event_acknowledged(event)
    return left


def _reasons(error: status_pb2.Status) -> list[str]:
    info = error_details_pb2.ErrorInfo()
    return [info.reason for detail in error.details if detail.Unpack(info)]


def _is_ahead(error: status_pb2.Status) -> bool:
    """Whether the fact was signed ahead of the other region's clock: time alone puts that right."""
    info = error_details_pb2.ErrorInfo()
    return any(
        info.reason == Reason.SIGNED_CONTENT_MISMATCH
        and info.metadata["field"].endswith(".protected.sign_time")
        for detail in error.details
        if detail.Unpack(info)
    )


def _delay(
    tx: Transaction,
    region: Region,
    events: Sequence[OutgoingEvent],
    jitter: Jitter,
    answer: str = "",
    *,
    follows: bool = False,
) -> int:
    """Send the events again later; the number of those that are given up, for an operator.

    What follows a fact that has not arrived there goes behind all that waits, because that fact may
    be waiting here.
    """
    now, left = region.now(), 0
    for event in events:
        if event.waiting_at(now) >= region.give_up:
            hours = int(region.give_up.total_seconds() // 3600)
            reason = f"not delivered within {hours} hours"
            tx.journal.event_refused(event, f"{reason}: {answer}" if answer else reason)
            left += 1
        else:
            later = tx.journal.event_put_back if follows else tx.journal.event_delayed
            later(event, now + pause(event.tries) * jitter())
    return left


def pause(tries: int) -> timedelta:
    """How long to wait after that many tries: doubling, up to the longest pause."""
    doublings: int = 2 ** min(tries, 20)
    return min(FIRST_PAUSE * doublings, LONGEST_PAUSE)
