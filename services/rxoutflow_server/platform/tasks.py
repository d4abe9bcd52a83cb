"""What a platform does by itself: bring facts to peers, end leases, and finish what a crash left.

Each task is a loop that survives the failure of a round: it logs and tries again. A task ends only
when it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from rxoutflow_server.application import agreements
from rxoutflow_server.application.dispensing import boxes, settling
from rxoutflow_server.application.dispensing.exchange import Exchange
from rxoutflow_server.application.exchange import outbox
from rxoutflow_server.application.home import attempts
from rxoutflow_server.application.log import witnessing
from rxoutflow_server.application.payer import asking
from rxoutflow_server.application.ports import Store, Transaction
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.platform.changes import Changes, wait
from rxoutflow_server.transport.errors import reason_of

TICK_SECONDS = 1.0
TURN = timedelta(seconds=15)
"""For how long a process has a task to itself, at least; another one goes on that long after it
ended. For what is done rarely it is twice the time between."""
GATHERING_SECONDS = 0.03
"""After a round that a change has caused: what comes meanwhile goes together in the next."""
WATCHING_SECONDS = 60.0
"""Between two looks at the logs of other regions."""
HOLDS_SECONDS = 3600.0
"""Between two rounds of asking about money that has been held for long."""
QUOTAS_SECONDS = 600.0
"""Between two looks at the quotas of institutions."""
LEASES_AT_ONCE = 200
UNDECIDED_AT_ONCE = 50
BOXES_AT_ONCE = 200
SETTLING_TIME = timedelta(seconds=10)
"""A call that is still deciding is left alone that long; then it is taken for lost."""

log = structlog.get_logger()

Round = Callable[[], Awaitable[None]]


async def repeat(
    name: str, work: Round, changes: Changes | None = None, *, seconds: float = TICK_SECONDS
) -> None:
    """Do the work again and again: every tick, and where ``changes`` are given, at each of them."""
    while True:
        expected = changes.expected() if changes is not None else asyncio.Event()
        try:
            await work()
        except Exception as error:  # a defect in one round must not end the task
            log.warning("task_failed", component=name, reason=reason_of(error))
        await wait(expected, seconds)
        if changes is not None:
            await asyncio.sleep(GATHERING_SECONDS)


class Turns:
    """Tasks that one of several processes does at a time, each whichever has it.

    What a task does is safe to be done twice; turns save the work. A process that is healthy keeps
    a task; when it ends, another one takes it once the time is over.
    """

    def __init__(self, store: Store, holder: str, now: Callable[[], datetime]) -> None:
        """``holder`` is a name that no other process has."""
        self._store = store
        self._holder = holder
        self._now = now
        self._known: dict[str, tuple[bool, datetime]] = {}
        """Of each task whether it is this process's, and when to look again."""

    def of(self, task: str, work: Round, seconds: float) -> Round:
        """The work, which is done every so many seconds, only while it is this process's."""
        turn = max(TURN, timedelta(seconds=2 * seconds))

        async def in_turn() -> None:
            if await self._has(task, turn):
                await work()

        return in_turn

    async def _has(self, task: str, turn: timedelta) -> bool:
        now = self._now()
        ours, look_again = self._known.get(task, (False, now))
        if now < look_again:
            return ours
        ours = await self._store.transact(
            lambda tx: tx.journal.take_turn(task, self._holder, now + turn, now)
        )
        self._known[task] = (ours, now + turn / 3)
        return ours


class Others:
    """Wakes whoever waits here when another process has stored notices."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self._store = store
        self._changes = changes
        self._given = 0

    async def look(self) -> None:
        """Announce a change if there are more notices than at the last look."""
        given = await self._store.read(lambda tx: tx.journal.count_notices())
        if given != self._given:
            self._given = given
            self._changes.announce()


async def watch_logs(exchange: Exchange) -> None:
    """Look at the log of every other region that is trusted here, at all of them at once."""
    region = exchange.region
    others = [code for code in region.trust.regions() if code != region.code]
    await asyncio.gather(*(_watch(exchange, peer) for peer in others))


async def _watch(exchange: Exchange, peer: str) -> None:
    try:
        await witnessing.watch(exchange, peer)
    except Exception as error:  # the others are watched all the same
        log.info("peer_log_not_seen", peer=peer, reason=reason_of(error))


async def deliver_facts(
    exchange: Exchange,
    jitter: outbox.Jitter,
    pauses: outbox.Pauses | None = None,
    *,
    shared: bool = False,
) -> None:
    """Send everything that is due to every region that answers, to all regions at once.

    ``shared`` is whether other processes deliver from the same outbox.
    """
    due = await outbox.peers_with_events(exchange.region, exchange.store)
    await asyncio.gather(*(_deliver_all(exchange, peer, jitter, pauses, shared) for peer in due))


async def _deliver_all(
    exchange: Exchange,
    peer: str,
    jitter: outbox.Jitter,
    pauses: outbox.Pauses | None,
    shared: bool,
) -> None:
    region, store, peers = exchange.region, exchange.store, exchange.peers
    while await outbox.deliver(region, store, peers, peer, jitter, pauses, shared=shared):
        """Call by call, for as long as the region takes something."""


class WorkForPeople:
    """Says in the log how much waits for an operator, whenever that has changed."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._told: dict[str, int] = {}

    async def tell(self) -> None:
        """Count, and tell what is other than it was."""
        counted = await self._exchange.store.read(self._count)
        for event, count in counted.items():
            if count != self._told.get(event, 0):
                log.warning(event, count=count)
        self._told = counted

    def _count(self, tx: Transaction) -> dict[str, int]:
        region = self._exchange.region
        end = region.now() - region.overdue
        return {
            "attempts_overdue": tx.home.count_commits_until(end),
            "holds_overdue": tx.payer.count_holds_until(end),
            "events_set_aside": tx.journal.count_dead_events(),
        }


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


async def finish_boxes(exchange: Exchange) -> None:
    """Have other regions take back boxes that they noted as sold and that were not handed over."""
    await boxes.finish(exchange, BOXES_AT_ONCE)


async def ask_about_holds(exchange: Exchange) -> None:
    """Ask home regions what became of the attempts for which money has been held for long."""
    await asking.ask_about_holds(exchange)


async def look_at_quotas(exchange: Exchange) -> None:
    """Tell institutions of this region that they have come above their agreements' quota (R18)."""
    await agreements.tell_crossings(exchange.region, exchange.store)


async def _finish(exchange: Exchange, dispense: Dispense) -> None:
    try:
        await settling.drive(exchange, dispense)
    except Exception as error:  # whatever it was, this one waits behind the others
        log.info("commitment_not_finished", reason=reason_of(error))
        await settling.put_off(exchange, dispense)
