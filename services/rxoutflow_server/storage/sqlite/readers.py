"""Queries beside the writer: a few read-only connections, each query on a snapshot of its own.

A query sees everything that was answered before it began, and nothing of a batch that is not
committed. It cannot write.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, TypeVar

from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.sqlite.connection import open_reader, sync
from rxoutflow_server.storage.sqlite.failures import is_write_in_query

X = TypeVar("X")
T = TypeVar("T")

_CONNECTIONS = 3


class Readers(Generic[X]):
    """A pool of threads with as many read-only connections."""

    def __init__(self, path: Path, tables: Callable[[sqlite3.Connection], X]) -> None:
        """Open the connections; the writer's must be open."""
        self._idle: SimpleQueue[tuple[sqlite3.Connection, X]] = SimpleQueue()
        for _ in range(_CONNECTIONS):
            connection = open_reader(path)
            self._idle.put((connection, tables(connection)))
        self._threads = ThreadPoolExecutor(_CONNECTIONS, "store-reader")

    def submit(self, query: Callable[[X], T]) -> Future[T]:
        """Run a query on a snapshot.

        The future raises InvariantBroken if the query writes, or sqlite3.Error.
        """
        return self._threads.submit(self._run, query)

    def copy_to(self, target: Path) -> Future[None]:
        """Copy the whole database as it is now. The future raises StoreError."""
        return self._threads.submit(self._copy, target)

    def close(self) -> None:
        """Let running queries end, then close all connections. Blocks."""
        self._threads.shutdown()
        for _ in range(_CONNECTIONS):
            connection, _tables = self._idle.get()
            connection.close()

    def _run(self, query: Callable[[X], T]) -> T:
        connection, tables = self._idle.get()
        try:
            connection.execute("BEGIN")
            try:
                return query(tables)
            finally:
                if connection.in_transaction:  # trouble may have ended it
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            if is_write_in_query(error):
                raise InvariantBroken("a query tried to write; use a command") from error
            raise
        finally:
            self._idle.put((connection, tables))

    def _copy(self, target: Path) -> None:
        connection, tables = self._idle.get()
        try:
            copy_database(connection, target)
        finally:
            self._idle.put((connection, tables))


Progress = Callable[[int, int], None]
"""Told while something is copied: how much is done, of how much."""

_PAGES_AT_ONCE = 4096


def copy_database(
    connection: sqlite3.Connection, target: Path, progress: Progress | None = None
) -> None:
    """Copy a database into a new file, which appears only when it is complete and on the disk.

    With ``progress`` it is copied in parts, so the connection must be in a transaction: a copy
    begins anew whenever its source has changed between two parts.

    Raises:
        StoreError: ``target`` exists or cannot be written.
    """
    partial = target.with_name(target.name + ".partial")
    if target.exists():
        raise StoreError(f"{target} exists; name a file that does not")
    try:
        _copy_into(partial, connection, progress)
        partial.rename(target)
        sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"{partial}: {error}; there is no backup, choose a directory with enough free space"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _copy_into(partial: Path, connection: sqlite3.Connection, progress: Progress | None) -> None:
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(partial)) as copy:
        if progress is None:
            connection.backup(copy)
        else:
            connection.backup(
                copy,
                pages=_PAGES_AT_ONCE,
                progress=lambda _, left, pages: progress(pages - left, pages),
            )
        copy.execute("PRAGMA journal_mode = DELETE")
