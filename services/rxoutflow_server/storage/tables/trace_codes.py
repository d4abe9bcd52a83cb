"""The register of trace codes: one row for each box that was sold, kept by its code.

The code is the shard key: a box is decided on by itself, whoever sells it. A box that was opened
stays opened: what was sold as a part once is never sold whole, also if the part came back.
"""

from __future__ import annotations

from rxoutflow_server.application.ports import BoxSale
from rxoutflow_server.storage.tables.connection import Connection

_SELL = """
INSERT INTO trace_codes (code, loose, prescription_number, attempt_id, pharmacy_code)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (code) DO NOTHING
"""
_SOLD = "SELECT loose, prescription_number, attempt_id FROM trace_codes WHERE code = ?"
_TAKE_BACK = """
DELETE FROM trace_codes
WHERE code = ? AND prescription_number = ? AND attempt_id = ? AND pharmacy_code = ? AND loose = 0
"""


class TraceCodeTables:
    """The port ``TraceCodeRecords`` in SQL."""

    def __init__(self, connection: Connection, lock: str) -> None:
        self._connection = connection
        self._sold = _SOLD + lock

    def sell(self, sale: BoxSale) -> bool:
        """Note a sale. False if another attempt has sold the box, unless both sell parts of it."""
        row = (
            sale.code,
            int(sale.loose),
            sale.prescription_number,
            sale.attempt_id,
            sale.pharmacy_code,
        )
        if self._connection.execute(_SELL, row).rowcount == 1:
            return True
        before = self._connection.execute(self._sold, (sale.code,)).fetchone()
        if before is None:
            return False  # taken back this moment: ask again
        loose, *seller = before
        if loose:
            return sale.loose
        return seller == [sale.prescription_number, sale.attempt_id]

    def take_back(self, code: str, number: str, attempt_id: str, pharmacy_code: str) -> None:
        """Undo a sale of a whole box, if this attempt of this pharmacy made it."""
        self._connection.execute(_TAKE_BACK, (code, number, attempt_id, pharmacy_code))
