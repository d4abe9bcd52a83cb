"""A store that lives in memory and ends with its process: for tests, and for nothing else.

The tables are the real ones, on SQLite in memory, so there is no third description of the rows
that could say something else than the other two. Everything happens on the event loop, one command
or query at a time, each command in a transaction of its own: a query is never beside a command,
and the same calls in the same order give the same store.

Nothing survives. No configuration leads here: a service opens its store by its place, and a
place is a file or a database.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.errors import unavailable
from rxoutflow_server.storage.sqlite.failures import for_caller, is_write_in_query
from rxoutflow_server.storage.sqlite.schema import migrate
from rxoutflow_server.storage.tables.schema import Kind
from rxoutflow_server.storage.tables.transaction import EdgeTransactionTables, PlatformTables
from rxoutflow_server.storage.waiting import require_room

X = TypeVar("X")
T = TypeVar("T")

_CACHED_STATEMENTS = 256
_TABLES: dict[Kind, Callable[[sqlite3.Connection], Any]] = {
    "platform": PlatformTables,
    "edge": EdgeTransactionTables,
}


class MemoryStore(Generic[X]):
    """A store in memory. Use ``open``; closing it frees the memory.

    ``connection`` is the only one, for whoever looks at the rows or spoils them on purpose.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        tables: X,
        on_commit: Callable[[int], None],
        before_commit: Callable[[X], None],
    ) -> None:
        """Begin on a connection with the schema."""
        self.connection = connection
        self._tables = tables
        self._on_commit = on_commit
        self._before_commit = before_commit
        self._commands, self._queries = _Queue(), _Queue()
        self._failed = self._closed = False

    @overload
    @classmethod
    def open(
        cls,
        kind: Literal["platform"],
        *,
        on_commit: Callable[[int], None] = ...,
        before_commit: Callable[[Transaction], None] = ...,
    ) -> MemoryStore[Transaction]: ...

    @overload
    @classmethod
    def open(
        cls, kind: Literal["edge"], *, on_commit: Callable[[int], None] = ...
    ) -> MemoryStore[EdgeTransaction]: ...

    @classmethod
    def open(
        cls,
        kind: Kind,
        *,
        on_commit: Callable[[int], None] = lambda commands: None,
        before_commit: Callable[[Any], None] = lambda tx: None,
    ) -> MemoryStore[Any]:
        """An empty store.

        ``on_commit`` is called with the number of commands in each commit, which is one,
        ``before_commit`` within the transaction: a platform's log grows there.
        """
        connection = _connected()
        _empty(kind).backup(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        return cls(connection, _TABLES[kind](connection), on_commit, before_commit)

    async def transact(self, command: Callable[[X], T]) -> T:
        """Run a command and commit it before returning. Exceptions undo it.

        Raises:
            Refusal: OVERLOADED; the command was not run.
            Unavailable: STORE_UNAVAILABLE; the store is closed, or a commit of it has failed.
            InvariantBroken: the command broke a constraint; it was undone.
        """
        self._require_open()
        await self._commands.turn()
        if self._failed:
            raise unavailable()
        self.connection.execute("BEGIN")
        try:
            result = command(self._tables)
        except BaseException as error:
            self.connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise for_caller(error) from error
            raise
        self._commit()
        return result

    async def read(self, query: Callable[[X], T]) -> T:
        """Run a query on what is committed; it must not write.

        Raises:
            Refusal: OVERLOADED.
            Unavailable: STORE_UNAVAILABLE.
            InvariantBroken: the query tried to write.
        """
        self._require_open()
        await self._queries.turn()
        self.connection.execute("PRAGMA query_only = ON")
        try:
            return query(self._tables)
        except sqlite3.Error as error:
            if is_write_in_query(error):
                raise InvariantBroken("a query tried to write; use a command") from error
            raise for_caller(error) from error
        finally:
            self.connection.execute("PRAGMA query_only = OFF")

    async def close(self) -> None:
        """Finish what waits and forget everything."""
        self._closed = True
        while self._commands.waiting or self._queries.waiting:
            await asyncio.sleep(0)
        self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _commit(self) -> None:
        """Commit; or nothing more is written, as after trouble with a disk."""
        try:
            self._before_commit(self._tables)
            self.connection.execute("COMMIT")
        except Exception as error:
            self._failed = True
            self.connection.rollback()
            raise unavailable() from error
        self._on_commit(1)

    def _require_open(self) -> None:
        if self._closed or self._failed:
            raise unavailable()


@dataclass(slots=True)
class _Queue:
    """How many wait for their turn on the event loop."""

    waiting: int = 0

    async def turn(self) -> None:
        """Let others go first, unless too many do already."""
        require_room(self.waiting)
        self.waiting += 1
        try:
            await asyncio.sleep(0)
        finally:
            self.waiting -= 1


@cache
def _empty(kind: Kind) -> sqlite3.Connection:
    """A database with the schema and no rows, made once for each process."""
    connection = _connected()
    migrate(connection, Path("memory"), kind)
    return connection


def _connected() -> sqlite3.Connection:
    return sqlite3.connect(
        ":memory:",
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
