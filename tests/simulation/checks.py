"""What must hold at every moment of a run: looked at in every command and after every sync.

The tables through which production code writes are watched: each change of an attempt, a settlement
or a person is compared with what was there before, and whatever a batch touched is read back from
the synced state and held to the invariants of ``support.invariants``. The transitions themselves
are counted by ``coverage``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

from rxoutflow_server.domain.attempt import Attempt
from rxoutflow_server.domain.prescription import Change, Prescription
from rxoutflow_server.domain.settlement import (
    InsuredPerson,
    Settlement,
    SettlementState,
)
from rxoutflow_server.storage.tables.home import HomeTables
from rxoutflow_server.storage.tables.payer import PayerTables
from rxoutflow_server.storage.tables.transaction import PlatformTables
from support import invariants

if TYPE_CHECKING:
    from simulation.world import World

_ATTEMPT_IDS = "SELECT attempt_id FROM attempts WHERE prescription_number = ?"
_SETTLEMENT_IDS = "SELECT settlement_id FROM settlements WHERE insured_person_id = ?"


class Ledger:
    """Watches one platform's store, across its crashes."""

    def __init__(self, world: World, code: str, opening: dict[str, InsuredPerson]) -> None:
        self._world = world
        self._code = code
        self._opening = opening
        self._settlements: dict[str, SettlementState] = {}
        self._attempts: dict[str, dict[str, Attempt]] = {}
        self._numbers: dict[str, None] = {}
        self._people: dict[str, None] = {}
        self._reader: PlatformTables | None = None
        self._connection: sqlite3.Connection | None = None

    def read_from(self, connection: sqlite3.Connection) -> None:
        """Where the synced state is read."""
        self._connection, self._reader = connection, PlatformTables(connection)

    def tables(self, connection: sqlite3.Connection) -> PlatformTables:
        """The tables for commands, watched."""
        tables = PlatformTables(connection)
        tables.home = _WatchedHome(connection, self)
        tables.payer = _WatchedPayer(connection, self)
        return tables

    def executed(self, commands: int) -> None:
        """Commands have run; they are not synced."""
        self._world.note(self._code, "executed", str(commands))

    def undone(self) -> None:
        """What was touched is looked at all the same: that costs little and hides nothing."""

    def synced(self) -> None:
        """Hold everything that was touched to the invariants."""
        numbers, self._numbers = self._numbers, {}
        persons, self._people = self._people, {}
        self._world.note(self._code, "sync", f"{len(numbers)} {len(persons)}")
        try:
            for number in numbers:
                self.check_prescription(number)
            for person in persons:
                self.check_person(person)
        except invariants.Violation as violation:
            self._world.fail(violation)

    def touched(self, number: str) -> None:
        self._numbers[number] = None

    def settlement_saved(self, before: Settlement | None, after: Settlement) -> None:
        """I4 and I5 of one settlement."""
        self._people[after.insured_person_id] = None
        invariants.check_settled_once(before.state if before else None, after.state)
        invariants.check_amounts(after.amounts)

    def check_prescription(self, number: str) -> None:
        """I1, I2, I3 of a prescription as it is synced."""
        prescription, attempts = self.prescription(number)
        if prescription is None:
            return
        invariants.check_home(prescription, attempts.values())
        before = self._attempts.get(number, {})
        ended = {
            key: each for key, each in attempts.items() if not each.cause_sha256 and key in before
        }
        signed = {key: each for key, each in attempts.items() if key not in ended}
        live = {key: each for key, each in before.items() if key not in ended}
        invariants.check_step(live, signed, signed=True)
        invariants.check_step({key: before[key] for key in ended}, ended, signed=False)
        self._attempts[number] = attempts

    def check_person(self, person_id: str) -> None:
        """I5 of a person as it is synced."""
        assert self._reader is not None
        person = self._reader.payer.person(person_id)
        if person is None:
            return
        invariants.check_not_overdrawn(person)
        opening = self._opening[person_id]
        if person.year != opening.year:  # a new benefit year begins with nothing used
            opening = replace(opening, year=person.year, used_deductible_fen=0, used_cap_fen=0)
        settlements = self.settlements(person_id)
        invariants.check_nothing_lost(opening, person, settlements)

    def prescription(self, number: str) -> tuple[Prescription | None, dict[str, Attempt]]:
        """A prescription and its attempts, as they are synced."""
        assert self._reader is not None
        assert self._connection is not None
        prescription = self._reader.home.prescription(number)
        attempts: dict[str, Attempt] = {}
        for (attempt_id,) in self._connection.execute(_ATTEMPT_IDS, (number,)).fetchall():
            attempt = self._reader.home.attempt(number, attempt_id)
            assert attempt is not None
            attempts[attempt_id] = attempt
        return prescription, attempts

    def settlements(self, person_id: str) -> list[Settlement]:
        """A person's settlements, as they are synced."""
        assert self._reader is not None
        assert self._connection is not None
        rows = self._connection.execute(_SETTLEMENT_IDS, (person_id,)).fetchall()
        found = [self._reader.payer.settlement(person_id, key) for (key,) in rows]
        return [each for each in found if each is not None]


class _WatchedHome(HomeTables):
    def __init__(self, connection: sqlite3.Connection, ledger: Ledger) -> None:
        super().__init__(connection, "")
        self._ledger = ledger

    def add_prescription(self, prescription: Prescription) -> bool:
        self._ledger.touched(prescription.number)
        return super().add_prescription(prescription)

    def save(self, change: Change) -> None:
        self._ledger.touched(change.prescription.number)
        super().save(change)


class _WatchedPayer(PayerTables):
    def __init__(self, connection: sqlite3.Connection, ledger: Ledger) -> None:
        super().__init__(connection, "")
        self._ledger = ledger

    def add_settlement(self, settlement: Settlement) -> None:
        self._ledger.settlement_saved(None, settlement)
        super().add_settlement(settlement)

    def save_settlement(self, settlement: Settlement) -> None:
        before = self.settlement(settlement.insured_person_id, settlement.settlement_id)
        self._ledger.settlement_saved(before, settlement)
        super().save_settlement(settlement)
