"""Quoting and holding: what person and fund pay, under this region's tariffs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from rxoutflow.identity import CallerName
from rxoutflow.statements import Verified
from rxoutflow.statements.verification import MAX_CLOCK_AHEAD
from rxoutflow.v1 import attempt_pb2, prescription_pb2, settlement_pb2
from rxoutflow.v1.payer_service_pb2 import (
    GetSettlementRequest,
    GetSettlementResponse,
    HoldBenefitRequest,
    HoldBenefitResponse,
    QuoteBenefitRequest,
    QuoteBenefitResponse,
)
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.exchange.evidence import keep, stated, step
from rxoutflow_server.application.messages import (
    amounts,
    amounts_message,
    benefit_lines,
    settlement_message,
    timestamp,
)
from rxoutflow_server.application.ports import Flow, RegionRole, Transaction
from rxoutflow_server.application.region import LOCAL_TIME, Region, require_own_region
from rxoutflow_server.application.validation import check_pricing, mismatch
from rxoutflow_server.domain import accounts, family
from rxoutflow_server.domain import settlement as transitions
from rxoutflow_server.domain.benefit import Benefit, Case, Funding, apportion_to_lines, benefit
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.settlement import (
    Amounts,
    InsuredPerson,
    SettledLine,
    Settlement,
    SettlementState,
)


@dataclass(frozen=True, slots=True)
class _Reckoning:
    """A person in the benefit year of the dispensing day, and what the formula gives."""

    person: InsuredPerson
    benefit: Benefit
    tariff_version: str


def quote_benefit(
    tx: Transaction, region: Region, caller: CallerName, request: QuoteBenefitRequest
) -> QuoteBenefitResponse:
    """What person and fund would pay. Binds nobody and changes nothing.

    Raises:
        StatementError: prescription or pricing do not verify.
        Refusal: PERSON_NOT_INSURED, DIRECT_SETTLEMENT_SUSPENDED or TARIFF_NOT_IN_FORCE.
    """
    now = region.now()
    prescription = _insured_here(region, request.prescription, now).content
    pricing = _pricing(region, caller, request.pricing, prescription, now).content
    reckoning = _reckon(tx, region, prescription, pricing)
    quote = settlement_pb2.Quote(
        prescription_number=prescription.prescription_number,
        payer_region_code=region.code,
        amounts=amounts_message(Amounts.of(reckoning.benefit)),
        tariff_version=reckoning.tariff_version,
        create_time=timestamp(now),
    )
    return QuoteBenefitResponse(quote=region.seal(quote, audience=caller.region_code, now=now))


def hold_benefit(
    tx: Transaction, region: Region, caller: CallerName, request: HoldBenefitRequest
) -> HoldBenefitResponse:
    """Set money, deductible and cap aside for a settlement, exactly as it was accepted.

    Asking again for the same settlement gives the settlement as it stands.

    Raises:
        StatementError: a statement does not verify.
        Refusal: QUOTE_CHANGED, SETTLEMENT_ENDED, SIGNED_CONTENT_MISMATCH, those of a quote,
            CALLER_REGION_NOT_ALLOWED for a pharmacy of another region than the caller's, and
            ATTEMPT_ALREADY_COMMITTED if another settlement holds money for the attempt.
    """
    now = region.now()
    sheet = _insured_here(region, request.prescription, now)
    prescription = sheet.content
    committed = region.verified(request.commitment, attempt_pb2.Commitment, now, decides=False)
    require_own_region(caller, committed.signers[-1].region_code)
    commitment = committed.content
    person_id = prescription.patient.insured_person_id
    existing = tx.payer.settlement(person_id, commitment.settlement_id)
    if existing is not None:
        return HoldBenefitResponse(settlement=_again(region, existing, commitment, now))
    prices = _pricing(region, caller, request.pricing, prescription, now)
    claimed = region.verified(request.attempt, attempt_pb2.Attempt, now)
    pricing, attempt = prices.content, claimed.content
    _require_claimed(tx, caller, prescription, attempt, commitment, pricing)
    _require_commitment_of(attempt, commitment)
    _require_no_other(tx, person_id, attempt.attempt_id)
    reckoning = _reckon(tx, region, prescription, pricing)
    computed = Amounts.of(reckoning.benefit)
    transitions.require_accepted(computed, amounts(commitment.accepted_amounts))
    _keep_all(tx, request, (sheet, claimed, committed, prices), now)
    settlement = _held(caller, attempt, commitment, reckoning, computed, prices.sha256, now)
    tx.payer.add_settlement(settlement)
    tx.payer.save_person(transitions.consume(reckoning.person, settlement))
    tx.payer.add_account_entries(accounts.held(settlement))
    message = settlement_message(settlement, region.code)
    statement, _ = state_settlement(tx, region, message, "held", now)
    return HoldBenefitResponse(settlement=statement)


def get_settlement(
    tx: Transaction, region: Region, caller: CallerName, request: GetSettlementRequest
) -> GetSettlementResponse:
    """A settlement as it stands, for the dispensing region and the home region.

    Raises:
        Refusal: SETTLEMENT_NOT_FOUND.
    """
    settlement = tx.payer.settlement(request.insured_person_id, request.settlement_id)
    parties = (
        (settlement.dispensing_region_code, settlement.prescription_number[:6])
        if settlement is not None
        else ()
    )
    if settlement is None or caller.region_code not in parties:
        raise Refusal(
            Reason.SETTLEMENT_NOT_FOUND, "there is no such settlement, or it is not yours"
        )
    return GetSettlementResponse(settlement=_signed(region, settlement, region.now()))


def state_settlement(
    tx: Transaction,
    region: Region,
    message: settlement_pb2.Settlement,
    action: str,
    now: datetime,
) -> tuple[SignedStatement, bytes]:
    """Sign a settlement's new state, keep it, and add the step to the flow of money."""
    number = message.prescription_number
    statement, digest = stated(tx, region, number, message, now)
    step(tx, number, RegionRole.PAYER, Flow.MONEY, action, region.code, digest, now)
    return statement, digest


