"""A region moves from its file to PostgreSQL: everything or nothing, and shown to be equal.

All tables are copied into an empty schema in one transaction, which is committed only once both
sides, read again row by row in the order of their keys, give the same digests and the same root of
the log. The file is only read. Its service is stopped meanwhile: the file is locked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from rxoutflow_server.application.log.proofs import root
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.maintenance import locked
from rxoutflow_server.storage.postgres.maintenance import PlainConnection, filling
from rxoutflow_server.storage.postgres.schema import migrate
from rxoutflow_server.storage.sqlite.connection import open_reader
from rxoutflow_server.storage.sqlite.schema import require_present
from rxoutflow_server.storage.tables.connection import Connection, Row
from rxoutflow_server.storage.tables.log import LogTables

BATCH = 5_000
_MADE_BY_MIGRATIONS = "log_turn"
_TABLES = """
SELECT name FROM sqlite_schema
WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlite_%' ORDER BY rowid
"""

Progress = Callable[[str, int], None]
"""Told while rows are copied: of which table, and how many."""


@dataclass(frozen=True, slots=True)
class MovedTable:
    """A table that was moved: how many rows, and the digest of all of them on both sides."""

    name: str
    rows: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Move:
    """What was moved. ``log_root`` is that of the region's log, which has ``log_size`` leaves."""

    tables: tuple[MovedTable, ...]
    log_size: int
    log_root: bytes


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


def move(source: Path, address: str, schema: str, progress: Progress) -> Move:
    """Copy a platform's file into an empty schema, and show that both are equal.

    Raises:
        StoreError: the service runs, the schema holds records already, the database cannot be
            used, or the two sides are not equal. The schema is then as it was, or empty.
    """
    with (
        locked(source),
        closing(open_reader(source)) as here,
        filling(address, schema) as there,
    ):
        require_present(here, source, "platform")
        migrate(there, schema, "platform")
        tables = list(_tables(here))
        here.execute("BEGIN")
        with there.transaction():
            for table in tables:
                _require_empty(there, schema, table)
            for table in tables:
                if table.name != _MADE_BY_MIGRATIONS:
                    _copy(here, there, table, progress)
            return _equal(here, there, tables)


def _tables(here: sqlite3.Connection) -> Iterator[_Table]:
    """The tables in the order in which they were made: what refers to another one comes later."""
    for (name,) in here.execute(_TABLES).fetchall():
        info = here.execute(f"PRAGMA table_info({name})").fetchall()
        columns = tuple(column for _, column, *_ in info)
        key = sorted((position, column) for _, column, *_, position in info if position)
        yield _Table(name, columns, tuple(column for _, column in key))


def _require_empty(there: psycopg.Connection, schema: str, table: _Table) -> None:
    query = SQL("SELECT 1 FROM {} LIMIT 1").format(Identifier(table.name))
    if table.name != _MADE_BY_MIGRATIONS and there.execute(query).fetchone() is not None:
        raise StoreError(
            f"schema {schema} holds records already (table {table.name}); name a schema that does"
            " not exist, or drop this one if nobody needs it"
        )


def _copy(
    here: sqlite3.Connection, there: psycopg.Connection, table: _Table, progress: Progress
) -> None:
    into = SQL("COPY {} ({}) FROM STDIN").format(Identifier(table.name), _names(table.columns))
    rows = here.execute(f"SELECT {', '.join(table.columns)} FROM {table.name}")  # noqa: S608 - names of the schema
    with there.cursor() as cursor, cursor.copy(into) as copy:
        while batch := rows.fetchmany(BATCH):
            for row in batch:
                copy.write_row(row)
            progress(table.name, len(batch))


def _equal(here: sqlite3.Connection, there: psycopg.Connection, tables: Iterable[_Table]) -> Move:
    moved = []
    for table in tables:
        ours, theirs = _digest(_rows_here(here, table)), _digest(_rows_there(there, table))
        if ours != theirs:
            raise StoreError(
                f"table {table.name} is not the same on both sides: {ours[0]} and {theirs[0]} rows;"
                " nothing was moved; report this, it is a defect"
            )
        moved.append(MovedTable(table.name, *ours))
    size, at_both = _log(here), _log(PlainConnection(there))
    if size != at_both:
        raise StoreError("the logs differ; nothing was moved; report this, it is a defect")
    return Move(tuple(moved), *size)


def _digest(rows: Iterable[Row]) -> tuple[int, bytes]:
    """How many rows there are, and a digest of all their values with their types."""
    count, digest = 0, sha256()
    for row in rows:
        count += 1
        for value in row:
            digest.update(_written(value))
    return count, digest.digest()


def _written(value: str | int | bytes | None) -> bytes:
    if value is None:
        return b"n"
    if isinstance(value, int):
        return b"i%d;" % value
    data, kind = (value.encode(), b"t") if isinstance(value, str) else (bytes(value), b"b")
    return kind + b"%d:" % len(data) + data


def _rows_here(here: sqlite3.Connection, table: _Table) -> Iterator[Row]:
    columns, key = ", ".join(table.columns), ", ".join(table.key)
    yield from here.execute(f"SELECT {columns} FROM {table.name} ORDER BY {key}")  # noqa: S608 - names of the schema


def _rows_there(there: psycopg.Connection, table: _Table) -> Iterator[Row]:
    query = SQL("SELECT {} FROM {} ORDER BY {}").format(
        _names(table.columns), Identifier(table.name), _names(table.key)
    )
    with there.cursor(f"move_{table.name}") as cursor:
        cursor.itersize = BATCH
        yield from cursor.execute(query)


def _names(columns: Iterable[str]) -> Composed:
    return SQL(", ").join(map(Identifier, columns))


def _log(connection: Connection) -> tuple[int, bytes]:
    log = LogTables(connection)
    size = log.size()
    return size, root(log, size) if size else b""
