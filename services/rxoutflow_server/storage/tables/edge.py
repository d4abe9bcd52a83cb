"""What an edge owes to its platform: issued prescriptions and handovers on their way out.

What an institution's systems handed in is fixed; only its progress is written again. Beside them
stands how far each stream of the platform has been stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from rxoutflow_server.application.edge_ports import (
    GoodsReturn,
    Handover,
    IssuedPrescription,
    Registration,
)
from rxoutflow_server.storage.tables.connection import Connection, Row, require_one
from rxoutflow_server.storage.tables.values import (
    instant,
    micros,
    optional_instant,
    optional_micros,
)

_ISSUED = """
SELECT prescription_number, request_id, statement_sha256, pickup_secret, registration, create_time,
       status_sha256, status_time, sent, refusal, revocation_request_id
FROM issued_prescriptions WHERE prescription_number = ?
"""
_ADD_ISSUED = """
INSERT INTO issued_prescriptions (
    prescription_number, request_id, statement_sha256, pickup_secret, registration, create_time,
    status_sha256, status_time, sent, refusal, revocation_request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number) DO NOTHING
"""
_SAVE_ISSUED = """
UPDATE issued_prescriptions
SET registration = ?, status_sha256 = ?, status_time = ?, sent = ?, refusal = ?,
    revocation_request_id = ?
WHERE prescription_number = ?
"""
_SWEEP_QUEUED = """
SELECT prescription_number, request_id, statement_sha256, pickup_secret, registration, create_time,
       status_sha256, status_time, sent, refusal, revocation_request_id
FROM issued_prescriptions
WHERE registration = 'queued' ORDER BY create_time, prescription_number LIMIT ?
"""
_HANDOVER = """
SELECT prescription_number, attempt_id, request_id, statement_sha256, delivered, create_time,
       refusal
FROM handovers WHERE prescription_number = ? AND attempt_id = ?
"""
_ADD_HANDOVER = """
INSERT INTO handovers (prescription_number, attempt_id, request_id, statement_sha256, delivered,
                       create_time, refusal)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, attempt_id) DO NOTHING
"""
_SAVE_HANDOVER = """
UPDATE handovers SET request_id = ?, statement_sha256 = ?, delivered = ?, refusal = ?
WHERE prescription_number = ? AND attempt_id = ?
"""
_SWEEP_UNDELIVERED = """
SELECT prescription_number, attempt_id, request_id, statement_sha256, delivered, create_time,
       refusal
FROM handovers
WHERE delivered = 0 AND refusal = '' ORDER BY create_time, prescription_number, attempt_id LIMIT ?
"""
_WAITING_HANDOVER = """
SELECT prescription_number, attempt_id, request_id, statement_sha256, delivered, create_time,
       refusal
FROM handovers
WHERE prescription_number = ? AND delivered = 0 AND refusal = '' ORDER BY create_time LIMIT 1
"""
_GOODS_RETURN = """
SELECT prescription_number, reversal_id, attempt_id, request_id, statement_sha256, delivered,
       create_time, refusal
FROM goods_returns WHERE prescription_number = ? AND reversal_id = ?
"""
_ADD_GOODS_RETURN = """
INSERT INTO goods_returns (prescription_number, reversal_id, attempt_id, request_id,
                           statement_sha256, delivered, create_time, refusal)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, reversal_id) DO NOTHING
"""
_SAVE_GOODS_RETURN = """
UPDATE goods_returns SET request_id = ?, statement_sha256 = ?, delivered = ?, refusal = ?
WHERE prescription_number = ? AND reversal_id = ?
"""
_SWEEP_UNDELIVERED_RETURNS = """
SELECT prescription_number, reversal_id, attempt_id, request_id, statement_sha256, delivered,
       create_time, refusal
FROM goods_returns AS back
WHERE delivered = 0 AND refusal = '' AND NOT EXISTS (
    SELECT 1 FROM handovers AS sold
    WHERE sold.prescription_number = back.prescription_number
      AND sold.attempt_id = back.attempt_id AND sold.delivered = 0 AND sold.refusal = '')
