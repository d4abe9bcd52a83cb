"""The store itself: ``transact`` and ``read`` for an event loop, on a few connections.

Commands are transactions at READ COMMITTED. Safety rests on row locks, constraints and guarded
updates, so several processes may work on one database. A command that met a conflict, or of which
nobody knows whether it took effect, is run again from the start: its decisions are functions of
what it loads, and what took effect left its outcome. When a connection is lost the next command
opens another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

import psycopg

from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.storage.errors import StoreError, unavailable
from rxoutflow_server.storage.known import Known
from rxoutflow_server.storage.postgres.appends import Arrays, Values
from rxoutflow_server.storage.postgres.connection import connect, plan_by_keys
from rxoutflow_server.storage.postgres.crew import MAX_BATCH, Crew
from rxoutflow_server.storage.postgres.failures import described
from rxoutflow_server.storage.postgres.pipeline import LOCK, Pipeline
from rxoutflow_server.storage.postgres.schema import migrate
from rxoutflow_server.storage.postgres.session import QUERIES, Session, Way
from rxoutflow_server.storage.postgres.tables import PostgresTables
from rxoutflow_server.storage.postgres.worker import BeforeCommit
from rxoutflow_server.storage.tables.schema import Kind
from rxoutflow_server.storage.tables.transaction import EdgeTransactionTables

X = TypeVar("X")
T = TypeVar("T")

WORKERS = 1
"""Connections for commands; as many again for queries."""


@dataclass(frozen=True, slots=True)
class Options:
    """What depends on the database."""

    workers: int = WORKERS
    """Connections for commands; as many again for queries."""
    distributed: bool = False
    """Rows are spread over machines by their keys: a transaction to a command, no arrays."""


DEFAULTS = Options()

ISOLATION = "READ COMMITTED"
"""Of commands. Nothing rests on a higher one; a test holds safety at SERIALIZABLE too."""

_NO_LOCK = ""
_TABLES: dict[Kind, Callable[[Pipeline, str], Any]] = {
    "platform": PostgresTables,
    "edge": lambda connection, lock: EdgeTransactionTables(connection),
}


class PostgresStore(Generic[X]):
    """A store in one schema of a database. Use ``open``; then ``async with``, or ``close``."""

    def __init__(
        self,
        address: str,
        schema: str,
        tables: Callable[[Pipeline, str], X],
        options: Options,
        before_commit: BeforeCommit[X] | None,
    ) -> None:
        """Start the workers of a schema that was migrated."""
        known = Known()

        def session(lock: str, way: Way) -> Session[X]:
            writer = Values() if options.distributed else Arrays()
            connection = connect(address, schema)
            if not options.distributed:
                plan_by_keys(connection)
            return Session(connection, lambda each: tables(each, lock), way, writer, known)

        commands = Way(f"BEGIN ISOLATION LEVEL {ISOLATION}", "COMMIT")
        self._commands: Crew[X] = Crew(
            lambda: session(LOCK, commands),
            options.workers,
            "store-command",
            max_batch=1 if options.distributed else MAX_BATCH,
            before_commit=before_commit,
        )
        self._queries: Crew[X] = Crew(
            lambda: session(_NO_LOCK, QUERIES), options.workers, "store-query"
        )
        self._closed = False

    @overload
    @classmethod
    def open(
        cls,
        address: str,
        kind: Literal["platform"],
        *,
        schema: str = ...,
        options: Options = ...,
        before_commit: BeforeCommit[Transaction] | None = ...,
    ) -> PostgresStore[Transaction]: ...

    @overload
    @classmethod
    def open(
        cls,
        address: str,
        kind: Literal["edge"],
        *,
        schema: str = ...,
        options: Options = ...,
    ) -> PostgresStore[EdgeTransaction]: ...

    @classmethod
    def open(
        cls,
        address: str,
        kind: Kind,
        *,
        schema: str = "rxoutflow",
        options: Options = DEFAULTS,
        before_commit: BeforeCommit[Any] | None = None,
    ) -> PostgresStore[Any]:
        """Open a store, creating or migrating its schema if need be. Blocks for some milliseconds.

        ``before_commit`` is called in each transaction that changed something, after its commands,
        on a worker's thread; what it returns is called on the event loop once that is committed.
        A platform's log grows there.

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
        return cls(address, schema, _TABLES[kind], options, before_commit)

    async def transact(self, command: Callable[[X], T]) -> T:
        """Run a command and commit it durably before returning. Exceptions undo it.

        Raises:
            Refusal: OVERLOADED; the command was not run.
            Unavailable: STORE_UNAVAILABLE; whether the command took effect is not known.
            InvariantBroken: the command broke a constraint; it was undone.
        """
        self._require_open()
        return await self._commands.carry_out(command)

    async def read(self, query: Callable[[X], T]) -> T:
        """Run a query on a consistent snapshot; it must not write.

        Raises:
            Refusal: OVERLOADED.
            Unavailable: STORE_UNAVAILABLE.
            InvariantBroken: the query tried to write.
        """
        self._require_open()
        return await self._queries.carry_out(query)

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
