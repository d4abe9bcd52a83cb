"""Events that cannot be delivered: pauses, budgets, and what an operator does about the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rxoutflow.v1 import administration_service_pb2 as messages
from rxoutflow.v1.peer_service_pb2 import DeliverEventsRequest, DeliverEventsResponse
from rxoutflow_server.application import administration
from rxoutflow_server.application.exchange import outbox
from rxoutflow_server.application.exchange.outbox import LONGEST_PAUSE, Pauses
from rxoutflow_server.application.ports import OutgoingEvent, Transaction
from rxoutflow_server.domain.errors import Reason, Refusal, Unavailable
from rxoutflow_server.platform import tasks
from rxoutflow_server.transport.errors import status_of
from support.adjudications import DISPENSING, HOME, PAYER, operator
from support.world import Platform, World

pytestmark = pytest.mark.asyncio

GIVE_UP = timedelta(hours=72)


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


class Answering:
    """The way to a region that answers as a test says, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.refusal: Refusal | None = None

    def region(self, _code: str) -> Any:
        return self

    async def deliver_events(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        self.calls += 1
        if self.error is not None:
            raise self.error
        response = DeliverEventsResponse()
        for event in request.events:
            acknowledgement = response.acknowledgements.add(event_id=event.event_id)
            if self.refusal is not None:
                acknowledgement.error.CopyFrom(status_of(self.refusal))
        return response


@pytest.fixture
def peer() -> Answering:
    return Answering()


def steady() -> float:
    return 1.0


async def deliver(world: World, peer: Answering) -> int:
    home = world.platforms[HOME]
    return await outbox.deliver(home.region, home.store, peer, PAYER, steady)


async def dead(world: World) -> list[messages.DeadLetter]:
    request = messages.ListDeadLettersRequest()
    response = await world.platforms[HOME].store.read(
        lambda tx: administration.list_dead_letters(tx, request)
    )
    return list(response.dead_letters)


async def retry(world: World, letter: messages.DeadLetter) -> None:
    home = world.platforms[HOME]
    request = messages.RetryDeadLetterRequest(
        prescription_number=letter.prescription_number,
        peer_region_code=letter.peer_region_code,
        event_id=letter.event_id,
    )
    await home.store.transact(lambda tx: administration.retry(tx, home.region, operator(), request))


async def discard(world: World, letter: messages.DeadLetter, reason: str) -> None:
    home = world.platforms[HOME]
    request = messages.DiscardDeadLetterRequest(
        prescription_number=letter.prescription_number,
        peer_region_code=letter.peer_region_code,
        event_id=letter.event_id,
        reason=reason,
    )
    await home.store.transact(
        lambda tx: administration.discard(tx, home.region, operator(), request)
    )


async def actions(world: World, number: str) -> list[tuple[str, str]]:
    steps = await world.platforms[HOME].store.read(lambda tx: tx.journal.steps(number))
    return [(each.action, each.actor_code) for each in steps]


# budgets


def down() -> Unavailable:
    return Unavailable(Reason.PEER_UNAVAILABLE, "no answer", region=PAYER)


async def test_what_was_not_delivered_for_too_long_is_set_aside(
    world: World, peer: Answering
) -> None:
    number, _ = await world.issue(HOME, PAYER)
    peer.error = down()
    world.clock.now += GIVE_UP - timedelta(microseconds=1)
    assert await deliver(world, peer) == 0
    assert await dead(world) == []
    world.clock.now += timedelta(minutes=2)
    assert await deliver(world, peer) == 1
    (letter,) = await dead(world)
    assert letter.prescription_number == number
    assert letter.error == "not delivered within 72 hours"
    assert letter.tries == 2


@pytest.mark.parametrize("reason", [Reason.SIGNER_UNTRUSTED, Reason.EARLIER_FACT_MISSING])
async def test_what_may_still_be_judged_otherwise_is_sent_again_until_then(
    world: World, peer: Answering, reason: Reason
) -> None:
    await world.issue(HOME, PAYER)
    peer.refusal = Refusal(reason, "not yet")
    for _ in range(5):
        assert await deliver(world, peer) == 0
        world.clock.now += timedelta(minutes=2)
    assert await dead(world) == []
    world.clock.now += GIVE_UP
    assert await deliver(world, peer) == 1
    (letter,) = await dead(world)
    assert letter.error == "not delivered within 72 hours: not yet"


async def test_a_definite_refusal_is_set_aside_at_once(world: World, peer: Answering) -> None:
    await world.issue(HOME, PAYER)
    peer.refusal = Refusal(Reason.SETTLEMENT_NOT_FOUND, "nothing is held for this")
    assert await deliver(world, peer) == 1
    (letter,) = await dead(world)
    assert (letter.error, letter.tries) == ("nothing is held for this", 1)


async def test_an_event_that_was_sent_again_has_its_whole_time_again(
    world: World, peer: Answering
) -> None:
    await world.issue(HOME, PAYER)
    peer.error = down()
    world.clock.now += GIVE_UP
    await deliver(world, peer)
    (letter,) = await dead(world)
    await retry(world, letter)
    assert await dead(world) == []
    assert await deliver(world, peer) == 0
    world.clock.now += GIVE_UP
    assert await deliver(world, peer) == 1
    (again,) = await dead(world)
    assert (again.event_id, again.create_time) == (letter.event_id, letter.create_time)


# a region that does not answer


async def many_events(home: Platform, number: str, events: int) -> None:
    """Events on as many prescriptions, as they wait while a region is down."""

    def add(tx: Transaction) -> None:
        (first,) = tx.journal.due_events(PAYER, home.region.now(), 10)
        statement = tx.journal.statement(number, first.statement_sha256)
        for index in range(events):
            other = f"{HOME}{index:024}"
            tx.journal.keep_statement(other, first.statement_sha256, statement, home.region.now())
            tx.journal.add_event(
                OutgoingEvent(
                    home.region.new_id(home.region.now()),
                    PAYER,
                    other,
                    first.insured_person_id,
                    first.statement_sha256,
                    home.region.now(),
                )
            )

    await home.store.transact(add)


async def test_a_region_that_does_not_answer_costs_one_call_a_pause(
    world: World, peer: Answering
) -> None:
    home, pauses = world.platforms[HOME], Pauses()
    number, _ = await world.issue(HOME, PAYER)
    await many_events(home, number, 350)
    exchange = replace(home.exchange, peers=peer)
    peer.error = down()
    for calls in range(1, 8):
        for _ in range(5):
            await tasks.deliver_facts(exchange, steady, pauses)
        assert peer.calls == calls
        world.clock.now += outbox.pause(calls - 1)
    peer.error, peer.calls = None, 0
    world.clock.now += 2 * LONGEST_PAUSE
    await tasks.deliver_facts(exchange, steady, pauses)
    assert peer.calls == 4  # 351 events, a hundred to a call
    assert (
        await home.store.read(lambda tx: tx.journal.peers_with_due_events(home.region.now())) == []
    )


async def test_the_pause_grows_to_its_longest_and_ends_with_an_answer() -> None:
    world, pauses = World.create(HOME), Pauses()
    lengths = []
    for _ in range(12):
        pauses.failed(PAYER, world.clock.now, steady)
        waited = timedelta(0)
        while pauses.holds(PAYER, world.clock.now + waited):
            waited += timedelta(milliseconds=100)
        lengths.append(waited)
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (outbox.FIRST_PAUSE, LONGEST_PAUSE)
    assert not pauses.holds(DISPENSING, world.clock.now)
    pauses.answered(PAYER)
    assert not pauses.holds(PAYER, world.clock.now)


# what the operator does


async def refused_event(world: World, peer: Answering) -> messages.DeadLetter:
    await world.issue(HOME, PAYER)
    peer.refusal = Refusal(Reason.SETTLEMENT_NOT_FOUND, "nothing is held for this")
    await deliver(world, peer)
    peer.refusal = None
    *_, letter = await dead(world)
    return letter


async def test_dead_letters_are_listed_oldest_first_in_pages(world: World, peer: Answering) -> None:
    letters = []
    for _ in range(5):
        letters.append(await refused_event(world, peer))
        world.clock.now += timedelta(minutes=1)
    seen: list[messages.DeadLetter] = []
    request = messages.ListDeadLettersRequest(page_size=2)
    for _ in range(3):
        page = await world.platforms[HOME].store.read(
            lambda tx: administration.list_dead_letters(tx, request)
        )
        seen += page.dead_letters
        request.page_token = page.next_page_token
    assert seen == letters
    assert not request.page_token


async def test_an_event_is_sent_again(world: World, peer: Answering) -> None:
    letter = await refused_event(world, peer)
    await retry(world, letter)
    assert await deliver(world, peer) == 1
    assert await dead(world) == []
    assert ("event sent again", "O350200") in await actions(world, letter.prescription_number)


async def test_an_event_is_given_up_with_a_reason_and_its_statement_stays(
    world: World, peer: Answering
) -> None:
    letter = await refused_event(world, peer)
    await discard(world, letter, "told by letter 2026/17")
    assert await dead(world) == []
    assert await deliver(world, peer) == 0
    number = letter.prescription_number
    given_up = ("event given up: told by letter 2026/17", "O350200")
    assert given_up in await actions(world, number)
    kept = await world.platforms[HOME].store.read(
        lambda tx: tx.journal.statements_of(number, letter.statement.payload_type)
    )
    assert letter.statement in kept


@pytest.mark.parametrize("reason", ["", "two\nlines", "x" * 201, "\x1b[31m"])
async def test_a_reason_is_one_line_of_text(world: World, peer: Answering, reason: str) -> None:
    letter = await refused_event(world, peer)
    with pytest.raises(Refusal) as refused:
        await discard(world, letter, reason)
    assert refused.value.reason is Reason.FIELD_INVALID
    assert await dead(world) == [letter]


@pytest.mark.parametrize("field", ["event_id", "peer_region_code", "prescription_number"])
async def test_an_event_that_is_not_set_aside_is_not_found(
    world: World, peer: Answering, field: str
) -> None:
    letter = await refused_event(world, peer)
    other = messages.DeadLetter.FromString(letter.SerializeToString())
    setattr(other, field, "another")
    for act in (retry(world, other), discard(world, other, "gone")):
        with pytest.raises(Refusal) as refused:
            await act
        assert refused.value.reason is Reason.EVENT_NOT_FOUND
    await retry(world, letter)
    for act in (retry(world, letter), discard(world, letter, "gone")):
        with pytest.raises(Refusal) as refused:
            await act
        assert refused.value.reason is Reason.EVENT_NOT_FOUND


# what the log says


async def test_the_log_says_once_per_change_how_much_waits_for_people(
    world: World, peer: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[str, int]] = []

    class Log:
        def warning(self, event: str, count: int) -> None:
            lines.append((event, count))

    monkeypatch.setattr(tasks, "log", Log())
    home = world.platforms[HOME]
    region = replace(home.region, overdue=timedelta(0))
    work = tasks.WorkForPeople(replace(home.exchange, region=region, peers=peer))
    await work.tell()
    assert lines == []
    letter = await refused_event(world, peer)
    for _ in range(3):
        await work.tell()
    assert lines == [("events_set_aside", 1)]
    await discard(world, letter, "seen to")
    await work.tell()
    await work.tell()
    assert lines == [("events_set_aside", 1), ("events_set_aside", 0)]
