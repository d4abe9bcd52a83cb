"""Opening the file: one process, safe settings, and a refusal to work without them.

A file is locked for one process through a lock file beside it. What a killed process left in the
machine's memory is made durable before anybody is answered from it. The writer's connection is the
only one that checkpoints: SQLite before 3.51.3 can corrupt a WAL database when one connection
checkpoints while another writes. Every setting that durability rests on is read back, because
SQLite ignores what a file system cannot do.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import TypeAlias

from rxoutflow_server.storage.errors import StoreError, StoreInUse

_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables; RETURNING came with 3.35
_CACHED_STATEMENTS = 256
_Settings: TypeAlias = dict[str, str | int]

_WRITER_SETTINGS: _Settings = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: an acknowledged commit survives a power cut
    "foreign_keys": 1,
    "busy_timeout": 10_000,  # milliseconds; only an operator's own tools can be in the way
    "wal_autocheckpoint": 0,  # the writer does it where it hears of errors
    "cache_size": -64_000,  # KiB
    "temp_store": 2,  # in memory, so that savepoints never spill into files
}
_READER_SETTINGS: _Settings = {
    "query_only": 1,
    "busy_timeout": 10_000,
    "wal_autocheckpoint": 0,
    "cache_size": -16_000,
    "temp_store": 2,
}


class FileLock:
    """The right of one process to write a store. It ends with the process at the latest."""

    def __init__(self, database: Path) -> None:
        """Take the lock of ``database``.

        Raises:
            StoreError: somebody else has it, or the directory cannot be written.
        """
        path = database.with_name(database.name + ".lock")
        try:
            self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{path}: {error.strerror}; create the directory and let the service write there"
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise StoreInUse(
                f"{database} is open in another process, which holds {path};"
                " stop that process, or give this one a database of its own"
            ) from None

    def release(self) -> None:
        """Let others open the store. The lock file stays: removing it would be a race."""
        os.close(self._descriptor)


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes and checkpoints.

    Raises:
        StoreError: SQLite is too old, or the file system does not allow what durability needs.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(
            f"this Python has SQLite {sqlite3.sqlite_version}; use one with 3.37 or newer"
        )
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    _sync_what_was_left(path)
    connection = _connected(path, "rw")
    _apply(connection, path, _WRITER_SETTINGS)
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # waits for nobody
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can neither write nor checkpoint; open the writer first."""
    connection = _connected(path, "ro")
    _apply(connection, path, _READER_SETTINGS)
    return connection


def _sync_what_was_left(path: Path) -> None:
    """Sync the files of a process that was killed between writing a commit and syncing it.

    SQLite takes such a commit for made, and answers to repeated requests would rest on it. It also
    takes a log that it finds for one that has its name in the directory for certain. No connection
    is open yet: closing a file ends all locks that the process has on it.
    """
    log = path.with_name(path.name + "-wal")
    for each in (log, path, path.parent):
        if each.exists():
            sync(each)


def sync(path: Path) -> None:
    """Make what was written to a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    # Transactions are begun and ended explicitly; threads take turns by construction.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )


def _apply(connection: sqlite3.Connection, path: Path, settings: _Settings) -> None:
    for name, wanted in settings.items():
        connection.execute(f"PRAGMA {name} = {wanted}")
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != wanted:
            connection.close()
            raise StoreError(
                f"{path}: {name} is {found!r}, but must be {wanted!r};"
                " put the database on a local disk with a file system that supports it"
            )
