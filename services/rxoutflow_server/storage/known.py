"""Statements that were kept or read lately, so that nobody need ask for them again.

A statement is found by its digest, never changes and is never deleted, and most of what a command
keeps was kept by an earlier one: it goes along with every call about its prescription. What a
transaction has kept is known to that transaction alone until it stands; what was undone is
forgotten. That a statement is *not* kept is never remembered. Where one was kept before with other
intermediate certificates, those bytes stay, and these are forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from threading import Lock
from typing import TypeAlias

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.storage.tables.connection import Connection
from rxoutflow_server.storage.tables.journal import JournalTables

Key: TypeAlias = tuple[str, bytes]
"""Prescription number and SHA-256."""

MOST = 4_096
"""Statements in memory, a few KiB each: those of some hundred prescriptions on their way."""


class KnownStatements:
    """What transactions that stand have kept or read; the threads of a store share it."""

    def __init__(self, most: int = MOST) -> None:
        """``most`` is how many are remembered; the longest known are forgotten first."""
        self._most = most
        self._statements: dict[Key, bytes] = {}
        self._lock = Lock()

    def get(self, key: Key) -> bytes | None:
        """A statement, if it is remembered."""
        return self._statements.get(key)

    def add(self, statements: Mapping[Key, bytes]) -> None:
        """Remember what stands."""
        with self._lock:
            self._statements.update(statements)
            while len(self._statements) > self._most:
                del self._statements[next(iter(self._statements))]


class StatementsHere:
    """What transactions know that come one after the other, on one connection."""

    def __init__(self, known: KnownStatements) -> None:
        """``known`` is what all of them share."""
        self._known = known
        self._read: dict[Key, bytes] = {}
        self._kept: dict[Key, bytes] = {}

    def begin(self) -> None:
        """A new transaction: nothing of the one before is its own."""
        self._read, self._kept = {}, {}

    def get(self, key: Key) -> bytes | None:
        """A statement that was kept for good, or by this transaction."""
        return self._known.get(key) or self._read.get(key) or self._kept.get(key)

    def note(self, key: Key, statement: bytes) -> None:
        """Note a statement as it is kept: this transaction has read it, or has added it."""
        self._read[key] = statement

    def note_kept(self, key: Key, statement: bytes) -> None:
        """Note what this transaction is to keep, unless it was kept before."""
        self._kept.setdefault(key, statement)

    def share(self, added: Collection[Key] = ()) -> None:
        """The transaction stands; of what it was to keep, this had not been kept before."""
        new = {key: self._kept[key] for key in added if key in self._kept}
        if self._read or new:
            self._known.add(self._read | new)


class RememberingJournal(JournalTables):
    """The port ``Journal`` for those who write, which asks for no statement that is known."""

    def __init__(self, connection: Connection, statements: StatementsHere, lock: str = "") -> None:
        """``statements`` hears from whoever runs transactions what becomes of each."""
        super().__init__(connection, lock)
        self._statements = statements

    def keep_statement(
        self, number: str, sha256: bytes, statement: SignedStatement, time: datetime
    ) -> bool:
        """Keep a statement byte for byte; false if it was kept before, which changes nothing."""
        key = (number, sha256)
        if self._statements.get(key) is not None:
            return False
        kept = statement.SerializeToString()
        added = self.keep_bytes(number, sha256, statement.payload_type, kept, time)
        if added:  # else the bytes from then stay, which can have other intermediate certificates
            self._statements.note(key, kept)
        return added

    def find_statement(self, number: str, sha256: bytes) -> SignedStatement | None:
        """A statement, if it was kept."""
        key = (number, sha256)
        kept = self._statements.get(key)
        if kept is None:
            kept = self.find_bytes(number, sha256)
            if kept is None:
                return None
            self._statements.note(key, kept)
        return SignedStatement.FromString(kept)
