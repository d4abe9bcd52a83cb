"""Servers killed at random, again and again, under a steady load of whole exchanges.

Three pharmacies fill prescriptions while one server after another is ended with SIGKILL, or frozen
for a moment, at a moment that nobody chose. Their systems do what the integrator guide asks for:
they repeat a request without an answer, unchanged. At the end whatever was acknowledged is there,
nothing was dispensed or paid twice, and nothing waits anywhere (I1, I2, I4, I7, I8, I14).

``RXOUTFLOW_KILLS`` and ``RXOUTFLOW_SEED`` make it longer, or other; the seed chooses the victims,
not the moments. A run that did less than its floors is a failure.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Condition, Event, Thread

import pytest

from support.exchanges import THREE_REGIONS, Exchange, Route, require_agreement
from support.sandbox import SECONDS, SERVERS, LiveSandbox, eventually, run_sandbox

KILLS = int(os.environ.get("RXOUTFLOW_KILLS", "24"))
SEED = int(os.environ.get("RXOUTFLOW_SEED", "20260701"))
KILLS_FOR_A_FREEZE = 6
FEWEST_ACKNOWLEDGED = 3 * KILLS

pytestmark = pytest.mark.timeout(60 + 10 * KILLS)

ROUTES = (
    THREE_REGIONS,
    Route("one-region", "quanzhou", "xiamen"),
    Route("long-twelve-weeks", "xiamen", "nantong"),
)
"""Three pharmacies, three persons, and together every server."""

FREEZE_SECONDS = 1.0
PACE_SECONDS = 0.5
"""A patient comes to each pharmacy that long after the last one was served."""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path) as sandbox:
        yield sandbox


@dataclass
class Load:
    """Exchanges, one after the other on each route, until they are told to stop."""

    sandbox: LiveSandbox
    exchanges: list[Exchange] = field(default_factory=list)
    acknowledged: int = 0
    stopping: Event = field(default_factory=Event)
    failures: list[BaseException] = field(default_factory=list)
    _news: Condition = field(default_factory=Condition)

    def start(self) -> list[Thread]:
        """One thread a route; the clients that they share are made here."""
        threads = []
        for route in ROUTES:
            first = Exchange(self.sandbox, route)
            assert first.hospital, first.pharmacy
            threads.append(Thread(target=self._run, args=(route,), daemon=True))
        for thread in threads:
            thread.start()
        return threads

    def wait_for_more(self, more: int) -> None:
        """Until that many further calls are acknowledged, whichever."""
        with self._news:
            expected = self.acknowledged + more
            came = self._news.wait_for(
                lambda: self.failures or self.acknowledged >= expected, SECONDS
            )
        assert not self.failures, self.failures
        assert came, f"fewer than {more} calls were acknowledged in {SECONDS:g} s"

    def stop(self, threads: list[Thread]) -> None:
        """Let every exchange come to its end."""
        self.stopping.set()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), "an exchange came to no end"
        assert self.failures == []

    def _run(self, route: Route) -> None:
        try:
            while not self.stopping.wait(PACE_SECONDS):
                exchange = Exchange(self.sandbox, route, self._acknowledge)
                self.exchanges.append(exchange)
                exchange.up_to(4)
        except BaseException as error:  # told by ``wait_for_more``, in the test's own thread
            with self._news:
                self.failures.append(error)
                self._news.notify_all()

    def _acknowledge(self) -> None:
        with self._news:
            self.acknowledged += 1
            self._news.notify_all()


def test_nothing_acknowledged_is_lost_however_often_servers_are_killed(
    sandbox: LiveSandbox, record_property: Callable[[str, object], None]
) -> None:
    load, chance = Load(sandbox), Random(SEED)
    threads = load.start()
    victims = [*SERVERS, *chance.choices(SERVERS, k=max(0, KILLS - len(SERVERS)))]
    chance.shuffle(victims)
    for cycle, victim in enumerate(victims):
        load.wait_for_more(chance.randint(1, 4))
        with sandbox.servers.killed(victim):
            pass
        if cycle % KILLS_FOR_A_FREEZE == 0:
            load.wait_for_more(1)
            with sandbox.servers.frozen(chance.choice(SERVERS)):
                time.sleep(FREEZE_SECONDS)  # the length of the fault; nothing is waited for
    load.stop(threads)
    for exchange in load.exchanges:
        exchange.require_kept()
        require_agreement(exchange)
    eventually(lambda: sandbox.undelivered() == 0, "nothing waits in any outbox")
    record_property(
        "floor",
        f"kill loop: seed {SEED}, {len(victims)} kills of {len(set(victims))} servers, "
        f"{load.acknowledged} acknowledged calls of {len(load.exchanges)} exchanges, none lost",
    )
    assert len(victims) >= KILLS
    assert load.acknowledged >= FEWEST_ACKNOWLEDGED
