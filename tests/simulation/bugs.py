"""L12: bugs that are planted on purpose, each breaking one thing in the running code.

A plant is put by patching, so the code it breaks is the code that runs. ``found_by`` says which
layer of tests has to find it: some seeds of the simulation, or one of the ``stories`` where the bug
shows only when something happens that honest clients never do. A plant that nobody finds means that
the gate is blind there. ``table`` is what the reliability page shows of them. (The simulation tries
itself with a few plants of its own, see ``plants``.)
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from rxoutflow.statements import verification
from rxoutflow.v1 import peer_service_pb2
from rxoutflow_server.application import validation
from rxoutflow_server.application.dispensing import claims, records, returns, settling
from rxoutflow_server.application.exchange import evidence, idempotency, inbox
from rxoutflow_server.application.home import attempts, registration
from rxoutflow_server.application.log import showing
from rxoutflow_server.application.payer import benefits, reversals
from rxoutflow_server.application.payer import events as payer_events
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain import benefit as benefit_rules
from rxoutflow_server.domain import dispense as dispense_rules
from rxoutflow_server.domain import prescription as home_rules
from rxoutflow_server.domain import reversal as reversal_rules
from rxoutflow_server.domain import settlement as settlement_rules
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.returns import Cause
from rxoutflow_server.domain.settlement import Settlement, SettlementState
from rxoutflow_server.platform import tasks
from rxoutflow_server.platform.desk import Desk
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.tables.home import HomeTables
from rxoutflow_server.storage.tables.journal import JournalTables
from rxoutflow_server.storage.tables.log import LogTables
from rxoutflow_server.storage.tables.trace_codes import TraceCodeTables
from rxoutflow_server.storage.tables.transaction import PlatformTables
from rxoutflow_server.transport.errors import status_of
from simulation import stories
from simulation.store import SimulatedStore
from simulation.stories import Story

Put = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Simulation:
    """Found by the simulation: by one of these seeds first, or else by one of the budget's."""

    seeds: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "simulation"


@dataclass(frozen=True)
class Told:
    """Found by a story."""

    story: Story

    def __str__(self) -> str:
        return f"story: {self.story.__name__.replace('_', ' ')}"


@dataclass(frozen=True)
class Bug:
    """What is planted, the invariants of which it breaks one, and who has to find it."""

    breaks: tuple[str, ...]
    put: Put
    found_by: Simulation | Told


def patched(target: Any, name: str, value: Any) -> Put:
    """A plant that replaces one thing."""
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def all_of(*puts: Put) -> Put:
    """A bug for which more than one thing has to be wrong: what guards against it is off too."""

    def put(monkeypatch: pytest.MonkeyPatch) -> None:
        for each in puts:
            each(monkeypatch)

    return put


def nothing(*_: object, **__: object) -> None:
    """What a check does that was forgotten."""


# --- home: claims, commits, leases ------------------------------------------------------------


def _fence_ignored(attempt: Attempt, reference: home_rules.AttemptReference) -> None:
    if (attempt.attempt_id, attempt.pharmacy_code) != (
        reference.attempt_id,
        reference.pharmacy_code,
    ):
        raise home_rules.unknown_attempt()


def _attempt_ids_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pharmacy that claims again gets the id that it had."""
    claim = home_rules.claim

    def again(prescription: Any, terms: Any, *, attempt_id: str, **more: Any) -> Any:
        name = str(uuid5(NAMESPACE_OID, f"{prescription.number}-{terms.pharmacy_code}"))
        return claim(prescription, terms, attempt_id=name, **more)

    monkeypatch.setattr(home_rules, "claim", again)


def _lease_ends_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever commits and stays silent for a while loses the prescription."""
    patience = timedelta(seconds=30)
    overdue = HomeTables.overdue_leases

    def with_commits(self: HomeTables, now: datetime, limit: int) -> list[str]:
        silent = int((now - patience).timestamp() * 1_000_000)
        rows = self._connection.execute(
            "SELECT prescription_number FROM attempts"
            " WHERE state = 'committed' AND update_time <= ?",
            (silent,),
        ).fetchall()
        return [*overdue(self, now, limit), *(number for (number,) in rows)]

    def is_over(self: Attempt, now: datetime) -> bool:
        silent = self.state is AttemptState.COMMITTED and now - self.update_time >= patience
        return silent or (self.lease_expire_time is not None and now >= self.lease_expire_time)

    monkeypatch.setattr(HomeTables, "overdue_leases", with_commits)
    monkeypatch.setattr(Attempt, "lease_is_over", is_over)


