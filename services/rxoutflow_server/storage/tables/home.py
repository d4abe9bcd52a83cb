"""Prescriptions, the ledger of their lines, and attempts: what the home region alone writes.

The tables hold what the domain promises as constraints too: no quantity below zero, nothing beyond
what was authorised, one live attempt on a prescription, a fence used once. What was fixed at
registration is never written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rxoutflow_server.application.ports import BarredNumber, PickupTries
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.plan import Plan
from rxoutflow_server.domain.prescription import Change, LineUse, Prescription, Validity
from rxoutflow_server.domain.returns import BookedReturn
from rxoutflow_server.storage.tables.connection import Connection, Row, require_one
from rxoutflow_server.storage.tables.values import (
    AFTER_EVERYTHING,
    instant,
    micros,
    optional_day,
    optional_day_text,
    optional_instant,
    optional_micros,
    quantities_of,
    quantities_text,
)

_PRESCRIPTION = """
SELECT prescription_number, issuer_code, hospital_prescription_number, payer_region_code,
       insured_person_id, issue_time, expire_time, register_time, update_time, statement_sha256,
       pickup_hash, validity, pharmacy_reviewed, fence, version, fill_count, fill_interval_days,
       dose_count, opened_fills, fill_begin_day
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
    pickup_hash, validity, pharmacy_reviewed, fence, version, fill_count, fill_interval_days,
    dose_count, opened_fills, fill_begin_day)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number) DO NOTHING
"""
_TAKE_HOSPITAL_NUMBER = """
INSERT INTO hospital_numbers (issuer_code, hospital_prescription_number, prescription_number)
VALUES (?, ?, ?)
ON CONFLICT (issuer_code, hospital_prescription_number) DO NOTHING
"""
_FORGET_PRESCRIPTION = "DELETE FROM prescriptions WHERE prescription_number = ?"
_TAKE_NUMBER = """
INSERT INTO prescription_numbers (prescription_number, issuer_code, revocation_sha256, time)
VALUES (?, ?, ?, ?)
ON CONFLICT (prescription_number) DO NOTHING
"""
_FORGET_NUMBER = "DELETE FROM prescription_numbers WHERE prescription_number = ?"
_BARRED_NUMBER = """
SELECT prescription_number, issuer_code, revocation_sha256, time FROM prescription_numbers
WHERE prescription_number = ? AND revocation_sha256 IS NOT NULL
"""
_ADD_LINE = """
INSERT INTO prescription_lines (prescription_number, line_id, position, authorised, claimed,
                                committed, dispensed, returned)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_PRESCRIPTION = """
UPDATE prescriptions
SET validity = ?, pharmacy_reviewed = ?, fence = ?, version = ?, update_time = ?, opened_fills = ?,
    fill_begin_day = ?
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
_BOOKED_RETURN = """
SELECT reversal_id, prescription_number, attempt_id, lines, re_entitled, statement_sha256, time
FROM booked_returns WHERE prescription_number = ? AND reversal_id = ?
"""
_BOOKED_RETURNS = """
SELECT reversal_id, prescription_number, attempt_id, lines, re_entitled, statement_sha256, time
FROM booked_returns WHERE prescription_number = ? AND attempt_id = ? ORDER BY reversal_id
"""
_ADD_BOOKED_RETURN = """
INSERT INTO booked_returns (reversal_id, prescription_number, attempt_id, lines, re_entitled,
                            statement_sha256, time)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_SWEEP_PRESCRIPTIONS_OF = """
SELECT prescription_number FROM prescriptions
WHERE issuer_code = ? AND prescription_number < ? ORDER BY prescription_number DESC LIMIT ?
"""
_SWEEP_OVERDUE_LEASES = """
SELECT prescription_number FROM attempts
WHERE state = 'reserved' AND lease_expire_time <= ? ORDER BY lease_expire_time LIMIT ?
"""
_SWEEP_COMMITS = """
SELECT attempt_id, prescription_number, fence, state, pharmacy_code, dispensing_region_code, lines,
       create_time, lease_expire_time, update_time, settlement_id, cause_sha256
FROM attempts
WHERE state = 'committed' AND update_time <= ? AND (update_time, prescription_number) > (?, ?)
ORDER BY update_time, prescription_number LIMIT ?
"""
_SWEEP_COUNT_COMMITS = """
SELECT COUNT(*) FROM attempts WHERE state = 'committed' AND update_time <= ?
"""


