"""What a region is payer or home for itself happens in the transaction that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from rxoutflow.v1 import attempt_pb2, settlement_pb2
from rxoutflow.v1.pharmacy_service_pb2 import ClaimPrescriptionRequest, CommitClaimRequest
from rxoutflow_server.application.dispensing import claims, settling
from rxoutflow_server.application.home import attempts
from rxoutflow_server.application.home.collecting import MAX_WRONG_TRIES
from rxoutflow_server.application.ports import Store, Transaction
from rxoutflow_server.domain.dispense import DispenseState
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.settlement import SettlementState
from support.world import PERSON, World, content_of

pytestmark = pytest.mark.asyncio

HERE, THERE = "350500", "320600"
T = TypeVar("T")


@pytest.fixture
def world() -> World:
    return World.create(HERE, THERE)


class Counting:
    """A store that counts the commands that were committed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.committed = 0

    async def transact(self, command: Callable[[Transaction], T]) -> T:
        result = await self._store.transact(command)
        self.committed += 1
        return result

    async def read(self, query: Callable[[Transaction], T]) -> T:
        return await self._store.read(query)


@pytest.fixture
def counting(world: World) -> Counting:
    platform = world.platforms[HERE]
    store = Counting(platform.store)
    platform.exchange = replace(platform.exchange, store=store)
    return store


async def claimed(world: World, payer: str = HERE) -> attempt_pb2.Attempt:
    _, code = await world.issue(HERE, payer)
    return await world.claim(HERE, code)


async def commitment(world: World, attempt: attempt_pb2.Attempt) -> CommitClaimRequest:
    return world.commit_request(HERE, attempt, await world.quote(HERE, attempt))


async def dispense_state(world: World, request: CommitClaimRequest) -> DispenseState | None:
    content = content_of(request.commitment, attempt_pb2.Commitment)
    key = (content.prescription_number, content.settlement_id)
    found = await world.platforms[HERE].store.read(lambda tx: tx.dispensing.dispense(*key))
    return found.state if found is not None else None


async def hold_state(world: World, request: CommitClaimRequest) -> SettlementState | None:
    settlement_id = content_of(request.commitment, attempt_pb2.Commitment).settlement_id
    store = world.platforms[HERE].store
    found = await store.read(lambda tx: tx.payer.settlement(PERSON, settlement_id))
    return found.state if found is not None else None


async def refused(world: World, request: CommitClaimRequest) -> str:
    with pytest.raises(Refusal) as refusal:
        await world.commit(HERE, request)
    return refusal.value.reason


async def test_a_claim_at_home_is_one_transaction(world: World, counting: Counting) -> None:
    _, code = await world.issue(HERE, HERE)
    before = counting.committed
    await world.claim(HERE, code)
    assert counting.committed == before + 1


async def test_a_claim_at_home_is_answered_with_a_receipt_every_time(world: World) -> None:
    platform = world.platforms[HERE]
    _, code = await world.issue(HERE, HERE)
    request = world.claim_request(HERE, code)
    first = await claims.claim(platform.exchange, platform.pharmacy, request)
    again = await claims.claim(platform.exchange, platform.pharmacy, request)
    assert first.receipt.statement_sha256 == again.receipt.statement_sha256 != b""
    assert first.attempt == again.attempt


async def test_another_claim_under_the_same_id_is_refused(world: World) -> None:
    platform = world.platforms[HERE]
    _, code = await world.issue(HERE, HERE)
    request = world.claim_request(HERE, code)
    await claims.claim(platform.exchange, platform.pharmacy, request)
    other = ClaimPrescriptionRequest(pickup_code="350500.another")
    other.MergeFrom(request)
    other.pickup_code = code[:-1] + ("0" if code[-1] != "0" else "1")
    with pytest.raises(Refusal) as refusal:
        await claims.claim(platform.exchange, platform.pharmacy, other)
    assert refusal.value.reason == Reason.REQUEST_ID_REUSED


