"""Taking medicine back, and hearing what home and payer made of it.

A return is stored before anything else, once by its id, and brought to home and payer until they
acknowledge. What may not come back is refused here, by the same rules as there, so that what was
accepted is never refused later. Books of sales are written when it is known what goes back: at once
where the patient paid alone, else with the payer's word.
"""

from __future__ import annotations

from datetime import date, datetime

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.payloads import rule_for
from rxoutflow.statements.verification import MAX_CLOCK_AHEAD
from rxoutflow.v1 import dispense_pb2, prescription_pb2, prescription_status_pb2, settlement_pb2
from rxoutflow.v1.peer_service_pb2 import PeerEvent
from rxoutflow.v1.pharmacy_service_pb2 import ReturnDispenseRequest, ReturnDispenseResponse
from rxoutflow_server.application.agreements import count_reversal
from rxoutflow_server.application.clearing.books import (
    book_returned_sale,
    book_reversal,
    local_day,
    price_back,
)
from rxoutflow_server.application.dispensing.boxes import give_back
from rxoutflow_server.application.dispensing.claims import require_claim, require_own
from rxoutflow_server.application.dispensing.events import is_adjudication, warn_claimant
from rxoutflow_server.application.exchange.evidence import (
    keep,
    step,
    tell_institution,
    tell_region,
)
from rxoutflow_server.application.exchange.idempotency import (
    RequestKey,
    once,
    require_same_return,
    unverified_number,
)
from rxoutflow_server.application.messages import (
    amounts,
    cause_of,
    handed_over,
    instant,
    plan_of,
    return_message,
    returned_lines,
)
from rxoutflow_server.application.ports import ClaimCopy, Flow, RegionRole, Transaction
from rxoutflow_server.application.region import Region, require_own_region
from rxoutflow_server.application.validation import check_dispense_return, invalid, mismatch
from rxoutflow_server.domain.attempt import LineQuantity
from rxoutflow_server.domain.delivery import require_not_arrived
from rxoutflow_server.domain.dispense import Dispense, DispenseState
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.ledger import Book
from rxoutflow_server.domain.prescription import require_whole_doses
from rxoutflow_server.domain.returns import (
    Cause,
    Return,
    quantities,
    require_boxes,
    require_returnable,
    returned_before,
)
from rxoutflow_server.domain.settlement import NOTHING, Amounts

_RETURN_DISPENSE = "/rxoutflow.v1.PharmacyService/ReturnDispense"
_RETURN = rule_for(dispense_pb2.DispenseReturn).payload_type
_HANDED_OVER = (DispenseState.DISPENSED, DispenseState.COMPLETED)


def take_back(
    tx: Transaction, region: Region, caller: CallerName, request: ReturnDispenseRequest
) -> ReturnDispenseResponse:
    """Store a return and put it on its way to home and payer.

    Raises:
        StatementError: the return does not verify.
        Refusal: see PharmacyService.ReturnDispense.
    """
    now = region.now()
    number = unverified_number(request.dispense_return, dispense_pb2.DispenseReturn)
    key = RequestKey(number, str(caller), request.request_id, _RETURN_DISPENSE)
    return once(
        tx.journal,
        key,
        request,
        ReturnDispenseResponse,
        now,
        lambda: _take_back(tx, region, caller, request, now),
    )


def note_status(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[prescription_status_pb2.PrescriptionStatus],
    now: datetime,
) -> None:
    """Hear where a prescription stands: the answer to a return, or that its issuer wants it back.

    Raises:
        Refusal: CALLER_REGION_NOT_ALLOWED if another than the home region says it.
    """
    content, number = verified.content, verified.content.prescription_number
    if not content.cause_sha256:
        warn_claimant(tx, region, caller, event, verified, now)
        return
    home = caller.region_code
    require_own_region(caller, verified.signers[-1].region_code)
    returned = _by_statement(tx, number, content.cause_sha256)
    if returned is None:
        return  # nothing of ours: no region makes up returns here
    digest = keep(tx, number, event.statement, now, verified)
    tx.dispensing.save_return(returned.booked_by_home(now))
    step(tx, number, RegionRole.DISPENSING, Flow.GOODS, "return known", home, digest, now)


