"""Claims, dispenses and sold boxes: what the dispensing region alone writes.

What a pharmacy committed is fixed; only how far its dispense has come is written again, with the
statements that brought it there. A trace code is kept with its first sale.
"""

from __future__ import annotations

from collections.abc import Sequence

from rxoutflow_server.application.ports import ClaimCopy
from rxoutflow_server.domain.dispense import Dispense, DispenseState
from rxoutflow_server.storage.tables.connection import Connection, Row, Value, require_one
from rxoutflow_server.storage.tables.values import (
    AFTER_EVERYTHING,
    committed_of,
    committed_text,
    instant,
    micros,
)

_CLAIM = """
SELECT prescription_number, attempt_id, pharmacy_code, prescription_sha256, attempt_sha256,
       update_time
FROM claims WHERE prescription_number = ? AND attempt_id = ?
"""
_SAVE_CLAIM = """
INSERT INTO claims (prescription_number, attempt_id, pharmacy_code, prescription_sha256,
                    attempt_sha256, update_time)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, attempt_id) DO UPDATE SET
    pharmacy_code = excluded.pharmacy_code, prescription_sha256 = excluded.prescription_sha256,
    attempt_sha256 = excluded.attempt_sha256, update_time = excluded.update_time
"""
_DISPENSE = """
SELECT prescription_number, settlement_id, attempt_id, fence, pharmacy_code, payer_region_code,
       insured_person_id, insured, lines, state, create_time, update_time, request_id,
       commitment_sha256, pricing_sha256, settlement_sha256, record_sha256, booked, posted
FROM dispenses WHERE prescription_number = ? AND settlement_id = ?"""
_DISPENSE_OF_ATTEMPT = """
SELECT prescription_number, settlement_id, attempt_id, fence, pharmacy_code, payer_region_code,
       insured_person_id, insured, lines, state, create_time, update_time, request_id,
       commitment_sha256, pricing_sha256, settlement_sha256, record_sha256, booked, posted
FROM dispenses WHERE prescription_number = ? AND attempt_id = ?
ORDER BY state = 'refused', create_time DESC, settlement_id DESC LIMIT 1"""
_ADD_DISPENSE = """
INSERT INTO dispenses (
    prescription_number, settlement_id, attempt_id, fence, pharmacy_code, payer_region_code,
    insured_person_id, insured, lines, state, create_time, update_time, request_id,
    commitment_sha256, pricing_sha256, settlement_sha256, record_sha256, booked, posted)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_DISPENSE = """
UPDATE dispenses
SET state = ?, settlement_sha256 = ?, record_sha256 = ?, booked = ?, posted = ?, update_time = ?
WHERE prescription_number = ? AND settlement_id = ?
"""
_SWEEP_UNDECIDED = """
SELECT prescription_number, settlement_id, attempt_id, fence, pharmacy_code, payer_region_code,
       insured_person_id, insured, lines, state, create_time, update_time, request_id,
       commitment_sha256, pricing_sha256, settlement_sha256, record_sha256, booked, posted
FROM dispenses WHERE state IN ('committing', 'held') ORDER BY update_time, settlement_id LIMIT ?
"""
_SWEEP_DISPENSES_OF = """
SELECT prescription_number, settlement_id, attempt_id, fence, pharmacy_code, payer_region_code,
       insured_person_id, insured, lines, state, create_time, update_time, request_id,
       commitment_sha256, pricing_sha256, settlement_sha256, record_sha256, booked, posted
