"""A platform's schema for an operator's tools: one plain connection, one statement after the other.

No pipeline and no batches: tools sweep tables, and an error has to name the statement that met it.
Whoever writes must be alone: all tables are locked until the end, and if a service is at work on
one of them just then, nothing is written. A service that was left running waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache

import psycopg
from psycopg.sql import SQL, Identifier

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.postgres.connection import connect
from rxoutflow_server.storage.postgres.failures import described
from rxoutflow_server.storage.postgres.schema import require_present
from rxoutflow_server.storage.tables.connection import Cursor, Value

_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename"


class PlainConnection:
    """The port ``Connection`` with nothing in between but the marks of parameters."""

    def __init__(self, connection: psycopg.Connection, begin: str = "BEGIN") -> None:
        """``begin`` is what BEGIN means here."""
        self._connection = connection
        self._begin = begin

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        """Run one statement with ``?`` placeholders."""
        text = self._begin if sql == "BEGIN" else _marked(sql)
        return self._connection.execute(text.encode(), tuple(parameters))


@contextmanager
def looking_at(address: str, schema: str) -> Iterator[PlainConnection]:
    """A schema, for reading only, beside the services that work on it.

    Raises:
        StoreError: there is no store in it, or it is of another kind or release.
    """
    with _connected(address, schema) as connection:
        require_present(connection, schema, "platform")
        yield PlainConnection(connection, _SNAPSHOT)


@contextmanager
def writing_to(address: str, schema: str) -> Iterator[PlainConnection]:
    """A schema that nobody else uses, in one transaction.

    Raises:
        StoreError: a service uses it, or there is no store of this release in it.
    """
    with _connected(address, schema) as connection:
        require_present(connection, schema, "platform")
        with connection.transaction():
            _take_alone(connection, schema)
            yield PlainConnection(connection)


@contextmanager
def filling(address: str, schema: str) -> Iterator[psycopg.Connection]:
    """A connection to a schema that is to be filled.

    Raises:
        StoreError: the database cannot be used.
    """
    with _connected(address, schema) as connection:
        yield connection


@contextmanager
def _connected(address: str, schema: str) -> Iterator[psycopg.Connection]:
    try:
        with closing(connect(address, schema)) as connection:
            yield connection
    except psycopg.Error as error:
        raise StoreError(
            f"schema {schema} cannot be used: {described(error)};"
            " check the database's address, its user's rights, and that no service uses it"
        ) from error


def _take_alone(connection: psycopg.Connection, schema: str) -> None:
    tables = [name for (name,) in connection.execute(_TABLES, (schema,)).fetchall()]
    names = SQL(", ").join(map(Identifier, tables))
    try:
        connection.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(names))
    except psycopg.errors.LockNotAvailable:
        raise StoreError(
            f"schema {schema} is in use; stop every service of it, then try again"
        ) from None


@cache
def _marked(sql: str) -> str:
    """The statement with the marks of this driver. No statement has a literal ``%`` or ``?``."""
    return sql.replace("?", "%s")
