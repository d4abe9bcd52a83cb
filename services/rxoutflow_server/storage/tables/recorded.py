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
from rxoutflow_server.application.recompute.payer import BenefitOpening
from rxoutflow_server.domain.benefit import Enrolment
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
ORDER BY prescription_number LIMIT ?
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
    response: bytes


class RecordedTables:
    """Evidence and rows on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def numbers(self, after: str, limit: int) -> list[str]:
        """Numbers of prescriptions of which anything is kept, in order."""
        rows = self._connection.execute(_SWEEP_NUMBERS, (after, after, limit)).fetchall()
        return [number for (number,) in rows]

    def evidence(self, numbers: Sequence[str]) -> Evidence:
        """Everything that is kept about prescriptions, in the order of the log."""
        kept = [
            _kept(row)
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
        return [StoredOutcomeRow(*row) for row in rows]

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


def pages(tables: RecordedTables, size: int) -> Iterator[list[str]]:
    """All numbers, a page at a time."""
    page = tables.numbers("", size)
    while page:
        yield page
        page = tables.numbers(page[-1], size)


def _where(table: Table) -> str:
    return " AND ".join(f"{column} = ?" for column in table.key)


def _kept(row: Row) -> Kept:
    number, sha256, payload_type, statement, keep_time, leaf_index, position = row
    if leaf_index is not None:
        place = (_PLACED, leaf_index, 0)
    elif position is not None:
        place = (_WAITS, keep_time, position)
    else:
        place = (_NOWHERE, keep_time, 0)
    payload, intact = _payload(statement, bytes(sha256))
    return Kept(place, number, bytes(sha256), payload_type, payload, instant(keep_time), intact)


def _payload(statement: bytes, sha256: bytes) -> tuple[bytes, bool]:
    """What a statement says, and whether it is what its digest says."""
    try:
        message = SignedStatement.FromString(statement)
    except DecodeError:
        return b"", False
    return message.payload, statement_sha256(message) == sha256