ORDER BY create_time, prescription_number, reversal_id LIMIT ?
"""
_RESUME_POINT = "SELECT token FROM resume_tokens WHERE stream = ?"
_SAVE_RESUME_POINT = """
INSERT INTO resume_tokens (stream, token) VALUES (?, ?)
ON CONFLICT (stream) DO UPDATE SET token = excluded.token
"""


class EdgeTables:
    """The port ``EdgeRecords`` in SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def issued(self, number: str) -> IssuedPrescription | None:
        """An issued prescription."""
        row = self._connection.execute(_ISSUED, (number,)).fetchone()
        return None if row is None else _issued(row)

    def add_issued(self, issued: IssuedPrescription) -> bool:
        """Store a new one; false if the number is taken."""
        added = self._connection.execute(
            _ADD_ISSUED,
            (
                issued.prescription_number,
                issued.request_id,
                issued.statement_sha256,
                issued.pickup_secret,
                issued.registration.value,
                micros(issued.create_time),
                issued.status_sha256,
                optional_micros(issued.status_time),
                int(issued.sent),
                issued.refusal,
                issued.revocation_request_id,
            ),
        )
        return added.rowcount == 1

    def save_issued(self, issued: IssuedPrescription) -> None:
        """Store its progress: registration, status, and what waits for the platform."""
        saved = self._connection.execute(
            _SAVE_ISSUED,
            (
                issued.registration.value,
                issued.status_sha256,
                optional_micros(issued.status_time),
                int(issued.sent),
                issued.refusal,
                issued.revocation_request_id,
                issued.prescription_number,
            ),
        )
        require_one(saved, f"issued prescription {issued.prescription_number}")

    def queued(self, limit: int) -> Sequence[IssuedPrescription]:
        """Those that the platform does not have yet, oldest first."""
        rows = self._connection.execute(_SWEEP_QUEUED, (limit,)).fetchall()
        return [_issued(row) for row in rows]

    def handover(self, number: str, attempt_id: str) -> Handover | None:
        """A handover."""
        row = self._connection.execute(_HANDOVER, (number, attempt_id)).fetchone()
        return None if row is None else _handover(row)

    def waiting_handover(self, number: str) -> Handover | None:
        """A handover of this prescription that the platform has neither got nor refused."""
        row = self._connection.execute(_WAITING_HANDOVER, (number,)).fetchone()
        return None if row is None else _handover(row)

    def add_handover(self, handover: Handover) -> bool:
        """Store a new one; false if the attempt has one."""
        added = self._connection.execute(
            _ADD_HANDOVER,
            (
                handover.prescription_number,
                handover.attempt_id,
                handover.request_id,
                handover.statement_sha256,
                int(handover.delivered),
                micros(handover.create_time),
                handover.refusal,
            ),
        )
        return added.rowcount == 1

    def save_handover(self, handover: Handover) -> None:
        """Store its progress, or the corrected record in the place of a refused one."""
        saved = self._connection.execute(
            _SAVE_HANDOVER,
            (
                handover.request_id,
                handover.statement_sha256,
                int(handover.delivered),
                handover.refusal,
                handover.prescription_number,
                handover.attempt_id,
            ),
        )
        require_one(saved, f"handover of attempt {handover.attempt_id}")

    def undelivered(self, limit: int) -> Sequence[Handover]:
        """Those that the platform does not have yet and has not refused, oldest first."""
        rows = self._connection.execute(_SWEEP_UNDELIVERED, (limit,)).fetchall()
        return [_handover(row) for row in rows]

    def goods_return(self, number: str, reversal_id: str) -> GoodsReturn | None:
        """A return."""
        row = self._connection.execute(_GOODS_RETURN, (number, reversal_id)).fetchone()
        return None if row is None else _goods_return(row)

    def add_goods_return(self, returned: GoodsReturn) -> bool:
        """Store a new one; false if the id is taken."""
        added = self._connection.execute(
            _ADD_GOODS_RETURN,
            (
                returned.prescription_number,
                returned.reversal_id,
                returned.attempt_id,
                returned.request_id,
                returned.statement_sha256,
                int(returned.delivered),
                micros(returned.create_time),
                returned.refusal,
            ),
        )
        return added.rowcount == 1

    def save_goods_return(self, returned: GoodsReturn) -> None:
        """Store its progress, or the corrected return in the place of a refused one."""
        saved = self._connection.execute(
            _SAVE_GOODS_RETURN,
            (
                returned.request_id,
                returned.statement_sha256,
                int(returned.delivered),
                returned.refusal,
                returned.prescription_number,
                returned.reversal_id,
            ),
        )
        require_one(saved, f"return {returned.reversal_id}")

    def undelivered_returns(self, limit: int) -> Sequence[GoodsReturn]:
        """Those that are due: their handover does not wait for the platform; oldest first."""
        rows = self._connection.execute(_SWEEP_UNDELIVERED_RETURNS, (limit,)).fetchall()
        return [_goods_return(row) for row in rows]

    def resume_token(self, stream: str) -> str:
        """The token of the last notice stored from a stream; empty at first."""
        row = self._connection.execute(_RESUME_POINT, (stream,)).fetchone()
        return "" if row is None else str(row[0])

    def save_resume_token(self, stream: str, token: str) -> None:
        """Remember how far a stream has been stored."""
        self._connection.execute(_SAVE_RESUME_POINT, (stream, token))


def _issued(row: Row) -> IssuedPrescription:
    number, request_id, sha256, secret, registration, create, status_sha256, status_time = row[:8]
    sent, refusal, revocation_request_id = row[8:]
    return IssuedPrescription(
        prescription_number=number,
        request_id=request_id,
        statement_sha256=sha256,
        pickup_secret=secret,
        registration=Registration(registration),
        create_time=instant(create),
        status_sha256=status_sha256,
        status_time=optional_instant(status_time),
        sent=bool(sent),
        refusal=refusal,
        revocation_request_id=revocation_request_id,
    )


def _handover(row: Row) -> Handover:
    number, attempt_id, request_id, sha256, delivered, create, refusal = row
    return Handover(
        prescription_number=number,
        attempt_id=attempt_id,
        request_id=request_id,
        statement_sha256=sha256,
        delivered=bool(delivered),
        create_time=instant(create),
        refusal=refusal,
    )


def _goods_return(row: Row) -> GoodsReturn:
    number, reversal_id, attempt_id, request_id, sha256, delivered, create, refusal = row
    return GoodsReturn(
        prescription_number=number,
        reversal_id=reversal_id,
        attempt_id=attempt_id,
        request_id=request_id,
        statement_sha256=sha256,
        delivered=bool(delivered),
        create_time=instant(create),
        refusal=refusal,
    )
