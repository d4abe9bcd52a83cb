"""How a file gets the schema: the migrations of the tables, applied by sqlite-utils.

Each migration is one transaction, so a process that ends in the middle leaves a whole schema of
before. A file of another kind, or of a newer release, is refused and not touched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database, Migrations

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.tables.schema import MIGRATIONS, Kind


def migrate(connection: sqlite3.Connection, path: Path, kind: Kind) -> None:
    """Bring a new or older store to the present schema, one migration to a transaction.

    Raises:
        StoreError: the file holds a store of another kind, or of a newer release.
    """
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    _require_kind(database, path, kind)
    _require_known(database, path, kind)
    migrations = Migrations(kind)
    for name, statements in MIGRATIONS[kind].items():
        _register(migrations, name, statements)
    migrations.apply(database)


def require_present(connection: sqlite3.Connection, path: Path, kind: Kind) -> None:
    """Check that a store has the present schema, without changing it.

    Raises:
        StoreError: it is of another kind, or of another release.
    """
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    _require_kind(database, path, kind)
    _require_known(database, path, kind)
    applied = {migration.name for migration in Migrations(kind).applied(database)}
    if missing := sorted(set(MIGRATIONS[kind]) - applied):
        raise StoreError(
            f"{path} was written by an older release ({', '.join(missing)} are missing);"
            " start its service with this release once"
        )


def _register(migrations: Migrations, name: str, statements: Sequence[str]) -> None:
    @migrations(name=name)
    def apply(database: Database) -> None:
        for statement in statements:
            database.execute(statement)


def _require_kind(database: Database, path: Path, kind: Kind) -> None:
    other: Kind = "edge" if kind == "platform" else "platform"
    if Migrations(other).applied(database):
        raise StoreError(
            f"{path} is the store of a service of kind {other}; give each service its own file"
        )


def _require_known(database: Database, path: Path, kind: Kind) -> None:
    applied = {migration.name for migration in Migrations(kind).applied(database)}
    if newer := sorted(applied - set(MIGRATIONS[kind])):
        raise StoreError(
            f"{path} was written by a newer release ({', '.join(newer)});"
            " use that release, or restore a backup made before it"
        )
