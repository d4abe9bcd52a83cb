"""Two stores on one database, as two processes have them: they share the outbox and the tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rxoutflow.v1.peer_service_pb2 import DeliverEventsRequest, DeliverEventsResponse
from rxoutflow_server.application.exchange import outbox
from rxoutflow_server.application.ports import OutgoingEvent, Peers, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.errors import Reason, Unavailable
from rxoutflow_server.platform.tasks import TURN, Turns
from rxoutflow_server.storage.postgres import Options, PostgresStore
from support.backends import OpenStore
from support.postgres import fresh_schema
from support.records import NOW, NUMBER, digest, event, statement

SCHEMA = "sharing"
PEER = event("any").peer_region_code
PRESCRIPTIONS, EVENTS_EACH = 30, 4


@pytest.fixture(params=[False, True], ids=["one", "distributed"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Sequence[OpenStore]]:
    address = fresh_schema(SCHEMA)
    options = Options(workers=2, distributed=request.param)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                PostgresStore.open(address, "platform", schema=SCHEMA, options=options)
            )
            for _ in range(2)
        ]


@dataclass
class Receiver:
    """Another region, which notes in which order it got what."""

    got: list[tuple[str, str]] = field(default_factory=list)
    answers: bool = True

    def region(self, code: str) -> Receiver:
        return self

    async def deliver_events(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        await asyncio.sleep(0)
        if not self.answers:
            raise Unavailable(Reason.PEER_UNAVAILABLE, "away")
        self.got += [(each.prescription_number, each.event_id) for each in request.events]
        await asyncio.sleep(0)
        return DeliverEventsResponse(
            acknowledgements=[
                DeliverEventsResponse.Acknowledgement(event_id=each.event_id)
                for each in request.events
            ]
        )


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def region_at(clock: Clock) -> Region:
    return cast("Region", SimpleNamespace(now=clock, give_up=timedelta(hours=72)))


async def fill(store: OpenStore, prescriptions: int, events_each: int) -> list[str]:
    """Events in the outbox, in an order of their own on each prescription."""
    numbers = [f"{NUMBER[:-2]}{index:02}" for index in range(prescriptions)]

    def add(tx: Transaction) -> None:
        for place in range(events_each):
            for number in numbers:
                tx.journal.keep_statement(number, digest("fact"), statement(), NOW)
                tx.journal.add_event(_event(number, place))

    await store.transact(add)
    return numbers


def _event(number: str, place: int) -> OutgoingEvent:
    waiting = event(f"{number}-{place}")
    return replace(waiting, prescription_number=number, statement_sha256=digest("fact"))


async def send_all(store: OpenStore, peers: Any, clock: Clock) -> None:
    while await outbox.deliver(
        region_at(clock), store, cast("Peers", peers), PEER, lambda: 1.0, shared=True
    ):
        """Until nothing is due."""


async def test_two_processes_deliver_everything_once_and_each_prescription_in_order(
    stores: Sequence[OpenStore],
) -> None:
    numbers = await fill(stores[0], PRESCRIPTIONS, EVENTS_EACH)
    clock, receiver = Clock(), Receiver()
    clock.now += timedelta(seconds=1)

    senders = [store for store in stores for _ in range(3)]
    await asyncio.gather(*(send_all(store, receiver, clock) for store in senders))

    await asyncio.gather(*(send_all(store, receiver, clock) for store in stores))
    assert Counter(receiver.got).most_common(1)[0][1] == 1
    for number in numbers:
        in_order = [event_id for about, event_id in receiver.got if about == number]
        assert in_order == [f"{number}-{place}" for place in range(EVENTS_EACH)]


async def test_what_a_process_took_that_ended_is_sent_by_another_once_its_time_is_over(
    stores: Sequence[OpenStore],
) -> None:
    (number,) = await fill(stores[0], 1, 2)
    clock, receiver = Clock(), Receiver()
    clock.now += timedelta(seconds=1)
    until = clock.now + outbox.LEASE
    taken = await stores[0].transact(
        lambda tx: tx.journal.take_events(PEER, clock.now, until, outbox.BATCH)
    )
    assert [each.event_id for each in taken] == [f"{number}-0", f"{number}-1"]
    await stores[1].transact(lambda tx: tx.journal.add_event(_event(number, 2)))

    await send_all(stores[1], receiver, clock)
    assert receiver.got == []  # what came later waits behind what was taken

    clock.now = until
    await send_all(stores[1], receiver, clock)
    assert [event_id for _, event_id in receiver.got] == [f"{number}-{each}" for each in range(3)]


async def test_what_did_not_go_into_a_call_is_free_for_the_next_one(
    stores: Sequence[OpenStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(stores[0], 3, 2)
    monkeypatch.setattr(outbox, "BATCH", 4)
    clock, receiver = Clock(), Receiver()
    clock.now += timedelta(seconds=1)

    await send_all(stores[0], receiver, clock)

    assert len(receiver.got) == len({*receiver.got}) == 6


async def test_a_region_that_is_away_gets_everything_later(stores: Sequence[OpenStore]) -> None:
    await fill(stores[0], 2, 2)
    clock, receiver = Clock(), Receiver(answers=False)
    clock.now += timedelta(seconds=1)
    await asyncio.gather(*(send_all(store, receiver, clock) for store in stores))
    assert receiver.got == []

    receiver.answers = True
    clock.now += outbox.LONGEST_PAUSE
    await asyncio.gather(*(send_all(store, receiver, clock) for store in stores))
    assert len(receiver.got) == len({*receiver.got}) == 4


async def test_a_task_is_one_process_s_until_it_ends_and_then_another_s(
    stores: Sequence[OpenStore],
) -> None:
    clock, done = Clock(), list[str]()

    def work(name: str, store: OpenStore) -> Any:
        async def note() -> None:
            done.append(name)

        return Turns(store, name, clock).of("leases", note, 1.0)

    first, second = work("first", stores[0]), work("second", stores[1])
    for _ in range(30):
        await first()
        await second()
        clock.now += timedelta(seconds=1)
    assert {*done} == {"first"}
    assert len(done) == 30

    done.clear()
    for _ in range(int(TURN.total_seconds()) * 2):
        await second()
        clock.now += timedelta(seconds=1)
    assert {*done} == {"second"}
