"""Reading a store for a report, beside the service that has it open.

The connection cannot write and never checkpoints, so it cannot disturb the service, and it holds no
lock that the service would wait for. Every query sees one consistent snapshot.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.known import Known, reading_journal
from rxoutflow_server.storage.sqlite.connection import open_reader
from rxoutflow_server.storage.sqlite.schema import require_present
from rxoutflow_server.storage.tables.transaction import PlatformTables

T = TypeVar("T")


class ReportReader:
    """The port ``Reader`` on a store that another process may have open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tables = PlatformTables(connection, journal=reading_journal(connection, Known()))

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query on a consistent snapshot. Blocks: a report has nothing else to do."""
        self._connection.execute("BEGIN")
        try:
            return query(self._tables)
        finally:
            self._connection.execute("ROLLBACK")


@contextmanager
def reading_platform(path: Path) -> Iterator[ReportReader]:
    """A platform's store, for reading only.

    Raises:
        StoreError: there is no such store, or it is of another kind or release.
    """
    if not path.is_file():
        raise StoreError(f"{path} does not exist; name the configuration of a platform that ran")
    try:
        with closing(open_reader(path)) as connection:
            require_present(connection, path, "platform")
            yield ReportReader(connection)
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} cannot be read: {error}; run this as the user of the service, on its machine"
        ) from error