async def test_wrong_codes_are_counted_once_each_and_lock(world: World) -> None:
    platform = world.platforms[HERE]
    number, code = await world.issue(HERE, HERE)
    wrong = f"{number}.{'0' * 16}"
    reasons = []
    for _ in range(MAX_WRONG_TRIES + 1):
        with pytest.raises(Refusal) as refusal:
            await claims.claim(
                platform.exchange, platform.pharmacy, world.claim_request(HERE, wrong)
            )
        reasons.append(refusal.value.reason)
    assert reasons[:-1] == [Reason.PICKUP_CODE_INVALID] * MAX_WRONG_TRIES
    assert reasons[-1] == Reason.PICKUP_CODE_LOCKED
    with pytest.raises(Refusal):
        await world.claim(HERE, code)


async def test_a_commitment_in_one_region_is_one_transaction(
    world: World, counting: Counting
) -> None:
    request = await commitment(world, await claimed(world))
    before = counting.committed
    await world.commit(HERE, request)
    assert counting.committed == before + 1
    assert await dispense_state(world, request) is DispenseState.COMMITTED
    assert await hold_state(world, request) is SettlementState.HELD


async def test_home_commits_where_the_hold_of_another_region_is_stored(
    world: World, counting: Counting
) -> None:
    request = await commitment(world, await claimed(world, payer=THERE))
    before = counting.committed
    response = await world.commit(HERE, request)
    assert counting.committed == before + 2
    held = content_of(response.settlement, settlement_pb2.Settlement)
    assert held.state == settlement_pb2.Settlement.STATE_HELD
    assert await dispense_state(world, request) is DispenseState.COMMITTED


async def test_what_the_own_payer_refuses_is_refused_and_stored_as_by_another(
    world: World,
) -> None:
    attempt = await claimed(world)
    before = await world.person(HERE)
    request = await commitment(world, attempt)
    await world.change_person(HERE, used_deductible_fen=0)
    assert await refused(world, request) == Reason.QUOTE_CHANGED
    assert await dispense_state(world, request) is DispenseState.REFUSED
    assert await hold_state(world, request) is None
    assert await world.person(HERE) == replace(before, used_deductible_fen=0)
    assert await refused(world, request) == Reason.SETTLEMENT_ENDED
    again = await commitment(world, attempt)
    await world.commit(HERE, again)
    assert await dispense_state(world, again) is DispenseState.COMMITTED


async def test_what_the_own_home_refuses_sets_the_own_hold_free(world: World) -> None:
    """The lease ends at home, and nobody has told the dispensing role yet."""
    attempt = await claimed(world)
    before = await world.person(HERE)
    request = await commitment(world, attempt)
    world.clock.now += world.platforms[HERE].region.lease * 2
    await world.expire_leases(HERE)
    assert await refused(world, request) == Reason.ATTEMPT_ENDED
    assert await dispense_state(world, request) is DispenseState.REFUSED
    await world.settle()
    assert await hold_state(world, request) is SettlementState.VOIDED
    assert await world.person(HERE) == before


async def test_a_defect_in_an_own_step_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await commitment(world, await claimed(world))
    before = await world.person(HERE)

    def broken(*_: Any) -> Any:
        raise InvariantBroken("a defect")

    with monkeypatch.context() as planted:
        planted.setattr(attempts, "commit_attempt", broken)
        with pytest.raises(InvariantBroken):
            await world.commit(HERE, request)
    assert await dispense_state(world, request) is None
    assert await hold_state(world, request) is None
    assert await world.person(HERE) == before
    await world.commit(HERE, request)
    assert await dispense_state(world, request) is DispenseState.COMMITTED


async def test_a_commitment_is_answered_the_same_when_it_comes_again(world: World) -> None:
    request = await commitment(world, await claimed(world))
    assert await world.commit(HERE, request) == await world.commit(HERE, request)


async def test_what_a_crash_left_between_the_steps_is_finished_by_the_same_steps(
    world: World,
) -> None:
    """A store of an earlier release, or another region that was away, may stand in between."""
    request = await commitment(world, await claimed(world, payer=THERE))
    world.losing.add("hold_benefit")
    with pytest.raises(Exception, match="cut"):
        await world.commit(HERE, request)
    assert await dispense_state(world, request) is DispenseState.COMMITTING
    (left,) = await settling.undecided(world.platforms[HERE].exchange, 10)
    await settling.drive(world.platforms[HERE].exchange, left)
    assert await dispense_state(world, request) is DispenseState.COMMITTED
