"""A disk that fails under the real store: it stops for good, and nothing that was answered is lost.

Every operation of a run in turn fails, or finds the disk full: opening, reading, writing, syncing,
truncating. Nobody is told that something is done which is not, the operator hears once, and after
it the disk is not written to. Then the power is cut.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.sqlite import writer
from support.board import Ran
from support.crash.disk import Cut, Image, write
from support.crash.faults import Fault, FaultyDisk
from support.crash.recording import Point, Recorder
from support.crash.site import (
    CHECKPOINT_ROWS,
    answers_of,
    empty,
    fill,
    open_store,
    registrations,
    seen,
)
from support.crash.verdict import Judge
from support.crash.vfs import watching
from support.invariants import Answer
from support.premises import HOME, Call, Premises

FAULTS = 220
SEED = int(os.environ.get("RXOUTFLOW_SEED", "20261122"))

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass
class Run:
    """What became of a store whose disk failed."""

    heard: list[Answer] = field(default_factory=list)
    answered: int = 0
    failures: list[StoreError] = field(default_factory=list)
    could_open: bool = True
    changes_after_failure: int = 0


async def test_nothing_answered_is_lost_when_the_disk_fails_and_the_store_stops(
    premises: Premises, disks: Path, tmp_path: Path, ran: Ran
) -> None:
    folder = fill(disks / "template", premises.stores[HOME].connection)
    template = {each.name: each.read_bytes() for each in folder.iterdir()}
    calls = {**registrations(premises, 3), **at_home(premises)}
    whole = FaultyDisk(template, Fault.ERROR, 10**9, Random(SEED))
    undisturbed, _ = await run(premises, template, disks, whole, calls)
    assert (undisturbed.answered, undisturbed.failures) == (len(calls), [])
    chance, seen_as = Random(SEED), Counter[str]()
    for number in range(FAULTS):
        fault = Fault.FULL if number % 4 == 0 else Fault.ERROR
        disk = FaultyDisk(template, fault, chance.randint(1, whole.operations), chance)
        result, recorder = await run(premises, template, disks, disk, calls)
        seen_as[verdict_on(result, disk)] += 1
        judge = Judge(premises, HOME, empty(disks / "image"), tmp_path / "image", calls)
        cut = Cut.DROPS if number % 3 else Cut.SHUFFLED
        await judge.judge(the_end(disk, recorder, result), cut, chance)
    ran("L4 disk faults", sum(seen_as.values()), 200)
    for what, times in seen_as.items():
        ran(f"L4 disk faults: {what}", times, 1)
    assert seen_as["the store stopped"] >= FAULTS // 2


def at_home(premises: Premises) -> dict[str, Call]:
    """What other regions ask of the home region."""
    wanted = ("GrantClaim", "CommitAttempt", "ReleaseAttempt", "SellTraceCodes")
    calls = [
        each for each in premises.all_calls() if each.door == HOME and each.name.endswith(wanted)
    ]
    return {str(getattr(each.request, "request_id", each.name)): each for each in calls}


def the_end(disk: FaultyDisk, recorder: Recorder, result: Run) -> Point:
    """The moment after all that."""
    end = recorder.recording
    promised = end.newest_answer
    return Point(
        end, disk.operations, disk.disk, recorder.commits, promised, result.heard, interrupted=True
    )


def verdict_on(run: Run, disk: FaultyDisk) -> str:
    """What became of the run; whatever it was, it has to be one of these."""
    if disk.failed is None:
        return "nothing failed"
    if not run.could_open:
        return "the store was not opened"
    if not run.failures:
        return f"SQLite goes on after {disk.failed}"
    assert len(run.failures) == 1, "the operator hears once"
    assert run.changes_after_failure == 0, "something was written after the failure"
    return "the store stopped"


async def run(
    premises: Premises, template: Image, disks: Path, disk: FaultyDisk, calls: dict[str, Call]
) -> tuple[Run, Recorder]:
    """Make the calls on this disk, until the end or until it fails."""
    premises.restore()
    folder = empty(disks / "run")
    write(template, folder)
    recorder, result = Recorder(folder), Run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CHECKPOINT_ROWS", CHECKPOINT_ROWS)
        patch.setattr(os, "fsync", seen(disk, os.fsync))
        with watching(disk):
            try:
                store = open_store(
                    premises,
                    HOME,
                    recorder.path,
                    on_commit=recorder.committed,
                    on_failure=result.failures.append,
                )
            except StoreError:
                result.could_open = False
                recorder.opened()
                return result, recorder
            async with store:
                recorder.opened()
                patch.setattr(premises.stores[HOME], "transact", recorder.transacting(store))
                patch.setattr(premises.stores[HOME], "read", recorder.reading(store))
                await make(premises, recorder.path, disk, calls, result)
                before = disk.changes_afterwards
            if result.failures:  # nor is anything written while it is closed
                result.changes_after_failure += disk.changes_afterwards - before
    return result, recorder


async def make(
    premises: Premises, path: Path, disk: FaultyDisk, calls: dict[str, Call], result: Run
) -> None:
    """Make the calls; once the store has stopped, each has to hear so."""
    for call in calls.values():
        before, stopped = disk.changes_afterwards, bool(result.failures)
        reply = await premises.make(call)
        assert reply.reason in ("OK", "STORE_UNAVAILABLE"), reply
        if stopped:
            assert reply.reason == "STORE_UNAVAILABLE", "it works on after it has stopped"
            result.changes_after_failure += disk.changes_afterwards - before
        if reply.reason == "OK":
            result.answered += 1
            result.heard += answers_of(path, call, reply)
