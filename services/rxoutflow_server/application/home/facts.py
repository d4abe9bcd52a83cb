"""Stating what the home region decided: to the log of evidence, to regions, to the hospital."""

from __future__ import annotations

from datetime import datetime

from rxoutflow.statements import statement_sha256
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.exchange.evidence import (
    stated,
    step,
    tell_institution,
    tell_region,
)
from rxoutflow_server.application.messages import attempt_message, status_message
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.attempt import Attempt, AttemptState
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.prescription import Change, Prescription, Validity, unknown_attempt

_ACTIONS = {
    AttemptState.RESERVED: ("claimed", Flow.INFORMATION),
    AttemptState.COMMITTED: ("committed", Flow.INFORMATION),
    AttemptState.DISPENSED: ("dispense booked", Flow.GOODS),
    AttemptState.RELEASED: ("released", Flow.INFORMATION),
    AttemptState.EXPIRED: ("lease expired", Flow.INFORMATION),
}
_NOTICES = {
    AttemptState.RESERVED: ("CLAIMED", "{} claimed the prescription"),
    AttemptState.COMMITTED: ("COMMITTED", "{} reviewed it and is about to hand over"),
    AttemptState.DISPENSED: ("DISPENSED", "{} handed the medicine over"),
    AttemptState.RELEASED: ("ATTEMPT_ENDED", "{} let go of the prescription"),
    AttemptState.EXPIRED: ("ATTEMPT_ENDED", "the claim of {} ran out"),
}
_ADJUDICATED = {
    AttemptState.DISPENSED: ("DISPENSED", "two people found that {} handed the medicine over"),
    AttemptState.RELEASED: ("ATTEMPT_ENDED", "two people found that {} handed nothing over"),
}


def require_prescription(tx: Transaction, number: str) -> Prescription:
    """A prescription of this region.

    Raises:
        Refusal: PRESCRIPTION_NOT_FOUND.
    """
    prescription = tx.home.prescription(number)
    if prescription is None:
        raise not_found()
    return prescription


def require_attempt(tx: Transaction, number: str, attempt_id: str) -> tuple[Prescription, Attempt]:
    """An attempt on a prescription of this region, and that prescription.

    Raises:
        Refusal: ATTEMPT_NOT_FOUND.
    """
    prescription = tx.home.prescription(number)
    if prescription is None:
        raise unknown_attempt()
    live = prescription.live_attempt
    if live is not None and live.attempt_id == attempt_id:
        return prescription, live
    attempt = tx.home.attempt(number, attempt_id)
    if attempt is None:
        raise unknown_attempt()
    return prescription, attempt


def not_found() -> Refusal:
    """What strangers hear, whether the prescription exists or not."""
    return Refusal(
        Reason.PRESCRIPTION_NOT_FOUND, "there is no such prescription here, or not for you"
    )


def signed_status(region: Region, prescription: Prescription, now: datetime) -> SignedStatement:
    """The state of a prescription, signed by this platform."""
    return region.seal(_status(region, prescription, now), now=now)


def save(
    tx: Transaction, region: Region, change: Change, now: datetime, *, adjudicated: bool = False
) -> list[SignedStatement]:
    """Store a transition; state every attempt that changed and tell whom it concerns.

    The statements are given back, in the order of the attempts.
    """
    tx.home.save(change)
    notices = _ADJUDICATED if adjudicated else _NOTICES
    stated_attempts = [
        _state_attempt(tx, region, change.prescription, attempt, notices[attempt.state], now)
        for attempt in change.attempts
    ]
    if any(not attempt.state.is_live for attempt in change.attempts):
        status = index(tx, region, change.prescription, now)
        if change.mark_took_effect:
            _state_mark_in_effect(tx, region, change.prescription, status, now)
    return stated_attempts


def save_attempt(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    change: Change,
    now: datetime,
    *,
    adjudicated: bool = False,
) -> SignedStatement:
    """Store what has become of a prescription; the word of this platform on the attempt.

    Where nothing changed, because it is asked for again, the attempt is stated as it stands.
    """
    if change.prescription is prescription:
        return signed_attempt(region, change.attempt, prescription, now)
    return save(tx, region, change, now, adjudicated=adjudicated)[-1]


