"""Claims, dispenses and open boxes: what the dispensing region alone writes.

What a pharmacy committed is fixed; only how far its dispense has come is written again, with the
statements that brought it there. Boxes are kept only while another region, their registrar, is
being asked about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rxoutflow_server.application.ports import ClaimCopy, OpenBox
from rxoutflow_server.domain.delivery import Delivery, DeliveryState
from rxoutflow_server.domain.dispense import Dispense, DispenseState
from rxoutflow_server.domain.returns import Return
from rxoutflow_server.storage.tables.connection import Connection, Row, Value, require_one
from rxoutflow_server.storage.tables.values import (
    AFTER_EVERYTHING,
    committed_of,
    committed_text,
    figures_of,
    figures_text,
    instant,
    micros,
    returned_of,
    returned_text,
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
_DISPENSE_OF_REQUEST = """
SELECT prescription_number, settlement_id, attempt_id, fence, pharmacy_code, payer_region_code,
       insured_person_id, insured, lines, state, create_time, update_time, request_id,
       commitment_sha256, pricing_sha256, settlement_sha256, record_sha256, booked, posted
FROM dispenses WHERE prescription_number = ? AND request_id = ?
ORDER BY create_time LIMIT 1"""
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
_OPEN_BOX = """
INSERT INTO open_boxes (prescription_number, attempt_id, code, unwanted, update_time)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, attempt_id, code) DO UPDATE SET
    unwanted = excluded.unwanted, update_time = excluded.update_time
"""
_PUT_OFF_BOX = """
UPDATE open_boxes SET update_time = ?
WHERE prescription_number = ? AND attempt_id = ? AND code = ?
"""
_CLOSE_BOX = """
DELETE FROM open_boxes WHERE prescription_number = ? AND attempt_id = ? AND code = ?
"""
_SWEEP_OPEN_BOXES = """
SELECT prescription_number, attempt_id, code, unwanted, update_time FROM open_boxes
WHERE update_time <= ? ORDER BY update_time, prescription_number, attempt_id, code LIMIT ?
"""
_RETURN = """
SELECT reversal_id, prescription_number, settlement_id, lines, statement_sha256, create_time,
       update_time, booked, amounts
FROM returns WHERE prescription_number = ? AND reversal_id = ?
"""
_RETURNS = """
SELECT reversal_id, prescription_number, settlement_id, lines, statement_sha256, create_time,
       update_time, booked, amounts
