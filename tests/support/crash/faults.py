"""A disk that fails once, at a chosen operation, or is full from then on.

Besides failing it keeps account of what is durable, as a recording does. After a sync that failed,
what was on its way is lost or not, and no later sync brings it back.
"""

from __future__ import annotations

import sqlite3
from enum import StrEnum
from pathlib import Path
from random import Random

from support.crash.disk import Disk, Image
from support.crash.vfs import Kind, Operation

_ERRORS = {
    Kind.OPEN: sqlite3.SQLITE_CANTOPEN,
    Kind.READ: sqlite3.SQLITE_IOERR_READ,
    Kind.WRITE: sqlite3.SQLITE_IOERR_WRITE,
    Kind.TRUNCATE: sqlite3.SQLITE_IOERR_TRUNCATE,
    Kind.SYNC: sqlite3.SQLITE_IOERR_FSYNC,
    Kind.DELETE: sqlite3.SQLITE_IOERR_DELETE,
}
_CHANGES = (Kind.WRITE, Kind.TRUNCATE, Kind.SYNC, Kind.DELETE)


class Fault(StrEnum):
    """What is wrong with the disk."""

    ERROR = "an error once"
    FULL = "full from then on"


class FaultyDisk:
    """A watch of one folder, in which an operation fails: the one with this number, from one."""

    def __init__(self, image: Image, fault: Fault, at: int, choice: Random) -> None:
        self.disk = Disk(image)
        self.failed: Kind | None = None
        self.operations = 0
        self.changes_afterwards = 0
        self._fault, self._at, self._choice = fault, at, choice

    def before(self, kind: Kind, path: Path) -> int:
        """The error of the operation, if it is to fail."""
        self.operations += 1
        if self.failed is None:
            return self._begin(kind, path) if self.operations >= self._at else sqlite3.SQLITE_OK
        if self._fault is Fault.FULL and kind is Kind.WRITE:
            return sqlite3.SQLITE_FULL
        return sqlite3.SQLITE_OK

    def after(self, operation: Operation) -> None:
        """It was done."""
        self.disk.apply(operation)
        if self.failed is not None and operation.kind in _CHANGES:
            self.changes_afterwards += 1

    def _begin(self, kind: Kind, path: Path) -> int:
        """The first failure; a full disk waits for something to be written."""
        if self._fault is Fault.FULL:
            self.failed = kind if kind is Kind.WRITE else None
            return sqlite3.SQLITE_FULL if kind is Kind.WRITE else sqlite3.SQLITE_OK
        self.failed = kind
        if kind is Kind.SYNC:
            self.disk.lose_sync(path.name, self._choice)
        return _ERRORS[kind]
