"""The one thread that writes: it takes every command that waits and commits them together.

No timer and no window: while one commit is on its way to the disk the next batch gathers, so a slow
disk costs latency and not rate. Each command runs in a savepoint of its own; its exception undoes
it alone and reaches its caller alone. When SQLite reports trouble, nothing is retried: every
command that waits, and every later one, is answered ``Unavailable``.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from rxoutflow_server.storage.errors import unavailable
from rxoutflow_server.storage.known import KnownHere
from rxoutflow_server.storage.sqlite.failures import for_caller, is_trouble
from rxoutflow_server.storage.waiting import Job, take

X = TypeVar("X")

CHECKPOINT_ROWS = 10_000
"""Changed rows after which the log is moved into the database: some 16 MiB of log."""

MAX_BATCH = 256
"""Most commands in one commit: bounds how long the first of them waits for the last."""


_LEFT_OPEN: list[sqlite3.Connection] = []


class Writer(Generic[X]):
    """Runs jobs on a connection of its own, in the order in which they were submitted.

    ``before_commit`` is called within each transaction, after its commands: what it writes is
    committed with them, and if it raises, nothing is. ``on_batch`` is called on the event loop of
    the jobs with each batch that was answered, and with the error if it failed. ``on_commit`` is
    called on the writer's thread with the number of commands in each commit; it must be quick.
    ``known`` is told when a command begins and when one stands.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        transaction: X,
        known: KnownHere,
        *,
        before_commit: Callable[[X], None],
        on_batch: Callable[[list[Job[X]], BaseException | None], None],
        on_commit: Callable[[int], None],
    ) -> None:
        """Start the thread."""
        self._connection = connection
        self._transaction = transaction
        self._known = known
        self._before_commit = before_commit
        self._on_batch = on_batch
        self._on_commit = on_commit
        self._queue: SimpleQueue[Job[X] | None] = SimpleQueue()
        self._failure: BaseException | None = None
        self._moved_at = connection.total_changes
        # A daemon, so that a process can end without closing: what was answered is on the disk.
        self._thread = Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job[X]) -> None:
        """Queue a job. Returns at once."""
        self._queue.put(job)

    def close(self) -> None:
        """Run what waits, checkpoint, close the connection. Blocks until that is done."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            jobs, closing = take(self._queue, MAX_BATCH)
            self._carry_out(jobs)
            self._answer(jobs)
            if jobs and self._moved_at + CHECKPOINT_ROWS <= self._connection.total_changes:
                self._move_log(jobs[0].future.get_loop())
        self._close_connection()

    def _carry_out(self, jobs: list[Job[X]]) -> None:
        if self._failure is None and jobs:
            try:
                self._commit(jobs)
            except BaseException as error:  # whatever it was, nobody may be left waiting
                self._failure = error
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
        if self._failure is not None:
            for job in jobs:
                job.error = unavailable()

    def _commit(self, jobs: list[Job[X]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if not job.future.cancelled():
                self._try(job)
        self._before_commit(self._transaction)
        self._connection.execute("COMMIT")
        self._on_commit(len(jobs))

    def _try(self, job: Job[X]) -> None:
        self._connection.execute("SAVEPOINT command")
        self._known.begin()
        try:
            job.result = job.command(self._transaction)
        except Exception as error:
            if is_trouble(error):
                raise
            job.error = for_caller(error)
            self._connection.execute("ROLLBACK TO command")
        else:
            # Believed before the batch is committed: if that fails, the store stops for good.
            self._known.share()
        self._connection.execute("RELEASE command")

    def _answer(self, jobs: list[Job[X]]) -> None:
        if not jobs:
            return
        with suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            jobs[0].future.get_loop().call_soon_threadsafe(self._on_batch, jobs, self._failure)

    def _move_log(self, loop: asyncio.AbstractEventLoop) -> None:
        """Move the log into the database, after everybody was answered.

        SQLite would do it by itself within a commit, but would not tell when the disk fails there.
        """
        self._moved_at = self._connection.total_changes
        if self._failure is not None:
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # waits for nobody
        except sqlite3.Error as error:
            self._failure = error
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._on_batch, [], error)

    def _close_connection(self) -> None:
        if self._failure is not None:
            # SQLite moves the log when the last connection closes; a failing disk is left alone.
            _LEFT_OPEN.append(self._connection)
            return
        with suppress(sqlite3.Error):  # the write-ahead log holds whatever is not checkpointed
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
