"""Steps as their readers get them: with the statement behind each, and who signed it.

The statements were verified before they were stored; here they are only shown. Who may read which
steps is for the callers of this module to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from rxoutflow.statements.payloads import RULES, rule_for
from rxoutflow.v1 import settlement_pb2, statement_pb2
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from rxoutflow.v1.trace_pb2 import TraceEvent, TraceSigner
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.paging import page_size
from rxoutflow_server.application.ports import Flow, RegionRole, TraceStep, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import invalid

MAX_EVENTS = 100
"""Events to a page: each carries a statement with its certificates."""

_FLOWS = {
    Flow.INFORMATION: TraceEvent.FLOW_INFORMATION,
    Flow.MONEY: TraceEvent.FLOW_MONEY,
    Flow.GOODS: TraceEvent.FLOW_GOODS,
}
_ROLES = {
    RegionRole.HOME: TraceEvent.REGION_ROLE_HOME,
    RegionRole.DISPENSING: TraceEvent.REGION_ROLE_DISPENSING,
    RegionRole.PAYER: TraceEvent.REGION_ROLE_PAYER,
}
_MESSAGES = {rule.payload_type: rule.message for rule in RULES}
_POSITION_DIGITS = 9

R = TypeVar("R", bound=Message)


def event_of(tx: Transaction, region: Region, number: str, step: TraceStep) -> TraceEvent:
    """A step with its statement."""
    statement = tx.journal.statement(number, step.statement_sha256)
    return TraceEvent(
        event_time=timestamp(step.time),
        region_code=region.code,
        region_role=_ROLES[step.role],
        flow=_FLOWS[step.flow],
        action=step.action,
        actor_code=step.actor_code,
        signers=[_signer(region, signature) for signature in statement.signatures],
        statement_sha256=step.statement_sha256,
        statement=statement,
        amounts=_amounts(statement) if step.flow is Flow.MONEY else None,
    )


def page(
    steps: Sequence[TraceStep],
    size: int,
    token: str,
    event: Callable[[TraceStep], TraceEvent],
    respond: Callable[[list[TraceEvent], str], R],
) -> R:
    """A page of steps that are only ever appended to; its token is a position.

    Raises:
        Refusal: FIELD_INVALID for a negative size or a token that was never given out.
    """
    limit = min(page_size(size), MAX_EVENTS)
    begin, end = _position(token), _position(token) + limit
    events = [event(step) for step in steps[begin:end]]
    return respond(events, str(end) if end < len(steps) else "")


def content_of(statement: SignedStatement) -> Message:
    """What a stored statement says."""
    return _MESSAGES[statement.payload_type].FromString(statement.payload)


def _position(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdecimal() and len(token) <= _POSITION_DIGITS):
        raise invalid("page_token", "must be the next_page_token of the response before")
    return int(token)


def _signer(region: Region, signature: statement_pb2.Signature) -> TraceSigner:
    header = ProtectedHeader.FromString(signature.protected)
    listed = region.listed_signer(header.region_code, header.certificate_sha256)
    return TraceSigner(
        role=header.role,
        display_name=listed.display_name if listed is not None else "",
        institution_code=header.institution_code,
    )


def _amounts(statement: SignedStatement) -> settlement_pb2.Amounts | None:
    if statement.payload_type == rule_for(settlement_pb2.Settlement).payload_type:
        return settlement_pb2.Settlement.FromString(statement.payload).amounts
    if statement.payload_type == rule_for(settlement_pb2.Reversal).payload_type:
        return settlement_pb2.Reversal.FromString(statement.payload).amounts
    return None
