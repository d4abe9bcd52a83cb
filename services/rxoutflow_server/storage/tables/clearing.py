"""Books of entries, and the clearing statements made from them.

Entries and statements are only ever added; a statement gets its acceptance once. Books are read in
the order of days and keys through one index, a page at a time, so that a period may be as large as
it likes. A clearing belongs to no prescription or person: its statements run once a month.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import Clearing, RegionRole
from rxoutflow_server.domain.clearing import Period
from rxoutflow_server.domain.ledger import Book, Entry, EntryKey, Mode, Movement
from rxoutflow_server.storage.tables.connection import Connection, Row, Value, require_one
from rxoutflow_server.storage.tables.values import instant, micros

_ADD_ENTRY = """
INSERT INTO ledger_entries (
    prescription_number, settlement_id, book, movement, reversal_id, counterpart_code,
    pharmacy_code, mode, day, posted_day, total_fen, pool_fen, account_fen, family_fen, cash_fen)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, settlement_id, book, movement, reversal_id) DO NOTHING
"""
_ENTRY = """
SELECT day, settlement_id, movement, prescription_number, pharmacy_code, mode, total_fen, pool_fen,
       account_fen, family_fen, cash_fen, posted_day, reversal_id
FROM ledger_entries
WHERE prescription_number = ? AND book = ? AND settlement_id = ? AND movement = ?
  AND reversal_id = ?
"""
_SWEEP_ENTRIES = """
SELECT day, settlement_id, movement, prescription_number, pharmacy_code, mode, total_fen, pool_fen,
       account_fen, family_fen, cash_fen, posted_day, reversal_id
FROM ledger_entries
WHERE book = ? AND counterpart_code = ?
  AND (day, settlement_id, movement, reversal_id) > (?, ?, ?, ?) AND day < ?
ORDER BY day, settlement_id, movement, reversal_id LIMIT ?
"""
# From one counterpart to the next through the index, however many entries each has.
_SWEEP_COUNTERPARTS = """
WITH RECURSIVE peers (code) AS (
    SELECT MIN(counterpart_code) FROM ledger_entries WHERE book = ?
    UNION ALL
    SELECT (SELECT MIN(counterpart_code) FROM ledger_entries
            WHERE book = ? AND counterpart_code > peers.code)
    FROM peers WHERE peers.code IS NOT NULL)
SELECT code FROM peers WHERE code IS NOT NULL
"""
_SWEEP_ADD_CLEARING = """
INSERT INTO clearings (peer_region_code, role, period, revision, statement, acceptance, time)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_SWEEP_ACCEPT = """
UPDATE clearings SET acceptance = ?
WHERE peer_region_code = ? AND role = ? AND period = ? AND revision = ? AND acceptance IS NULL
"""
_SWEEP_CLEARING = """
SELECT role, peer_region_code, period, revision, statement, acceptance, time
FROM clearings WHERE peer_region_code = ? AND role = ? AND period = ?
ORDER BY revision DESC LIMIT 1
"""
_SWEEP_LAST_PERIOD = "SELECT MAX(period) FROM clearings WHERE peer_region_code = ? AND role = ?"
_SWEEP_CLEARINGS = """
SELECT role, peer_region_code, period, revision, statement, acceptance, time
FROM clearings WHERE period = ? ORDER BY role, peer_region_code, revision
"""


