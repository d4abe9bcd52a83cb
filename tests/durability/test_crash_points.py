"""Power cuts and failing disks under the real store: nothing that was answered is lost (L4).

Every method of the contract that changes something is called once on servers whose stores are
watched from below, besides group commits, deliveries, checkpoints, stops and starts. Then the power
is cut at operations of these recordings, with what was not synced dropped, kept, torn or shuffled.
``RXOUTFLOW_CRASH_POINTS`` asks for more cuts than the gate makes.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rxoutflow_server.storage.sqlite import connection, store
from rxoutflow_server.storage.sqlite.schema import migrate
from rxoutflow_server.storage.sqlite.writer import Writer
from security.test_malformed_input import CHANGES_NOTHING
from simulation.bugs import BUGS
from support.board import Ran
from support.crash.disk import Cut, write
from support.crash.recording import (
    Point,
    Recorder,
    Recording,
    just_answered,
    points,
    spread,
)
from support.crash.site import empty, fill, recorded, registrations
from support.crash.verdict import Judge, rows
from support.crash.vfs import Kind, Operation
from support.invariants import Violation
from support.premises import HOME, Call, Premises

CUTS = int(os.environ.get("RXOUTFLOW_CRASH_POINTS", "1600"))
SEED = int(os.environ.get("RXOUTFLOW_SEED", "20261122"))
NO_PART = re.compile(rf"{CHANGES_NOTHING.pattern}|.*DeadLetter")
"""Calls that change nothing; and those whose trace names an operator beside a platform's seal."""

TOGETHER = 12
"""Registrations in one commit."""

CUTS_FOR_A_BUG = 150
BIRTH_CUTS = 120
FEW_KILLS, CUTS_AFTER_A_KILL = 6, 8

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120 + CUTS // 10),
]


@dataclass(frozen=True)
class Plant:
    """A bug, and the invariants of which it has to be found to break one."""

    put: Callable[[pytest.MonkeyPatch], None]
    breaks: tuple[str, ...] = ("I7",)


def synchronous(level: int) -> Plant:
    """The store asks SQLite for less than durability."""
    return Plant(lambda patch: patch.setitem(connection._WRITER_SETTINGS, "synchronous", level))


