"""Records as an operator's tools read them: evidence in the order of the log, and rows as rows.

These statements sweep whole tables, so they are for tools beside or instead of the service, never
for a command. Rows are compared and written as they are, whatever the ports can say about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import DecodeError

from rxoutflow.statements import statement_sha256
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.recompute.evidence import Evidence, Kept
from rxoutflow_server.application.recompute.index import Told
from rxoutflow_server.application.recompute.payer import BenefitOpening
from rxoutflow_server.domain.benefit import Enrolment
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.tables.certificates import CertificateTables
from rxoutflow_server.storage.tables.connection import Connection, Row, Value
from rxoutflow_server.storage.tables.values import instant

_PLACED, _WAITS, _NOWHERE = 0, 1, 2
_EVIDENCE = """
SELECT kept.prescription_number, kept.sha256, kept.payload_type, kept.statement, kept.keep_time,
       placed.leaf_index, waiting.position
FROM statements AS kept
LEFT JOIN log_leaves AS placed ON placed.prescription_number = kept.prescription_number
    AND placed.statement_sha256 = kept.sha256
LEFT JOIN log_waiting AS waiting ON waiting.prescription_number = kept.prescription_number
    AND waiting.statement_sha256 = kept.sha256
WHERE kept.prescription_number = ?
"""
_SWEEP_NUMBERS = """
SELECT prescription_number FROM statements WHERE prescription_number > ?
UNION SELECT prescription_number FROM prescriptions WHERE prescription_number > ?
UNION SELECT prescription_number FROM ledger_entries WHERE prescription_number > ?
UNION SELECT prescription_number FROM agreement_uses WHERE prescription_number > ?
ORDER BY prescription_number LIMIT ?
"""
_SWEEP_PERSONS = """
SELECT insured_person_id FROM insured_persons WHERE insured_person_id > ?
UNION SELECT insured_person_id FROM prescription_index WHERE insured_person_id > ?
UNION SELECT insured_person_id FROM attempt_ends WHERE insured_person_id > ?
ORDER BY insured_person_id LIMIT ?
"""
_ENDS = "SELECT attempt_id FROM attempt_ends WHERE insured_person_id = ?"
# What took effect is in the inbox, also if the region has not yet acknowledged it to itself.
_WAITING = """
SELECT statement_sha256 FROM outbox AS sent
WHERE prescription_number = ? AND peer_region_code = ? AND insured_person_id <> ''
  AND NOT EXISTS (SELECT 1 FROM inbox AS received
    WHERE received.prescription_number = ?
      AND received.origin = sent.peer_region_code AND received.event_id = sent.event_id)
"""
_GIVEN_UP = """
SELECT statement_sha256 FROM steps
WHERE prescription_number = ? AND substr(action, 1, 15) = 'event given up:'
"""
_LAST_STEP = """
SELECT COUNT(*), COALESCE(MAX(sequence), 0) FROM steps WHERE prescription_number = ?
"""
# Both follow from the prescriptions, which are computed by themselves.
_SWEEP_NUMBERS_TOO_MANY = """
SELECT own.issuer_code, own.hospital_prescription_number, own.prescription_number
FROM hospital_numbers AS own
LEFT JOIN prescriptions AS registered
    ON registered.prescription_number = own.prescription_number
    AND registered.issuer_code = own.issuer_code
    AND registered.hospital_prescription_number = own.hospital_prescription_number
WHERE own.issuer_code > '' AND registered.prescription_number IS NULL
ORDER BY own.issuer_code, own.hospital_prescription_number
"""
_SWEEP_NUMBERS_MISSING = """
SELECT registered.issuer_code, registered.hospital_prescription_number,
       registered.prescription_number
FROM prescriptions AS registered
LEFT JOIN hospital_numbers AS own
    ON own.prescription_number = registered.prescription_number
    AND own.issuer_code = registered.issuer_code
    AND own.hospital_prescription_number = registered.hospital_prescription_number