FROM dispenses WHERE pharmacy_code = ? AND settlement_id < ? ORDER BY settlement_id DESC LIMIT ?
"""
_SELL_TRACE_CODE = """
INSERT INTO trace_codes (code, loose, prescription_number, attempt_id) VALUES (?, ?, ?, ?)
ON CONFLICT (code) DO NOTHING
"""
_SOLD_LOOSE = "SELECT loose FROM trace_codes WHERE code = ?"


class DispensingTables:
    """The port ``DispensingRecords`` in SQL."""

    def __init__(self, connection: Connection, lock: str) -> None:
        self._connection = connection
        self._lock = lock

    def claim(self, number: str, attempt_id: str) -> ClaimCopy | None:
        """The copy of a claim."""
        row = self._connection.execute(_CLAIM, (number, attempt_id)).fetchone()
        return None if row is None else _claim(row)

    def save_claim(self, claim: ClaimCopy) -> None:
        """Store or renew the copy of a claim."""
        self._connection.execute(
            _SAVE_CLAIM,
            (
                claim.prescription_number,
                claim.attempt_id,
                claim.pharmacy_code,
                claim.prescription_sha256,
                claim.attempt_sha256,
                micros(claim.update_time),
            ),
        )

    def dispense(self, number: str, settlement_id: str) -> Dispense | None:
        """A dispense, locked for change."""
        return self._locked(_DISPENSE, number, settlement_id)

    def dispense_of_attempt(self, number: str, attempt_id: str) -> Dispense | None:
        """The dispense of an attempt that stands, or the newest refused one; locked for change."""
        return self._locked(_DISPENSE_OF_ATTEMPT, number, attempt_id)

    def add_dispense(self, dispense: Dispense) -> None:
        """Store a new dispense."""
        self._connection.execute(_ADD_DISPENSE, _dispense_row(dispense))

    def save_dispense(self, dispense: Dispense) -> None:
        """Store a dispense's new step."""
        saved = self._connection.execute(
            _SAVE_DISPENSE,
            (
                dispense.state.value,
                dispense.settlement_sha256,
                dispense.record_sha256,
                int(dispense.booked),
                int(dispense.posted),
                micros(dispense.update_time),
                dispense.prescription_number,
                dispense.settlement_id,
            ),
        )
        require_one(saved, f"dispense {dispense.settlement_id}")

    def undecided(self, limit: int) -> Sequence[Dispense]:
        """Dispenses whose hold or commit is still to be asked for, longest untouched first."""
        return self._listed(_SWEEP_UNDECIDED, limit)

    def dispenses_of(self, pharmacy_code: str, before: str, limit: int) -> Sequence[Dispense]:
        """A pharmacy's dispenses with ids below ``before`` (empty: all), newest first."""
        return self._listed(_SWEEP_DISPENSES_OF, pharmacy_code, before or AFTER_EVERYTHING, limit)

    def sell_trace_code(self, code: str, number: str, attempt_id: str, *, loose: bool) -> bool:
        """Note a box as sold; false if it was sold before, unless both were loose sales."""
        sale = (code, int(loose), number, attempt_id)
        if self._connection.execute(_SELL_TRACE_CODE, sale).rowcount == 1:
            return True
        before = self._connection.execute(_SOLD_LOOSE, (code,)).fetchone()
        return loose and before is not None and bool(before[0])

    def _locked(self, sql: str, *key: str) -> Dispense | None:
        row = self._connection.execute(sql + self._lock, key).fetchone()
        return None if row is None else _dispense(row)

    def _listed(self, sql: str, *parameters: str | int) -> list[Dispense]:
        return [_dispense(row) for row in self._connection.execute(sql, parameters).fetchall()]


def _claim(row: Row) -> ClaimCopy:
    number, attempt_id, pharmacy, prescription_sha256, attempt_sha256, update = row
    return ClaimCopy(
        number, attempt_id, pharmacy, prescription_sha256, attempt_sha256, instant(update)
    )


def _dispense_row(dispense: Dispense) -> tuple[Value, ...]:
    return (
        dispense.prescription_number,
        dispense.settlement_id,
        dispense.attempt_id,
        dispense.fence,
        dispense.pharmacy_code,
        dispense.payer_region_code,
        dispense.insured_person_id,
        int(dispense.insured),
        committed_text(dispense.lines),
        dispense.state.value,
        micros(dispense.create_time),
        micros(dispense.update_time),
        dispense.request_id,
        dispense.commitment_sha256,
        dispense.pricing_sha256,
        dispense.settlement_sha256,
        dispense.record_sha256,
        int(dispense.booked),
        int(dispense.posted),
    )


def _dispense(row: Row) -> Dispense:
    (number, settlement_id, attempt_id, fence, pharmacy, payer, person, insured, lines, state,
     create, update, request_id, commitment_sha256, pricing_sha256, settlement_sha256,
     record_sha256, booked, posted) = row  # fmt: skip
    return Dispense(
        prescription_number=number,
        settlement_id=settlement_id,
        attempt_id=attempt_id,
        fence=fence,
        pharmacy_code=pharmacy,
        payer_region_code=payer,
        insured_person_id=person,
        insured=bool(insured),
        lines=committed_of(lines),
        state=DispenseState(state),
        create_time=instant(create),
        update_time=instant(update),
        request_id=request_id,
        commitment_sha256=commitment_sha256,
        pricing_sha256=pricing_sha256,
        settlement_sha256=settlement_sha256,
        record_sha256=record_sha256,
        booked=bool(booked),
        posted=bool(posted),
    )