def _insured_here(
    region: Region, statement: SignedStatement, now: datetime
) -> Verified[prescription_pb2.Prescription]:
    verified = region.verified(statement, prescription_pb2.Prescription, now, decides=False)
    named = verified.content.patient.payer_region_code
    if named != region.code:
        raise Refusal(
            Reason.PERSON_NOT_INSURED,
            f"the prescription names {named} as payer, not this region",
        )
    return verified


def _pricing(
    region: Region,
    caller: CallerName,
    statement: SignedStatement,
    prescription: prescription_pb2.Prescription,
    now: datetime,
) -> Verified[settlement_pb2.Pricing]:
    """The calling region's prices for lines of this prescription."""
    verified = region.verified(statement, settlement_pb2.Pricing, now)
    require_own_region(caller, verified.signers[-1].region_code)
    pricing = verified.content
    check_pricing(pricing)
    if pricing.prescription_number != prescription.prescription_number:
        raise mismatch("pricing.prescription_number", "it is for another prescription")
    prescribed = {line.line_id: line for line in prescription.lines}
    for line in pricing.lines:
        _require_prescribed(prescribed.get(line.line.line_id), line.line)
    return verified


def _require_prescribed(
    prescribed: prescription_pb2.PrescriptionLine | None, line: settlement_pb2.PricedLine
) -> None:
    """R21, as far as the payer can tell: the dispensing region's catalogue has generic groups."""
    if prescribed is None or line.quantity > prescribed.quantity:
        raise mismatch("pricing.lines", f"line {line.line_id} exceeds the prescription")
    if line.drug_code != prescribed.drug_code and not prescribed.substitution_allowed:
        raise mismatch(
            "pricing.lines", f"line {line.line_id}: the prescriber allowed no other product"
        )


