"""Runs: one seed, or many; what came of them.

A run is held to its invariants while it lasts, and in the end what its clients heard to what one
prescription can have said (L11).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

from simulation.coverage import Pair, Recorder
from simulation.histories import recorded
from simulation.plan import Parameters
from simulation.store import Disks
from simulation.surroundings import surroundings
from simulation.world import World
from support.history import Recorder as History
from support.invariants import Violation


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    parameters: Parameters
    violation: str
    """Empty if there was none."""
    details: str
    events: int
    operations: int
    """What clients asked for, all of it in some order that explains every answer."""
    kinds: Counter[str]
    pairs: Counter[Pair]
    hash: str
    tail: tuple[str, ...]
    seconds: float
    """Virtual time that passed."""
    faults: int
    kinds_of_faults: frozenset[str]
    prescriptions: int
    horizon: float


def simulate(parameters: Parameters) -> Result:
    """Run once."""
    disks = Disks()
    world, recorder = World(parameters, disks), Recorder()
    try:
        with surroundings(world), recorder.recording(), recorded() as history:
            _run(world)
    finally:
        for platform in world.platforms.values():
            platform.disk.close()
        disks.remove()
    operations = _explained(world, history) if world.failure is None else 0
    error = world.failure
    return Result(
        parameters,
        "" if error is None else f"{type(error).__name__}: {error}",
        "" if error is None else "".join(format_exception(error)),
        world.trace.events,
        operations,
        world.trace.kinds,
        recorder.pairs,
        world.trace.hash,
        tuple(world.trace.tail),
        world.loop.now,
        len(world.plan.faults),
        world.plan.kinds,
        len(world.plan.prescriptions),
        world.plan.horizon,
    )


def _run(world: World) -> None:
    loop = world.loop
    loop.set_exception_handler(lambda _, context: world.fail(_error_in(context)))
    main = loop.create_task(world.main())
    main.add_done_callback(lambda _: loop.stop())
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        if main.done() and not main.cancelled() and main.exception() is not None:
            world.fail(main.exception())  # type: ignore[arg-type] # it is not None
        _clear_away(world, main)
    except Exception as error:  # the loop itself: nobody can go on
        world.fail(error)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _explained(world: World, history: History) -> int:
    """How many operations there were, if what clients heard of them can be explained."""
    try:
        return history.check()
    except Violation as violation:
        world.fail(violation)
        return 0


def _clear_away(world: World, main: asyncio.Task[Any]) -> None:
    """Let every task end, so that none of them speaks up later."""
    world.loop.set_exception_handler(lambda _, context: None)
    for node in world.nodes():
        if node.process is not None:
            node.process.end()
    main.cancel()
    for _ in range(5):
        world.loop.call_soon(world.loop.stop)
        world.loop.run_forever()


def _error_in(context: dict[str, Any]) -> BaseException:
    error = context.get("exception")
    return error if isinstance(error, BaseException) else AssertionError(str(context["message"]))
