"""A platform's records for an operator's tools: to look at, or to write as their only user.

Looking needs no stop: it sees consistent snapshots beside the service and cannot write. Writing
takes the place of the service: a file is locked for one process, and of a database nobody else may
be connected to the schema. It is one transaction, so it happens as a whole or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rxoutflow_server.storage.errors import StoreError
from rxoutflow_server.storage.known import Known, reading_journal
from rxoutflow_server.storage.platform_stores import Database, StorePlace, driver_needed
from rxoutflow_server.storage.sqlite.connection import FileLock, open_reader, open_writer
from rxoutflow_server.storage.sqlite.failures import not_a_store
from rxoutflow_server.storage.sqlite.readers import copy_database
from rxoutflow_server.storage.sqlite.schema import require_present
from rxoutflow_server.storage.tables.connection import Connection
from rxoutflow_server.storage.tables.recorded import RecordedTables
from rxoutflow_server.storage.tables.transaction import PlatformTables


@dataclass(frozen=True, slots=True)
class Records:
    """All tables of a platform on one connection that somebody else begins and ends."""

    connection: Connection
    tables: PlatformTables
    recorded: RecordedTables

    @classmethod
    def on(cls, connection: Connection) -> Records:
        """The tables of a connection."""
        journal = reading_journal(connection, Known())
        return cls(
            connection,
            PlatformTables(connection, journal=journal),
            RecordedTables(connection, journal.certificates),
        )

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See one state of everything, and none that comes later."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("ROLLBACK")


@contextmanager
def looking(place: StorePlace) -> Iterator[Records]:
    """A platform's records, for reading only, beside the service that may be running.

    Raises:
        StoreError: there are none, or they are of another kind or release.
    """
    if isinstance(place, Database):
        with driver_needed():
            from rxoutflow_server.storage.postgres.maintenance import looking_at
        with looking_at(place.address, place.schema) as connection:
            yield Records.on(connection)
        return
    if not place.is_file():
        raise StoreError(f"{place} does not exist; name the configuration of a platform that ran")
    try:
        with closing(open_reader(place)) as connection:
            require_present(connection, place, "platform")
            yield Records.on(connection)
    except sqlite3.Error as error:
        raise not_a_store(place, error) from error


@contextmanager
def writing(place: StorePlace, backup: Path | None) -> Iterator[Records]:
    """A platform's records, to be written by nobody else, in one transaction.

    A file is copied to ``backup`` before; a database is backed up by its own means.

    Raises:
        StoreError: the service runs, there are no records of this release, or there is no place
            for the backup.
    """
    if isinstance(place, Database):
        with driver_needed():
            from rxoutflow_server.storage.postgres.maintenance import writing_to
        with writing_to(place.address, place.schema) as connection:
            yield Records.on(connection)
        return
    with locked(place), closing(open_writer(place)) as connection:
        require_present(connection, place, "platform")
        if backup is not None:
            copy_database(connection, backup)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield Records.on(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A file that no service has open, nor opens meanwhile.

    Raises:
        StoreError: it is open in another process, or does not exist.
    """
    if not path.is_file():
        raise StoreError(f"{path} does not exist; name the configuration of a platform that ran")
    lock = FileLock(path)
    try:
        yield
    finally:
        lock.release()
