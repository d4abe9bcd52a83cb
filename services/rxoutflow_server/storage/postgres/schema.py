"""The schema in PostgreSQL: the migrations of the tables, in the words of this engine.

There is one description of the tables, in the words of SQLite, and what differs is words: types,
byte order of text, and options of storage that PostgreSQL does not have. So a table cannot exist
on one engine and not on the other. Keys are text in byte order on both.
"""

from __future__ import annotations

import re
from typing import LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.tables.schema import MIGRATIONS, Kind

_WORDS = (
    (re.compile(r"\)\s*(STRICT|WITHOUT ROWID)(\s*,\s*(STRICT|WITHOUT ROWID))*\s*$"), ")"),
    (re.compile(r"\bBLOB\b"), "BYTEA"),
    (re.compile(r"\bx'([0-9a-f]*)'"), r"'\\x\1'"),
    (re.compile(r"\bINTEGER\b"), "BIGINT"),
    (re.compile(r"\bTEXT\b"), 'TEXT COLLATE "C"'),
)
_MIGRATIONS_TABLE = 'CREATE TABLE IF NOT EXISTS migrations (name TEXT COLLATE "C" PRIMARY KEY)'
_ONE_AT_A_TIME = 0x7278_6F75_7466_6C77
"""Key of the advisory lock under which schemas are made: 'rxoutflw'."""


def in_postgres(statement: str) -> LiteralString:
    """A statement of the schema in the words of PostgreSQL."""
    text = statement.strip()
    for words, replacement in _WORDS:
        text = words.sub(replacement, text)
    return text


def migrate(connection: psycopg.Connection, schema: str, kind: Kind) -> None:
    """Bring a new or older schema to the present one, in one transaction.

    Several processes may start at once: one migrates, the others wait and find it done.

    Raises:
        StoreError: the schema holds a store of another kind, or of a newer release.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ONE_AT_A_TIME,))
        connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
        connection.execute(_MIGRATIONS_TABLE)
        rows = connection.execute("SELECT name FROM migrations").fetchall()
        applied = {name for (name,) in rows}
        _require_known(schema, kind, applied)
        for name, statements in MIGRATIONS[kind].items():
            if _key(kind, name) not in applied:
                for statement in statements:
                    connection.execute(in_postgres(statement))
                connection.execute("INSERT INTO migrations VALUES (%s)", (_key(kind, name),))


def require_present(connection: psycopg.Connection, schema: str, kind: Kind) -> None:
    """Check that a schema is the present one, without changing it.

    Raises:
        StoreError: there is no store in it, or it is of another kind or release.
    """
    row = connection.execute("SELECT to_regclass('migrations')").fetchone()
    if row is None or row[0] is None:
        raise StoreError(f"schema {schema} holds no store; name that of a platform that ran")
    rows = connection.execute("SELECT name FROM migrations").fetchall()
    applied = {name for (name,) in rows}
    _require_known(schema, kind, applied)
    if missing := [name for name in MIGRATIONS[kind] if _key(kind, name) not in applied]:
        raise StoreError(
            f"schema {schema} was written by an older release ({', '.join(missing)} are missing);"
            " start its service with this release once"
        )


def _key(kind: Kind, name: str) -> str:
    return f"{kind}/{name}"


def _require_known(schema: str, kind: Kind, applied: set[str]) -> None:
    if other := [name for name in applied if not name.startswith(f"{kind}/")]:
        raise StoreError(
            f"schema {schema} holds the store of a service of another kind ({other[0]});"
            " give each service its own"
        )
    if newer := sorted(applied - {_key(kind, name) for name in MIGRATIONS[kind]}):
        raise StoreError(
            f"schema {schema} was written by a newer release ({', '.join(newer)});"
            " use that release, or restore a backup made before it"
        )