# --- money ------------------------------------------------------------------------------------


def _holds_voided_by_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The payer sets old holds free without asking home."""
    honest = tasks.end_leases

    async def end_leases(exchange: Any) -> None:
        await honest(exchange)
        await exchange.store.transact(lambda tx: _void_old(tx, exchange.region))

    monkeypatch.setattr(tasks, "end_leases", end_leases)


def _void_old(tx: Any, region: Any) -> None:
    rows = tx.payer._connection.execute(
        "SELECT insured_person_id, settlement_id FROM settlements WHERE state = 'held'"
    ).fetchall()
    for person_id, settlement_id in rows:
        settlement = tx.payer.settlement(person_id, settlement_id)
        if region.now() - settlement.create_time >= timedelta(seconds=10):
            payer_events._void(tx, region, settlement, settlement.cause_sha256, region.now())


def _person_read_before_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person is read when the pharmacy asks what it would cost, and not again."""
    seen: dict[str, Any] = {}
    quote, reckon = benefits.quote_benefit, benefits._reckon

    def quote_benefit(tx: Any, region: Any, caller: Any, request: Any) -> Any:
        response = quote(tx, region, caller, request)
        prescription = benefits._insured_here(region, request.prescription, region.now()).content
        person_id = prescription.patient.insured_person_id
        seen[f"{region.code} {prescription.prescription_number}"] = tx.payer.person(person_id)
        return response

    def stale(tx: Any, region: Any, prescription: Any, *more: Any, **names: Any) -> Any:
        person = seen.get(f"{region.code} {prescription.prescription_number}")
        if person is None:
            return reckon(tx, region, prescription, *more, **names)
        then: Any = SimpleNamespace(payer=SimpleNamespace(person=lambda _: person))
        return reckon(then, region, prescription, *more, **names)

    monkeypatch.setattr(benefits, "quote_benefit", quote_benefit)
    monkeypatch.setattr(benefits, "_reckon", stale)


def _posted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A posting is carried out again by whoever hears the second half of the evidence."""
    settle = payer_events._settle

    def twice(tx: Any, region: Any, settlement: Settlement, action: str, now: datetime) -> None:
        settle(tx, region, settlement, action, now)
        if settlement.state is SettlementState.POSTED:
            again = replace(settlement, update_time=settlement.update_time + timedelta(seconds=1))
            settle(tx, region, again, action, now)

    monkeypatch.setattr(payer_events, "_settle", twice)


def _given_back_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    give_back = settlement_rules.give_back

    def twice(person: Any, settlement: Settlement) -> Any:
        return give_back(give_back(person, settlement), settlement)

    monkeypatch.setattr(settlement_rules, "give_back", twice)


def _account_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    consume = settlement_rules.consume

    def without_account(person: Any, settlement: Settlement) -> Any:
        after = consume(person, settlement)
        return replace(after, own_account_fen=person.own_account_fen)

    monkeypatch.setattr(settlement_rules, "consume", without_account)


def _paid_on_the_record(self: Settlement) -> bool:
    return bool(self.record_sha256) and self.state is SettlementState.HELD


def _cap_used_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every settlement finds the whole cap of the year."""
    applied = benefit_rules._terms_applied

    def fresh(terms: Any, standing: Any, inscope: int, deductible: int, _used: int) -> Any:
        return applied(terms, standing, inscope, deductible, 0)

    monkeypatch.setattr(benefit_rules, "_terms_applied", fresh)


def _rounded_down(numerator: int, denominator: int) -> int:
    return numerator // denominator


