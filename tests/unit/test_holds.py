"""Money that stays held because home's word got lost: the payer asks, time alone does nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog

from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.home_service_pb2 import GetAttemptRequest, GetAttemptResponse
from rxoutflow_server.domain.errors import Reason
from rxoutflow_server.domain.settlement import Settlement, SettlementState
from rxoutflow_server.platform import tasks
from support.adjudications import (
    DISPENSING,
    HOME,
    OVERDUE,
    PAYER,
    Silent,
    adjudicate,
    decision,
    silent,
)
from support.world import PERSON, World, content_of

pytestmark = pytest.mark.asyncio

HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> World:
    return World.create(HOME, DISPENSING, PAYER)


async def hold_of(world: World, case: Silent) -> Settlement:
    store = world.platforms[PAYER].store
    found = await store.read(lambda tx: tx.payer.settlement(PERSON, case.settlement_id))
    assert found is not None
    return found


async def ask(world: World) -> list[dict[str, Any]]:
    """A round of the payer's; what it says in its log."""
    with structlog.testing.capture_logs() as logs:
        await tasks.ask_about_holds(world.platforms[PAYER].exchange)
    return [dict(line) for line in logs]


def lose_events(world: World, origin: str, to: str) -> None:
    """What a region has for another one never arrives."""
    connection = world.platforms[origin].store.connection
    connection.execute("DELETE FROM outbox WHERE peer_region_code = ?", (to,))


async def released(world: World) -> Silent:
    """A hold whose attempt was let go of, which the payer never heard."""
    case = await silent(world)
    await world.release(DISPENSING, case.attempt)
    lose_events(world, HOME, PAYER)
    await world.settle()
    return case


async def test_a_hold_is_set_free_when_home_says_that_the_attempt_was_released(
    world: World,
) -> None:
    before = await world.person(PAYER)
    case = await released(world)
    world.clock.now += OVERDUE
    (line,) = await ask(world)
    assert (line["event"], line["settlement_id"], line["peer"], line["code"]) == (
        "hold_asked",
        case.settlement_id,
        HOME,
        "released",
    )
    assert (await hold_of(world, case)).state is SettlementState.VOIDED
    assert await world.person(PAYER) == before


async def test_the_dispensing_region_hears_that_the_money_is_free(world: World) -> None:
    case = await released(world)
    world.clock.now += OVERDUE
    await ask(world)
    await world.settle()
    assert (await world.progress(DISPENSING, case.attempt)).settlement.payload


async def test_a_handover_that_home_has_booked_is_paid(world: World) -> None:
    case = await silent(world)
    await world.record(DISPENSING, world.record_request(DISPENSING, case.request.commitment))
    await world.deliver_from(DISPENSING)
    lose_events(world, HOME, PAYER)
    await world.settle()
    assert (await hold_of(world, case)).state is SettlementState.HELD
    world.clock.now += OVERDUE
    await ask(world)
    assert (await hold_of(world, case)).state is SettlementState.POSTED


async def test_what_two_people_found_sets_the_hold_free(world: World) -> None:
    case = await silent(world)
    world.clock.now += OVERDUE
    await adjudicate(world, decision(world, case.attempt, handed_over=False))
    lose_events(world, HOME, PAYER)
    await ask(world)
    assert (await hold_of(world, case)).state is SettlementState.VOIDED


async def test_a_hold_is_asked_about_when_a_pharmacy_may_no_longer_be_silent(world: World) -> None:
    case = await released(world)
    world.clock.now += OVERDUE - timedelta(seconds=1)
    assert await ask(world) == []
    assert (await hold_of(world, case)).state is SettlementState.HELD
    world.clock.now += timedelta(seconds=1)
    assert len(await ask(world)) == 1


async def test_a_commitment_that_stands_keeps_its_money_however_long(world: World) -> None:
    case = await silent(world)
    for _ in range(3):
        world.clock.now += OVERDUE
        (line,) = await ask(world)
        assert (line["event"], line["code"]) == ("hold_asked", "committed")
    assert (await hold_of(world, case)).state is SettlementState.HELD


async def test_nothing_is_asked_twice_once_home_has_said_the_end(world: World) -> None:
    """Home has booked a record that the payer never got: that is for people to look at."""
    case = await silent(world)
    await world.record(DISPENSING, world.record_request(DISPENSING, case.request.commitment))
    lose_events(world, DISPENSING, PAYER)
    await world.settle()
    world.clock.now += OVERDUE
    assert await ask(world) == []
    assert (await hold_of(world, case)).state is SettlementState.HELD
    with structlog.testing.capture_logs() as logs:
        await tasks.WorkForPeople(world.platforms[PAYER].exchange).tell()
    assert {"event": "holds_overdue", "count": 1, "log_level": "warning"} in logs


