"""Prescriptions, the ledger of their lines, and attempts: what the home region alone writes.

The tables hold what the domain promises as constraints too: no quantity below zero, nothing beyond
what was authorised, one live attempt on a prescription, a fence used once. What was fixed at
registration is never written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rxoutflow_server.application.ports import PickupTries
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.prescription import Change, LineUse, Prescription, Validity
from rxoutflow_server.storage.tables.connection import Connection, Row, require_one
from rxoutflow_server.storage.tables.values import (
    AFTER_EVERYTHING,
    instant,
    micros,
    optional_instant,
    optional_micros,
    quantities_of,
    quantities_text,
)

_PRESCRIPTION = """
SELECT prescription_number, issuer_code, hospital_prescription_number, payer_region_code,
       insured_person_id, issue_time, expire_time, register_time, update_time, statement_sha256,
       pickup_hash, validity, pharmacy_reviewed, fence, version
FROM prescriptions WHERE prescription_number = ?"""
_LINES = """
SELECT line_id, authorised, claimed, committed, dispensed, returned
FROM prescription_lines WHERE prescription_number = ? ORDER BY position
"""
_LIVE_ATTEMPT = """
SELECT attempt_id, prescription_number, fence, state, pharmacy_code, dispensing_region_code, lines,
       create_time, lease_expire_time, update_time, settlement_id, cause_sha256
FROM attempts WHERE prescription_number = ? AND state IN ('reserved', 'committed')
"""
_ATTEMPT = """
SELECT attempt_id, prescription_number, fence, state, pharmacy_code, dispensing_region_code, lines,
       create_time, lease_expire_time, update_time, settlement_id, cause_sha256
FROM attempts WHERE prescription_number = ? AND attempt_id = ?
"""
_ADD_PRESCRIPTION = """
INSERT INTO prescriptions (
    prescription_number, issuer_code, hospital_prescription_number, payer_region_code,
    insured_person_id, issue_time, expire_time, register_time, update_time, statement_sha256,
    pickup_hash, validity, pharmacy_reviewed, fence, version)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number) DO NOTHING
"""
_TAKE_HOSPITAL_NUMBER = """
INSERT INTO hospital_numbers (issuer_code, hospital_prescription_number, prescription_number)
VALUES (?, ?, ?)
ON CONFLICT (issuer_code, hospital_prescription_number) DO NOTHING
"""
_FORGET_PRESCRIPTION = "DELETE FROM prescriptions WHERE prescription_number = ?"
_ADD_LINE = """
INSERT INTO prescription_lines (prescription_number, line_id, position, authorised, claimed,
                                committed, dispensed, returned)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_PRESCRIPTION = """
UPDATE prescriptions
SET validity = ?, pharmacy_reviewed = ?, fence = ?, version = ?, update_time = ?
WHERE prescription_number = ? AND version <= ?
"""
_SAVE_LINE = """
UPDATE prescription_lines SET claimed = ?, committed = ?, dispensed = ?, returned = ?
WHERE prescription_number = ? AND line_id = ?
"""
_SAVE_ATTEMPT = """
INSERT INTO attempts (
    prescription_number, attempt_id, fence, state, pharmacy_code, dispensing_region_code, lines,
    create_time, lease_expire_time, update_time, settlement_id, cause_sha256)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, attempt_id) DO UPDATE SET
    state = excluded.state, lines = excluded.lines, lease_expire_time = excluded.lease_expire_time,
    update_time = excluded.update_time, settlement_id = excluded.settlement_id,
    cause_sha256 = excluded.cause_sha256
"""
_PICKUP_TRIES = """
SELECT prescription_number, wrong, locked_until FROM pickup_tries WHERE prescription_number = ?
"""
_SAVE_PICKUP_TRIES = """
INSERT INTO pickup_tries (prescription_number, wrong, locked_until) VALUES (?, ?, ?)
ON CONFLICT (prescription_number) DO UPDATE SET
    wrong = excluded.wrong, locked_until = excluded.locked_until
"""
_SWEEP_PRESCRIPTIONS_OF = """
SELECT prescription_number FROM prescriptions
WHERE issuer_code = ? AND prescription_number < ? ORDER BY prescription_number DESC LIMIT ?
"""
_SWEEP_OVERDUE_LEASES = """
SELECT prescription_number FROM attempts
WHERE state = 'reserved' AND lease_expire_time <= ? ORDER BY lease_expire_time LIMIT ?
"""