def _require_claimed(
    tx: Transaction,
    caller: CallerName,
    prescription: prescription_pb2.Prescription,
    attempt: attempt_pb2.Attempt,
    commitment: attempt_pb2.Commitment,
    pricing: settlement_pb2.Pricing,
) -> None:
    """The claim is real and alive as far as we know, and all papers speak of the same thing."""
    if attempt.dispensing_region_code != caller.region_code:
        raise mismatch("attempt.dispensing_region_code", "the attempt is of another region")
    if attempt.payer_region_code != prescription.patient.payer_region_code:
        raise mismatch("attempt.payer_region_code", "the attempt is paid by another region")
    numbers = {each.prescription_number for each in (prescription, attempt, commitment, pricing)}
    if len(numbers) != 1:
        raise mismatch("prescription_number", "the statements are of different prescriptions")
    if {attempt.attempt_id} != {commitment.attempt_id, pricing.attempt_id}:
        raise mismatch("attempt_id", "the statements are of different attempts")
    if commitment.settlement_id != pricing.settlement_id:
        raise mismatch("settlement_id", "the statements are of different settlements")
    if {attempt.pharmacy_code} != {commitment.pharmacy_code, pricing.pharmacy_code}:
        raise mismatch("pharmacy_code", "the statements are of different pharmacies")
    if list(commitment.lines) != [line.line for line in pricing.lines]:
        raise mismatch("pricing.lines", "they are not the lines of the commitment")
    person_id = prescription.patient.insured_person_id
    ended = tx.payer.attempt_end(person_id, attempt.attempt_id) or _ended(attempt)
    if ended:
        raise Refusal(
            Reason.SETTLEMENT_ENDED,
            f"the home region has reported this attempt as {ended}; claim again",
            state=ended,
        )


def _require_commitment_of(
    attempt: attempt_pb2.Attempt, commitment: attempt_pb2.Commitment
) -> None:
    """The commitment is one that home can commit: nothing is set aside for any other."""
    if commitment.mode != settlement_pb2.SETTLEMENT_MODE_INSURANCE:
        raise mismatch("commitment.mode", "without insurance there is nothing to hold")
    if commitment.fence != attempt.fence:
        raise mismatch("commitment.fence", "it is not that of the attempt")
    holding = {line.line_id: line.quantity for line in attempt.lines}
    for line in commitment.lines:
        if line.quantity > holding.get(line.line_id, 0):
            raise mismatch("commitment.lines", f"line {line.line_id} exceeds the attempt")


def _require_no_other(tx: Transaction, person_id: str, attempt_id: str) -> None:
    """One attempt is paid once: a second hold would find deductible and accounts used by the first.

    The first is not set free for it, because home may have committed the attempt with it.
    """
    for other in tx.payer.settlements_of_attempt(person_id, attempt_id):
        if other.state in (SettlementState.HELD, SettlementState.POSTED):
            raise Refusal(
                Reason.ATTEMPT_ALREADY_COMMITTED,
                "money is held for this attempt under another settlement; repeat that commitment,"
                " or release the attempt and claim again",
                settlement_id=other.settlement_id,
            )


def _reckon(
    tx: Transaction,
    region: Region,
    prescription: prescription_pb2.Prescription,
    pricing: settlement_pb2.Pricing,
) -> _Reckoning:
    person = tx.payer.person(prescription.patient.insured_person_id)
    if person is None:
        raise Refusal(
            Reason.PERSON_NOT_INSURED,
            "this region does not know the person as insured; the patient may pay alone",
        )
    transitions.require_direct_settlement(person)
    day = _day(pricing.dispense_day, region.now())
    person = person.in_year(day.year)
    tariff = region.tariffs.in_force(region.code, day)
    away = pricing.pharmacy_code[1:7] != region.code
    standing = person.standing(_issuing_tier(region, prescription), away=away)
    given = _family_grants(tx, region, person, day)
    funding = Funding(person.own_account_fen, tuple(grant.fen for grant in given))
    disease = prescription.encounter.special_disease_code
    result = benefit(tariff, Case(benefit_lines(pricing), standing, funding, disease))
    placed = family.in_place(result, given, len(person.family_accounts_fen))
    return _Reckoning(person, placed, tariff.version_id)


