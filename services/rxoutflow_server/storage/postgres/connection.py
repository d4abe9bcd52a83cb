"""How a connection to PostgreSQL is opened: one schema, durable, patient within limits.

What was committed is on the disk of the server: ``synchronous_commit`` is asserted when a
connection is opened, not assumed. Statements that wait for a lock give up after a while, and
connections that a partition cut off are noticed.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from rxoutflow_server.storage.errors import StoreError

LOCK_TIMEOUT_MS = 5_000
"""Waiting longer for another command's lock means that something hangs: try the command again."""

_SETTINGS = (
    "keepalives=1 keepalives_idle=10 keepalives_interval=5 keepalives_count=3"
    " tcp_user_timeout=20000 connect_timeout=5 application_name=rxoutflow"
)
"""How libpq notices a server that is gone. What the address says itself comes first."""


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


def plan_by_keys(connection: psycopg.Connection) -> None:
    """Have statements planned once for a connection, and go by keys however small a table is.

    Plans outlive what they were made for: one that reads a table from end to end because it was
    empty, or a queue because it was short, stays when that has grown. All statements name keys.
    """
    connection.execute("SET enable_seqscan TO off")
    connection.execute("SET plan_cache_mode TO force_generic_plan")


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
