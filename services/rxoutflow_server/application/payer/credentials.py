"""The e-credential: a code that the patient's app shows becomes a token for one pharmacy.

The payer region made the code and can tell from it whose it is. The token opens the person's
prescriptions, wherever they were issued, to the pharmacy that scanned the code, for some minutes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

from rxoutflow.identity import CallerName
from rxoutflow.v1.credential_pb2 import ECredential
from rxoutflow.v1.payer_service_pb2 import IssueECredentialRequest, IssueECredentialResponse
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.domain.errors import Reason, Refusal

TOKEN_LIFE = timedelta(minutes=10)


def issue_e_credential(
    tx: Transaction, region: Region, caller: CallerName, request: IssueECredentialRequest
) -> IssueECredentialResponse:
    """Turn a code into a token for the pharmacy that scanned it, and list what it opens.

    The same pharmacy may ask again while the code is good; another one may not.

    Raises:
        Refusal: E_CREDENTIAL_NOT_ACCEPTED or INSTITUTION_NOT_ACTIVE.
    """
    now = region.now()
    require_own_region(caller, request.pharmacy_code[1:7])
    region.require_active(caller.region_code, request.pharmacy_code)
    person = region.holder_of_credential(request.credential_code, now)
    digest = sha256(request.credential_code.encode()).digest()
    if person is None or not tx.payer.use_credential_code(person, digest, request.pharmacy_code):
        raise Refusal(
            Reason.E_CREDENTIAL_NOT_ACCEPTED,
            "the code is mistyped, too old, or was used elsewhere; ask the patient to show a new"
            " one",
        )
    return IssueECredentialResponse(
        token=region.seal(_token(region, person, request.pharmacy_code, now), now=now),
        statuses=_collectable(tx, person),
    )


def _token(region: Region, person: str, pharmacy_code: str, now: datetime) -> ECredential:
    return ECredential(
        credential_id=region.new_id(now),
        insured_person_id=person,
        payer_region_code=region.code,
        pharmacy_code=pharmacy_code,
        issue_time=timestamp(now),
        expire_time=timestamp(now + TOKEN_LIFE),
    )


def _collectable(tx: Transaction, person: str) -> list[SignedStatement]:
    """The person's prescriptions that are not revoked, newest first, as heard last."""
    entries = sorted(
        tx.payer.indexed(person), key=lambda entry: entry.prescription_number[6:19], reverse=True
    )
    statements = [
        tx.journal.statement(entry.prescription_number, entry.status_sha256) for entry in entries
    ]
    return [statement for statement in statements if not _is_revoked(statement)]


def _is_revoked(statement: SignedStatement) -> bool:
    """Read from our own store; the statement was verified before it was kept."""
    status = PrescriptionStatus.FromString(statement.payload)
    return status.validity == PrescriptionStatus.VALIDITY_REVOKED