FROM returns WHERE prescription_number = ? AND settlement_id = ? ORDER BY reversal_id
"""
_ADD_RETURN = """
INSERT INTO returns (reversal_id, prescription_number, settlement_id, lines, statement_sha256,
                     create_time, update_time, booked, amounts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_RETURN = """
UPDATE returns SET booked = ?, amounts = ?, update_time = ?
WHERE prescription_number = ? AND reversal_id = ?
"""
_DELIVERY = """
SELECT prescription_number, settlement_id, state, state_time, carrier, parcel_number, fee_fen,
       statement_sha256
FROM deliveries WHERE prescription_number = ? AND settlement_id = ?
"""
_SAVE_DELIVERY = """
INSERT INTO deliveries (prescription_number, settlement_id, state, state_time, carrier,
                        parcel_number, fee_fen, statement_sha256)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prescription_number, settlement_id) DO UPDATE SET
    state = excluded.state, state_time = excluded.state_time, carrier = excluded.carrier,
    parcel_number = excluded.parcel_number, statement_sha256 = excluded.statement_sha256
"""


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

    def dispense_of_request(self, number: str, request_id: str) -> Dispense | None:
        """The dispense that a commit with this id began; locked for change."""
        return self._locked(_DISPENSE_OF_REQUEST, number, request_id)

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

    def open_box(self, box: OpenBox) -> None:
        """Store that another region is asked about a box."""
        row = (
            box.prescription_number,
            box.attempt_id,
            box.code,
            int(box.unwanted),
            micros(box.update_time),
        )
        self._connection.execute(_OPEN_BOX, row)

    def put_off_box(self, box: OpenBox) -> None:
        """Let a box that is still open wait behind the others."""
        key = (box.prescription_number, box.attempt_id, box.code)
        self._connection.execute(_PUT_OFF_BOX, (micros(box.update_time), *key))

    def close_boxes(self, number: str, attempt_id: str, codes: Iterable[str]) -> None:
        """Forget boxes of an attempt about which nobody has to be asked any more."""
        for code in codes:
            self._connection.execute(_CLOSE_BOX, (number, attempt_id, code))

    def open_boxes(self, before: datetime, limit: int) -> Sequence[OpenBox]:
        """Boxes that were not touched since that time, longest untouched first."""
        rows = self._connection.execute(_SWEEP_OPEN_BOXES, (micros(before), limit)).fetchall()
        return [_open_box(row) for row in rows]

    def goods_return(self, number: str, reversal_id: str) -> Return | None:
        """A return."""
        row = self._connection.execute(_RETURN, (number, reversal_id)).fetchone()
        return None if row is None else _return(row)

    def returns(self, number: str, settlement_id: str) -> Sequence[Return]:
        """What came back of a dispense, in the order of the ids."""
        rows = self._connection.execute(_RETURNS, (number, settlement_id)).fetchall()
        return [_return(row) for row in rows]

    def add_return(self, returned: Return) -> None:
        """Store a new return."""
        self._connection.execute(
            _ADD_RETURN,
            (
                returned.reversal_id,
                returned.prescription_number,
                returned.settlement_id,
                returned_text(returned.lines),
                returned.statement_sha256,
                micros(returned.create_time),
                micros(returned.update_time),
                int(returned.booked),
                _figures(returned),
            ),
        )

    def save_return(self, returned: Return) -> None:
        """Store how far a return has come."""
        saved = self._connection.execute(
            _SAVE_RETURN,
            (
                int(returned.booked),
                _figures(returned),
                micros(returned.update_time),
                returned.prescription_number,
                returned.reversal_id,
            ),
        )
        require_one(saved, f"return {returned.reversal_id}")

    def delivery(self, number: str, settlement_id: str) -> Delivery | None:
        """The delivery of a dispense, if it has one."""
        row = self._connection.execute(_DELIVERY, (number, settlement_id)).fetchone()
        if row is None:
            return None
        number, settlement_id, state, state_time, *rest = row
        return Delivery(number, settlement_id, DeliveryState(state), instant(state_time), *rest)

    def save_delivery(self, delivery: Delivery) -> None:
        """Store a delivery, or its new state."""
        self._connection.execute(
            _SAVE_DELIVERY,
            (
                delivery.prescription_number,
                delivery.settlement_id,
                int(delivery.state),
                micros(delivery.state_time),
                delivery.carrier,
                delivery.parcel_number,
                delivery.fee_fen,
                delivery.statement_sha256,
            ),
        )

    def _locked(self, sql: str, *key: str) -> Dispense | None:
        row = self._connection.execute(sql + self._lock, key).fetchone()
        return None if row is None else _dispense(row)

    def _listed(self, sql: str, *parameters: str | int) -> list[Dispense]:
        return [_dispense(row) for row in self._connection.execute(sql, parameters).fetchall()]


def _open_box(row: Row) -> OpenBox:
    number, attempt_id, code, unwanted, update = row
    return OpenBox(number, attempt_id, code, bool(unwanted), instant(update))


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


def _figures(returned: Return) -> str | None:
    return None if returned.amounts is None else figures_text(returned.amounts)


def _return(row: Row) -> Return:
    reversal_id, number, settlement_id, lines, sha256, create, update, booked, amounts = row
    return Return(
        reversal_id=reversal_id,
        prescription_number=number,
        settlement_id=settlement_id,
        lines=returned_of(lines),
        statement_sha256=sha256,
        create_time=instant(create),
        update_time=instant(update),
        booked=bool(booked),
        amounts=None if amounts is None else figures_of(amounts),
    )