class ClearingTables:
    """The port ``ClearingRecords`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_entry(self, book: Book, counterpart: str, entry: Entry) -> None:
        """Append an entry. Adding it again changes nothing."""
        self._connection.execute(_ADD_ENTRY, _entry_row(book, counterpart, entry))

    def entry(self, book: Book, number: str, key: EntryKey) -> Entry | None:
        """An entry of any day."""
        row = self._connection.execute(_ENTRY, (number, book.value, *key)).fetchone()
        return None if row is None else _entry(row)

    def entries(
        self, book: Book, counterpart: str, begin: date, end: date, after: EntryKey, limit: int
    ) -> Sequence[Entry]:
        """Entries in the order of days and keys; on the first day only those after the key."""
        place = (begin.isoformat(), *after, end.isoformat())
        rows = self._connection.execute(_SWEEP_ENTRIES, (book.value, counterpart, *place, limit))
        return [_entry(row) for row in rows.fetchall()]

    def counterparts(self, book: Book) -> Sequence[str]:
        """Whom the entries of a book are about, in order."""
        rows = self._connection.execute(_SWEEP_COUNTERPARTS, (book.value, book.value)).fetchall()
        return [code for (code,) in rows]

    def add_clearing(self, clearing: Clearing) -> None:
        """Store a new statement, with its acceptance if there is one."""
        statement = clearing.statement.SerializeToString()
        row = (*_clearing_key(clearing), statement, _acceptance(clearing), micros(clearing.time))
        self._connection.execute(_SWEEP_ADD_CLEARING, row)

    def accept_clearing(self, clearing: Clearing) -> None:
        """Store the acceptance of a statement that is stored and has none."""
        accepted = self._connection.execute(
            _SWEEP_ACCEPT, (_acceptance(clearing), *_clearing_key(clearing))
        )
        require_one(accepted, f"the clearing of {clearing.period}")

    def clearing(self, role: RegionRole, peer: str, period: Period) -> Clearing | None:
        """The newest statement of a period."""
        key = (peer, role.value, str(period))
        row = self._connection.execute(_SWEEP_CLEARING, key).fetchone()
        return None if row is None else _clearing(row)

    def last_cleared(self, role: RegionRole, peer: str) -> Period | None:
        """The last period for which a statement is stored."""
        row = self._connection.execute(_SWEEP_LAST_PERIOD, (peer, role.value)).fetchone()
        return None if row is None or row[0] is None else Period.parse(row[0])

    def clearings(self, period: Period) -> Sequence[Clearing]:
        """Every statement of a period, by role, peer and revision."""
        rows = self._connection.execute(_SWEEP_CLEARINGS, (str(period),)).fetchall()
        return [_clearing(row) for row in rows]


def _entry_row(book: Book, counterpart: str, entry: Entry) -> tuple[Value, ...]:
    return (
        entry.prescription_number,
        entry.settlement_id,
        book.value,
        entry.movement.value,
        entry.reversal_id,
        counterpart,
        entry.pharmacy_code,
        entry.mode.value,
        entry.day.isoformat(),
        entry.posted_day.isoformat(),
        entry.total_fen,
        entry.pool_fen,
        entry.account_fen,
        entry.family_fen,
        entry.cash_fen,
    )


def _entry(row: Row) -> Entry:
    (day, settlement_id, movement, number, pharmacy, mode, total, pool, account, family, cash,
     posted_day, reversal_id) = row  # fmt: skip
    return Entry(
        date.fromisoformat(day),
        settlement_id,
        Movement(movement),
        number,
        pharmacy,
        Mode(mode),
        total,
        pool,
        account,
        family,
        cash,
        date.fromisoformat(posted_day),
        reversal_id,
    )


def _clearing_key(clearing: Clearing) -> tuple[Value, ...]:
    return (
        clearing.peer_region_code,
        clearing.role.value,
        str(clearing.period),
        clearing.revision,
    )


def _acceptance(clearing: Clearing) -> bytes | None:
    return clearing.acceptance.SerializeToString() if clearing.acceptance is not None else None


def _clearing(row: Row) -> Clearing:
    role, peer, period, revision, statement, acceptance, time = row
    return Clearing(
        role=RegionRole(role),
        peer_region_code=peer,
        period=Period.parse(period),
        revision=revision,
        statement=SignedStatement.FromString(statement),
        acceptance=None if acceptance is None else SignedStatement.FromString(acceptance),
        time=instant(time),
    )
