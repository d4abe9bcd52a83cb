"""The simulation itself: time, disks and crashes are as it says, and a seed is one run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.loop import Process, Stalled, VirtualLoop
from simulation.pinned import PINNED
from simulation.plan import Parameters
from simulation.plants import PLANTS
from simulation.run import simulate
from simulation.shrink import shrunk

_TESTS = Path(__file__).parents[1]


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


def test_an_hour_of_waiting_passes_at_once(loop: VirtualLoop) -> None:
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == pytest.approx(3600)


def test_waiting_for_what_cannot_happen_is_noticed(loop: VirtualLoop) -> None:
    with pytest.raises(Stalled):
        loop.run_until_complete(loop.create_future())


def test_a_crash_ends_every_task_of_its_process_and_no_other(loop: VirtualLoop) -> None:
    woken: list[str] = []

    async def work(name: str) -> None:
        await asyncio.gather(*(note(f"{name}{number}") for number in range(2)))

    async def note(name: str) -> None:
        await asyncio.sleep(1)
        woken.append(name)

    dying, living = Process(), Process()
    loop.spawn(dying, work("dying"))
    loop.spawn(living, work("living"))
    loop.call_later(0.5, dying.end)
    loop.run_until_complete(asyncio.sleep(2))
    assert sorted(woken) == ["living0", "living1"]


def test_the_same_seed_is_the_same_run() -> None:
    assert simulate(Parameters(7)).hash == simulate(Parameters(7)).hash


def test_another_seed_is_another_run() -> None:
    assert simulate(Parameters(7)).hash != simulate(Parameters(8)).hash


def test_the_order_of_hashes_has_no_part_in_a_run() -> None:
    assert len({_hash_elsewhere(7, hash_seed) for hash_seed in ("1", "2")}) == 1


@pytest.mark.parametrize("name", PINNED)
def test_what_was_found_once_stays_right(name: str) -> None:
    pinned = PINNED[name]
    assert simulate(pinned.parameters).violation == ""
    with pinned.bug.planted():
        assert simulate(pinned.parameters).violation, "this run does not find it any more"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    plant = PLANTS[name]
    with plant.planted():
        found = any(simulate(Parameters(seed)).violation for seed in range(plant.within))
    assert found, f"not found within {plant.within} seeds"


@pytest.mark.timeout(600)
def test_a_failing_run_is_made_smaller() -> None:
    with PLANTS["outcomes not kept"].planted():
        failing = simulate(Parameters(0))
        small = shrunk(failing, most=12)
    assert small.violation
    assert small.events < failing.events or small.faults < failing.faults


def _hash_elsewhere(seed: int, hash_seed: str) -> str:
    """The hash of a run in a process of its own."""
    program = (
        "from simulation.run import simulate; from simulation.plan import Parameters;"
        f"print(simulate(Parameters({seed})).hash)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=_TESTS,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(_TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
