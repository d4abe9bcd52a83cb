"""Bringing issued prescriptions to the platform, and revocations with them.

Each prescription has its turn: what is said here happens with the turn held. Before the first try
it is noted that the platform may have the prescription. From then on it is never withdrawn here,
whatever became of the try: a register that seems lost may still arrive. A revocation that was asked
for in between goes to the platform first, by this edge itself if the hospital's systems do not come
back. The platform refuses for good what it hears of after its revocation, so a prescription that
was taken back does not become valid behind anybody's back.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from rxoutflow.statements import Verified
from rxoutflow.v1.his_service_pb2 import HisServiceRevokePrescriptionResponse
from rxoutflow.v1.hospital_service_pb2 import (
    RegisterPrescriptionRequest,
    RegisterPrescriptionResponse,
    RevokePrescriptionRequest,
)
from rxoutflow.v1.prescription_status_pb2 import (
    REVOCATION_OUTCOME_NEVER_REGISTERED,
    PrescriptionStatus,
    RevocationOutcome,
)
from rxoutflow.v1.statement_pb2 import Receipt, SignedStatement
from rxoutflow_server.application.edge import refusals
from rxoutflow_server.application.edge.answers import trusted
from rxoutflow_server.application.edge.platform import HospitalPlatform, decided, out_of_reach
from rxoutflow_server.application.edge.sealing import concluded, keep, sealed_before
from rxoutflow_server.application.edge.surroundings import Edge
from rxoutflow_server.application.edge_ports import (
    EdgeTransaction,
    IssuedPrescription,
    Registration,
)
from rxoutflow_server.application.exchange.idempotency import RequestKey
from rxoutflow_server.application.ports import NoticeRecord, StoredOutcome
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal

REVOKE = "/rxoutflow.v1.HisService/RevokePrescription"


async def bring(edge: Edge, platform: HospitalPlatform, number: str, *, late: bool) -> None:
    """Bring a prescription to the platform if it is still on its way. The caller holds its turn.

    ``late`` tells that nobody waits for the answer, so that a refusal becomes a notice.

    Raises:
        Unavailable: the platform did not decide; the prescription stays queued.
    """
    issued = await _about_to_send(edge, platform, number)
    if issued is not None and issued.revocation_request_id:
        key = edge.key(number, issued.revocation_request_id, REVOKE)
        with suppress(Refusal):  # its answer when the hospital's systems repeat the request
            await revoke_at_platform(edge, platform, key)
        issued = await _about_to_send(edge, platform, number)
    if issued is None:
        return
    request = await edge.store.read(lambda tx: _request(tx, issued))
    try:
        answer = await decided(
            platform.register_prescription(request), edge.institution.region_code
        )
    except Refusal as refusal:
        told = refusal
        await edge.store.transact(lambda tx: _refused(tx, edge, number, told, late=late))
        edge.noticed.ring()
        return
    status = trusted(edge, answer.status, PrescriptionStatus, number, edge.now())
    await edge.store.transact(lambda tx: _registered(tx, edge, number, answer, status))


async def revoke_at_platform(
    edge: Edge, platform: HospitalPlatform, key: RequestKey
) -> HisServiceRevokePrescriptionResponse:
    """Have the platform carry out a sealed revocation. The caller holds the prescription's turn.

    Raises:
        Refusal: see HospitalService.RevokePrescription.
        Unavailable: the platform did not decide.
    """
    revocation = await edge.store.read(lambda tx: sealed_before(tx, key))
    answer = await decided(
        platform.revoke_prescription(
            RevokePrescriptionRequest(request_id=key.request_id, revocation=revocation)
        ),
        edge.institution.region_code,
    )
    status = trusted(edge, answer.status, PrescriptionStatus, key.prescription_number, edge.now())
    response = HisServiceRevokePrescriptionResponse(
        outcome=answer.outcome,
        status=answer.status,
        revocation=revocation,
        receipt=answer.receipt if answer.HasField("receipt") else None,
    )
    return await edge.store.transact(lambda tx: _revoked(tx, edge, key, response, status))


def heard(
    tx: EdgeTransaction,
    issued: IssuedPrescription,
    statement: SignedStatement,
    status: Verified[PrescriptionStatus],
    now: datetime,
) -> IssuedPrescription:
    """The prescription with a status that was heard, unless a newer one was heard before."""
    if status.content.version < _known_version(tx, issued):
        return issued
    digest = keep(tx, issued.prescription_number, statement, now)
    return replace(issued, status_sha256=digest, status_time=now)


def receipt_of(tx: EdgeTransaction, edge: Edge, issued: IssuedPrescription) -> Receipt | None:
    """The platform's receipt for a registration, if its region keeps a log."""
    stored = tx.journal.outcome(issued.prescription_number, _platform(edge), issued.request_id)
    return Receipt.FromString(stored.response) if stored is not None else None


