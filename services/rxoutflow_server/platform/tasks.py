"""What a platform does by itself: bring facts to peers, end leases, and finish what a crash left.

Each task is a loop that survives the failure of a round: it logs and tries again. A task ends only
when it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from rxoutflow_server.application.dispensing import settling
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.exchange import outbox
from rxoutflow_server.application.home import attempts
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.platform.changes import Changes, wait
from rxoutflow_server.transport.errors import reason_of

TICK_SECONDS = 1.0
LEASES_AT_ONCE = 200
UNDECIDED_AT_ONCE = 50
SETTLING_TIME = timedelta(seconds=10)
"""A call that is still deciding is left alone that long; then it is taken for lost."""

log = structlog.get_logger()

Round = Callable[[], Awaitable[None]]


async def repeat(name: str, work: Round, changes: Changes | None = None) -> None:
    """Do the work again and again: every tick, and where ``changes`` are given, at each of them."""
    while True:
        expected = changes.expected() if changes is not None else asyncio.Event()
        try:
            await work()
        except Exception as error:  # a defect in one round must not end the task
            log.warning("task_failed", component=name, reason=reason_of(error))
        await wait(expected, TICK_SECONDS)


async def deliver_facts(exchange: Exchange, jitter: outbox.Jitter) -> None:
    """Send everything that is due to every region, to all regions at once."""
    due = await outbox.peers_with_events(exchange.region, exchange.store)
    await asyncio.gather(*(_deliver_all(exchange, peer, jitter) for peer in due))


async def _deliver_all(exchange: Exchange, peer: str, jitter: outbox.Jitter) -> None:
    region, store, peers = exchange.region, exchange.store, exchange.peers
    while await outbox.deliver(region, store, peers, peer, jitter):
        """Call by call, for as long as the region takes something."""


async def end_leases(exchange: Exchange) -> None:
    """End the reserved attempts of this home region whose lease is over."""
    region = exchange.region
    overdue = await exchange.store.read(lambda tx: len(tx.home.overdue_leases(region.now(), 1)))
    if overdue:
        await exchange.store.transact(lambda tx: attempts.expire_leases(tx, region, LEASES_AT_ONCE))


async def finish_commitments(exchange: Exchange) -> None:
    """Bring dispenses that a crash or an unreachable region left undecided to their decision."""
    now = exchange.region.now()
    for dispense in await settling.undecided(exchange, UNDECIDED_AT_ONCE):
        if now - dispense.update_time >= SETTLING_TIME:
            await _finish(exchange, dispense)


async def _finish(exchange: Exchange, dispense: Dispense) -> None:
    try:
        await settling.drive(exchange, dispense)
    except Exception as error:  # whatever it was, this one waits behind the others
        log.info("commitment_not_finished", reason=reason_of(error))
        await settling.put_off(exchange, dispense)