async def test_a_home_region_that_is_away_is_asked_once_and_again_at_the_next_round(
    world: World,
) -> None:
    cases = [await released(world), await released(world)]
    world.clock.now += OVERDUE
    world.unreachable.add(HOME)
    (line,) = await ask(world)
    assert (line["event"], line["reason"]) == ("hold_not_asked", Reason.PEER_UNAVAILABLE)
    world.unreachable.clear()
    assert len(await ask(world)) == len(cases)
    assert [(await hold_of(world, each)).state for each in cases] == [SettlementState.VOIDED] * 2


async def test_more_holds_than_go_into_a_page_are_all_asked_about(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxoutflow_server.application.payer.asking.PAGE", 2)
    cases = [await released(world) for _ in range(3)]
    world.clock.now += HOUR
    standing = await silent(world)
    world.clock.now += OVERDUE
    assert len(await ask(world)) == 4
    states = [(await hold_of(world, each)).state for each in (*cases, standing)]
    assert states == [SettlementState.VOIDED] * 3 + [SettlementState.HELD]


class Lying:
    """A way to home on which somebody changes the answers."""

    def __init__(self, answer: GetAttemptResponse) -> None:
        self.answer = answer

    def region(self, _code: str) -> Any:
        return self

    async def get_attempt(self, _request: GetAttemptRequest) -> GetAttemptResponse:
        return self.answer


async def said(world: World, case: Silent) -> GetAttemptResponse:
    request = GetAttemptRequest(prescription_number=case.number, attempt_id=case.attempt.attempt_id)
    exchange = world.platforms[PAYER].exchange
    return await exchange.peers.region(HOME).get_attempt(request)


@pytest.mark.parametrize("lie", ["another attempt", "another signer", "another end", "nothing"])
async def test_an_answer_that_is_not_homes_word_on_this_attempt_moves_nothing(
    world: World, lie: str
) -> None:
    case, other = await silent(world), await released(world)
    answer = await said(world, other)
    ended = content_of((await said(world, case)).attempt, Attempt)
    ended.state = Attempt.STATE_RELEASED
    if lie == "another signer":
        sealed = world.platforms[DISPENSING].region.seal(ended, now=world.clock.now)
        answer = GetAttemptResponse(attempt=sealed)
    elif lie == "another end":
        answer = await said(world, case)
        answer.attempt.payload = ended.SerializeToString()
    elif lie == "nothing":
        answer = GetAttemptResponse()
    world.clock.now += OVERDUE
    payer = world.platforms[PAYER]
    liar = replace(payer.exchange, peers=Lying(answer))
    with structlog.testing.capture_logs() as logs:
        await tasks.ask_about_holds(liar)
    (line,) = [each for each in logs if each.get("settlement_id") == case.settlement_id]
    assert line["event"] == "hold_not_asked"
    assert (await hold_of(world, case)).state is SettlementState.HELD


async def test_an_attempt_that_home_no_longer_knows_keeps_its_money(world: World) -> None:
    """Home was restored from a backup, say: then people have to look."""
    case = await silent(world)
    connection = world.platforms[HOME].store.connection
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("DELETE FROM attempts")
    world.clock.now += OVERDUE
    (line,) = await ask(world)
    assert (line["event"], line["reason"]) == ("hold_not_asked", Reason.ATTEMPT_NOT_FOUND)
    assert (await hold_of(world, case)).state is SettlementState.HELD


async def test_a_region_that_cannot_be_asked_does_not_hold_up_the_next_round(world: World) -> None:
    case = await released(world)
    world.clock.now += OVERDUE
    world.losing.add("get_attempt")
    await ask(world)
    assert (await hold_of(world, case)).state is SettlementState.HELD
    await ask(world)
    assert (await hold_of(world, case)).state is SettlementState.VOIDED


async def test_a_payer_asks_itself_where_it_is_home_too(world: World) -> None:
    case = await silent(world, payer=HOME)
    await world.release(DISPENSING, case.attempt)
    lose_events(world, HOME, HOME)
    world.clock.now += OVERDUE
    await tasks.ask_about_holds(world.platforms[HOME].exchange)
    found = await world.platforms[HOME].store.read(
        lambda tx: tx.payer.settlement(PERSON, case.settlement_id)
    )
    assert found is not None
    assert found.state is SettlementState.VOIDED