def _early_reversal_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A return that reaches the payer before the payment is taken as done, whoever tells it."""
    honest, done = reversals.reverse_settlement, set[bytes]()

    def reverse_settlement(tx: Any, region: Any, caller: Any, event: Any, *told: Any) -> None:
        if event.statement.payload in done:
            return
        try:
            honest(tx, region, caller, event, *told)
        except Refusal as refusal:
            if refusal.reason is not Reason.EARLIER_FACT_MISSING:
                raise
            done.add(event.statement.payload)

    handlers = {
        kind: reverse_settlement if each is honest else each
        for kind, each in inbox._TO_PAYER.items()
    }
    assert reverse_settlement in handlers.values()
    monkeypatch.setattr(inbox, "_TO_PAYER", handlers)


# --- messages, answers, durability ------------------------------------------------------------


def _answered_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers hear OK, and queries see it, before it is on the disk: synchronous=NORMAL."""
    run, begin = SimulatedStore._try, SimulatedStore.__post_init__

    def answer_at_once(self: Any, job: Any) -> None:
        run(self, job)
        job.answer()

    def read_at_once(self: Any) -> None:
        begin(self)
        self._synced = self._tables

    monkeypatch.setattr(SimulatedStore, "_try", answer_at_once)
    monkeypatch.setattr(SimulatedStore, "__post_init__", read_at_once)


def _outbox_outside_the_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is put into the outbox after the transaction of its fact, by the next one."""
    waiting: dict[int, list[Any]] = {}
    add, honest = JournalTables.add_event, JournalTables.outcome

    def bring(self: JournalTables) -> list[Any]:
        mine = waiting.setdefault(id(self), [])
        while mine:
            add(self, mine.pop(0))
        return mine

    def later(self: JournalTables, event: Any) -> None:
        bring(self).append(event)

    def outcome(self: JournalTables, *key: str) -> Any:
        connection: Any = self._connection
        if connection.in_transaction:
            bring(self)
        return honest(self, *key)

    monkeypatch.setattr(JournalTables, "add_event", later)
    monkeypatch.setattr(JournalTables, "outcome", outcome)


def _acknowledged_before_its_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is acknowledged when it has arrived, and takes effect after that."""

    async def receive(self: Desk, caller: Any, event: Any) -> Any:
        work = self._command(inbox.take_effect, caller, event)
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        return peer_service_pb2.DeliverEventsResponse.Acknowledgement(event_id=event.event_id)

    monkeypatch.setattr(Desk, "_receive", receive)


def _set_aside_when_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much work counts as a decision on the event."""

    async def receive(self: Desk, caller: Any, event: Any) -> Any:
        acknowledgement = peer_service_pb2.DeliverEventsResponse.Acknowledgement(
            event_id=event.event_id
        )
        try:
            await self._command(inbox.take_effect, caller, event)
        except Refusal as error:
            acknowledgement.error.CopyFrom(status_of(error))
        return acknowledgement

    monkeypatch.setattr(Desk, "_receive", receive)


def _outcomes_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes are kept for an hour, as long as anybody would ask again."""
    honest = idempotency.once

    def once(journal: Any, key: Any, request: Any, kind: Any, now: datetime, *more: Any) -> Any:
        old = int((now - timedelta(hours=1)).timestamp() * 1_000_000)
        journal._connection.execute(
            "DELETE FROM outcomes WHERE prescription_number = ? AND effect_time < ?",
            (key.prescription_number, old),
        )
        return honest(journal, key, request, kind, now, *more)

    monkeypatch.setattr(settling, "once", once)


def _inbox_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = JournalTables.receive_event

    def receive(self: JournalTables, *event: Any) -> bool:
        honest(self, *event)
        return True

    monkeypatch.setattr(JournalTables, "receive_event", receive)


def _altered_when_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a release only the seal is stored: nobody reads the other signatures again."""
    honest = JournalTables.keep_statement

    def keep(self: JournalTables, number: str, digest: bytes, statement: Any, at: Any) -> Any:
        kept = type(statement)()
        kept.CopyFrom(statement)
        if "claim-release" in statement.payload_type:
            del kept.signatures[:-1]
        return honest(self, number, digest, kept, at)

    monkeypatch.setattr(JournalTables, "keep_statement", keep)


def _leaf_outside_the_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf is appended by the next command, whatever becomes of it or of this one."""
    waiting: dict[int, list[Any]] = {}
    honest = LogTables.append

    def append(self: LogTables, *leaf: Any) -> None:
        mine = waiting.setdefault(id(self), [])
        while mine:
            honest(self, *mine.pop(0))
        mine.append(leaf)

    monkeypatch.setattr(LogTables, "append", append)


