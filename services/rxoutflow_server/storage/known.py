"""Statements and certificates that were kept or read lately, so that nobody need ask again.

Both are found by a digest, never change and are never deleted, and most of what a command keeps
was kept by an earlier one: a statement goes along with every call about its prescription, a
certificate with every statement of its owner. What a transaction has kept is known to that
transaction alone until it stands; what was undone is forgotten. That something is *not* kept is
never remembered. Where a statement was kept before with other intermediate certificates, those
bytes stay, and these are forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from threading import Lock
from typing import Generic, TypeAlias, TypeVar

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.storage.tables.certificates import CertificateTables
from rxoutflow_server.storage.tables.connection import Connection
from rxoutflow_server.storage.tables.journal import JournalTables

Key: TypeAlias = tuple[str, bytes]
"""Prescription number and SHA-256."""

MOST = 4_096
"""Statements in memory, a few KiB each: those of some hundred prescriptions on their way."""

MOST_CERTIFICATES = 8_192
"""Certificates in memory, half a KiB each: of those who sign something in a day."""

K = TypeVar("K")


class Remembered(Generic[K]):
    """What transactions that stand have kept or read, by its key; threads share it."""

    def __init__(self, most: int) -> None:
        """``most`` is how many are remembered; the longest known are forgotten first."""
        self._most = most
        self._found: dict[K, bytes] = {}
        self._lock = Lock()

    def get(self, key: K, /) -> bytes | None:
        """What is kept under a key, if it is remembered."""
        return self._found.get(key)

    def note(self, key: K, kept: bytes, /) -> None:
        """Remember what somebody has read of what stands."""
        self.add({key: kept})

    def add(self, kept: Mapping[K, bytes]) -> None:
        """Remember what stands."""
        with self._lock:
            self._found.update(kept)
            while len(self._found) > self._most:
                del self._found[next(iter(self._found))]


class RememberedHere(Generic[K]):
    """What transactions know that come one after the other, on one connection."""

    def __init__(self, shared: Remembered[K]) -> None:
        """``shared`` is what all of them know."""
        self._shared = shared
        self._read: dict[K, bytes] = {}
        self._kept: dict[K, bytes] = {}

    def begin(self) -> None:
        """A new transaction: nothing of the one before is its own."""
        self._read, self._kept = {}, {}

    def get(self, key: K, /) -> bytes | None:
        """What was kept for good, or by this transaction."""
        return self._shared.get(key) or self._read.get(key) or self._kept.get(key)

    def note(self, key: K, kept: bytes, /) -> None:
        """Note something as it is kept: this transaction has read it, or has added it."""
        self._read[key] = kept

    def note_kept(self, key: K, kept: bytes) -> None:
        """Note what this transaction is to keep, unless it was kept before."""
        self._kept.setdefault(key, kept)

    def share(self, added: Collection[K] = ()) -> None:
        """The transaction stands; of what it was to keep, this had not been kept before."""
        new = {key: self._kept[key] for key in added if key in self._kept}
        if self._read or new:
            self._shared.add(self._read | new)


class Known:
    """What a store remembers; its threads share it."""

    def __init__(self) -> None:
        self.statements = Remembered[Key](MOST)
        self.certificates = Remembered[bytes](MOST_CERTIFICATES)


class KnownHere:
    """What transactions on one connection know of a store."""

    def __init__(self, known: Known) -> None:
        """``known`` is what all of them share."""
        self.statements = RememberedHere(known.statements)
        self.certificates = RememberedHere(known.certificates)

    def begin(self) -> None:
        """A new transaction: nothing of the one before is its own."""
        self.statements.begin()
        self.certificates.begin()

    def share(self, added: Collection[Key] = ()) -> None:
        """The transaction stands; of the statements it was to keep, these are new."""
        self.statements.share(added)
        self.certificates.share()


class RememberingJournal(JournalTables):
    """The port ``Journal`` for those who write, which asks for nothing that is known.

    ``known`` hears from whoever runs transactions what becomes of each.
    """

    def __init__(
        self,
        connection: Connection,
        known: KnownHere,
        lock: str = "",
        certificates: CertificateTables | None = None,
    ) -> None:
        super().__init__(
            connection, lock, certificates or CertificateTables(connection, known.certificates)
        )
        self._statements = known.statements

    def keep_statement(
        self, number: str, sha256: bytes, statement: SignedStatement, time: datetime
    ) -> bool:
        """Keep a statement byte for byte; false if it was kept before, which changes nothing."""
        key = (number, sha256)
        if self._statements.get(key) is not None:
            return False
        whole = statement.SerializeToString()
        added = self.keep_bytes(number, sha256, statement.payload_type, whole, time)
        if added:  # else the bytes from then stay, which can have other intermediate certificates
            self._statements.note(key, whole)
        return added

    def find_statement(self, number: str, sha256: bytes) -> SignedStatement | None:
        """A statement, if it was kept."""
        key = (number, sha256)
        whole = self._statements.get(key)
        if whole is None:
            whole = self.find_bytes(number, sha256)
            if whole is None:
                return None
            self._statements.note(key, whole)
        return SignedStatement.FromString(whole)


def reading_journal(connection: Connection, known: Known) -> JournalTables:
    """The port ``Journal`` for those who see what stands and write nothing."""
    return JournalTables(connection, certificates=CertificateTables(connection, known.certificates))
