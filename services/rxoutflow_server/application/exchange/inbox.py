"""Facts that other regions tell us, each taking effect once.

A fact is checked and verified here; the roles that it concerns are given what verified. An event is
noted as received in the transaction in which it takes effect, so one that arrives twice, or again
after a crash, changes nothing the second time. An event to the payer role carries the number of the
insured person; by that, a region with several roles knows which one is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1.attempt_pb2 import Adjudication, Attempt
from rxoutflow.v1.dispense_pb2 import DispenseRecord, DispenseReturn
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow.v1.prescription_status_pb2 import PrescriptionStatus
from rxoutflow.v1.settlement_pb2 import Reversal, Settlement
from rxoutflow_server.application.dispensing import events as dispensing
from rxoutflow_server.application.dispensing import returns as dispensing_returns
from rxoutflow_server.application.exchange.idempotency import unverified
from rxoutflow_server.application.home import events as home
from rxoutflow_server.application.home import returns as home_returns
from rxoutflow_server.application.payer import events as payer
from rxoutflow_server.application.payer import reversals
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.application.region import Region, routed
from rxoutflow_server.application.validation import (
    check_adjudication,
    check_dispense_record,
    check_dispense_return,
    check_payment,
    check_required,
    check_uuid,
    invalid,
)
from rxoutflow_server.domain.errors import Reason, Refusal

Handler = Callable[[Transaction, Region, CallerName, PeerEvent, Verified[Any], datetime], None]

_TO_PAYER: dict[str, Handler] = {
    rule_for(PrescriptionStatus).payload_type: payer.index_prescription,
    rule_for(Attempt).payload_type: payer.note_attempt_end,
    rule_for(DispenseRecord).payload_type: payer.post_settlement,
    rule_for(Adjudication).payload_type: payer.note_adjudication,
    rule_for(DispenseReturn).payload_type: reversals.reverse_settlement,
}
_FACTS: dict[str, tuple[type[Message], Callable[[Any], None]]] = {
    rule_for(kind).payload_type: (kind, check)
    for kind, check in (
        (PrescriptionStatus, check_required),
        (Attempt, check_required),
        (DispenseRecord, check_dispense_record),
        (Adjudication, check_adjudication),
        (DispenseReturn, check_dispense_return),
        (Settlement, check_payment),
        (Reversal, check_payment),
    )
}
"""What events may tell, and what each must hold by itself."""

_TO_OTHERS: dict[str, Handler] = {
    rule_for(PrescriptionStatus).payload_type: dispensing_returns.note_status,
    rule_for(Attempt).payload_type: dispensing.note_attempt,
    rule_for(DispenseRecord).payload_type: home.book_dispense,
    rule_for(Adjudication).payload_type: dispensing.note_adjudication,
    rule_for(DispenseReturn).payload_type: home_returns.book_return,
}
_FROM_PAYER: dict[str, tuple[Handler, Handler]] = {
    rule_for(Settlement).payload_type: (home.note_settlement, dispensing.note_settlement),
    rule_for(Reversal).payload_type: (
        home_returns.note_reversal,
        dispensing_returns.note_reversal,
    ),
}
"""What a payer states, and who acts on it: the home region and the dispensing region."""


def take_effect(tx: Transaction, region: Region, caller: CallerName, event: PeerEvent) -> None:
    """Let an event of another region take effect, unless it did before.

    Raises:
        StatementError: what it carries does not verify.
        Refusal: it contradicts what this region knows; an operator of the sender has to look.
    """
    check_required(event)
    check_uuid("event_id", event.event_id)
    handlers = _handlers(region, event)
    now = region.now()
    first = tx.journal.receive_event(
        event.prescription_number, caller.region_code, event.event_id, now
    )
    if not first:
        return
    kind, _ = _FACTS[event.statement.payload_type]
    verified = region.verified(event.statement, kind, now)
    for handle in handlers:
        handle(tx, region, caller, event, verified, now)


def _handlers(region: Region, event: PeerEvent) -> list[Handler]:
    """Who acts on an event. What it says is only looked at here; it is verified before they do."""
    payload_type = event.statement.payload_type
    if payload_type in _FROM_PAYER:
        return _money_handlers(region, event)
    handlers = _TO_PAYER if event.insured_person_id else _TO_OTHERS
    if payload_type not in handlers:
        raise Refusal(
            Reason.STATEMENT_TYPE_UNEXPECTED,
            "no region acts on events of this type",
            expected=", ".join(sorted(handlers)),
        )
    _check_content(event, _unverified_content(event))
    handler = handlers[payload_type]
    if event.trace_code_sales and handler is not payer.post_settlement:
        raise invalid("trace_code_sales", "only go with a dispense record to the payer")
    return [handler]


def _money_handlers(region: Region, event: PeerEvent) -> list[Handler]:
    """A payment concerns the home region and the dispensing region, which may be one."""
    at_home, where_dispensed = _FROM_PAYER[event.statement.payload_type]
    stated = _unverified_content(event)
    _check_content(event, stated)
    handlers: list[Handler] = []
    if routed(event.prescription_number).region_code == region.code:
        handlers.append(at_home)
    if stated.dispensing_region_code == region.code:
        handlers.append(where_dispensed)
    if not handlers:
        raise Refusal(Reason.SETTLEMENT_NOT_FOUND, "there is no such settlement here")
    return handlers


def _unverified_content(event: PeerEvent) -> Any:  # noqa: ANN401 - of the type of the payload
    kind, _ = _FACTS[event.statement.payload_type]
    return unverified(event.statement, kind)


def _check_content(event: PeerEvent, content: Any) -> None:  # noqa: ANN401 - of the type of the payload
    """An event is filed under the prescription that its statement is about, and no other."""
    _, check = _FACTS[event.statement.payload_type]
    check(content)
    if content.prescription_number != event.prescription_number:
        raise Refusal(
            Reason.SIGNED_CONTENT_MISMATCH,
            "prescription_number: the statement is about another prescription",
            field="prescription_number",
        )
