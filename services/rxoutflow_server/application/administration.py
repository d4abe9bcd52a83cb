"""What the people who run a platform may do: decide on silent pharmacies and undelivered events.

Nothing here can alter what was signed. An attempt ends only by an adjudication that two people of
this region signed; an event that another region refused is sent again or given up, and its
statement stays. Every such act is a step in the life of its prescription.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message

from rxoutflow.identity import CallerName
from rxoutflow.statements.payloads import rule_for
from rxoutflow.v1 import attempt_pb2, dispense_pb2, settlement_pb2
from rxoutflow.v1.administration_service_pb2 import (
    AdjudicateAttemptRequest,
    AdjudicateAttemptResponse,
    DeadLetter,
    DiscardDeadLetterRequest,
    DiscardDeadLetterResponse,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    ListOverdueAttemptsRequest,
    ListOverdueAttemptsResponse,
    OverdueAttempt,
    RetryDeadLetterRequest,
    RetryDeadLetterResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.exchange.evidence import keep, step, tell_region
from rxoutflow_server.application.exchange.idempotency import RequestKey, once, unverified_number
from rxoutflow_server.application.home import facts
from rxoutflow_server.application.messages import attempt_message, timestamp
from rxoutflow_server.application.paging import page_size
from rxoutflow_server.application.ports import DeadEvent, Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region
from rxoutflow_server.application.validation import check_adjudication, check_required, invalid
from rxoutflow_server.domain import prescription as transitions
from rxoutflow_server.domain.attempt import Attempt
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.prescription import Change, Prescription, Ruling

PAGE_BYTES = 1 << 20
"""A page ends here, however many entries were asked for: an answer has to arrive."""

_ADJUDICATE = "/rxoutflow.v1.AdministrationService/AdjudicateAttempt"
_REASON_LENGTH = 200
_REASON = re.compile(r"[^\x00-\x1f\x7f]+")
_OVERDUE_TOKEN = re.compile(r"([0-9T:.+-]{25,32})/([0-9A-Z]{1,30})")
_SENDERS = {
    rule_for(kind).payload_type: role
    for role, kinds in (
        (RegionRole.PAYER, (settlement_pb2.Settlement, settlement_pb2.Reversal)),
        (RegionRole.DISPENSING, (dispense_pb2.DispenseRecord, dispense_pb2.DispenseReturn)),
    )
    for kind in kinds
}
"""The role in which a region tells a fact; home tells the others."""

Entry = TypeVar("Entry", bound=Message)


def list_overdue(
    tx: Transaction, region: Region, request: ListOverdueAttemptsRequest
) -> ListOverdueAttemptsResponse:
    """The adjudication list: committed attempts of this region whose pharmacy has been silent.

    Raises:
        Refusal: FIELD_INVALID for a page that cannot be.
    """
    now, size = region.now(), page_size(request.page_size)
    end, after = now - region.overdue, _overdue_after(request.page_token)
    found = tx.home.commits_until(end, after, size + 1)
    entries = _page((_overdue(tx, region, each, now) for each in found), size)
    more = len(found) > len(entries)
    last = found[len(entries) - 1] if more else None
    token = f"{last.update_time.isoformat()}/{last.prescription_number}" if last else ""
    return ListOverdueAttemptsResponse(attempts=entries, next_page_token=token)


def adjudicate(
    tx: Transaction, region: Region, caller: CallerName, request: AdjudicateAttemptRequest
) -> AdjudicateAttemptResponse:
    """End an overdue attempt by the decision of two people.

    Raises:
        StatementError: the adjudication does not verify, or one person signed it twice.
        Refusal: see AdministrationService.AdjudicateAttempt.
    """
    now = region.now()
    number = unverified_number(request.adjudication, attempt_pb2.Adjudication)
    key = RequestKey(number, str(caller), request.request_id, _ADJUDICATE)
    return once(
        tx.journal,
        key,
        request,
        AdjudicateAttemptResponse,
        now,
        lambda: _adjudicate(tx, region, request.adjudication, now),
    )


def list_dead_letters(tx: Transaction, request: ListDeadLettersRequest) -> ListDeadLettersResponse:
    """Events that were set aside, oldest first.

    Raises:
        Refusal: FIELD_INVALID for a page that cannot be.
    """
    size = page_size(request.page_size)
    found = tx.journal.dead_events(request.page_token, size + 1)
    entries = _page((_dead_letter(tx, each) for each in found), size)
    more = len(found) > len(entries)
    return ListDeadLettersResponse(
        dead_letters=entries, next_page_token=entries[-1].event_id if more else ""
    )


def retry(
    tx: Transaction, region: Region, caller: CallerName, request: RetryDeadLetterRequest
) -> RetryDeadLetterResponse:
    """Send an event again that was set aside.

    Raises:
        Refusal: EVENT_NOT_FOUND.
    """
    dead = _require_dead(tx, request)
    tx.journal.event_revived(dead.event, region.now())
    _decided(tx, region, caller, dead, "event sent again")
    return RetryDeadLetterResponse()


def discard(
    tx: Transaction, region: Region, caller: CallerName, request: DiscardDeadLetterRequest
) -> DiscardDeadLetterResponse:
    """Give an event up that was set aside; the reason stays in the life of the prescription.

    Raises:
        Refusal: EVENT_NOT_FOUND, or FIELD_INVALID for a reason that is too long or no text.
    """
    check_required(request)
    if len(request.reason) > _REASON_LENGTH or not _REASON.fullmatch(request.reason):
        raise invalid("reason", f"must be one line of at most {_REASON_LENGTH} characters")
    dead = _require_dead(tx, request)
    tx.journal.event_acknowledged(dead.event)
    _decided(tx, region, caller, dead, f"event given up: {request.reason}")
    return DiscardDeadLetterResponse()


def _adjudicate(
    tx: Transaction, region: Region, statement: SignedStatement, now: datetime
) -> AdjudicateAttemptResponse:
    verified = region.verified(statement, attempt_pb2.Adjudication, now)
    content = verified.content
    check_adjudication(content)
    number = content.prescription_number
    prescription, attempt = facts.require_attempt(tx, number, content.attempt_id)
    handed_over = content.finding == attempt_pb2.Adjudication.FINDING_HANDED_OVER
    ruling = Ruling(content.attempt_id, content.fence, handed_over, verified.sha256)
    change = transitions.adjudicate(prescription, attempt, ruling, now=now, overdue=region.overdue)
    if change.prescription is not prescription:
        _state_ruling(tx, region, change, statement, now)
    ended = facts.save_attempt(tx, region, prescription, change, now, adjudicated=True)
    return AdjudicateAttemptResponse(attempt=ended)


def _state_ruling(
    tx: Transaction, region: Region, change: Change, statement: SignedStatement, now: datetime
) -> None:
    """Keep the adjudication and tell it to whom the attempt concerns, before the attempt itself."""
    prescription, attempt = change.prescription, change.attempt
    number = prescription.number
    digest = keep(tx, number, statement, now)
    step(tx, number, RegionRole.HOME, Flow.INFORMATION, "adjudicated", region.code, digest, now)
    tell_region(tx, region, attempt.dispensing_region_code, number, digest, now)
    if attempt.settlement_id:
        tell_region(
            tx,
            region,
            prescription.payer_region_code,
            number,
            digest,
            now,
            insured_person_id=prescription.insured_person_id,
        )


def _overdue(tx: Transaction, region: Region, attempt: Attempt, now: datetime) -> OverdueAttempt:
    number = attempt.prescription_number
    prescription = facts.require_prescription(tx, number)
    pharmacy = region.institution(attempt.dispensing_region_code, attempt.pharmacy_code)
    message = attempt_message(attempt, prescription.payer_region_code)
    return OverdueAttempt(
        attempt=region.seal(message, now=now),
        commitment=tx.journal.statement(number, attempt.cause_sha256),
        settlement=_hold_of(tx, prescription, attempt),
        pharmacy_name=pharmacy.name if pharmacy else attempt.pharmacy_code,
        pharmacy_phone=pharmacy.phone if pharmacy else "",
        issuer_institution_code=prescription.issuer_code,
        commit_time=timestamp(attempt.update_time),
    )


def _hold_of(
    tx: Transaction, prescription: Prescription, attempt: Attempt
) -> SignedStatement | None:
    """The hold that the commit carried; none when the patient pays alone."""
    if not attempt.settlement_id:
        return None
    payload_type = rule_for(settlement_pb2.Settlement).payload_type
    for statement in tx.journal.statements_of(prescription.number, payload_type):
        content = settlement_pb2.Settlement.FromString(statement.payload)
        held = content.state == settlement_pb2.Settlement.STATE_HELD
        if held and content.settlement_id == attempt.settlement_id:
            return statement
    return None


def _overdue_after(token: str) -> tuple[datetime, str] | None:
    if not token:
        return None
    match = _OVERDUE_TOKEN.fullmatch(token)
    try:
        if match is not None:
            return datetime.fromisoformat(match[1]), match[2]
    except ValueError:
        pass
    raise invalid("page_token", "is not one that this list gave out")


def _page(entries: Iterable[Entry], size: int) -> list[Entry]:
    """As many entries as are asked for and fit into an answer, one at least if there is one."""
    page: list[Entry] = []
    used = 0
    for entry in entries:
        used += entry.ByteSize()
        if len(page) == size or (page and used > PAGE_BYTES):
            break
        page.append(entry)
    return page


def _dead_letter(tx: Transaction, dead: DeadEvent) -> DeadLetter:
    event = dead.event
    return DeadLetter(
        event_id=event.event_id,
        peer_region_code=event.peer_region_code,
        prescription_number=event.prescription_number,
        statement=tx.journal.statement(event.prescription_number, event.statement_sha256),
        create_time=timestamp(event.create_time),
        tries=event.tries,
        error=dead.error,
    )


def _require_dead(
    tx: Transaction, request: RetryDeadLetterRequest | DiscardDeadLetterRequest
) -> DeadEvent:
    check_required(request)
    dead = tx.journal.dead_event(
        request.prescription_number, request.peer_region_code, request.event_id
    )
    if dead is None:
        raise Refusal(
            Reason.EVENT_NOT_FOUND,
            "no event that was set aside has this id; list the dead letters again",
            event_id=request.event_id,
        )
    return dead


def _decided(
    tx: Transaction, region: Region, caller: CallerName, dead: DeadEvent, action: str
) -> None:
    """The operator's act in the life of the prescription, beside the statement that it is about."""
    event = dead.event
    number, digest = event.prescription_number, event.statement_sha256
    statement = tx.journal.statement(number, digest)
    role = _SENDERS.get(statement.payload_type, RegionRole.HOME)
    operator = caller.institution_code
    step(tx, number, role, Flow.INFORMATION, action, operator, digest, region.now())
