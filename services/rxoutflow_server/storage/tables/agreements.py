"""What was paid for each institution of this region, and who was told to be above a quota.

Uses are only ever added, beside the prescription that they belong to. Sums run over one institution
and a period, through one index; they are asked for now and then, never by a command of a patient.
"""

from __future__ import annotations

from datetime import date

from rxoutflow_server.application.ports import AgreementUse
from rxoutflow_server.storage.tables.connection import Connection

_ADD_USE = """
INSERT INTO agreement_uses (
    prescription_number, settlement_id, reversal_id, institution_code, day, fen, statement_sha256)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, settlement_id, reversal_id, institution_code) DO NOTHING
"""
_SWEEP_USED = """
SELECT COALESCE(SUM(fen), 0) FROM agreement_uses
WHERE institution_code = ? AND day >= ? AND day < ?
"""
_SWEEP_NEWEST_USE = """
SELECT institution_code, day, prescription_number, settlement_id, reversal_id, fen,
       statement_sha256
FROM agreement_uses WHERE institution_code = ? AND day >= ? AND day < ?
ORDER BY day DESC, prescription_number DESC, settlement_id DESC, reversal_id DESC LIMIT 1
"""
_IS_ABOVE = """
SELECT above FROM agreement_crossings
WHERE institution_code = ? AND document = ? AND begin_day = ?
"""
_SET_ABOVE = """
INSERT INTO agreement_crossings (institution_code, document, begin_day, above)
VALUES (?, ?, ?, ?)
ON CONFLICT (institution_code, document, begin_day) DO UPDATE SET above = excluded.above
WHERE agreement_crossings.above <> excluded.above
"""


class AgreementTables:
    """The port ``AgreementRecords`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_use(self, use: AgreementUse) -> None:
        """Count a payment or what came back of it. Counting it again changes nothing."""
        self._connection.execute(
            _ADD_USE,
            (
                use.prescription_number,
                use.settlement_id,
                use.reversal_id,
                use.institution_code,
                use.day.isoformat(),
                use.fen,
                use.statement_sha256,
            ),
        )

    def used_fen(self, institution_code: str, begin: date, end: date) -> int:
        """What was paid for an institution from a day up to, not including, another one."""
        key = (institution_code, begin.isoformat(), end.isoformat())
        ((fen,),) = self._connection.execute(_SWEEP_USED, key).fetchall()
        return int(fen)

    def newest_use(self, institution_code: str, begin: date, end: date) -> AgreementUse | None:
        """The last that was counted for an institution in a period."""
        key = (institution_code, begin.isoformat(), end.isoformat())
        row = self._connection.execute(_SWEEP_NEWEST_USE, key).fetchone()
        if row is None:
            return None
        code, day, *rest = row
        return AgreementUse(code, date.fromisoformat(day), *rest)

    def is_above(self, institution_code: str, document: str, begin: date) -> bool:
        """Whether the institution was last known to be above the quota of a period."""
        key = (institution_code, document, begin.isoformat())
        row = self._connection.execute(_IS_ABOVE, key).fetchone()
        return row is not None and bool(row[0])

    def set_above(self, institution_code: str, document: str, begin: date, *, above: bool) -> bool:
        """Note whether it is above; false if that was known."""
        key = (institution_code, document, begin.isoformat())
        return self._connection.execute(_SET_ABOVE, (*key, int(above))).rowcount == 1
