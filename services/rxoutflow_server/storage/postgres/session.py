"""One connection at work: transactions on it, and what their failures mean.

A transaction is one or more commands between a BEGIN and a COMMIT. Nothing is answered before the
server has confirmed the COMMIT. When that answer is lost nobody knows: the session says so with
``Unknown``, and whoever asked for the commands runs them again, which finds their outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import psycopg

from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.known import Known
from rxoutflow_server.storage.postgres.appends import BatchWriter
from rxoutflow_server.storage.postgres.connection import LOCK_TIMEOUT_MS
from rxoutflow_server.storage.postgres.failures import is_gone, is_undone
from rxoutflow_server.storage.postgres.pipeline import Pipeline

X = TypeVar("X")
T = TypeVar("T")

MOMENT_MS = 100
"""Longest wait of a batch for a lock; before a server would look for a deadlock (1 s)."""

_WARNED = "01000"
"""A commit that was cancelled while it waited for its replica succeeds here, with a warning."""


_NOTHING_TO_REPLICATE = "SELECT pg_logical_emit_message(true, 'rxoutflow', '')"
"""Writes to the log of the database and nowhere else. Replicas confirm in order."""


_A_MOMENT = f"SET LOCAL lock_timeout TO {MOMENT_MS}"
_PATIENCE = f"SET LOCAL lock_timeout TO {LOCK_TIMEOUT_MS}"


class Unknown(Exception):
    """Whether a transaction was committed is not known."""


class Unconfirmed(Unknown):
    """A transaction was committed here, and the replica that has to confirm it did not."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a transaction of a kind begins and ends."""

    begin: str
    end: str

    @property
    def commits(self) -> bool:
        """Whether what it does is kept."""
        return self.end == "COMMIT"


QUERIES = Way("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "ROLLBACK")
"""One consistent snapshot; nothing can be written."""


class Session(Generic[X]):
    """A connection, and the tables on it."""

    def __init__(
        self,
        connection: psycopg.Connection,
        tables: Callable[[Pipeline], X],
        way: Way,
        writer: BatchWriter,
        known: Known,
    ) -> None:
        """Take a connection over that is idle; ``known`` is what sessions share."""
        self._connection = connection
        self._pipeline = Pipeline(connection, writer, known)
        self.tables = tables(self._pipeline)
        self._way = way
        self._warnings: list[str | None] = []
        connection.add_notice_handler(lambda said: self._warnings.append(said.sqlstate))

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return not self._connection.closed

    @property
    def changes(self) -> int:
        """How many statements were sent that may change something."""
        return self._pipeline.changes

    def run(self, work: Callable[[], T]) -> T:
        """Do the work in a transaction, and end it as its way is.

        Raises:
            Unknown: whether it was committed is not known.
            psycopg.Error: it was not committed.
            Exception: what the work raised; it was not committed.
        """
        self._pipeline.begin(self._way.begin)
        try:
            result = work()
            self._pipeline.send_gathered()
            self._pipeline.make_sure()
        except BaseException as error:
            self._undo(error)
            raise
        if self._way.commits:
            self._commit()
        else:
            self._pipeline.send(self._way.end)
            self._pipeline.let_go()
        self._pipeline.share_known()
        return result

    def hold_nothing_up(self) -> None:
        """From here on, fail rather than wait for what another transaction has locked.

        Rows that a command loads are refused at once. What is inserted or changed without having
        been loaded may have to wait for somebody else's row of the same key, for a moment.
        """
        if self._way.commits:
            self._pipeline.waits_for_rows = False
            self._pipeline.send(_A_MOMENT)

    def be_patient(self) -> None:
        """From here on, wait again."""
        if not self._pipeline.waits_for_rows:
            self._pipeline.waits_for_rows = True
            self._pipeline.send(_PATIENCE)

    def confirm_replica(self) -> None:
        """Wait until a replica, if one is to confirm commits, has everything that is stored here.

        Raises:
            Unknown: it did not confirm.
            psycopg.Error: likewise.
        """
        self.run(lambda: self._pipeline.execute(_NOTHING_TO_REPLICATE))

    def close(self) -> None:
        """Close the connection."""
        with suppress(psycopg.Error):
            self._connection.close()

    def _commit(self) -> None:
        """Commit, with everything that was sent and not looked at."""
        self._warnings.clear()
        answer = self._pipeline.send(self._way.end)
        try:
            self._pipeline.finish()
        except psycopg.Error as error:
            committing = answer.was_next_to_come
            self._undo(error)
            if is_gone(error) or (committing and not is_undone(error)):
                raise Unknown from error
            raise
        if _WARNED in self._warnings:
            raise Unconfirmed
        if answer.said != b"COMMIT":
            raise InvariantBroken("a transaction was committed in which a statement had failed")

    def _undo(self, error: BaseException) -> None:
        if is_gone(error) or not self.is_open:
            self.close()
            return
        try:
            self._pipeline.gathered.forget()
            self._pipeline.pass_over()
            self._pipeline.send("ROLLBACK")
            self._pipeline.finish()
        except psycopg.Error:  # the server undoes what a lost connection began
            self.close()
