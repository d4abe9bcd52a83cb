"""The store itself: ``transact`` and ``read`` for an event loop, on a few connections.

Each command is one transaction at READ COMMITTED. Safety rests on row locks, constraints and
guarded updates, so several processes may work on one database. A command that met a conflict is
run again from the start, a few times; its decisions are functions of what it loads, so running it
again is safe. When a connection is lost the next command opens another one.

Each worker thread has a connection of its own and takes one command at a time: commits of several
workers reach the disk together, because the server groups them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import local
from types import TracebackType
from typing import Any, Generic, Literal, LiteralString, Self, TypeVar, overload

import psycopg

from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.postgres.connection import Statements, connect
from rxoutflow_server.storage.postgres.failures import (
    described,
    for_caller,
    is_gone,
    is_worth_another_try,
    unavailable,
)
from rxoutflow_server.storage.postgres.schema import migrate
from rxoutflow_server.storage.sqlite.schema import Kind
from rxoutflow_server.storage.tables.transaction import EdgeTransactionTables, PlatformTables

X = TypeVar("X")
T = TypeVar("T")

WORKERS = 8
"""Connections for commands; as many again for queries."""

TRIES = 8
"""How often a command is run that meets conflicts. Each try sees what the others committed."""

MAX_WAITING = 4096
"""Most commands, and most queries, that may wait before new ones are refused."""

ISOLATION: LiteralString = "READ COMMITTED"
"""Of commands. Nothing rests on a higher one; a test holds safety at SERIALIZABLE too."""

_LOCK = " FOR UPDATE"
_NO_LOCK = ""
_TABLES: dict[Kind, Callable[[Statements, str], Any]] = {
    "platform": PlatformTables,
    "edge": lambda connection, lock: EdgeTransactionTables(connection),
}


class PostgresStore(Generic[X]):
    """A store in one schema of a database. Use ``open``; then ``async with``, or ``close``."""

    def __init__(
        self, address: str, schema: str, tables: Callable[[Statements, str], X], workers: int
    ) -> None:
        """Start the workers of a schema that was migrated."""

        def crew(name: str, lock: str) -> _Crew[X]:
            return _Crew(
                lambda: connect(address, schema),
                lambda connection: tables(Statements(connection), lock),
                workers,
                f"store-{name}",
            )

        self._commands, self._queries = crew("command", _LOCK), crew("query", _NO_LOCK)
        self._closed = False

    @overload
    @classmethod
    def open(
        cls, address: str, kind: Literal["platform"], *, schema: str = ..., workers: int = ...
    ) -> PostgresStore[Transaction]: ...

    @overload
    @classmethod
    def open(
        cls, address: str, kind: Literal["edge"], *, schema: str = ..., workers: int = ...
    ) -> PostgresStore[EdgeTransaction]: ...

    @classmethod
    def open(
        cls, address: str, kind: Kind, *, schema: str = "rxoutflow", workers: int = WORKERS
    ) -> PostgresStore[Any]:
        """Open a store, creating or migrating its schema if need be. Blocks for some milliseconds.

        Raises:
            StoreError: the database cannot be reached, holds a store of another kind or a newer
                release in this schema, or would acknowledge what is not on its disk.
        """
        try:
            with connect(address, schema) as connection:
                migrate(connection, schema, kind)
        except psycopg.Error as error:
            raise StoreError(
                f"the database cannot be used: {described(error)};"
                " check its address, its user's rights, and that it runs"
            ) from None
        return cls(address, schema, _TABLES[kind], workers)

    async def transact(self, command: Callable[[X], T]) -> T:
        """Run a command and commit it durably before returning. Exceptions undo it.

        Raises:
            Refusal: OVERLOADED; the command was not run.
            Unavailable: STORE_UNAVAILABLE; whether the command took effect is not known.
            InvariantBroken: the command broke a constraint; it was undone.
        """
        self._require_open()
        return await self._commands.carry_out(_changing, command)

    async def read(self, query: Callable[[X], T]) -> T:
        """Run a query on a consistent snapshot; it must not write.

        Raises:
            Refusal: OVERLOADED.
            Unavailable: STORE_UNAVAILABLE.
            InvariantBroken: the query tried to write.
        """
        self._require_open()
        return await self._queries.carry_out(_looking, query)

    async def close(self) -> None:
        """Finish what waits and close the connections."""
        if not self._closed:
            self._closed = True
            await self._commands.close()
            await self._queries.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise unavailable()


class _Place(local, Generic[X]):
    """What one worker thread holds: its connection, and the tables on it."""

    connection: psycopg.Connection | None = None
    tables: X


_Way = Callable[[psycopg.Connection, X, Callable[[X], Any]], Any]


class _Crew(Generic[X]):
    """Worker threads with a connection each, and what waits for them."""

    def __init__(
        self,
        connect_one: Callable[[], psycopg.Connection],
        tables: Callable[[psycopg.Connection], X],
        workers: int,
        name: str,
    ) -> None:
        self._connect = connect_one
        self._tables = tables
        self._place: _Place[X] = _Place()
        self._opened: list[psycopg.Connection] = []
        self._waiting = 0
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)

    async def carry_out(self, way: _Way[X], work: Callable[[X], T]) -> T:
        """Have a worker do it; what it raises is what the caller may hear."""
        if self._waiting >= MAX_WAITING:
            raise Refusal(
                Reason.OVERLOADED,
                "too many requests wait for the records; nothing was done, try again later",
            )
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._tried, way, work)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Finish what waits and close the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
        for connection in self._opened:
            connection.close()

    def _tried(self, way: _Way[X], work: Callable[[X], T]) -> T:
        for final in [False] * (TRIES - 1) + [True]:
            try:
                result: T = self._once(way, work)
            except Exception as error:
                if final or not is_worth_another_try(error):
                    raise for_caller(error) from error.__cause__
            else:
                return result
        raise InvariantBroken("a command was tried neither well nor badly")

    def _once(self, way: _Way[X], work: Callable[[X], T]) -> T:
        place = self._place
        if place.connection is None or place.connection.closed:
            place.connection = self._connect()
            place.tables = self._tables(place.connection)
            self._opened.append(place.connection)
        try:
            result: T = way(place.connection, place.tables, work)
        except Exception as error:
            if is_gone(error):
                with suppress(psycopg.Error):
                    place.connection.close()
            raise
        return result


def _changing(connection: psycopg.Connection, tables: X, command: Callable[[X], T]) -> T:
    connection.execute(f"BEGIN ISOLATION LEVEL {ISOLATION}")
    try:
        result = command(tables)
    except BaseException:
        _roll_back(connection)
        raise
    _commit(connection)
    return result


def _looking(connection: psycopg.Connection, tables: X, query: Callable[[X], T]) -> T:
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        return query(tables)
    finally:
        _roll_back(connection)


def _commit(connection: psycopg.Connection) -> None:
    """Commit, or say that nobody knows: an answer that was lost, or a replica that did not answer.

    Raises:
        Unavailable: whether it is committed is not known.
    """
    notices: list[str | None] = []

    def heard(diagnostic: Any) -> None:  # noqa: ANN401 - psycopg's own Diagnostic has no public type
        notices.append(diagnostic.sqlstate)

    connection.add_notice_handler(heard)
    try:
        connection.execute("COMMIT")
    except psycopg.Error as error:
        if is_worth_another_try(error):
            raise
        connection.close()
        raise unavailable() from error
    finally:
        connection.remove_notice_handler(heard)
    if _WARNED & set(notices):
        raise unavailable()


_WARNED: set[str | None] = {"01000"}
"""A commit that was cancelled while it waited for its replica succeeds here, with a warning."""


def _roll_back(connection: psycopg.Connection) -> None:
    with suppress(psycopg.Error):  # a connection that is lost has rolled back by itself
        connection.execute("ROLLBACK")
