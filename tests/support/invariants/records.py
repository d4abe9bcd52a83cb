"""All that a region's store holds at one moment, as plain values.

``read_region`` takes any connection that the tables can work on, so a region in memory, in a file
or in PostgreSQL is read the same way. It reads objects through the ports; only the lists of keys,
which no command ever needs, are asked for here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from google.protobuf.message import Message

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import (
    ClaimCopy,
    IndexEntry,
    LogCheckpoint,
    LogLeaf,
    StoredOutcome,
    TraceStep,
    Transaction,
)
from rxoutflow_server.domain.accounts import AccountEntry, OpeningBalances
from rxoutflow_server.domain.attempt import Attempt
from rxoutflow_server.domain.dispense import Dispense
from rxoutflow_server.domain.ledger import Book, Entry
from rxoutflow_server.domain.prescription import Prescription
from rxoutflow_server.domain.settlement import InsuredPerson, Settlement
from rxoutflow_server.storage.tables.connection import Connection
from rxoutflow_server.storage.tables.transaction import PlatformTables

M = TypeVar("M", bound=Message)

OutcomeKey = tuple[str, str, str]
"""Prescription, caller, request id."""

_ALL = 1_000_000
_FIRST_DAY, _LAST_DAY = date(1, 1, 1), date(9999, 12, 31)


def payload_type(kind: type[Message]) -> str:
    """The payload type of a kind of statement, as the contract names them all."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.DESCRIPTOR.name).lower()
    return f"application/vnd.rxoutflow.{name}.v1+protobuf"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event in the outbox; dead ones wait for an operator, with the reason."""

    prescription_number: str
    peer_region_code: str
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class RegionRecords:
    """A region's records. Attempts and steps are in the order in which they came about."""

    code: str
    prescriptions: tuple[Prescription, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    persons: tuple[InsuredPerson, ...] = ()
    settlements: tuple[Settlement, ...] = ()
    openings: Mapping[str, OpeningBalances] = field(default_factory=dict)
    account_entries: tuple[AccountEntry, ...] = ()
    index: tuple[IndexEntry, ...] = ()
    claims: tuple[ClaimCopy, ...] = ()
    dispenses: tuple[Dispense, ...] = ()
    entries: tuple[tuple[Book, str, Entry], ...] = ()
    outbox: tuple[Waiting, ...] = ()
    leaves: tuple[LogLeaf, ...] = ()
    checkpoints: tuple[LogCheckpoint, ...] = ()
    statements: Mapping[tuple[str, bytes], SignedStatement] = field(default_factory=dict)
    outcomes: Mapping[OutcomeKey, StoredOutcome] = field(default_factory=dict)
    steps: Mapping[str, tuple[TraceStep, ...]] = field(default_factory=dict)

    def attempts_of(self, number: str) -> tuple[Attempt, ...]:
        """The attempts on a prescription."""
        return tuple(each for each in self.attempts if each.prescription_number == number)

    def stated(self, kind: type[M]) -> Iterator[M]:
        """What the kept statements of a kind say."""
        for _, content in self.stated_with_digests(kind):
            yield content

    def stated_with_digests(self, kind: type[M]) -> Iterator[tuple[bytes, M]]:
        """What the kept statements of a kind say, each with its digest."""
        wanted = payload_type(kind)
        for (_, digest), statement in self.statements.items():
            if statement.payload_type == wanted:
                yield digest, kind.FromString(statement.payload)


def read_region(code: str, connection: Connection) -> RegionRecords:
    """Read a region's store. Nothing may write to it meanwhile."""
    reader = _Reader(connection)
    persons = tuple(reader.persons())
    return RegionRecords(
        code=code,
        prescriptions=tuple(reader.prescriptions()),
        attempts=tuple(reader.attempts()),
        persons=persons,
        settlements=tuple(reader.settlements()),
        openings={
            person.insured_person_id: _there(reader.tx.payer.opening(person.insured_person_id))
            for person in persons
        },
        account_entries=tuple(
            entry
            for person in persons
            for entry in reader.tx.payer.account_entries(person.insured_person_id)
        ),
        index=tuple(
            entry
            for person in persons
            for entry in reader.tx.payer.indexed(person.insured_person_id)
        ),
        claims=tuple(reader.claims()),
        dispenses=tuple(reader.dispenses()),
        entries=tuple(reader.entries()),
        outbox=tuple(reader.outbox()),
        leaves=tuple(reader.tx.log.leaves(0, _ALL)),
        checkpoints=tuple(reader.tx.log.checkpoints(-1, _ALL)),
        statements=dict(reader.statements()),
        outcomes=dict(reader.outcomes()),
        steps={number: tuple(reader.tx.journal.steps(number)) for number in reader.with_steps()},
    )


class _Reader:
    """One connection, seen through the ports and by the keys that they are asked with."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.tx: Transaction = PlatformTables(connection)

    def prescriptions(self) -> Iterator[Prescription]:
        for (number,) in self._keys("prescription_number", "prescriptions"):
            yield _there(self.tx.home.prescription(number))

    def attempts(self) -> Iterator[Attempt]:
        columns = "prescription_number, attempt_id"
        for number, attempt_id in self._keys(columns, "attempts", "prescription_number, fence"):
            yield _there(self.tx.home.attempt(number, attempt_id))

    def persons(self) -> Iterator[InsuredPerson]:
        for (person_id,) in self._keys("insured_person_id", "insured_persons"):
            yield _there(self.tx.payer.person(person_id))

    def settlements(self) -> Iterator[Settlement]:
        for person_id, settlement_id in self._keys(
            "insured_person_id, settlement_id", "settlements"
        ):
            yield _there(self.tx.payer.settlement(person_id, settlement_id))

    def claims(self) -> Iterator[ClaimCopy]:
        for number, attempt_id in self._keys("prescription_number, attempt_id", "claims"):
            yield _there(self.tx.dispensing.claim(number, attempt_id))

    def dispenses(self) -> Iterator[Dispense]:
        for number, settlement_id in self._keys("prescription_number, settlement_id", "dispenses"):
            yield _there(self.tx.dispensing.dispense(number, settlement_id))

    def entries(self) -> Iterator[tuple[Book, str, Entry]]:
        clearing = self.tx.clearing
        for book in Book:
            for counterpart in clearing.counterparts(book):
                after = ("", "", "")
                for entry in clearing.entries(
                    book, counterpart, _FIRST_DAY, _LAST_DAY, after, _ALL
                ):
                    yield book, counterpart, entry

    def outbox(self) -> Iterator[Waiting]:
        columns = "prescription_number, peer_region_code, state, error"
        for row in self._keys(columns, "outbox", "prescription_number, sequence"):
            yield Waiting(*row)

    def statements(self) -> Iterator[tuple[tuple[str, bytes], SignedStatement]]:
        for number, digest in self._keys("prescription_number, sha256", "statements"):
            yield (number, digest), self.tx.journal.statement(number, digest)

    def outcomes(self) -> Iterator[tuple[OutcomeKey, StoredOutcome]]:
        for key in self._keys("prescription_number, caller, request_id", "outcomes"):
            number, caller, request_id = key
            stored = self.tx.journal.outcome(number, caller, request_id)
            yield (number, caller, request_id), _there(stored)

    def with_steps(self) -> list[str]:
        return sorted({number for (number,) in self._keys("prescription_number", "steps")})

    def _keys(self, columns: str, table: str, order: str = "") -> list[tuple[Any, ...]]:
        by = order or columns
        sql = f"SELECT {columns} FROM {table} ORDER BY {by}"  # noqa: S608 - all of it stands here
        return list(self._connection.execute(sql).fetchall())


T = TypeVar("T")


def _there(found: T | None) -> T:
    assert found is not None, "a key leads to nothing: somebody wrote meanwhile"
    return found