class HomeTables:
    """The port ``HomeRecords`` in SQL."""

    def __init__(self, connection: Connection, lock: str) -> None:
        self._connection = connection
        self._lock = lock

    def prescription(self, number: str) -> Prescription | None:
        """A prescription with its live attempt, locked for change."""
        row = self._connection.execute(_PRESCRIPTION + self._lock, (number,)).fetchone()
        return None if row is None else self._prescription(row)

    def attempt(self, number: str, attempt_id: str) -> Attempt | None:
        """Any attempt of a prescription."""
        return self._attempt(_ATTEMPT, number, attempt_id)

    def add_prescription(self, prescription: Prescription) -> bool:
        """Store a new prescription; false if its number or the hospital's own number is taken."""
        if not self._added(_ADD_PRESCRIPTION, *_prescription_row(prescription)):
            return False
        if not self._added(
            _TAKE_HOSPITAL_NUMBER,
            prescription.issuer_code,
            prescription.hospital_prescription_number,
            prescription.number,
        ):
            self._connection.execute(_FORGET_PRESCRIPTION, (prescription.number,))
            return False
        for position, line in enumerate(prescription.lines):
            self._add_line(prescription.number, position, line)
        return True

    def save(self, change: Change) -> None:
        """Store the outcome of a transition.

        Raises:
            InvariantBroken: a newer version of the prescription is stored.
        """
        self._save_prescription(change.prescription)
        for line in change.prescription.lines:
            self._save_line(change.prescription.number, line)
        for attempt in change.attempts:
            self._connection.execute(_SAVE_ATTEMPT, _attempt_row(attempt))

    def prescriptions_of(self, issuer_code: str, before: str, limit: int) -> Sequence[Prescription]:
        """A hospital's prescriptions with numbers below ``before`` (empty: all), newest first."""
        rows = self._connection.execute(
            _SWEEP_PRESCRIPTIONS_OF, (issuer_code, before or AFTER_EVERYTHING, limit)
        ).fetchall()
        found = [self.prescription(number) for (number,) in rows]
        return [prescription for prescription in found if prescription is not None]

    def pickup_tries(self, number: str) -> PickupTries | None:
        """Wrong pickup codes tried on a prescription, if any."""
        row = self._connection.execute(_PICKUP_TRIES, (number,)).fetchone()
        if row is None:
            return None
        number, wrong, locked_until = row
        return PickupTries(number, wrong, optional_instant(locked_until))

    def save_pickup_tries(self, tries: PickupTries) -> None:
        """Store the count of wrong pickup codes."""
        self._connection.execute(
            _SAVE_PICKUP_TRIES,
            (tries.prescription_number, tries.wrong, optional_micros(tries.locked_until)),
        )

    def overdue_leases(self, now: datetime, limit: int) -> Sequence[str]:
        """Numbers of prescriptions whose reserved attempt has run out, longest overdue first."""
        rows = self._connection.execute(_SWEEP_OVERDUE_LEASES, (micros(now), limit)).fetchall()
        return [number for (number,) in rows]

    def _prescription(self, row: Row) -> Prescription:
        (number, issuer, hospital_number, payer, person, issue, expire, register, update, sha256,
         pickup_hash, validity, reviewed, fence, version) = row  # fmt: skip
        lines = self._connection.execute(_LINES, (number,)).fetchall()
        return Prescription(
            number=number,
            issuer_code=issuer,
            hospital_prescription_number=hospital_number,
            payer_region_code=payer,
            insured_person_id=person,
            issue_time=instant(issue),
            expire_time=instant(expire),
            register_time=instant(register),
            update_time=instant(update),
            statement_sha256=sha256,
            pickup_hash=pickup_hash,
            lines=tuple([LineUse(*line) for line in lines]),
            validity=Validity(validity),
            live_attempt=self._attempt(_LIVE_ATTEMPT, number),
            pharmacy_reviewed=bool(reviewed),
            fence=fence,
            version=version,
        )

    def _attempt(self, sql: str, *key: str) -> Attempt | None:
        row = self._connection.execute(sql, key).fetchone()
        return None if row is None else _attempt(row)

    def _added(self, sql: str, *values: str | int | bytes) -> bool:
        return self._connection.execute(sql, values).rowcount == 1

    def _add_line(self, number: str, position: int, line: LineUse) -> None:
        self._connection.execute(
            _ADD_LINE,
            (
                number,
                line.line_id,
                position,
                line.authorised,
                line.claimed,
                line.committed,
                line.dispensed,
                line.returned,
            ),
        )

    def _save_prescription(self, prescription: Prescription) -> None:
        saved = self._connection.execute(
            _SAVE_PRESCRIPTION,
            (
                prescription.validity.value,
                int(prescription.pharmacy_reviewed),
                prescription.fence,
                prescription.version,
                micros(prescription.update_time),
                prescription.number,
                prescription.version,
            ),
        )
        require_one(saved, f"prescription {prescription.number}")

    def _save_line(self, number: str, line: LineUse) -> None:
        saved = self._connection.execute(
            _SAVE_LINE,
            (line.claimed, line.committed, line.dispensed, line.returned, number, line.line_id),
        )
        require_one(saved, f"line {line.line_id} of prescription {number}")


def _prescription_row(prescription: Prescription) -> tuple[str | int | bytes, ...]:
    return (
        prescription.number,
        prescription.issuer_code,
        prescription.hospital_prescription_number,
        prescription.payer_region_code,
        prescription.insured_person_id,
        micros(prescription.issue_time),
        micros(prescription.expire_time),
        micros(prescription.register_time),
        micros(prescription.update_time),
        prescription.statement_sha256,
        prescription.pickup_hash,
        prescription.validity.value,
        int(prescription.pharmacy_reviewed),
        prescription.fence,
        prescription.version,
    )


def _attempt_row(attempt: Attempt) -> tuple[str | int | bytes | None, ...]:
    return (
        attempt.prescription_number,
        attempt.attempt_id,
        attempt.fence,
        attempt.state.value,
        attempt.pharmacy_code,
        attempt.dispensing_region_code,
        quantities_text(attempt.lines),
        micros(attempt.create_time),
        optional_micros(attempt.lease_expire_time),
        micros(attempt.update_time),
        attempt.settlement_id,
        attempt.cause_sha256,
    )


def _attempt(row: Row) -> Attempt:
    (attempt_id, number, fence, state, pharmacy, region, lines, create, lease_expire, update,
     settlement_id, cause_sha256) = row  # fmt: skip
    return Attempt(
        attempt_id=attempt_id,
        prescription_number=number,
        fence=fence,
        state=AttemptState(state),
        pharmacy_code=pharmacy,
        dispensing_region_code=region,
        lines=quantities_of(lines),
        create_time=instant(create),
        lease_expire_time=optional_instant(lease_expire),
        update_time=instant(update),
        settlement_id=settlement_id,
        cause_sha256=cause_sha256,
    )
