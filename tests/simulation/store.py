"""The store of a simulated platform: the real tables, and a disk that forgets what was not synced.

Commands run as in ``storage/sqlite/writer.py``: all that wait go into one transaction, each in a
savepoint of its own, and nobody is answered before the sync that ends it. One batch is under way at
a time. Queries have a connection of their own and see what was synced, nothing else.

The file survives a crash; what was not synced does not. It lies in memory where the system has a
file system there, and is removed with the run.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar

from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.storage.errors import unavailable
from rxoutflow_server.storage.sqlite.failures import for_caller, is_trouble
from rxoutflow_server.storage.sqlite.schema import migrate
from rxoutflow_server.storage.tables.transaction import PlatformTables
from simulation.loop import Process, VirtualLoop
from support.places import memory

T = TypeVar("T")

_PREFIX = "rxoutflow-simulation-"
_CACHED_STATEMENTS = 256


class Watcher(Protocol):
    """Who looks at what a store does."""

    def tables(self, connection: sqlite3.Connection) -> PlatformTables:
        """The tables on the connection that writes."""

    def executed(self, commands: int) -> None:
        """Commands have run; they are not synced."""

    def undone(self) -> None:
        """The last command, or all that was not synced, has been undone."""

    def synced(self) -> None:
        """What has run is durable; nobody has been answered yet."""


def _place() -> Path:
    return memory() or Path(tempfile.gettempdir())


@cache
def _clear_away_what_is_left() -> None:
    """Delete the files of runs whose process was killed."""
    for folder in _place().glob(f"{_PREFIX}*-*"):
        process = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and not _runs(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether there is such a process; signal 0 is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def _template() -> bytes:
    """A migrated, empty database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template"
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("PRAGMA journal_mode = wal")
        migrate(connection, path, "platform")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return path.read_bytes()


class Disks:
    """Where the files of a run lie."""

    def __init__(self) -> None:
        _clear_away_what_is_left()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_place()))

    def make(self, name: str) -> Disk:
        """An empty database."""
        path = self._folder / name
        path.write_bytes(_template())
        return Disk(path)

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._folder)


class Disk:
    """A platform's database, across its crashes."""

    def __init__(self, path: Path) -> None:
        self.writer = self._open(path)
        self.reader = self._open(path)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()

    def _open(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, isolation_level=None, cached_statements=_CACHED_STATEMENTS
        )
        # The file system is memory and its machine does not fail: what is durable is decided here.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection


@dataclass
class Speed:
    """How a disk behaves at present; seconds."""

    fastest: float = 0.001
    slowest: float = 0.02
    fails: bool = False
    crash_after_sync: bool = False


@dataclass
class _Job:
    command: Callable[[Any], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def answer(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


@dataclass
class SimulatedStore:
    """The port ``Store`` for one run of a platform."""

    loop: VirtualLoop
    process: Process
    disk: Disk
    speed: Speed
    random: Random
    watcher: Watcher
    crash: Callable[[], None]
    before_commit: Callable[[Transaction], None]
    _queue: list[_Job] = field(default_factory=list)
    _busy: bool = False
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._tables = self.watcher.tables(self.disk.writer)
        self._synced = PlatformTables(self.disk.reader)

    async def transact(self, command: Callable[[Transaction], T]) -> T:
        """See the port ``Store``."""
        self._require_running()
        future: asyncio.Future[T] = self.loop.create_future()
        self._queue.append(_Job(command, future))
        if not self._busy:
            self._busy = True
            self.loop.call_later(self._pause(0.1), self._run)
        return await future

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """See the port ``Store``."""
        self._require_running()
        await asyncio.sleep(self._pause(0.1))
        self._require_running()
        return query(self._synced)

    def lose(self) -> None:
        """The machine stops: what was not synced is gone."""
        self._stopped = True
        if self.disk.writer.in_transaction:
            self.disk.writer.execute("ROLLBACK")
            self.watcher.undone()

    def _run(self) -> None:
        """Run all that waits, in one transaction."""
        if not self.process.alive:
            return
        jobs, self._queue = self._queue, []
        self.disk.writer.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if not job.future.cancelled():
                self._try(job)
        self.before_commit(self._tables)
        self.watcher.executed(len(jobs))
        if self.process.alive:
            self.loop.call_later(self._pause(1.0), self._sync, jobs)

    def _try(self, job: _Job) -> None:
        connection = self.disk.writer
        connection.execute("SAVEPOINT command")
        try:
            job.result = job.command(self._tables)
        except Exception as error:
            if is_trouble(error):
                raise
            job.error = for_caller(error)
            connection.execute("ROLLBACK TO command")
            self.watcher.undone()
        connection.execute("RELEASE command")

    def _sync(self, jobs: list[_Job]) -> None:
        if not self.process.alive:
            return
        if self.speed.fails:
            self._fail(jobs)
            return
        self.disk.writer.execute("COMMIT")
        self.watcher.synced()
        if self.speed.crash_after_sync:
            self.speed.crash_after_sync = False
            self.crash()
            return
        if not self.process.alive:
            return
        for job in jobs:
            job.answer()
        self._busy = bool(self._queue)
        if self._queue:
            self._run()

    def _fail(self, jobs: list[_Job]) -> None:
        """The disk reports an error: the batch is on it or is not, and nothing more is written."""
        self.speed.fails = False
        self._stopped = True
        if self.random.random() < 0.5:
            self.disk.writer.execute("COMMIT")
            self.watcher.synced()
        else:
            self.disk.writer.execute("ROLLBACK")
            self.watcher.undone()
        for job in (*jobs, *self._queue):
            job.result, job.error = None, unavailable()
            job.answer()
        self.loop.call_later(self._pause(1.0), self.crash)

    def _pause(self, share: float) -> float:
        speed = self.speed
        return share * self.random.uniform(speed.fastest, speed.slowest)

    def _require_running(self) -> None:
        if not self.process.alive:
            raise asyncio.CancelledError
        if self._stopped:
            raise unavailable()
