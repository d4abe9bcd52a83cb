"""What a worker does with commands: together if it can, each alone if it must, again if it may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import psycopg
import structlog

from rxoutflow_server.storage.errors import StoreError, unavailable
from rxoutflow_server.storage.postgres.failures import (
    for_caller,
    is_gone,
    is_worth_another_try,
)
from rxoutflow_server.storage.postgres.session import Session, Unconfirmed, Unknown
from rxoutflow_server.storage.waiting import Job

log = structlog.get_logger()

X = TypeVar("X")
T = TypeVar("T")

TRIES = 8
"""How often a command is run that meets conflicts. Each try sees what the others committed."""

LOOKS = 2
"""How often a command is run again whose connection was lost, to find out what became of it."""


BeforeCommit: TypeAlias = Callable[[X], Callable[[], None]]
"""Called in each transaction that changed something, after its commands. What it returns is called
on the event loop once that is committed, before anybody is answered."""


PASSES = 4
"""How often a batch is run again without the command for which it was undone."""


class _Apart(Exception):
    """A command has to be run apart from its batch, which is undone.

    It was refused after it had changed something, or needed a row that somebody else has locked.
    """

    def __init__(self, job: Job[Any]) -> None:
        super().__init__()
        self.job = job


class Worker(Generic[X]):
    """One session at a time, opened anew when it is lost."""

    def __init__(
        self, session: Callable[[], Session[X]], before_commit: BeforeCommit[X] | None
    ) -> None:
        self._new_session = session
        self._before_commit = before_commit
        self._done: list[Callable[[], None]] = []
        self._session: Session[X] | None = None

    def carry_out(self, jobs: Sequence[Job[X]]) -> list[Callable[[], None]]:
        """Run the commands, and note at each job what became of it.

        Returns:
            What is to be called now that they are committed.
        """
        self._done = []
        rest, alone = list(jobs), list[Job[X]]()
        for _ in range(PASSES):
            if len(rest) > 1:
                rest, apart = self._together(rest)
                alone += apart
        for job in (*rest, *alone):
            self._safely(job)
        return self._done

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.close()

    def _together(self, jobs: Sequence[Job[X]]) -> tuple[list[Job[X]], list[Job[X]]]:
        """Run all in one transaction; those to be run again together, and those alone."""
        try:
            self._opened()
        except (psycopg.Error, StoreError):  # nor could any of them alone
            return _refuse(jobs)
        try:
            self._commit(lambda session: _one_by_one(session, jobs))
        except _Apart as met:
            _forget(jobs)
            return [job for job in jobs if job is not met.job], [met.job]
        except Exception as error:  # whatever it was: its own command meets it again, alone
            _forget(jobs)
            return ([], list(jobs)) if self._is_replicated(error) else _refuse(jobs)
        return [], []

    def _safely(self, job: Job[X]) -> None:
        """Run a command alone; whatever is wrong here, its caller is answered."""
        try:
            self._alone(job)
        except Exception as error:  # a defect of this package: the worker goes on
            log.exception("store_worker_failed", exception=type(error).__name__)
            job.error = unavailable()

    def _alone(self, job: Job[X]) -> None:
        tries, looks = TRIES, LOOKS
        while True:
            try:
                job.result = self._commit(lambda session: job.command(session.tables))
            except Exception as error:
                tries, looks = tries - _is_conflict(error), looks - _is_lost(error)
                again = _is_conflict(error) or _is_lost(error)
                if not again or not tries or looks < 0 or not self._is_replicated(error):
                    unknown = isinstance(error, Unknown | StoreError)
                    job.error = unavailable() if unknown else for_caller(error)
                    return
            else:
                return

    def _commit(self, work: Callable[[Session[X]], T]) -> T:
        session = self._opened()
        done: list[Callable[[], None]] = []

        def all_of_it() -> T:
            before = session.changes
            result = work(session)
            if self._before_commit is not None and session.changes != before:
                done.append(self._before_commit(session.tables))
            return result

        result = session.run(all_of_it)
        self._done += done
        return result

    def _is_replicated(self, error: BaseException) -> bool:
        """Whether what a command may find now is as safe as what it commits."""
        if not isinstance(error, Unconfirmed):
            return True
        try:
            self._opened().confirm_replica()
        except (Unknown, psycopg.Error, StoreError):
            return False
        return True

    def _opened(self) -> Session[X]:
        if self._session is None or not self._session.is_open:
            self._session = self._new_session()
        return self._session


def _refuse(jobs: Sequence[Job[X]]) -> tuple[list[Job[X]], list[Job[X]]]:
    """Have every caller hear that it is not known; none is to be run again."""
    for job in jobs:
        job.error = unavailable()
    return [], []


def _forget(jobs: Sequence[Job[X]]) -> None:
    for job in jobs:
        job.result = job.error = None


def _one_by_one(session: Session[X], jobs: Sequence[Job[X]]) -> None:
    """Run commands in a transaction that waits for no row while it has locked others.

    So of two such transactions neither can wait for the other's rows, in whichever order their
    commands need them; what comes after the commands is locked in the same order by all.
    """
    session.hold_nothing_up()
    for job in jobs:
        before = session.changes
        try:
            job.result = job.command(session.tables)
        except psycopg.Error as error:
            if is_gone(error):
                raise
            raise _Apart(job) from error
        except Exception as error:
            if session.changes != before:
                raise _Apart(job) from error
            job.error = for_caller(error)
    session.be_patient()


def _is_conflict(error: BaseException) -> bool:
    return is_worth_another_try(error)


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, Unknown) or is_gone(error)