def note_reversal(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    event: PeerEvent,
    verified: Verified[settlement_pb2.Reversal],
    now: datetime,
) -> None:
    """Keep and book the payer's word on what it gave back for a return of ours.

    Raises:
        Refusal: SETTLEMENT_NOT_FOUND, also if another than the payer says it,
            SIGNED_CONTENT_MISMATCH if it is not for that return, or gives back more than was paid,
            or EARLIER_FACT_MISSING while the posting is not known here.
    """
    content = verified.content
    number, payer = content.prescription_number, caller.region_code
    dispense = tx.dispensing.dispense(number, content.settlement_id)
    returned = tx.dispensing.goods_return(number, content.reversal_id)
    if dispense is None or returned is None or payer != dispense.payer_region_code:
        raise Refusal(
            Reason.SETTLEMENT_NOT_FOUND, "there is no such return here, or it is not yours"
        )
    back = amounts(content.amounts)
    if returned.amounts is None:
        _require_reversal_of(tx, dispense, returned, content, back)
    book_reversal(tx, Book.RECEIVABLE, payer, content)
    digest = keep(tx, number, event.statement, now, verified)
    count_reversal(tx, dispense.pharmacy_code, content, digest)
    heard = returned.reversed_by_payer(back, now)
    tx.dispensing.save_return(heard)
    book_returned_sale(tx, dispense, heard.reversal_id, back, _day_of_return(tx, returned))
    step(tx, number, RegionRole.DISPENSING, Flow.MONEY, "reversal known", payer, digest, now)
    summary = f"{back.pool_fen} fen go back to the fund and {back.cash_fen} fen in cash"
    pharmacy = dispense.pharmacy_code
    tell_institution(tx, pharmacy, "REVERSED", number, "", digest, summary, now)


def _take_back(
    tx: Transaction,
    region: Region,
    caller: CallerName,
    request: ReturnDispenseRequest,
    now: datetime,
) -> ReturnDispenseResponse:
    verified = region.verified(request.dispense_return, dispense_pb2.DispenseReturn, now)
    content, number = verified.content, verified.content.prescription_number
    check_dispense_return(content)
    require_own(caller, content.pharmacy_code)
    claim = require_claim(tx, caller, number, content.attempt_id)
    dispense = tx.dispensing.dispense(number, content.settlement_id)
    if dispense is None or dispense.attempt_id != content.attempt_id:
        raise _nothing_handed_over()
    known = tx.dispensing.goods_return(number, content.reversal_id)
    if known is not None:
        require_same_return(known.statement_sha256, verified.sha256)
        return ReturnDispenseResponse(progress=return_message(known))
    if cause_of(content) is Cause.NOT_DELIVERED:
        require_not_arrived(tx.dispensing.delivery(number, content.settlement_id))
    returned = _accepted(tx, region, claim, dispense, content, verified.sha256, now)
    tx.dispensing.add_return(returned)
    if cause_of(content).is_resaleable:
        _offer_boxes_again(tx, region, dispense, returned)
    if returned.amounts is not None:
        day = local_day(instant(content.return_time))
        book_returned_sale(tx, dispense, returned.reversal_id, returned.amounts, day)
    _state_return(tx, region, dispense, request, now)
    return ReturnDispenseResponse(progress=return_message(returned))


def _offer_boxes_again(
    tx: Transaction, region: Region, dispense: Dispense, returned: Return
) -> None:
    """Boxes that no patient could have opened may be sold again; those not named stay sold."""
    codes = [code for line in returned.lines for code in line.trace_codes]
    give_back(tx, region, dispense, codes, returned.create_time)


def _accepted(
    tx: Transaction,
    region: Region,
    claim: ClaimCopy,
    dispense: Dispense,
    content: dispense_pb2.DispenseReturn,
    sha256: bytes,
    now: datetime,
) -> Return:
    """The return, if all that comes back was handed over and has not come back already."""
    record = _record_of(tx, dispense)
    _check_return_time(content, record, now)
    earlier = tx.dispensing.returns(dispense.prescription_number, dispense.settlement_id)
    before = returned_before(quantities(each.lines) for each in earlier)
    lines = returned_lines(content)
    require_returnable(dispense.quantities, before, quantities(lines))
    require_boxes(handed_over(record), (line for each in earlier for line in each.lines), lines)
    if cause_of(content).re_entitles:
        _require_whole_doses(tx, claim, quantities(lines))
    return Return(
        reversal_id=content.reversal_id,
        prescription_number=dispense.prescription_number,
        settlement_id=dispense.settlement_id,
        lines=lines,
        statement_sha256=sha256,
        create_time=now,
        update_time=now,
        amounts=None if dispense.insured else price_back(tx, dispense, before, quantities(lines)),
    )


