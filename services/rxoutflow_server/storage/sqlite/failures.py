"""Which errors of SQLite are a defect in one command, and which mean that the store must stop.

After trouble with the disk nobody knows what a later commit would rest on, so a store does not
retry: it answers ``Unavailable`` and waits to be opened anew. Errors of the driver never leave the
store; nor do its texts reach a caller.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.errors import StoreError

_DEFECTS = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)
_PRIMARY_CODE = 0xFF


def is_trouble(error: BaseException) -> bool:
    """Whether an error says that the file, the disk or the machine has failed, not one command."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE not in _DEFECTS


def is_write_in_query(error: BaseException) -> bool:
    """Whether a query has tried to write."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE == sqlite3.SQLITE_READONLY


def for_caller(error: Exception) -> Exception:
    """What the caller of a failed command hears: its own exception, but none of the driver's.

    ``StopIteration`` is a defect too: no future can carry it.
    """
    if isinstance(error, sqlite3.Error | StopIteration):
        broken = InvariantBroken(f"the store refused a statement of a command: {error}")
        broken.__cause__ = error
        return broken
    return error


def for_operator(path: Path, error: BaseException) -> StoreError:
    """What the operator hears when a store stops."""
    cause = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreError(
        f"{path}: {cause}: {error}; the store has stopped and nothing more is written;"
        " check the disk and its free space, then start the service again"
    )


def not_a_store(path: Path, error: Exception) -> StoreError:
    """What the operator hears when a file cannot be opened."""
    return StoreError(
        f"{path} cannot be opened as a store: {error}; restore it from a backup,"
        " or name a file that the service may create"
    )
