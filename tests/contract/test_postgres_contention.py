"""What could hold everybody up: batches that wait for each other's rows, and a long outbox.

A batch locks rows of many prescriptions and insured persons, in the order in which their commands
came. PostgreSQL finds two that wait for each other after a second, so that is what a deadlock would
cost everybody in them. It counts them, and these tests look at its count.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeAlias

import psycopg
import pytest

from rxoutflow.statements import statement_sha256
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.storage.postgres import Options, PostgresStore
from support.batches import PATIENCE, in_one_batch
from support.postgres import deadlocks, fresh_schema
from support.records import NOW, NUMBER, PERSON, event, notice, person, prescription, statement

Platform: TypeAlias = PostgresStore[Transaction]

SCHEMA = "contention"
NUMBERS = [f"{NUMBER[:-1]}{each}" for each in range(6)]
PERSONS = [f"{PERSON[:-1]}{each}" for each in range(4)]
COMMANDS = 600
AT_ONCE = 48
LONG = 2.0
"""Seconds of a command at most, on a machine that does other work: two deadlocks are longer."""


@pytest.fixture
def address() -> str:
    return fresh_schema(SCHEMA)


@asynccontextmanager
async def stores(address: str, workers: int) -> AsyncIterator[list[Platform]]:
    """Two processes' worth of a platform whose log grows, with the rows that all of them want."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                PostgresStore.open(
                    address,
                    "platform",
                    schema=SCHEMA,
                    options=Options(workers),
                    before_commit=_take_turn,
                )
            )
            for _ in range(2)
        ]
        await opened[0].transact(_fill)
        yield opened


def _take_turn(tx: Transaction) -> Callable[[], None]:
    tx.log.take_turn()
    for leaf in tx.log.waiting(4096):
        tx.log.placed(leaf.prescription_number, leaf.position)
    return lambda: None


def _fill(tx: Transaction) -> None:
    for number in NUMBERS:
        tx.home.add_prescription(
            replace(prescription(), number=number, hospital_prescription_number=number)
        )
    for each in PERSONS:
        tx.payer.add_person(replace(person(), insured_person_id=each))


def _spend(person_id: str, tx: Transaction) -> None:
    found = tx.payer.person(person_id)
    assert found is not None
    tx.payer.save_person(replace(found, own_account_fen=found.own_account_fen - 1))


def _touch(number: str, tx: Transaction) -> None:
    assert tx.home.prescription(number) is not None


def _work(turn: int, number: str, person_id: str, tx: Transaction) -> None:
    """What a command of an exchange leaves: rows of its own, and those that many others touch."""
    kept = statement(f"{turn}")
    institution = f"H{turn % 2}"
    _touch(number, tx)
    _spend(person_id, tx)
    tx.keep(number, statement_sha256(kept), kept, NOW)
    tx.journal.add_event(replace(event(f"event {turn}"), prescription_number=number))
    tx.journal.add_notice(notice(institution, f"{turn}"))


async def test_commands_on_rows_that_everybody_wants_meet_in_no_deadlock(address: str) -> None:
    before, chance = deadlocks(address), random.Random(7)
    longest = 0.0
    turns = iter(range(COMMANDS))
    spent = dict.fromkeys(PERSONS, 0)

    async with stores(address, workers=2) as both:

        async def work() -> None:
            nonlocal longest
            for turn in turns:
                number, person_id = chance.choice(NUMBERS), chance.choice(PERSONS)
                begin = time.perf_counter()
                await both[turn % 2].transact(partial(_work, turn, number, person_id))
                longest = max(longest, time.perf_counter() - begin)
                spent[person_id] += 1

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        left = {
            each: await both[0].read(lambda tx, each=each: tx.payer.person(each))  # type: ignore[misc] # mypy cannot infer a lambda with a default
            for each in PERSONS
        }

    assert deadlocks(address) == before
    assert longest < LONG
    for each, stored in left.items():
        assert stored is not None
        assert person().own_account_fen - stored.own_account_fen == spent[each]


async def test_two_batches_in_opposite_order_both_take_effect_without_a_deadlock(
    address: str,
) -> None:
    before = deadlocks(address)
    first, second = PERSONS[:2]
    meeting = threading.Barrier(2)

    def hold(person_id: str, tx: Transaction) -> None:
        """Have the row, and go on when the other batch has its own, at the first run."""
        _spend(person_id, tx)
        with suppress(threading.BrokenBarrierError):
            meeting.wait(PATIENCE)
            meeting.abort()

    async def batch(store: Platform, mine: str, others: str) -> list[object]:
        commands = partial(hold, mine), partial(_spend, others)
        return await in_one_batch(store, lambda: [store.transact(each) for each in commands])

    async with stores(address, workers=1) as both:
        done = await asyncio.gather(batch(both[0], first, second), batch(both[1], second, first))
        left = [
            await both[0].read(lambda tx, each=each: tx.payer.person(each))  # type: ignore[misc] # as above
            for each in (first, second)
        ]

    assert list(done) == [[None, None], [None, None]]
    assert deadlocks(address) == before
    assert [each and person().own_account_fen - each.own_account_fen for each in left] == [2, 2]


async def test_taking_events_looks_at_no_more_however_many_wait(address: str) -> None:
    """Everybody waits behind whoever takes events; the outbox is long while a region is away."""
    waiting, taken = 3_000, 100
    numbers = [f"{NUMBER[:-6]}{each:06}" for each in range(waiting)]
    peer, due = event("any").peer_region_code, NOW + timedelta(days=1)

    def add(tx: Transaction) -> None:
        for number in numbers:
            tx.journal.add_event(replace(event(f"of {number}"), prescription_number=number))

    async with PostgresStore.open(address, "platform", schema=SCHEMA) as store:
        await store.transact(add)
    before = _blocks_read(address)
    async with PostgresStore.open(address, "platform", schema=SCHEMA) as store:
        found = await store.transact(
            lambda tx: tx.journal.take_events(peer, due, due + timedelta(minutes=1), taken)
        )

    assert len(found) == taken
    assert _blocks_read(address) - before < 50 * taken


def _blocks_read(address: str) -> int:
    """How many blocks of the outbox and its indexes were looked at so far."""
    with psycopg.connect(address) as connection:
        row = connection.execute(
            "SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read"
            " FROM pg_statio_user_tables WHERE schemaname = %s AND relname = 'outbox'",
            (SCHEMA,),
        ).fetchone()
    assert row is not None
    return int(row[0])