def _record_of(tx: Transaction, dispense: Dispense) -> dispense_pb2.DispenseRecord:
    """The pharmacy's own record of what it handed over."""
    if dispense.state not in _HANDED_OVER or not dispense.record_sha256:
        raise _nothing_handed_over()
    statement = tx.journal.statement(dispense.prescription_number, dispense.record_sha256)
    if is_adjudication(statement):
        raise _nothing_handed_over()
    return dispense_pb2.DispenseRecord.FromString(statement.payload)  # verified before it was kept


def _nothing_handed_over() -> Refusal:
    return Refusal(
        Reason.ATTEMPT_NOT_COMMITTED,
        "no handover is recorded for this settlement; record it first, or release the attempt",
    )


def _check_return_time(
    content: dispense_pb2.DispenseReturn, record: dispense_pb2.DispenseRecord, now: datetime
) -> None:
    returned = instant(content.return_time)
    if returned < instant(record.dispense_time):
        raise mismatch("return_time", "is before the dispense_time of the record")
    if returned > now + MAX_CLOCK_AHEAD:
        raise invalid("return_time", "is in the future: set the clock")


def _require_whole_doses(tx: Transaction, claim: ClaimCopy, back: tuple[LineQuantity, ...]) -> None:
    """What can be filled again of a herbal formula is whole doses, as at its first time."""
    sheet = tx.journal.statement(claim.prescription_number, claim.prescription_sha256)
    content = prescription_pb2.Prescription.FromString(sheet.payload)  # verified when claimed
    authorised = [LineQuantity(line.line_id, line.quantity) for line in content.lines]
    require_whole_doses(plan_of(content), authorised, back)


def _state_return(
    tx: Transaction,
    region: Region,
    dispense: Dispense,
    request: ReturnDispenseRequest,
    now: datetime,
) -> None:
    number, actor = dispense.prescription_number, dispense.pharmacy_code
    digest = keep(tx, number, request.dispense_return, now)
    step(tx, number, RegionRole.DISPENSING, Flow.GOODS, "taken back", actor, digest, now)
    tell_region(tx, region, number[:6], number, digest, now)
    if dispense.insured:
        payer, person = dispense.payer_region_code, dispense.insured_person_id
        tell_region(tx, region, payer, number, digest, now, insured_person_id=person)


def _by_statement(tx: Transaction, number: str, sha256: bytes) -> Return | None:
    """The return of which this is the digest, if it was made here."""
    statement = tx.journal.find_statement(number, sha256)
    if statement is None or statement.payload_type != _RETURN:
        return None
    reversal_id = dispense_pb2.DispenseReturn.FromString(statement.payload).reversal_id
    returned = tx.dispensing.goods_return(number, reversal_id)
    return returned if returned is not None and returned.statement_sha256 == sha256 else None


def _day_of_return(tx: Transaction, returned: Return) -> date:
    """The local day on which the pharmacy took it back."""
    statement = tx.journal.statement(returned.prescription_number, returned.statement_sha256)
    content = dispense_pb2.DispenseReturn.FromString(statement.payload)
    return local_day(instant(content.return_time))


def _require_reversal_of(
    tx: Transaction,
    dispense: Dispense,
    returned: Return,
    content: settlement_pb2.Reversal,
    back: Amounts,
) -> None:
    """The payer speaks of this return, and of no more money than it paid."""
    if content.cause_sha256 != returned.statement_sha256:
        raise mismatch("cause_sha256", "the reversal is for another return")
    settlement = (dispense.settlement_id, dispense.attempt_id, dispense.pharmacy_code)
    if (content.settlement_id, content.attempt_id, content.pharmacy_code) != settlement:
        raise mismatch("settlement_id", "the reversal is of another settlement")
    number = dispense.prescription_number
    stated = tx.journal.statement(number, dispense.settlement_sha256)
    paid = amounts(settlement_pb2.Settlement.FromString(stated.payload).amounts)
    for other in tx.dispensing.returns(number, dispense.settlement_id):
        back = back.plus(other.amounts or NOTHING)
    if not back.is_within(paid):
        raise mismatch("amounts", "more would be given back than was paid")
