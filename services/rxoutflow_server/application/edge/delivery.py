"""Bringing to the platform what waits for it, until it is there.

The loop sleeps while nothing waits; it is woken when something does. What the platform does not
decide is tried again with growing pauses. One item that cannot be decided holds up no other, and
some are on their way at a time, so that a backlog does not wait for the line once for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import structlog

from rxoutflow.statements import StatementError
from rxoutflow_server.application.edge import goods_returns, handovers, registration
from rxoutflow_server.application.edge.platform import HospitalPlatform, PharmacyPlatform
from rxoutflow_server.application.edge.surroundings import Edge, Pause
from rxoutflow_server.domain.errors import Refusal, Unavailable

BATCH = 100
AT_ONCE = 8
"""Items on their way to the platform: few, because after its outage all its institutions come."""

FIRST_PAUSE = timedelta(milliseconds=200)
LONGEST_PAUSE = timedelta(seconds=10)

T = TypeVar("T")

log = structlog.get_logger()


def pauses(sleep: Callable[[float], Awaitable[None]], jitter: Callable[[], float]) -> Pause:
    """Pauses that double up to the longest one, each times a random factor (0.5 to 1.5)."""

    async def pause(tries: int) -> None:
        longer = min(FIRST_PAUSE * 2 ** min(tries, 20), LONGEST_PAUSE)
        await sleep(longer.total_seconds() * jitter())

    return pause


async def keep_delivering(edge: Edge, deliver_due: Callable[[], Awaitable[bool]]) -> None:
    """Deliver what is due, again and again, until cancelled."""
    tries = 0
    while True:
        due = edge.due.listen()
        if await attempted(deliver_due()):
            tries = 0
            await due.wait()
        else:
            await edge.pause(tries)
            tries += 1


async def prescriptions(edge: Edge, platform: HospitalPlatform) -> bool:
    """Try every prescription that is on its way once; whether none is left."""
    queued = await edge.store.read(lambda tx: tx.edge.queued(BATCH))
    if queued and not await platform.reachable():
        return False
    numbers = (each.prescription_number for each in queued)
    done = await _each(numbers, lambda number: _brought(edge, platform, number))
    return done and len(queued) < BATCH


async def records(edge: Edge, platform: PharmacyPlatform) -> bool:
    """Try every dispense record and every return on its way once; whether none is left.

    Records go first: a return follows the record of its handover. Returns go one after the other:
    how much one may take back depends on those before it.
    """
    undelivered = await edge.store.read(lambda tx: tx.edge.undelivered(BATCH))
    returned = await edge.store.read(lambda tx: tx.edge.undelivered_returns(BATCH))
    if (undelivered or returned) and not await platform.reachable():
        return False
    done = await _each(undelivered, lambda each: attempted(handovers.offer(edge, platform, each)))
    returned = await edge.store.read(lambda tx: tx.edge.undelivered_returns(BATCH))
    given_back = [await attempted(goods_returns.offer(edge, platform, each)) for each in returned]
    return done and all(given_back) and len(undelivered) < BATCH and len(returned) < BATCH


async def _each(items: Iterable[T], deliver: Callable[[T], Awaitable[bool]]) -> bool:
    """Deliver items side by side; whether all are done."""
    free = asyncio.Semaphore(AT_ONCE)

    async def delivered(item: T) -> bool:
        async with free:
            return await deliver(item)

    return all(await asyncio.gather(*map(delivered, items)))


async def _brought(edge: Edge, platform: HospitalPlatform, number: str) -> bool:
    async with edge.turns.of(number):
        return await attempted(_bring(edge, platform, number))


async def _bring(edge: Edge, platform: HospitalPlatform, number: str) -> bool:
    await registration.bring(edge, platform, number, late=True)
    return True


async def attempted(work: Awaitable[bool]) -> bool:
    """What the work says, or false if it could not be done now; the loop survives all failures."""
    try:
        return await work
    except (Refusal, Unavailable, StatementError) as error:
        log.warning("delivery_failed", reason=str(error.reason))
    except Exception as error:  # a defect in one item must not keep the others here
        log.exception("delivery_failed", exception=type(error).__qualname__)
    return False
