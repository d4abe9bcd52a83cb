"""Reading a platform's schema for a report, beside the services that work on it.

The connection is in read-only transactions, each of which sees one consistent snapshot; it holds no
lock that a service would wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

import psycopg

from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.known import Known
from rxoutflow_server.storage.postgres.appends import Arrays
from rxoutflow_server.storage.postgres.connection import connect
from rxoutflow_server.storage.postgres.failures import described
from rxoutflow_server.storage.postgres.schema import require_present
from rxoutflow_server.storage.postgres.session import QUERIES, Session
from rxoutflow_server.storage.postgres.tables import PostgresTables

T = TypeVar("T")


class ReportReader:
    """The port ``Reader`` on a database that other processes work on."""

    def __init__(self, session: Session[Transaction]) -> None:
        self._session = session

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query on a consistent snapshot. Blocks: a report has nothing else to do."""
        return self._session.run(lambda: query(self._session.tables))


@contextmanager
def reading_platform(address: str, schema: str) -> Iterator[ReportReader]:
    """A platform's records, for reading only.

    Raises:
        StoreError: there are none, or they are of another kind or release.
    """
    try:
        with closing(connect(address, schema)) as connection:
            require_present(connection, schema, "platform")
            yield ReportReader(Session(connection, PostgresTables, QUERIES, Arrays(), Known()))
    except psycopg.Error as error:
        raise StoreError(
            f"schema {schema} cannot be read: {described(error)};"
            " check the database's address and its user's rights"
        ) from None
