"""Runs: one seed, or many; what came of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

from simulation.coverage import Pair, Recorder
from simulation.plan import Parameters
from simulation.store import Disks
from simulation.surroundings import surroundings
from simulation.world import World


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    parameters: Parameters
    violation: str
    """Empty if there was none."""
    details: str
    events: int
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
        with surroundings(world), recorder.recording():
            _run(world)
    finally:
        for platform in world.platforms.values():
            platform.disk.close()
        disks.remove()
    error = world.failure
    return Result(
        parameters,
        "" if error is None else f"{type(error).__name__}: {error}",
        "" if error is None else "".join(format_exception(error)),
        world.trace.events,
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