def require_issued(tx: EdgeTransaction, number: str) -> IssuedPrescription:
    """A prescription that is known to be stored here."""
    issued = tx.edge.issued(number)
    if issued is None:
        raise InvariantBroken(f"no prescription {number} is stored here")
    return issued


def _known_version(tx: EdgeTransaction, issued: IssuedPrescription) -> int:
    """The version of the status that was heard last; 0 if none was."""
    if not issued.status_sha256:
        return 0
    statement = tx.journal.statement(issued.prescription_number, issued.status_sha256)
    return PrescriptionStatus.FromString(statement.payload).version


async def _about_to_send(
    edge: Edge, platform: HospitalPlatform, number: str
) -> IssuedPrescription | None:
    """The prescription, noted as sent; none if nothing is to be sent."""
    issued = await edge.store.read(lambda tx: tx.edge.issued(number))
    if issued is None or issued.registration is not Registration.QUEUED:
        return None
    if issued.sent:
        return issued
    if not await platform.reachable():
        raise out_of_reach(edge.institution.region_code, "cannot be reached")
    return await edge.store.transact(lambda tx: _sent(tx, number))


def _sent(tx: EdgeTransaction, number: str) -> IssuedPrescription:
    issued = replace(require_issued(tx, number), sent=True)
    tx.edge.save_issued(issued)
    return issued


def _request(tx: EdgeTransaction, issued: IssuedPrescription) -> RegisterPrescriptionRequest:
    return RegisterPrescriptionRequest(
        request_id=issued.request_id,
        prescription=tx.journal.statement(issued.prescription_number, issued.statement_sha256),
        pickup_secret=issued.pickup_secret,
    )


def _registered(
    tx: EdgeTransaction,
    edge: Edge,
    number: str,
    answer: RegisterPrescriptionResponse,
    status: Verified[PrescriptionStatus],
) -> None:
    issued, now = require_issued(tx, number), edge.now()
    current = heard(tx, issued, answer.status, status, now)
    tx.edge.save_issued(
        replace(current, registration=Registration.REGISTERED, revocation_request_id="")
    )
    if answer.HasField("receipt"):
        _keep_receipt(tx, edge, issued, answer.receipt, now)


def _keep_receipt(
    tx: EdgeTransaction, edge: Edge, issued: IssuedPrescription, receipt: Receipt, now: datetime
) -> None:
    tx.journal.keep_outcome(
        issued.prescription_number,
        _platform(edge),
        issued.request_id,
        StoredOutcome(
            method="/rxoutflow.v1.HospitalService/RegisterPrescription",
            request_sha256=issued.statement_sha256,
            response_type=receipt.DESCRIPTOR.full_name,
            response=receipt.SerializeToString(),
            effect_time=now,
        ),
    )


def _platform(edge: Edge) -> str:
    """Under which name answers of the platform are stored; no caller has a name of this form."""
    return f"{edge.institution}#platform"


def _refused(tx: EdgeTransaction, edge: Edge, number: str, refusal: Refusal, *, late: bool) -> None:
    tx.edge.save_issued(_as_refused(require_issued(tx, number), refusal))
    if late:
        tx.journal.add_notice(_refusal_notice(edge, number, refusal, edge.now()))


def _as_refused(issued: IssuedPrescription, refusal: Refusal) -> IssuedPrescription:
    return replace(
        issued,
        registration=Registration.REFUSED,
        refusal=refusals.written(refusal),
        revocation_request_id="",
    )


def _refusal_notice(edge: Edge, number: str, refusal: Refusal, now: datetime) -> NoticeRecord:
    return NoticeRecord(
        institution_code=edge.code,
        kind="REGISTRATION_REFUSED",
        prescription_number=number,
        other_institution_code="",
        statement_sha256=b"",
        summary=f"{refusal.reason}: {refusal.message}",
        time=now,
    )


def _revoked(
    tx: EdgeTransaction,
    edge: Edge,
    key: RequestKey,
    response: HisServiceRevokePrescriptionResponse,
    status: Verified[PrescriptionStatus],
) -> HisServiceRevokePrescriptionResponse:
    now = edge.now()
    issued = tx.edge.issued(key.prescription_number)
    if issued is not None:
        current = heard(tx, issued, response.status, status, now)
        tx.edge.save_issued(_after_revocation(current, response.outcome))
    return concluded(tx, key, response, now)


def _after_revocation(
    issued: IssuedPrescription, outcome: RevocationOutcome.ValueType
) -> IssuedPrescription:
    """What never was registered never will be: there is nothing left to bring."""
    if issued.registration is not Registration.QUEUED:
        return issued
    if outcome == REVOCATION_OUTCOME_NEVER_REGISTERED:
        taken_back = Refusal(
            Reason.PRESCRIPTION_REVOKED, "it was taken back before the platform had registered it"
        )
        return _as_refused(issued, taken_back)
    return replace(issued, revocation_request_id="")