def signed_attempt(
    region: Region, attempt: Attempt, prescription: Prescription, now: datetime
) -> SignedStatement:
    """An attempt as it stands, signed by this platform."""
    return region.seal(attempt_message(attempt, prescription.payer_region_code), now=now)


def index(
    tx: Transaction, region: Region, prescription: Prescription, now: datetime
) -> SignedStatement:
    """State where a prescription stands, and tell the payer region, which indexes its insured."""
    status = _status(region, prescription, now)
    statement, digest = stated(tx, region, prescription.number, status, now)
    tell_region(
        tx,
        region,
        prescription.payer_region_code,
        prescription.number,
        digest,
        now,
        insured_person_id=prescription.insured_person_id,
    )
    return statement


def answer_return(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    attempt: Attempt,
    return_sha256: bytes,
    now: datetime,
) -> None:
    """State where a prescription stands after a return: to its hospital, dispenser and payer."""
    number, dispenser = prescription.number, attempt.dispensing_region_code
    status = _status(region, prescription, now)
    status.cause_sha256 = return_sha256
    _, digest = stated(tx, region, number, status, now)
    step(tx, number, RegionRole.HOME, Flow.GOODS, "return booked", region.code, digest, now)
    notice = ("RETURNED", "{} took medicine back")
    _notify_issuer(tx, region, prescription, attempt, notice, digest, now)
    tell_region(tx, region, dispenser, number, digest, now)
    payer, person = prescription.payer_region_code, prescription.insured_person_id
    tell_region(tx, region, payer, number, digest, now, insured_person_id=person)


def warn_holder(tx: Transaction, region: Region, prescription: Prescription, now: datetime) -> None:
    """Tell the region of the pharmacy that holds it that the issuer wants it back."""
    live = prescription.live_attempt
    if live is None or prescription.validity is not Validity.MARKED_FOR_REVOCATION:
        return
    _, digest = stated(tx, region, prescription.number, _status(region, prescription, now), now)
    tell_region(tx, region, live.dispensing_region_code, prescription.number, digest, now)


def _status(region: Region, prescription: Prescription, now: datetime) -> PrescriptionStatus:
    live = prescription.live_attempt
    holder = region.name_of(live.dispensing_region_code, live.pharmacy_code) if live else ""
    return status_message(prescription, holder, now)


def _state_mark_in_effect(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    status: SignedStatement,
    now: datetime,
) -> None:
    """Nobody holds it any more: what its issuer wanted back is revoked now, by this status."""
    number, digest = prescription.number, statement_sha256(status)
    step(tx, number, RegionRole.HOME, Flow.INFORMATION, "revoked", region.code, digest, now)
    tell_institution(
        tx,
        prescription.issuer_code,
        "REVOKED",
        number,
        "",
        digest,
        "nobody holds the prescription any more: the revocation took effect",
        now,
    )


def _state_attempt(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    attempt: Attempt,
    notice: tuple[str, str],
    now: datetime,
) -> SignedStatement:
    number = prescription.number
    message = attempt_message(attempt, prescription.payer_region_code)
    statement, digest = stated(tx, region, number, message, now)
    action, flow = _ACTIONS[attempt.state]
    step(tx, number, RegionRole.HOME, flow, action, region.code, digest, now)
    _notify_issuer(tx, region, prescription, attempt, notice, digest, now)
    if not attempt.state.is_live:
        person = prescription.insured_person_id
        tell_region(tx, region, attempt.dispensing_region_code, number, digest, now)
        tell_region(
            tx,
            region,
            prescription.payer_region_code,
            number,
            digest,
            now,
            insured_person_id=person,
        )
    return statement


def _notify_issuer(
    tx: Transaction,
    region: Region,
    prescription: Prescription,
    attempt: Attempt,
    notice: tuple[str, str],
    digest: bytes,
    now: datetime,
) -> None:
    kind, words = notice
    pharmacy = region.name_of(attempt.dispensing_region_code, attempt.pharmacy_code)
    tell_institution(
        tx,
        prescription.issuer_code,
        kind,
        prescription.number,
        attempt.pharmacy_code,
        digest,
        words.format(pharmacy),
        now,
    )
