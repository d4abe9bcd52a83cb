"""A PostgreSQL connection as the tables want it: ``?`` placeholders, integers for truth values.

What was committed is on the disk of the server: ``synchronous_commit`` is asserted when a
connection is opened, not assumed. Statements that wait for a lock give up after a while, and
connections that a partition cut off are noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.tables.connection import Cursor, Value

LOCK_TIMEOUT_MS = 5_000
"""Waiting longer for another command's lock means that something hangs: try the command again."""

_SETTINGS = (
    "keepalives=1 keepalives_idle=10 keepalives_interval=5 keepalives_count=3"
    " tcp_user_timeout=20000 connect_timeout=5 application_name=rxoutflow"
)
"""How libpq notices a server that is gone. What the address says itself comes first."""


class Statements:
    """The port ``Connection`` of the tables, on a psycopg connection."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        """Run one statement with ``?`` placeholders."""
        values = [int(value) if isinstance(value, bool) else value for value in parameters]
        return self._connection.execute(_placeholders(sql), values)


def connect(address: str, schema: str) -> psycopg.Connection:
    """A connection that sees one schema alone, in autocommit: transactions are begun by hand.

    Raises:
        psycopg.Error: the server cannot be reached or refuses.
        StoreError: the server would acknowledge what is not on its disk.
    """
    settings: dict[str, Any] = conninfo_to_dict(_SETTINGS) | conninfo_to_dict(address)
    connection = psycopg.connect(make_conninfo(**settings), autocommit=True)
    try:
        connection.execute(SQL("SET search_path TO {}").format(Identifier(schema)))
        connection.execute(f"SET lock_timeout TO {LOCK_TIMEOUT_MS}")
        connection.execute("SET timezone TO 'UTC'")
        _require_durable(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_durable(connection: psycopg.Connection) -> None:
    for setting, allowed in {
        "synchronous_commit": ("on", "remote_apply"),
        "fsync": ("on",),
        "full_page_writes": ("on",),
    }.items():
        row = connection.execute(f"SHOW {setting}").fetchone()
        if row is None or row[0] not in allowed:
            raise StoreError(
                f"the database has {setting} = {row and row[0]}; a platform needs"
                f" {' or '.join(allowed)}, so that what it acknowledged survives a crash"
            )


@lru_cache(maxsize=512)
def _placeholders(sql: str) -> LiteralString:
    """The same statement with psycopg's placeholders; our statements hold no other ``?``."""
    # Every statement is a constant of storage/tables: nothing of a caller's is ever part of it.
    return sql.replace("%", "%%").replace("?", "%s")
