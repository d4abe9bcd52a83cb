"""What the tables need of a database connection, and how they say that a row went wrong.

Adapters give a connection whose transaction they control. ``lock`` is what they append to the
loads that precede a change: empty where there is one writer, ``" FOR UPDATE"`` where rows are
locked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from rxoutflow_server.domain.errors import InvariantBroken

Value: TypeAlias = str | int | bytes | None
Row: TypeAlias = tuple[Any, ...]


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows a change touched."""

    def fetchone(self) -> Row | None:
        """The next row, or None."""

    def fetchall(self) -> list[Row]:
        """All rows that are left."""


class Connection(Protocol):
    """A connection in a transaction that somebody else begins and ends."""

    def execute(self, sql: str, parameters: Sequence[Value] = ..., /) -> Cursor:
        """Run one statement with ``?`` placeholders."""


class LateCursor(ABC):
    """A result that is not there yet, and that an expectation need not wait for."""

    __slots__ = ()

    @abstractmethod
    def expect_one(self, what: str) -> None:
        """Break the transaction before it is committed, unless the change touched one row."""


def not_the_one(what: str) -> InvariantBroken:
    """The row of a change is not there, or a newer state has been stored since it was loaded."""
    return InvariantBroken(f"{what} was saved, but is not there or was changed since")


def require_one(cursor: Cursor, what: str) -> None:
    """Hold a change to the one row that it was meant for.

    Raises:
        InvariantBroken: the row is not there, or a newer state has been stored since it was loaded.
    """
    if isinstance(cursor, LateCursor):
        cursor.expect_one(what)
    elif cursor.rowcount != 1:
        raise not_the_one(what)