WHERE registered.prescription_number > '' AND own.prescription_number IS NULL
ORDER BY registered.prescription_number
"""
_BENEFIT_OPENING = """
SELECT scheme_code, year, used_deductible_fen, used_cap_fen, since
FROM benefit_openings WHERE insured_person_id = ? ORDER BY scheme_code
"""
_OUTCOMES = """
SELECT caller, request_id, method, response_type, response
FROM outcomes WHERE prescription_number = ? ORDER BY caller, request_id
"""

Cells: TypeAlias = dict[str, Value]
"""A row, by its columns."""
Key: TypeAlias = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of state: the column that finds the rows of one object, and the columns."""

    name: str
    shard: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    only: str = ""
    """A condition on the rows that belong to the state."""

    def key_of(self, row: Mapping[str, Value]) -> Key:
        """The primary key of a row."""
        return tuple(row[column] for column in self.key)


@dataclass(frozen=True, slots=True)
class StoredOutcomeRow:
    """An outcome as it is stored."""

    caller: str
    request_id: str
    method: str
    response_type: str
    response: bytes | None
    """Nothing, if a certificate in it is not kept any more or was changed."""


class RecordedTables:
    """Evidence and rows on one connection, with the certificates that its journal knows."""

    def __init__(
        self, connection: Connection, certificates: CertificateTables | None = None
    ) -> None:
        self._connection = connection
        self._certificates = certificates or CertificateTables(connection)

    def numbers(self, after: str, limit: int) -> list[str]:
        """Numbers of prescriptions of which anything is kept or booked, in order."""
        after_each = (after, after, after, after)
        rows = self._connection.execute(_SWEEP_NUMBERS, (*after_each, limit)).fetchall()
        return [number for (number,) in rows]

    def persons(self, after: str, limit: int) -> list[str]:
        """Persons of whom the payer has noted anything, in order."""
        rows = self._connection.execute(_SWEEP_PERSONS, (after, after, after, limit)).fetchall()
        return [person_id for (person_id,) in rows]

    def ended_attempts(self, insured_person_id: str) -> list[str]:
        """The attempts of which the payer has noted that they ended."""
        rows = self._connection.execute(_ENDS, (insured_person_id,)).fetchall()
        return [attempt_id for (attempt_id,) in rows]

    def told(self, number: str, region_code: str) -> Told:
        """What the region has told its own payer role, as far as it did not arrive."""
        waiting = self._connection.execute(_WAITING, (number, region_code, number)).fetchall()
        given_up = self._connection.execute(_GIVEN_UP, (number,)).fetchall()
        return Told(
            frozenset(bytes(sha256) for (sha256,) in waiting),
            frozenset(bytes(sha256) for (sha256,) in given_up),
        )

    def lacks_steps(self, number: str) -> bool:
        """Whether a step in the life of a prescription is not there any more."""
        ((count, last),) = self._connection.execute(_LAST_STEP, (number,)).fetchall()
        return bool(count != last)

    def hospital_numbers(self) -> tuple[list[Cells], list[Cells]]:
        """Hospitals' own numbers that belong to no prescription; and those that are missing."""
        too_many = self._connection.execute(_SWEEP_NUMBERS_TOO_MANY, ()).fetchall()
        missing = self._connection.execute(_SWEEP_NUMBERS_MISSING, ()).fetchall()
        return list(map(_own_number, too_many)), list(map(_own_number, missing))

    def evidence(self, numbers: Sequence[str]) -> Evidence:
        """Everything that is kept about prescriptions, in the order of the log."""
        kept = [
            self._kept(row)
            for number in numbers
            for row in self._connection.execute(_EVIDENCE, (number,)).fetchall()
        ]
        return Evidence(sorted(kept, key=lambda each: (each.place, each.sha256)))

    def benefit_opening(self, insured_person_id: str) -> BenefitOpening | None:
        """What a person had used of the benefit before what can be replayed."""
        rows = self._connection.execute(_BENEFIT_OPENING, (insured_person_id,)).fetchall()
        if not rows or rows[0][0] != "":
            return None
        _, year, deductible, cap, since = rows[0]
        schemes = tuple(Enrolment(code, taken, paid) for code, _, taken, paid, _ in rows[1:])
        return BenefitOpening(year, (deductible, cap), schemes, instant(since))

    def outcomes(self, number: str) -> list[StoredOutcomeRow]:
        """The outcomes of all requests about a prescription."""
        rows = self._connection.execute(_OUTCOMES, (number,)).fetchall()
        return [self._outcome(row) for row in rows]

    def rows(self, table: Table, shard: str) -> dict[Key, Cells]:
        """The rows of one object."""
        columns, only = ", ".join(table.columns), table.only and f" AND {table.only}"
        sql = f"SELECT {columns} FROM {table.name} WHERE {table.shard} = ?{only}"  # noqa: S608 - names of the schema
        found = self._connection.execute(sql, (shard,)).fetchall()
        rows = [dict(zip(table.columns, row, strict=True)) for row in found]
        return {table.key_of(row): row for row in rows}

    def insert(self, table: Table, row: Cells) -> None:
        """Write a row that is not there."""
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        sql = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - names of the schema
        self._connection.execute(sql, tuple(row.values()))

    def update(self, table: Table, row: Cells) -> None:
        """Write the columns of a row that is there, but for its key."""
        changed = [column for column in row if column not in table.key]
        names = ", ".join(f"{column} = ?" for column in changed)
        sql = f"UPDATE {table.name} SET {names} WHERE {_where(table)}"  # noqa: S608 - names of the schema
        self._connection.execute(sql, (*(row[each] for each in changed), *table.key_of(row)))

    def delete(self, table: Table, key: Key) -> None:
        """Take a row away."""
        sql = f"DELETE FROM {table.name} WHERE {_where(table)}"  # noqa: S608 - names of the schema
        self._connection.execute(sql, key)

    def forget(self, table: Table) -> None:
        """Take all rows away. For a table of one's own."""
        self._connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - names of the schema

    def _kept(self, row: Row) -> Kept:
        number, sha256, payload_type, kept, keep_time, leaf_index, position = row
        if leaf_index is not None:
            place = (_PLACED, leaf_index, 0)
        elif position is not None:
            place = (_WAITS, keep_time, position)
        else:
            place = (_NOWHERE, keep_time, 0)
        payload, intact = _payload(self._whole(kept), bytes(sha256))
        return Kept(place, number, bytes(sha256), payload_type, payload, instant(keep_time), intact)

    def _outcome(self, row: Row) -> StoredOutcomeRow:
        caller, request_id, method, response_type, kept = row
        return StoredOutcomeRow(caller, request_id, method, response_type, self._whole(kept))

    def _whole(self, kept: bytes) -> bytes | None:
        """The bytes as they were, if they can still be put together."""
        try:
            return self._certificates.put_back(kept)
        except InvariantBroken:
            return None


def pages(tables: RecordedTables, size: int) -> Iterator[list[str]]:
    """All numbers, a page at a time."""
    page = tables.numbers("", size)
    while page:
        yield page
        page = tables.numbers(page[-1], size)


def _own_number(row: Row) -> Cells:
    names = ("issuer_code", "hospital_prescription_number", "prescription_number")
    return dict(zip(names, row, strict=True))


def _where(table: Table) -> str:
    return " AND ".join(f"{column} = ?" for column in table.key)


def _payload(statement: bytes | None, sha256: bytes) -> tuple[bytes, bool]:
    """What a statement says, and whether it is what its digest says."""
    if statement is None:
        return b"", False
    try:
        message = SignedStatement.FromString(statement)
    except DecodeError:
        return b"", False
    return message.payload, statement_sha256(message) == sha256
