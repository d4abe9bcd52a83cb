"""The history behind a dispense, for the pharmacy whose claims it rests on.

A pharmacy sees the prescription that it claimed and what concerns its own attempts. What its region
knows of other pharmacies' attempts on the same prescription is not for it, nor what the region
stored in another role.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.statements import statement_sha256
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.pharmacy_service_pb2 import (
    PharmacyServiceListStatementsRequest,
    PharmacyServiceListStatementsResponse,
)
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.statement_pb2 import ProtectedHeader
from rxoutflow_server.application.exchange.history import content_of, event_of, page
from rxoutflow_server.application.ports import Flow, RegionRole, TraceStep, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.domain.errors import Reason, Refusal

_PRESCRIPTION = rule_for(Prescription).payload_type


def list_statements(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: PharmacyServiceListStatementsRequest,
) -> PharmacyServiceListStatementsResponse:
    """The statements behind the caller's attempts on a prescription, a page at a time.

    Raises:
        Refusal: PRESCRIPTION_NOT_FOUND if the caller never had a claim on it; FIELD_INVALID.
    """
    number = request.prescription_number
    steps = list(_own_steps(tx, caller.institution_code, number))
    if not steps:
        raise Refusal(
            Reason.PRESCRIPTION_NOT_FOUND, "you have never had a claim on such a prescription"
        )
    return page(
        steps,
        request.page_size,
        request.page_token,
        lambda step: event_of(tx, region, number, step),
        lambda events, token: PharmacyServiceListStatementsResponse(
            events=events, next_page_token=token
        ),
    )


def _own_steps(tx: Transaction, pharmacy_code: str, number: str) -> Iterator[TraceStep]:
    """What concerns the pharmacy's attempts, after the prescription that they are on."""
    begun = False
    for step in tx.journal.steps(number):
        if step.role is not RegionRole.DISPENSING:
            continue
        content = content_of(tx.journal.statement(number, step.statement_sha256))
        if not _concerns(tx, number, content, pharmacy_code):
            continue
        if not begun:
            yield from _prescription(tx, number, step)
            begun = True
        yield step


def _prescription(tx: Transaction, number: str, first: TraceStep) -> Iterator[TraceStep]:
    for statement in tx.journal.statements_of(number, _PRESCRIPTION):
        seal = ProtectedHeader.FromString(statement.signatures[-1].protected)
        yield replace(
            first,
            flow=Flow.INFORMATION,
            action="prescription received",
            actor_code=seal.institution_code,
            statement_sha256=statement_sha256(statement),
        )


def _concerns(tx: Transaction, number: str, content: Message, pharmacy_code: str) -> bool:
    """Whether a statement is about an attempt of the pharmacy's."""
    if isinstance(content, PrescriptionStatus):
        return content.live_attempt.pharmacy_code == pharmacy_code
    named = getattr(content, "pharmacy_code", None)
    if named is not None:
        return bool(named == pharmacy_code)
    claim = tx.dispensing.claim(number, getattr(content, "attempt_id", ""))
    return claim is not None and claim.pharmacy_code == pharmacy_code