def _family_grants(
    tx: Transaction, region: Region, person: InsuredPerson, day: date
) -> tuple[family.Grant, ...]:
    """What family allotments may give on the day of dispensing, in the order of use."""
    balances = person.family_accounts_fen
    if region.family is None:
        return tuple(itertools.starmap(family.Grant, enumerate(balances, start=1)))
    person_id = person.insured_person_id
    in_force = region.family.in_force(person_id, day)
    entries = tx.payer.account_entries(person_id) if in_force else ()

    def drawn(under: family.Authorisation) -> int:
        begin = datetime.combine(under.valid_from, time(), LOCAL_TIME)
        return accounts.drawn_since(entries, under.allotment, begin)

    return family.grants(balances, in_force, drawn)


def _issuing_tier(region: Region, prescription: prescription_pb2.Prescription) -> int:
    """R11: the tier of the issuing hospital, as its own region's trust list has it."""
    home = prescription.prescription_number[:6]
    hospital = region.institution(home, prescription.issuer.institution_code)
    return hospital.tier if hospital is not None else 0


def _ended(attempt: attempt_pb2.Attempt) -> str:
    """The state of an attempt that its own statement shows to be over, or nothing."""
    live = (attempt_pb2.Attempt.STATE_RESERVED, attempt_pb2.Attempt.STATE_COMMITTED)
    if attempt.state in live:
        return ""
    return attempt_pb2.Attempt.State.Name(attempt.state).removeprefix("STATE_").lower()


def _day(text: str, now: datetime) -> date:
    """The day of dispensing: today, or yesterday for a hold that is asked for again after midnight.

    A later day would begin a benefit year with nothing used, an earlier one choose the tariff.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise mismatch("pricing.dispense_day", "must be a day as YYYY-MM-DD") from None
    earliest = (now - timedelta(days=1)).astimezone(LOCAL_TIME).date()
    latest = (now + MAX_CLOCK_AHEAD).astimezone(LOCAL_TIME).date()
    if not earliest <= day <= latest:
        raise mismatch("pricing.dispense_day", "is not today: set the clock of the platform")
    return day


def _held(
    caller: CallerName,
    attempt: attempt_pb2.Attempt,
    commitment: attempt_pb2.Commitment,
    reckoning: _Reckoning,
    computed: Amounts,
    pricing_sha256: bytes,
    now: datetime,
) -> Settlement:
    return Settlement(
        settlement_id=commitment.settlement_id,
        attempt_id=attempt.attempt_id,
        prescription_number=attempt.prescription_number,
        insured_person_id=reckoning.person.insured_person_id,
        dispensing_region_code=caller.region_code,
        pharmacy_code=commitment.pharmacy_code,
        state=SettlementState.HELD,
        amounts=computed,
        family_accounts_fen=reckoning.benefit.family_accounts_fen,
        tariff_version=reckoning.tariff_version,
        year=reckoning.person.year,
        create_time=now,
        update_time=now,
        cause_sha256=pricing_sha256,
        schemes=reckoning.benefit.schemes,
        pricing_sha256=pricing_sha256,
        lines=tuple(
            SettledLine(line.line_id, line.quantity, share)
            for line, share in zip(
                commitment.lines, apportion_to_lines(reckoning.benefit), strict=True
            )
        ),
    )


def _keep_all(
    tx: Transaction,
    request: HoldBenefitRequest,
    papers: tuple[Verified[Any], ...],
    now: datetime,
) -> None:
    """Keep every statement on which the hold rests."""
    statements = (request.prescription, request.attempt, request.commitment, request.pricing)
    for statement, paper in zip(statements, papers, strict=True):
        keep(tx, paper.content.prescription_number, statement, now, paper)


def _again(
    region: Region, existing: Settlement, commitment: attempt_pb2.Commitment, now: datetime
) -> SignedStatement:
    if existing.attempt_id != commitment.attempt_id or existing.amounts != amounts(
        commitment.accepted_amounts
    ):
        raise mismatch("settlement_id", "this settlement was begun with other content")
    if existing.state in (SettlementState.VOIDED, SettlementState.REVERSED):
        raise Refusal(
            Reason.SETTLEMENT_ENDED,
            f"the settlement is {existing.state}; claim again and use a new settlement",
            state=existing.state,
        )
    return _signed(region, existing, now)


def _signed(region: Region, settlement: Settlement, now: datetime) -> SignedStatement:
    return region.seal(settlement_message(settlement, region.code), now=now)
