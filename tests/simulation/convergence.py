"""Where everything has to stand when all faults are over: every promise kept, all regions agreed.

Besides what ``support.invariants.check_quiescent`` asks of all regions' records:

- an attempt is committed still only if its pharmacy fell silent and nobody was to decide on it;
- every handover that was recorded is booked, and what is booked was handed over;
- every event that was acknowledged is noted where it was acknowledged;
- what one region owes another is what the other expects from it, entry by entry;
- in one run of four: every state follows from the evidence that was kept (``store verify``).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rxoutflow.identity import CallerKind
from rxoutflow.trust import RegionNotTrusted
from rxoutflow_server.application.recompute.payer import Formula, TierOf
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.storage.maintenance import Records
from rxoutflow_server.storage.recomputing import Recomputation
from simulation.behaviours import SILENT
from simulation.plan import NEVER
from support.invariants import (
    Answer,
    RegionRecords,
    Violation,
    check_durable,
    check_quiescent,
    check_same_answers,
    read_region,
)

if TYPE_CHECKING:
    from simulation.platforms import Platform
    from simulation.world import World

_REPLAYED = 4
_LEFT = (
    "SELECT 'an event for ' || peer_region_code || ' is ' || state FROM outbox"
    " UNION ALL SELECT 'an attempt is ' || state FROM attempts WHERE state = 'reserved'"
    " OR (state = 'committed' AND ?)"
    " UNION ALL SELECT 'a dispense is ' || state FROM dispenses"
    " WHERE state IN ('committing', 'held') LIMIT 1"
)
_BOOK = (
    "SELECT prescription_number, settlement_id, movement, reversal_id, day, total_fen, pool_fen"
    " FROM ledger_entries WHERE book = ? AND counterpart_code = ?"
)


def unfinished(world: World) -> str:
    """What background tasks and operators are still to do; nothing when all is quiet."""
    for code, platform in world.platforms.items():
        decided = world.plan.overdue < NEVER
        rows = platform.disk.reader.execute(_LEFT, (int(decided),)).fetchall()
        if rows:
            return f"{code}: {rows[0][0]}"
    return ""


def check(world: World) -> None:
    """Hold the end of a run to all of it.

    Raises:
        Violation: with the number of the invariant.
    """
    regions = {code: read_region(code, each.disk.reader) for code, each in world.platforms.items()}
    now = max(platform.now() for platform in world.platforms.values())
    heard = world.truth.heard
    check_quiescent(regions, now, [each for each in heard if not _is_relayed(each)])
    relayed = [each for each in heard if _is_relayed(each)]
    check_same_answers(relayed)
    for records in regions.values():
        check_durable(relayed, records)
    for code, records in regions.items():
        for number in (each.number for each in records.prescriptions):
            world.ledgers[code].check_prescription(number)
        for person in records.persons:
            world.ledgers[code].check_person(person.insured_person_id)
    attempts = [attempt for records in regions.values() for attempt in records.attempts]
    _check_silent(world, attempts)
    _check_goods(world, attempts, regions)
    _check_acknowledged(world)
    _check_books(world)
    if world.seed % _REPLAYED == 0:
        _check_replayed(world)


def _is_relayed(answer: Answer) -> bool:
    """Whether a platform asked: it relays what others signed, payers among them."""
    return answer.caller.kind is CallerKind.PLATFORM


def _check_replayed(world: World) -> None:
    """I7, I13: the domain's functions lead from the statements to the very rows."""
    for code, platform in world.platforms.items():
        formula = Formula(code, platform.home.tariffs, _tiers(platform))
        report = Recomputation(Records.on(platform.disk.reader), formula).run()
        _hold("I7", not report.findings, f"{code}: {report.findings[:3]}")


def _tiers(platform: Platform) -> TierOf:
    def tier(home: str, institution_code: str) -> int | None:
        try:
            found = platform.trust.region(home, platform.now()).institution(institution_code)
        except RegionNotTrusted:
            return None
        return found.tier if found is not None else None

    return tier


def _check_silent(world: World, attempts: list[Attempt]) -> None:
    for attempt in attempts:
        if attempt.state is AttemptState.COMMITTED:
            ends = [
                case.end
                for case in world.clients[attempt.pharmacy_code].cases.values()
                if case.facts["number"] == attempt.prescription_number
            ]
            silent = any(SILENT in end for end in ends)
            _hold("I14", silent, f"an attempt is committed, but its pharmacy says {ends}")


def _check_goods(world: World, attempts: list[Attempt], regions: dict[str, RegionRecords]) -> None:
    """What was recorded is booked, and what is booked was handed over."""
    states = {attempt.attempt_id: attempt.state for attempt in attempts}
    for attempt in attempts:
        booked = attempt.state is AttemptState.DISPENSED
        given = world.truth.handed_over.get(attempt.attempt_id)
        _hold("I1", not booked or given is not None, "booked, but nothing was handed over")
        if booked and given is not None:
            lines = Counter({line.line_id: line.quantity for line in attempt.lines})
            _hold("I1", lines == given, f"booked {lines}, handed over {given}")
    for records in regions.values():
        for dispense in records.dispenses:
            if dispense.settlement_id in world.truth.records:
                state = states[dispense.attempt_id]
                _hold("I7", state is AttemptState.DISPENSED, f"a record is lost: {state}")


def _check_acknowledged(world: World) -> None:
    noted = {
        (origin, code, event_id)
        for code in world.codes
        for origin, event_id in _rows(world, code, "SELECT origin, event_id FROM inbox")
    }
    for event in world.truth.acknowledged:
        _hold("I7", event in noted, f"an event from {event[0]} to {event[1]} is lost")


def _check_books(world: World) -> None:
    """I5: for each pair of regions, payable and receivable are the same entries."""
    for code in world.codes:
        for other in world.codes:
            payable = set(_rows(world, code, _BOOK, "payable", other))
            receivable = set(_rows(world, other, _BOOK, "receivable", code))
            _hold("I5", payable == receivable, f"the books of {code} and {other} differ")


def _rows(world: World, code: str, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    return list(world.platforms[code].disk.reader.execute(sql, parameters).fetchall())


def _hold(invariant: str, holds: bool, what: str) -> None:
    if not holds:
        raise Violation(invariant, what)