class HomeTables:
    """The port ``HomeRecords`` in SQL."""

    def __init__(self, connection: Connection, lock: str) -> None:
        self._connection = connection
        self._lock = lock

    def prescription(self, number: str) -> Prescription | None:
        """A prescription with its live attempt, locked for change."""
        found = self._connection.execute(_PRESCRIPTION + self._lock, (number,))
        lines = self._connection.execute(_LINES, (number,))
        live = self._connection.execute(_LIVE_ATTEMPT, (number,))
        row = found.fetchone()  # all asked for at once: that is one trip to a database, not three
        return None if row is None else _prescription(row, lines.fetchall(), live.fetchone())

    def attempt(self, number: str, attempt_id: str) -> Attempt | None:
        """Any attempt of a prescription."""
        return self._attempt(_ATTEMPT, number, attempt_id)

    def add_prescription(self, prescription: Prescription) -> bool:
        """Store a new prescription; false if its number or the hospital's own number is taken."""
        number, issuer = prescription.number, prescription.issuer_code
        registered = micros(prescription.register_time)
        if not self._added(_TAKE_NUMBER, number, issuer, None, registered):
            return False
        if not self._added(_ADD_PRESCRIPTION, *_prescription_row(prescription)):
            return False
        if not self._added(
            _TAKE_HOSPITAL_NUMBER,
            prescription.issuer_code,
            prescription.hospital_prescription_number,
            prescription.number,
        ):
            self._connection.execute(_FORGET_PRESCRIPTION, (number,))
            self._connection.execute(_FORGET_NUMBER, (number,))
            return False
        for position, line in enumerate(prescription.lines):
            self._add_line(prescription.number, position, line)
        return True

    def bar(self, barred: BarredNumber) -> bool:
        """Note a number that is never to be registered; false if it is registered."""
        taken = self._added(
            _TAKE_NUMBER,
            barred.prescription_number,
            barred.issuer_code,
            barred.revocation_sha256,
            micros(barred.time),
        )
        return taken or self.barred(barred.prescription_number) is not None

    def barred(self, number: str) -> BarredNumber | None:
        """What is noted of a number that is never to be registered, if it is one."""
        row = self._connection.execute(_BARRED_NUMBER, (number,)).fetchone()
        if row is None:
            return None
        number, issuer, revocation_sha256, time = row
        return BarredNumber(number, issuer, bytes(revocation_sha256), instant(time))

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

    def booked_return(self, number: str, reversal_id: str) -> BookedReturn | None:
        """A return that was booked."""
        row = self._connection.execute(_BOOKED_RETURN, (number, reversal_id)).fetchone()
        return None if row is None else _booked_return(row)

    def booked_returns(self, number: str, attempt_id: str) -> Sequence[BookedReturn]:
        """What was booked as returned of an attempt, in the order of the ids."""
        rows = self._connection.execute(_BOOKED_RETURNS, (number, attempt_id)).fetchall()
        return [_booked_return(row) for row in rows]

    def add_booked_return(self, booked: BookedReturn) -> None:
        """Store a new return."""
        self._connection.execute(
            _ADD_BOOKED_RETURN,
            (
                booked.reversal_id,
                booked.prescription_number,
                booked.attempt_id,
                quantities_text(booked.lines),
                int(booked.re_entitled),
                booked.statement_sha256,
                micros(booked.time),
            ),
        )

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

    def commits_until(
        self, end: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Attempt]:
        """Attempts that have been committed since before or at a time, oldest commit first."""
        begin, number = (micros(after[0]), after[1]) if after else (-1, "")
        rows = self._connection.execute(
            _SWEEP_COMMITS, (micros(end), begin, number, limit)
        ).fetchall()
        return [_attempt(row) for row in rows]

    def count_commits_until(self, end: datetime) -> int:
        """How many those are."""
        ((count,),) = self._connection.execute(_SWEEP_COUNT_COMMITS, (micros(end),)).fetchall()
        return int(count)

    def _attempt(self, sql: str, *key: str) -> Attempt | None:
        row = self._connection.execute(sql, key).fetchone()
        return None if row is None else _attempt(row)

    def _added(self, sql: str, *values: str | int | bytes | None) -> bool:
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
                prescription.opened_fills,
                optional_day_text(prescription.fill_begin_day),
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


def _prescription(row: Row, lines: Sequence[Row], live: Row | None) -> Prescription:
    (number, issuer, hospital_number, payer, person, issue, expire, register, update, sha256,
     pickup_hash, validity, reviewed, fence, version, fill_count, fill_interval_days,
     dose_count, opened_fills, fill_begin_day) = row  # fmt: skip
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
        live_attempt=None if live is None else _attempt(live),
        pharmacy_reviewed=bool(reviewed),
        fence=fence,
        version=version,
        plan=Plan(fill_count, fill_interval_days, dose_count),
        opened_fills=opened_fills,
        fill_begin_day=optional_day(fill_begin_day),
    )


def _prescription_row(prescription: Prescription) -> tuple[str | int | bytes | None, ...]:
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
        prescription.plan.fill_count,
        prescription.plan.fill_interval_days,
        prescription.plan.dose_count,
        prescription.opened_fills,
        optional_day_text(prescription.fill_begin_day),
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


def _booked_return(row: Row) -> BookedReturn:
    reversal_id, number, attempt_id, lines, re_entitled, sha256, time = row
    return BookedReturn(
        reversal_id, number, attempt_id, quantities_of(lines), bool(re_entitled), sha256,
        instant(time),
    )  # fmt: skip


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