def _answered_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Callers hear an answer when their command has run."""
    honest = Writer._try

    async def answer(job: Any) -> None:
        job.resolve()
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def run(self: Writer[Any], job: Any) -> None:
        honest(self, job)
        asyncio.run_coroutine_threadsafe(answer(job), job.future.get_loop()).result()

    patch.setattr(Writer, "_try", run)


TURNS = 10
"""Of the event loop, until whoever waits for an answer has it."""

PLANTED = {
    "synchronous is NORMAL": synchronous(1),
    "the log is never synced": synchronous(0),
    "an answer goes out before the commit": Plant(_answered_before_the_commit),
    "the outbox is outside the transaction": Plant(
        BUGS["the outbox is outside the transaction"].put
    ),
    "leaves of the log are appended later": Plant(
        BUGS["leaves of the log are appended later"].put, ("I7", "I9")
    ),
}


async def test_nothing_answered_is_lost_wherever_the_power_is_cut(
    premises: Premises, disks: Path, tmp_path: Path, ran: Ran
) -> None:
    recorders = {
        name: Recorder(fill(disks / name, store.connection))
        for name, store in premises.stores.items()
    }
    calls = await a_day(premises, recorders)
    recordings = [each.recording for each in recorders.values()]
    cuts = 0
    for recording in recordings:
        judge = Judge(premises, recording.name, empty(disks / "image"), tmp_path / "image", calls)
        cuts += await cut_everywhere(judge, recording, share(recording, recordings))
    ran("L4 crash points of a day's calls", cuts, min(CUTS, 1_500))


async def test_a_store_whose_creation_was_cut_off_is_created_all_the_same(
    premises: Premises, disks: Path, tmp_path: Path, ran: Ran
) -> None:
    recording, calls = await birth(premises, disks / HOME)
    judge = judging(premises, disks, tmp_path, calls)
    choice = Random(f"{SEED} birth")
    for point in points(recording, spread(recording, BIRTH_CUTS, choice)):
        await judge.judge(point, cut_at(point, choice), choice)
    ran("L4 crash points of a store's creation", judge.images, BIRTH_CUTS)


async def test_what_a_killed_process_left_unsynced_is_promised_only_once_it_is_synced(
    premises: Premises, disks: Path, tmp_path: Path, ran: Ran
) -> None:
    """The process dies, another goes on with what it wrote, and then the power is cut."""
    cuts = await cut_after_kills(premises, disks, tmp_path)
    ran("L4 crash points after a kill", cuts, FEW_KILLS * CUTS_AFTER_A_KILL)


async def test_a_store_that_trusts_what_a_killed_process_left_is_found(
    premises: Premises, disks: Path, tmp_path: Path
) -> None:
    """A planted bug: a start that syncs nothing."""

    def trusting(path: Path) -> sqlite3.Connection:
        path.touch()
        opened = connection._connected(path, "rw")
        connection._apply(opened, path, connection._WRITER_SETTINGS)
        return opened

    with pytest.MonkeyPatch.context() as plant:
        plant.setattr(store, "open_writer", trusting)
        with pytest.raises(Violation) as found:
            await cut_after_kills(premises, disks, tmp_path)
    assert found.value.invariant == "I7"


async def cut_after_kills(premises: Premises, disks: Path, kept: Path) -> int:
    """Kill the process before syncs, let another go on, and cut the power; how often that was."""
    recording, calls = await birth(premises, disks / HOME)
    judge = judging(premises, disks, kept, calls)
    choice = Random(f"{SEED} killed")
    for killed in points(recording, before_syncs(recording)):
        folder = empty(disks / "killed")
        write(killed.disk.image(Cut.KEEPS, choice), folder)
        recorder = Recorder(folder, killed)
        async with recorded(premises, {HOME: recorder}) as site:
            for call in calls.values():
                await site.make(call)
        later = recorder.recording
        chosen = just_answered(later) | spread(later, CUTS_AFTER_A_KILL, choice)
        for point in points(later, chosen):
            await judge.judge(point, Cut.DROPS, choice)
            await judge.judge(point, cut_at(point, choice), choice)
    return judge.images


@pytest.mark.parametrize("bug", PLANTED)
async def test_a_planted_bug_is_found_by_a_few_power_cuts(
    premises: Premises, disks: Path, tmp_path: Path, ran: Ran, bug: str
) -> None:
    calls = registrations(premises, 4)
    recorder = Recorder(fill(disks / HOME, premises.stores[HOME].connection))
    with pytest.MonkeyPatch.context() as plant:
        PLANTED[bug].put(plant)
        async with recorded(premises, {HOME: recorder}) as site:
            for call in calls.values():
                await site.make(call)
    judge = judging(premises, disks, tmp_path, calls)
    with pytest.raises(Violation) as found:
        await cut_everywhere(judge, recorder.recording, CUTS_FOR_A_BUG)
    assert found.value.invariant in PLANTED[bug].breaks
    ran(f"L4 planted: {bug}; found at power cut", judge.images, 1)


def before_syncs(recording: Recording) -> set[int]:
    """Where everything of a commit is written and nothing of it is synced."""
    operations = [each for each in recording.events if isinstance(each, Operation)]
    syncs = [index for index, each in enumerate(operations) if each.kind is Kind.SYNC]
    return {*syncs[:3], *syncs[-FEW_KILLS:]}


async def birth(premises: Premises, folder: Path) -> tuple[Recording, dict[str, Call]]:
    """The creation of a store in an empty folder, and its first commits."""
    recorder, calls = Recorder(empty(folder)), registrations(premises, 3)
    async with recorded(premises, {HOME: recorder}) as site:
        for call in calls.values():
            await site.make(call)
    return recorder.recording, calls


def judging(premises: Premises, disks: Path, kept: Path, calls: dict[str, Call]) -> Judge:
    """A judge of the home region's store."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as nothing:
        migrate(nothing, Path("memory"), "platform")
        new = rows(nothing)
    return Judge(premises, HOME, empty(disks / "image"), kept / "image", calls, new)


async def a_day(premises: Premises, recorders: dict[str, Recorder]) -> dict[str, Call]:
    """Everything that changes something, and a second start; the calls with a request id."""
    calls = [each for each in premises.all_calls() if not NO_PART.fullmatch(each.name)]
    together, later = registrations(premises, TOGETHER), registrations(premises, 3)
    async with recorded(premises, recorders) as site:
        for call in calls:
            reply = await site.make(call)
            assert reply.reason == "OK", f"{call.name}: {reply.reason} {reply.message}"
        await site.make_together(list(together.values()))
    async with recorded(premises, recorders) as site:
        for call in later.values():
            await site.make(call)
    by_id = {str(getattr(call.request, "request_id", "")): call for call in calls}
    return by_id | together | later


def share(recording: Recording, recordings: list[Recording]) -> int:
    """How many of the cuts fall to a recording: as many as its operations are of all."""
    return -(-CUTS * recording.operations // sum(each.operations for each in recordings))


async def cut_everywhere(judge: Judge, recording: Recording, cuts: int) -> int:
    """Cut the power so often; how often it was."""
    choice = Random(f"{SEED} {recording.name}")
    while judge.images < cuts:
        for point in points(recording, spread(recording, cuts - judge.images, choice)):
            await judge.judge(point, cut_at(point, choice), choice)
    return judge.images


def cut_at(point: Point, choice: Random) -> Cut:
    """Some cut; where all is synced, all cuts are the same."""
    if point.disk.is_settled():
        return Cut.DROPS
    cut: Cut = choice.choice([*Cut, Cut.SHUFFLED])
    return cut
