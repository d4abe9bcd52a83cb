"""The right to collect: proven by the pickup code or by the insured's e-credential, never asserted.

The home region keeps a keyed hash of the pickup code only. Wrong codes are counted on the
prescription; too many lock its code for a while, and the hospital hears of it. An unknown number
and a wrong secret look alike from outside.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

from rxoutflow.v1.attempt_pb2 import Collector
from rxoutflow.v1.credential_pb2 import ECredential, ECredentialProof
from rxoutflow.v1.home_service_pb2 import GrantClaimRequest, OpenPrescriptionRequest
from rxoutflow_server.application.exchange.evidence import tell_institution
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.messages import instant
from rxoutflow_server.application.ports import PickupTries, Transaction
from rxoutflow_server.application.region import Region, opened, routed
from rxoutflow_server.application.validation import check_required, invalid
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.prescription import Prescription

MAX_WRONG_TRIES = 5
LOCK = timedelta(minutes=15)

Proof = OpenPrescriptionRequest | GrantClaimRequest


def collected(tx: Transaction, region: Region, pharmacy_code: str, request: Proof) -> Prescription:
    """The prescription that a pharmacy may open by the proof in its request.

    Raises:
        Refusal: PICKUP_CODE_INVALID, PICKUP_CODE_LOCKED, E_CREDENTIAL_NOT_ACCEPTED, or
            FIELD_INVALID without a proof.
        StatementError: the e-credential does not verify.
    """
    match request.WhichOneof("proof"):
        case "pickup_code":
            return _by_pickup_code(tx, region, request.pickup_code)
        case "e_credential":
            return _by_e_credential(tx, region, pharmacy_code, request.e_credential)
        case _:
            raise invalid("proof", "is required: a pickup code or an e-credential")


def count_wrong_try(tx: Transaction, region: Region, pickup_code: str) -> None:
    """Count a wrong pickup code on the prescription that it names, if there is one."""
    now, number = region.now(), str(opened(pickup_code).number)
    prescription = tx.home.prescription(number)
    if prescription is None:
        return
    before = tx.home.pickup_tries(number)
    wrong = 1 + (before.wrong if before is not None else 0)
    if wrong < MAX_WRONG_TRIES:
        tx.home.save_pickup_tries(PickupTries(number, wrong, None))
        return
    tx.home.save_pickup_tries(PickupTries(number, 0, now + LOCK))
    tell_institution(
        tx,
        prescription.issuer_code,
        "PICKUP_CODE_LOCKED",
        number,
        "",
        prescription.statement_sha256,
        f"{MAX_WRONG_TRIES} wrong pickup codes were tried; the code is locked for a while",
        now,
    )


def check_collector(collector: Collector) -> None:
    """Whoever collects for the patient (代取) shows who both are, and the claim records it.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if collector.kind == Collector.KIND_REPRESENTATIVE and not collector.identity_proof.strip():
        raise invalid(
            "collector.identity_proof",
            "is required when a representative collects: say what was"
            " shown, never a document's number",
        )


def _by_pickup_code(tx: Transaction, region: Region, pickup_code: str) -> Prescription:
    code = opened(pickup_code)
    number = str(code.number)
    _require_unlocked(tx, number, region.now())
    prescription = tx.home.prescription(number)
    shown = region.hash_pickup_secret(number, code.secret)
    kept = prescription.pickup_hash if prescription is not None else b""
    if prescription is None or not hmac.compare_digest(shown, kept):
        raise Refusal(
            Reason.PICKUP_CODE_INVALID,
            "this pickup code opens nothing; ask the patient to show it again",
        )
    return prescription


def _require_unlocked(tx: Transaction, number: str, now: datetime) -> None:
    tries = tx.home.pickup_tries(number)
    if tries is not None and tries.locked_until is not None and now < tries.locked_until:
        raise Refusal(
            Reason.PICKUP_CODE_LOCKED,
            "too many wrong pickup codes were tried on this prescription; wait, or use the"
            " patient's e-credential",
            locked_until=tries.locked_until.isoformat(),
        )


def _by_e_credential(
    tx: Transaction, region: Region, pharmacy_code: str, proof: ECredentialProof
) -> Prescription:
    now = region.now()
    routed(proof.prescription_number)
    token = region.verified(proof.token, ECredential, now).content
    check_required(token)
    if token.pharmacy_code != pharmacy_code or now >= instant(token.expire_time):
        raise _not_accepted("the token is too old, or was made for another pharmacy")
    prescription = tx.home.prescription(proof.prescription_number)
    if prescription is None:
        raise facts.not_found()
    holder = (prescription.payer_region_code, prescription.insured_person_id)
    if holder != (token.payer_region_code, token.insured_person_id):
        raise facts.not_found()
    return prescription


def _not_accepted(problem: str) -> Refusal:
    return Refusal(
        Reason.E_CREDENTIAL_NOT_ACCEPTED, f"{problem}; ask the patient to show a new code"
    )
