"""A platform killed again and again under load: nothing that was answered is lost (L5).

A platform process serves patient customers over mutual TLS: they register, claim, commit, record.
At moments that nobody chose it is killed and started again, and every call that was answered since
the last time is made once more: the same request must get the same bytes. At the end the records
are read and held to the invariants, and every answer and receipt of the whole run to the records.

``RXOUTFLOW_CYCLES`` and ``RXOUTFLOW_SEED`` make it longer, or other.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from rxoutflow_server.cli import UNUSABLE
from support.board import Ran
from support.invariants import check_always, read_region
from support.lone_platform import (
    REGION,
    Counter,
    Customer,
    Platform,
    lone_platform,
    with_largest_file,
)
from support.places import memory
from support.postgres import Server

CYCLES = int(os.environ.get("RXOUTFLOW_CYCLES", "62"))
SEED = int(os.environ.get("RXOUTFLOW_SEED", "20261122"))
CALLS_A_CYCLE = 46
LEAST_CALLS = int(5_000 / 60 * min(CYCLES, 60))
CUSTOMERS = 16
POSTGRES_CALLS_A_CYCLE = 24
HASTY_SECONDS = 1.5
"""After which a call is made again that a database took with it."""
POSTGRES_CYCLES = int(os.environ.get("RXOUTFLOW_POSTGRES_CYCLES", "20"))
ROOM = 2_000_000
"""Bytes by which a file may grow until the disk is full."""

pytestmark = pytest.mark.timeout(120 + 5 * CYCLES)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where killing a process is the only fault that there can be: in memory, if possible."""
    with TemporaryDirectory(dir=memory()) as made:
        yield Path(made)


@pytest.fixture
def database() -> Iterator[Server]:
    started = Server.start(memory())
    yield started
    started.stop()


async def test_nothing_answered_is_lost_however_often_the_platform_is_killed(
    folder: Path, ran: Ran
) -> None:
    with lone_platform(folder / "site") as platform:
        platform.start()
        async with Counter(platform) as counter:
            killing = Cycle(lambda _: platform.kill(), lambda _: platform.start)
            await cycles(counter, CYCLES, CALLS_A_CYCLE, LEAST_CALLS, killing)
        assert platform.stop() == 0
        require_records(platform, counter)
    ran("L5 kill cycles on SQLite", CYCLES, min(CYCLES, 60))
    calls = len(counter.acknowledged)
    ran("L5 acknowledged calls on SQLite, each asked again", calls, LEAST_CALLS)


async def test_nothing_answered_is_lost_when_service_and_database_are_killed_in_turn(
    folder: Path, database: Server, ran: Ran
) -> None:
    with lone_platform(folder / "site", database.address) as platform:
        platform.start()
        in_turn = Cycle(
            lambda cycle: platform.kill() if cycle % 2 else database.kill(),
            lambda cycle: platform.start if cycle % 2 else database.begin,
        )
        async with Counter(platform, call_seconds=HASTY_SECONDS) as counter:
            await cycles(counter, POSTGRES_CYCLES, POSTGRES_CALLS_A_CYCLE, 0, in_turn)
            await counter.require_kept(counter.acknowledged)
        assert platform.stop() == 0
    calls = len(counter.acknowledged)
    ran("L5 kill cycles on PostgreSQL", POSTGRES_CYCLES, min(POSTGRES_CYCLES, 20))
    ran("L5 acknowledged calls on PostgreSQL, each asked again", calls, 20 * POSTGRES_CYCLES)


async def test_a_platform_whose_disk_is_full_says_so_and_ends_and_has_kept_what_it_answered(
    folder: Path, ran: Ran
) -> None:
    with lone_platform(folder / "site") as platform:
        platform.start()
        assert platform.stop() == 0
        platform.start(with_largest_file(platform.store.stat().st_size + ROOM))
        async with Counter(platform) as counter, asyncio.TaskGroup() as group:
            customers = [
                group.create_task(visit(Customer(counter, Random(f"{SEED} full {index}"))))
                for index in range(CUSTOMERS)
            ]
            assert await asyncio.to_thread(platform.wait) == UNUSABLE
            said = platform.said().splitlines()[-1]
            assert "nothing more is written; check the disk and its free space" in said
            assert "Traceback" not in platform.said()
            told = list(counter.acknowledged)
            await asyncio.to_thread(platform.start)
            await counter.require_kept(told)
            for each in customers:
                each.cancel()
        assert platform.stop() == 0
        require_records(platform, counter)
    ran("L5 acknowledged calls before the disk was full", len(told), 20)


def require_records(platform: Platform, counter: Counter) -> None:
    """The records keep the invariants, and hold every answer and every receipt of the whole run."""
    answers = [each.answer(platform) for each in counter.acknowledged]
    with closing(sqlite3.connect(f"{platform.store.as_uri()}?mode=ro", uri=True)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check_always({REGION: read_region(REGION, reader)}, answers)


@dataclass(frozen=True)
class Cycle:
    """How something is killed in a cycle, and how it is started again."""

    kill: Callable[[int], None]
    start_again: Callable[[int], Callable[[], None]]


async def cycles(counter: Counter, number: int, calls: int, least: int, what: Cycle) -> None:
    """Kill so often under load; a customer who hears something improper ends it all.

    Between two kills about so many calls are answered, and before the last one as many as are
    missing from the least number of all.
    """
    chance = Random(SEED)
    async with asyncio.TaskGroup() as group:
        customers = [
            group.create_task(visit(Customer(counter, Random(f"{SEED} {index}"))))
            for index in range(CUSTOMERS)
        ]
        for cycle in range(number):
            before = len(counter.acknowledged)
            missing = least - before if cycle == number - 1 else 0
            await more(counter, max(missing, chance.randint(calls // 2, 3 * calls // 2)))
            what.kill(cycle)
            told = counter.acknowledged[before:]
            await asyncio.to_thread(what.start_again(cycle))
            await counter.require_kept(told)
        for each in customers:
            each.cancel()


async def more(counter: Counter, calls: int) -> None:
    """Until so many further calls are acknowledged."""
    wanted = len(counter.acknowledged) + calls
    while len(counter.acknowledged) < wanted:
        counter.heard.clear()
        await counter.heard.wait()


async def visit(customer: Customer) -> None:
    """Patients without end."""
    while True:
        await customer.exchange()
