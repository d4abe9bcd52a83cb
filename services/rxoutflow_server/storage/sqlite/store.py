"""The store itself: ``transact`` and ``read`` for an event loop, on one writer and a few readers.

What ``transact`` returns is on the disk. A store belongs to one process and one event loop. It
refuses new work while too much waits, and when the disk fails it stops for good: ``on_failure``
tells the service to end, so that an operator looks before anything is written again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from rxoutflow_server.application.edge_ports import EdgeTransaction
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.storage.errors import StoreError, unavailable
from rxoutflow_server.storage.known import (
    Known,
    KnownHere,
    RememberingJournal,
    reading_journal,
)
from rxoutflow_server.storage.sqlite.connection import FileLock, open_writer
from rxoutflow_server.storage.sqlite.failures import (
    for_caller,
    for_operator,
    is_trouble,
    not_a_store,
)
from rxoutflow_server.storage.sqlite.readers import Readers
from rxoutflow_server.storage.sqlite.schema import migrate
from rxoutflow_server.storage.sqlite.writer import Writer
from rxoutflow_server.storage.tables.schema import Kind
from rxoutflow_server.storage.tables.transaction import EdgeTransactionTables, PlatformTables
from rxoutflow_server.storage.waiting import Job, require_room

X = TypeVar("X")
T = TypeVar("T")

OnFailure = Callable[[StoreError], None]
OnCommit = Callable[[int], None]


def _nothing_more(_tx: object) -> None:
    """What is done before a commit where nobody asks for anything."""


_TABLES: dict[Kind, Callable[..., Any]] = {
    "platform": PlatformTables,
    "edge": EdgeTransactionTables,
}


class SqliteStore(Generic[X]):
    """A store in one SQLite file. Use ``open``; then ``async with``, or ``close`` at the end."""

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        connection: sqlite3.Connection,
        tables: Callable[..., X],
        on_failure: OnFailure,
        on_commit: OnCommit,
        before_commit: Callable[[X], None],
    ) -> None:
        """Start the threads of a file that was opened, locked and migrated."""
        self._path = path
        self._lock = lock
        self._on_failure = on_failure
        self._stopped = False
        self._closed = False
        self._waiting_commands = 0
        self._waiting_queries = 0
        known = Known()
        here = KnownHere(known)
        self._readers = Readers(
            path, lambda each: tables(each, journal=reading_journal(each, known))
        )
        self._writer = Writer(
            connection,
            tables(connection, journal=RememberingJournal(connection, here)),
            here,
            before_commit=before_commit,
            on_batch=self._answer,
            on_commit=on_commit,
        )

    @overload
    @classmethod
    def open(
        cls,
        path: Path,
        kind: Literal["platform"],
        *,
        on_failure: OnFailure = ...,
        on_commit: OnCommit = ...,
        before_commit: Callable[[Transaction], None] = ...,
    ) -> SqliteStore[Transaction]: ...

    @overload
    @classmethod
    def open(
        cls,
        path: Path,
        kind: Literal["edge"],
        *,
        on_failure: OnFailure = ...,
        on_commit: OnCommit = ...,
    ) -> SqliteStore[EdgeTransaction]: ...

    @classmethod
    def open(
        cls,
        path: Path,
        kind: Kind,
        *,
        on_failure: OnFailure = lambda error: None,
        on_commit: OnCommit = lambda commands: None,
        before_commit: Callable[[Any], None] = _nothing_more,
    ) -> SqliteStore[Any]:
        """Open a store, creating or migrating it if need be. Blocks for some milliseconds.

        ``on_failure`` is called once, on the event loop, when the store stops. ``on_commit`` is
        called on the writer's thread with the number of commands in each commit, ``before_commit``
        on the same thread and within the transaction: a platform's log grows there.

        Raises:
            StoreError: another process has it open, it is of another kind or a newer release, or
                the file system does not allow what durability needs.
        """
        with ExitStack() as undo:
            lock = FileLock(path)
            undo.callback(lock.release)
            try:
                connection = open_writer(path)
                undo.callback(connection.close)
                migrate(connection, path, kind)
                tables = _TABLES[kind]
                store = cls(path, lock, connection, tables, on_failure, on_commit, before_commit)
            except (sqlite3.Error, OSError) as error:
                raise not_a_store(path, error) from error
            undo.pop_all()
        return store

    async def transact(self, command: Callable[[X], T]) -> T:
        """Run a command and commit it durably before returning. Exceptions undo it.

        Raises:
            Refusal: OVERLOADED; the command was not run.
            Unavailable: STORE_UNAVAILABLE; whether the command took effect is not known.
            InvariantBroken: the command broke a constraint; it was undone.
        """
        self._require_open()
        require_room(self._waiting_commands)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting_commands += 1
        self._writer.submit(Job(command, future))
        return await future

    async def read(self, query: Callable[[X], T]) -> T:
        """Run a query on a consistent snapshot; it must not write.

        Raises:
            Refusal: OVERLOADED.
            Unavailable: STORE_UNAVAILABLE.
            InvariantBroken: the query tried to write.
        """
        self._require_open()
        require_room(self._waiting_queries)
        self._waiting_queries += 1
        try:
            return await self._heard(self._readers.submit(query))
        finally:
            self._waiting_queries -= 1

    async def backup(self, target: Path) -> None:
        """Copy the store, as it is now, into a new file while it is at work.

        The copy is a store like any other: put it in the place of a lost one and open it.

        Raises:
            StoreError: ``target`` exists or cannot be written.
        """
        self._require_open()
        await asyncio.wrap_future(self._readers.copy_to(target))

    async def close(self) -> None:
        """Finish what waits, checkpoint, close, and let others open the file."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._readers.close)
        await loop.run_in_executor(None, self._writer.close)
        self._lock.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _heard(self, answer: Future[T]) -> T:
        try:
            return await asyncio.wrap_future(answer)
        except sqlite3.Error as error:
            if is_trouble(error):
                self._stop(error)
                raise unavailable() from error
            raise for_caller(error) from error

    def _answer(self, jobs: list[Job[X]], failure: BaseException | None) -> None:
        self._waiting_commands -= len(jobs)
        if failure is not None:
            self._stop(failure)
        for job in jobs:
            job.resolve()

    def _stop(self, error: BaseException) -> None:
        if not self._stopped:
            self._stopped = True
            self._on_failure(for_operator(self._path, error))

    def _require_open(self) -> None:
        if self._stopped or self._closed:
            raise unavailable()
