"""Stores of every earlier version, with records in them, become stores of this one.

A version is a store to which only the first migrations were applied. It is filled with a row in
every table that it has, and migrated; then it must have the schema of a new store, and every row
as it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import psycopg
import pytest

from rxoutflow_server.storage.postgres.connection import connect
from rxoutflow_server.storage.postgres.maintenance import PlainConnection
from rxoutflow_server.storage.postgres.schema import migrate as migrate_schema
from rxoutflow_server.storage.sqlite.schema import migrate as migrate_file
from rxoutflow_server.storage.tables.connection import Connection
from rxoutflow_server.storage.tables.schema import MIGRATIONS, Kind
from support.postgres import fresh_schema

Rows: TypeAlias = dict[str, dict[str, Any]]
"""One row of each table, by column."""

VERSIONS = [(kind, count) for kind in MIGRATIONS for count in range(1, len(MIGRATIONS[kind]))]

BLOB, TEXT, INTEGER = bytes(range(32)), "x", 1
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "": {
        "family_accounts_fen": "[]",
        "day": "2026-03-02",
        "posted_day": "2026-03-02",
        "payload_type": "application/vnd.rxoutflow.prescription.v1+protobuf",
    },
    "outbox": {"state": "pending"},
    "prescriptions": {"validity": "active"},
    "prescription_lines": dict.fromkeys(("claimed", "committed", "dispensed", "returned"), 0),
    "attempts": {"state": "committed", "lease_expire_time": None},
    "dispenses": {"state": "committing"},
    "ledger_entries": {"book": "payable", "movement": "posting", "reversal_id": "", "mode":
                       "insurance", "account_fen": 0, "family_fen": 0, "cash_fen": 0},
    "clearings": {"role": "payer"},
    "settlements": {"state": "held", "own_fen": 0, "excess_fen": 0, "first_self_pay_fen": 0,
                    "deductible_fen": 0, "ratio_self_fen": 0, "person_fen": 0, "account_fen": 0,
                    "family_fen": 0, "cash_fen": 0},
    "log_leaves": {"leaf_index": 0},
    "account_entries": {"movement": "hold", "reversal_id": "", "credit_account": "other"},
    "agreement_uses": {"reversal_id": ""},
    "issued_prescriptions": {"registration": "queued"},
}  # fmt: skip
"""What constraints ask for, by table and column; under no name for the columns of any table."""


class Engine(Protocol):
    """Where a store is migrated, looked at, and filled."""

    @property
    def connection(self) -> Connection: ...

    def migrate(self, kind: Kind) -> None: ...

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        """Columns of every table, with their types in the words of SQLite."""

    def schema(self) -> Sequence[tuple[Any, ...]]:
        """Everything that makes a schema what it is."""


class File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys = ON")

    def migrate(self, kind: Kind) -> None:
        migrate_file(self.connection, self._path, kind)

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        names = self.connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_sqlite%'"
            " ESCAPE '\\' AND name NOT LIKE 'sqlite%' ORDER BY rowid"
        ).fetchall()
        return {
            name: [(column, kind) for _, column, kind, *_ in self._info(name)] for (name,) in names
        }

    def schema(self) -> Sequence[tuple[Any, ...]]:
        return self.connection.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_sqlite%' ESCAPE '\\'"
            " ORDER BY type, name"
        ).fetchall()

    def _info(self, table: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(f"PRAGMA table_info({table})").fetchall()


class Database:
    _TYPES = {"text": "TEXT", "bigint": "INTEGER", "bytea": "BLOB"}  # noqa: RUF012 - a constant

    def __init__(self, connection: psycopg.Connection, schema: str) -> None:
        self._psycopg, self._schema = connection, schema
        self.connection = PlainConnection(connection)

    def migrate(self, kind: Kind) -> None:
        migrate_schema(self._psycopg, self._schema, kind)

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        rows = self._psycopg.execute(
            "SELECT relname, attname, format_type(atttypid, NULL) FROM pg_attribute"
            " JOIN pg_class ON pg_class.oid = attrelid"
            " WHERE relnamespace = %s::regnamespace AND relkind = 'r' AND attnum > 0"
            " AND relname <> 'migrations' ORDER BY pg_class.oid, attnum",
            (self._schema,),
        ).fetchall()
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in rows:
            found.setdefault(table, []).append((column, self._TYPES[kind]))
        return found

    def schema(self) -> Sequence[tuple[Any, ...]]:
        return self._psycopg.execute(
            "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = %(s)s"
            " UNION ALL SELECT indexname, replace(indexdef, %(s)s || '.', ''), '', '', '', ''"
            " FROM pg_indexes WHERE schemaname = %(s)s"
            " UNION ALL SELECT conrelid::regclass::text, pg_get_constraintdef(oid), '', '', '', ''"
            " FROM pg_constraint WHERE connamespace = %(s)s::regnamespace ORDER BY 1, 2",
            {"s": self._schema},
        ).fetchall()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    old, new = File(tmp_path / "old.db"), File(tmp_path / "new.db")
    with closing(old.connection), closing(new.connection):
        yield old, new


@pytest.fixture
def databases() -> Iterator[tuple[Engine, Engine]]:
    address = fresh_schema("old", "new")
    with closing(connect(address, "old")) as old, closing(connect(address, "new")) as new:
        yield Database(old, "old"), Database(new, "new")


@pytest.mark.parametrize(("kind", "count"), VERSIONS)
def test_a_file_of_every_version_becomes_one_of_this(
    files: tuple[Engine, Engine], kind: Kind, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated_with_its_records(*files, kind, count, monkeypatch)


@pytest.mark.parametrize(("kind", "count"), VERSIONS)
def test_a_schema_of_every_version_becomes_one_of_this(
    databases: tuple[Engine, Engine], kind: Kind, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated_with_its_records(*databases, kind, count, monkeypatch)


def migrated_with_its_records(
    old: Engine, new: Engine, kind: Kind, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setitem(MIGRATIONS, kind, dict(list(MIGRATIONS[kind].items())[:count]))
        old.migrate(kind)
    before = filled(old)
    old.migrate(kind)
    new.migrate(kind)
    assert old.schema() == new.schema()
    for table, row in before.items():
        assert row in rows_of(old, table, list(row)), table
    if kind == "platform" and "insured_persons" in before:
        for table in ("account_openings", "benefit_openings"):
            assert {"insured_person_id": "x"} in rows_of(old, table, ["insured_person_id"])


def filled(engine: Engine) -> Rows:
    """A row in every table; keys are the same everywhere, so whatever refers finds its row."""
    rows: Rows = {}
    for table, columns in engine.tables().items():
        if table == "log_turn":  # the migration's own row
            continue
        special = {**SPECIAL[""], **SPECIAL.get(table, {})}
        rows[table] = {column: special.get(column, _any(column, kind)) for column, kind in columns}
        names, marks = ", ".join(rows[table]), ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of the schema
        engine.connection.execute(sql, tuple(rows[table].values()))
    return rows


def _any(column: str, kind: str) -> str | int | bytes:
    if column.startswith("reversed_"):
        return 0
    values: dict[str, str | int | bytes] = {"TEXT": TEXT, "INTEGER": INTEGER, "BLOB": BLOB}
    return values[kind]


def rows_of(engine: Engine, table: str, columns: list[str]) -> list[dict[str, Any]]:
    sql = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - names of the schema
    found = engine.connection.execute(sql).fetchall()
    return [dict(zip(columns, row, strict=True)) for row in found]
