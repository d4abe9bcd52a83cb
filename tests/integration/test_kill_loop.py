"""Servers killed at random, again and again, under a steady load of whole exchanges.

Three pharmacies fill prescriptions while one server after another is ended with SIGKILL, or frozen
for a moment, at a moment that nobody chose. Their systems do what the integrator guide asks for:
they repeat a request without an answer, unchanged; and at each counter a second pharmacy tries for
the same prescription. At the end whatever was acknowledged is there, nothing was dispensed or paid
twice, nothing waits anywhere (I1, I2, I4, I7, I8, I14), and what the clients heard of each
prescription is what one prescription can have said, one thing after the other.

``RXOUTFLOW_KILLS`` and ``RXOUTFLOW_SEED`` make it longer, or other; the seed chooses the victims,
not the moments. A run that did less than its floors is a failure.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from itertools import count
from pathlib import Path
from random import Random
from threading import Condition, Event, Thread
from typing import Self

import pytest

from rxoutflow.errors import Refused
from rxoutflow.v1.attempt_pb2 import Attempt, Commitment
from support.exchanges import THREE_REGIONS, Exchange, Route, require_agreement
from support.history import Call, Kind, Recorder, Status
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

CLOCKS_AGREE = timedelta(seconds=1)
RIVALS = {"quanzhou": "nantong", "xiamen": "quanzhou", "nantong": "xiamen"}
"""Who else tries for what a pharmacy has claimed."""

_numbers = count(1)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[LiveSandbox]:
    with run_sandbox(tmp_path) as sandbox:
        yield sandbox


class Witnessed(Exchange):
    """An exchange of which everything that its pharmacies ask and hear is recorded."""

    def __init__(
        self,
        sandbox: LiveSandbox,
        route: Route,
        acknowledged: Callable[[], None],
        recorder: Recorder,
    ) -> None:
        super().__init__(sandbox, route, acknowledged)
        self._recorder = recorder

    def issue(self) -> Self:
        super().issue()
        content = self.issued.prescription.content
        authorised = {line.line_id: line.quantity for line in content.lines}
        self._recorder.registered(str(self.number), authorised)
        return self

    def claim(self) -> Self:
        call = self._asked(Kind.CLAIM)
        super().claim()
        attempt = self.attempt.content
        lease_end = attempt.lease_expire_time.ToDatetime(UTC) - CLOCKS_AGREE
        call.ok(
            attempt=attempt.attempt_id,
            fence=attempt.fence,
            lines={line.line_id: line.quantity for line in attempt.lines},
            until=lease_end.timestamp(),
        )
        self._try_elsewhere()
        return self

    def send_commit(self) -> Self:
        commitment = Commitment.FromString(self.commit_request.commitment.payload)
        call = self._asked(
            Kind.COMMIT,
            attempt=commitment.attempt_id,
            lines={line.line_id: line.quantity for line in commitment.lines},
            settlement=commitment.settlement_id,
        )
        try:
            super().send_commit()
        except Refused as refused:
            call.refused(refused.reason)
            raise
        call.ok()
        return self

    def record(self, registrar: str = "") -> Self:
        call = self._asked(Kind.DISPENSE, attempt=self.attempt.content.attempt_id)
        super().record(registrar)
        call.ok()
        self._try_elsewhere()
        return self

    def look(self) -> None:
        """The hospital reads how its prescription stands."""
        call = self._recorder.begin(Kind.READ, str(self.number), self.route.hospital, "")
        found = self.hospital.get(self.number).status
        assert found is not None
        content = found.content
        live = content.live_attempt
        call.ok(
            status=Status(
                live_attempt=live.attempt_id,
                committed=live.state == Attempt.STATE_COMMITTED,
                held=tuple((line.line_id, line.quantity) for line in live.lines),
                dispensed=tuple(
                    (line.line_id, line.dispensed) for line in content.lines if line.dispensed
                ),
            )
        )

    def _try_elsewhere(self) -> None:
        """Another pharmacy, with the same pickup code: it must hear no."""
        name = RIVALS[self.route.pharmacy]
        rival = self.sandbox.pharmacy(name)
        call = self._recorder.begin(Kind.CLAIM, str(self.number), name, f"{next(_numbers)}")
        try:
            granted = rival.send_claim(rival.claim_request(self.issued.pickup_code)).content
        except Refused as refused:
            call.refused(refused.reason)
        else:
            call.ok(attempt=granted.attempt_id, fence=granted.fence)

    def _asked(
        self,
        kind: Kind,
        *,
        attempt: str = "",
        lines: dict[int, int] | None = None,
        settlement: str = "",
    ) -> Call:
        return self._recorder.begin(
            kind,
            str(self.number),
            self.route.pharmacy,
            f"{next(_numbers)}",
            attempt=attempt,
            lines=lines,
            settlement=settlement,
        )


@dataclass
class Load:
    """Exchanges, one after the other on each route, until they are told to stop."""

    sandbox: LiveSandbox
    recorder: Recorder = field(default_factory=lambda: Recorder(time.time))
    exchanges: list[Witnessed] = field(default_factory=list)
    acknowledged: int = 0
    stopping: Event = field(default_factory=Event)
    failures: list[BaseException] = field(default_factory=list)
    _news: Condition = field(default_factory=Condition)

    def start(self) -> list[Thread]:
        """One thread a route; the clients that they share are made here."""
        threads = []
        for route in ROUTES:
            assert self.sandbox.hospital(route.hospital), self.sandbox.pharmacy(route.pharmacy)
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
                exchange = Witnessed(self.sandbox, route, self._acknowledge, self.recorder)
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
        exchange.look()
    operations = load.recorder.check()
    eventually(lambda: sandbox.undelivered() == 0, "nothing waits in any outbox")
    record_property(
        "floor",
        f"kill loop: seed {SEED}, {len(victims)} kills of {len(set(victims))} servers, "
        f"{load.acknowledged} acknowledged calls of {len(load.exchanges)} exchanges, none lost",
    )
    record_property(
        "floor",
        f"L11 histories of the kill loop: {operations:,} operations"
        f" on {len(load.exchanges)} prescriptions, all strictly serialisable",
    )
    assert len(victims) >= KILLS
    assert load.acknowledged >= FEWEST_ACKNOWLEDGED
    assert operations >= 5 * len(load.exchanges)