def _own_list_only(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = showing._trust_lists
    monkeypatch.setattr(showing, "_trust_lists", lambda region, _: honest(region, ()))


def _relay_put_down_as_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace names the region that forwarded, where it should name who signed."""
    honest = evidence.step

    def step(
        tx: Any, number: str, role: Any, flow: Any, action: str, actor: str, *more: Any
    ) -> None:
        relay = actor[1:7] if len(actor) > 6 else actor
        honest(tx, number, role, flow, action, relay, *more)

    monkeypatch.setattr(claims, "step", step)


def _stale_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hospital's query is answered by a replica that is one commit behind."""
    replicas: dict[int, sqlite3.Connection] = {}
    transact, get = MemoryStore.transact, registration.get

    async def replicating(self: MemoryStore[Any], command: Any) -> Any:
        replica = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.backup(replica)
        result = await transact(self, command)
        replicas[id(self._tables)] = replica
        return result

    def get_from_replica(tx: Any, *more: Any) -> Any:
        return get(PlatformTables(replicas[id(tx)]), *more)

    monkeypatch.setattr(MemoryStore, "transact", replicating)
    monkeypatch.setattr(registration, "get", get_from_replica)


# --- goods ------------------------------------------------------------------------------------


def _recorded_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is taken whatever became of the dispense in between."""
    honest = dispense_rules.recorded

    def recorded(dispense: Any, *more: Any, **names: Any) -> Any:
        if dispense.state is dispense_rules.DispenseState.RELEASED:
            dispense = replace(dispense, state=dispense_rules.DispenseState.COMMITTED)
        return honest(dispense, *more, **names)

    monkeypatch.setattr(records, "recorded", recorded)


BUGS: Mapping[str, Bug] = {
    "the fence is not checked": Bug(
        ("I2",),
        all_of(
            patched(home_rules, "_require_reference", _fence_ignored),
            patched(settling, "_require_of_attempt", nothing),
            patched(benefits, "_require_commitment_of", nothing),
        ),
        Told(stories.a_commit_with_a_wrong_fence),
    ),
    "an attempt id is used again": Bug(("I1", "I2"), _attempt_ids_used_again, Simulation((1,))),
    "a timer ends commits": Bug(("I3",), _lease_ends_commits, Simulation((3,))),
    "one person adjudicates": Bug(
        ("I3",),
        patched(verification, "_check_distinct", nothing),
        Told(stories.one_person_decides),
    ),
    "silent commits are on no list": Bug(
        ("I14",),
        patched(HomeTables, "commits_until", lambda *_: []),
        Told(stories.a_pharmacy_falls_silent),
    ),
    "a release does not ask for a record": Bug(
        ("I14", "L11"),
        patched(claims, "_begin_release", nothing),
        Told(stories.a_release_after_the_record),
    ),
    "a commit need not carry the hold": Bug(
        ("I14",),
        patched(attempts, "_require_hold", nothing),
        Told(stories.a_commit_without_a_hold),
    ),
    "holds are voided by a timer": Bug(
        ("I4", "I5", "I14"), _holds_voided_by_a_timer, Simulation((3,))
    ),
    "the person is read before the lock": Bug(
        ("I5", "I13"), _person_read_before_the_lock, Told(stories.two_quotes_before_two_commits)
    ),
    "a posting is carried out twice": Bug(("I4", "I8"), _posted_twice, Simulation((1,))),
    "a hold is given back twice": Bug(("I5",), _given_back_twice, Simulation((3,))),
    "the own account is not drawn": Bug(("I5",), _account_not_drawn, Simulation((1,))),
    "an attempt may be paid by two settlements": Bug(
        ("I4", "I14"),
        all_of(
            patched(settling, "_require_no_other", nothing),
            patched(benefits, "_require_no_other", nothing),
        ),
        Told(stories.a_retry_under_a_new_settlement),
    ),
    "the payer pays on the record alone": Bug(
        ("I5",),
        patched(Settlement, "is_payable", property(_paid_on_the_record)),
        Told(stories.the_record_arrives_first),
    ),
    "a return that arrives before its payment is dropped": Bug(
        ("I6",), _early_reversal_dropped, Told(stories.the_return_arrives_first)
    ),
    "more may come back than was handed over": Bug(
        ("I6", "L11"),
        all_of(
            *(
                patched(each, "require_returnable", nothing)
                for each in (returns, home_rules, reversal_rules)
            ),
            patched(returns, "require_boxes", nothing),
        ),
        Told(stories.more_comes_back_than_was_handed_over),
    ),
    "the cap is whole for every settlement": Bug(
        ("I13",), _cap_used_forgotten, Told(stories.a_whole_year)
    ),
    "the fund's share is rounded down": Bug(
        ("I13",), patched(benefit_rules, "half_up", _rounded_down), Told(stories.a_whole_year)
    ),
    "answers go out before the sync": Bug(
        ("I3", "I7", "I14"), _answered_before_the_sync, Simulation((6,))
    ),
    "the outbox is outside the transaction": Bug(
        ("I14",), _outbox_outside_the_transaction, Simulation((1,))
    ),
    "an event is acknowledged before its effect": Bug(
        ("I7", "I14"), _acknowledged_before_its_effect, Simulation((9,))
    ),
    "an event is set aside by an overloaded region": Bug(
        ("I14",), _set_aside_when_overloaded, Told(stories.a_region_that_is_too_busy)
    ),
    "outcomes are forgotten": Bug(
        ("I7", "I8"), _outcomes_forgotten, Told(stories.a_request_repeated_much_later)
    ),
    "a request id is not bound to its content": Bug(
        ("I8",),
        patched(idempotency, "_require_same", nothing),
        Told(stories.an_id_used_for_another_request),
    ),
    "the inbox forgets": Bug(("I8",), _inbox_forgets, Simulation((3,))),
    "statements are altered when they are kept": Bug(
        ("I7",), _altered_when_kept, Told(stories.an_ordinary_day)
    ),
    "leaves of the log are appended later": Bug(
        ("I9",), _leaf_outside_the_transaction, Told(stories.an_ordinary_day)
    ),
    "the relay is put down as the actor": Bug(
        ("I10",), _relay_put_down_as_the_actor, Told(stories.an_ordinary_day)
    ),
    "bundles go without the trust lists of others": Bug(
        ("I11",), _own_list_only, Told(stories.an_ordinary_day)
    ),
    "a box may be sold again": Bug(
        ("I12",),
        patched(TraceCodeTables, "sell", lambda *_: True),
        Told(stories.one_box_in_one_region),
    ),
    "every region keeps boxes for itself": Bug(
        ("I12",),
        patched(Region, "registrar_of", lambda region, _: region.code),
        Told(stories.one_box_in_two_regions),
    ),
    "a defective box that came back may be sold again": Bug(
        ("I12",),
        patched(Cause, "is_resaleable", property(lambda _: True)),
        Told(stories.a_defective_box_comes_back),
    ),
    "trace codes are taken in any spelling": Bug(
        ("I12",),
        patched(validation, "TRACE_CODE", re.compile(r"\S+")),
        Told(stories.one_box_in_another_spelling),
    ),
    "a handover is recorded after its release": Bug(
        ("I14", "L11"), _recorded_after_all, Told(stories.a_record_after_the_release)
    ),
    "queries are answered by a replica": Bug(
        ("L11",), _stale_reads, Told(stories.a_read_after_each_step)
    ),
}
"""Every bug, by what it does."""


def table() -> str:
    """All plants as a table in Markdown."""
    rows = ["| bug | breaks | found by |", "| --- | --- | --- |"]
    rows += [
        f"| {name} | {', '.join(each.breaks)} | {each.found_by} |" for name, each in BUGS.items()
    ]
    return "\n".join(rows) + "\n"
