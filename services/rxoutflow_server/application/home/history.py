"""The history behind a prescription's status, for the hospital that issued it.

Each step of the home role with its statement; where an attempt moved because an institution asked
for it in writing, that statement comes first, under the same action. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rxoutflow.identity import CallerName
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.attempt_pb2 import Attempt
from rxoutflow.v1.hospital_service_pb2 import (
    HospitalServiceListStatementsRequest,
    HospitalServiceListStatementsResponse,
)
from rxoutflow.v1.statement_pb2 import ProtectedHeader
from rxoutflow_server.application.exchange.history import event_of, page
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.ports import RegionRole, TraceStep, Transaction
from rxoutflow_server.application.region import Region

_ATTEMPT = rule_for(Attempt).payload_type


def list_statements(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: HospitalServiceListStatementsRequest,
) -> HospitalServiceListStatementsResponse:
    """The statements behind the status of a prescription of the caller's, a page at a time.

    Raises:
        Refusal: PRESCRIPTION_NOT_FOUND unless the caller issued it, or revoked it unregistered;
            FIELD_INVALID.
    """
    number = request.prescription_number
    _require_issued(tx, caller, number)
    return page(
        list(_steps(tx, number)),
        request.page_size,
        request.page_token,
        lambda step: event_of(tx, region, number, step),
        lambda events, token: HospitalServiceListStatementsResponse(
            events=events, next_page_token=token
        ),
    )


def _require_issued(tx: Transaction, caller: CallerName, number: str) -> None:
    known = tx.home.prescription(number) or tx.home.barred(number)
    if known is None or known.issuer_code != caller.institution_code:
        raise facts.not_found()


def _steps(tx: Transaction, number: str) -> Iterator[TraceStep]:
    steps = [step for step in tx.journal.steps(number) if step.role is RegionRole.HOME]
    shown = {step.statement_sha256 for step in steps}
    for step in steps:
        cause = _cause(tx, number, step)
        if cause is not None and cause.statement_sha256 not in shown:
            shown.add(cause.statement_sha256)
            yield cause
        yield step


def _cause(tx: Transaction, number: str, step: TraceStep) -> TraceStep | None:
    """What an institution signed to move the attempt that the step states, if it is kept."""
    statement = tx.journal.statement(number, step.statement_sha256)
    if statement.payload_type != _ATTEMPT:
        return None
    digest = Attempt.FromString(statement.payload).cause_sha256
    cause = tx.journal.find_statement(number, digest) if digest else None
    if cause is None:
        return None
    seal = ProtectedHeader.FromString(cause.signatures[-1].protected)
    return replace(step, statement_sha256=digest, actor_code=seal.institution_code)
