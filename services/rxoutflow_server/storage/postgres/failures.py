"""What an error of PostgreSQL means for a command: try it again, a defect, or nobody knows.

Branches on SQLSTATE alone, never on the names of constraints or on texts. A commit of which the
answer was lost is *unknown*, and so is one whose replica did not confirm: the caller repeats with
the same request id and finds the stored outcome, if there is one.
"""

from __future__ import annotations

import psycopg

from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.errors import unavailable

_CONFLICTS = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available: lock_timeout
    }
)
_UNIQUE_VIOLATION = "23505"
"""Most likely another command was faster: seen again, this one replays its outcome or refuses."""

_CONSTRAINT = "23"
"""Class: integrity constraints, which may be deferred to the commit."""

_GONE = ("08", "57P0", "53")
"""Classes: connection exceptions, the server shuts down or recovers, it has no resources."""


def is_worth_another_try(error: BaseException) -> bool:
    """Whether the whole command may succeed when it is run again from the start."""
    taken = isinstance(error, psycopg.Error) and error.sqlstate == _UNIQUE_VIOLATION
    return taken or _is_conflict(error)


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, psycopg.Error) and error.sqlstate in _CONFLICTS


def is_undone(error: psycopg.Error) -> bool:
    """Whether an error in answer to COMMIT says that nothing was committed; others do not tell."""
    return _is_conflict(error) or (error.sqlstate or "").startswith(_CONSTRAINT)


def is_gone(error: BaseException) -> bool:
    """Whether the connection, or the server, is no longer there."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # the driver lost the connection before the server said anything
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_GONE)


def for_caller(error: Exception) -> Exception:
    """What the caller of a failed command hears: its own exception, but none of the driver's."""
    if is_gone(error) or _is_conflict(error):
        return unavailable()
    if isinstance(error, psycopg.Error | StopIteration):
        broken = InvariantBroken(f"the store refused a statement of a command: {error}")
        broken.__cause__ = error
        return broken
    return error


def described(error: psycopg.Error) -> str:
    """The server's words for an operator, without the address, which may hold a password."""
    said = error.diag.message_primary or type(error).__name__
    return f"{said} ({error.sqlstate})" if error.sqlstate else said
