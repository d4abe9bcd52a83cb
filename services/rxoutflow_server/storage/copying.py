"""Backups of a file: copied while its service runs, then opened and checked as what they are.

A copy that nobody has looked at is a hope. So the copy is read from its first page to its last,
its kind and release are checked, and its rows are counted against those of the moment of copying.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.sqlite.connection import open_reader
from rxoutflow_server.storage.sqlite.failures import not_a_store
from rxoutflow_server.storage.sqlite.readers import Progress, copy_database
from rxoutflow_server.storage.sqlite.schema import require_present
from rxoutflow_server.storage.tables.schema import MIGRATIONS, Kind

_TABLES = """
SELECT name FROM sqlite_schema
WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlite_%' ORDER BY name
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a file holds: its kind, its size in bytes, and the rows of each table."""

    kind: Kind
    bytes: int
    rows: dict[str, int]


def back_up(source: Path, target: Path, progress: Progress) -> Holding:
    """Copy a store as it is now, beside its service, and check the copy.

    Raises:
        StoreError: there is no store, ``target`` exists or cannot be written, or the copy is not
            what it should be, in which case it is not left behind.
    """
    if not source.is_file():
        raise StoreError(f"{source} does not exist; name the configuration of a service that ran")
    with _reading(source) as connection:
        kind = _kind_of(connection, source)
        connection.execute("BEGIN")  # one state for rows and copy, whatever the service does
        rows = _rows(connection)
        copy_database(connection, target, progress)
        connection.execute("ROLLBACK")
    try:
        return _checked(target, kind, rows)
    except StoreError:
        target.unlink()
        raise


def _checked(copy: Path, kind: Kind, rows: dict[str, int]) -> Holding:
    with _reading(copy) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            raise StoreError(
                f"{copy} is damaged ({found[0][0]}), and so may be what it was copied from;"
                " check the disk, and verify the store"
            )
        require_present(connection, copy, kind)
        if _rows(connection) != rows:
            raise StoreError(f"{copy} does not hold what was copied; check the disk, and try again")
    return Holding(kind, copy.stat().st_size, rows)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(open_reader(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise not_a_store(path, error) from error


def _kind_of(connection: sqlite3.Connection, path: Path) -> Kind:
    tables = set(_names(connection))
    for kind in MIGRATIONS:
        if ("issued_prescriptions" in tables) == (kind == "edge"):
            require_present(connection, path, kind)
            return kind
    raise StoreError(f"{path} is no store; name the configuration of a service that ran")


def _rows(connection: sqlite3.Connection) -> dict[str, int]:
    return {
        name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0]  # noqa: S608 - a table's own name
        for name in _names(connection)
    }


def _names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute(_TABLES).fetchall()]
