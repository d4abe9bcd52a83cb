"""Between the messages of the contract and the values of the domain. No rules, only translation."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import date_pb2

from rxoutflow.times import to_datetime, to_timestamp
from rxoutflow.v1 import (
    attempt_pb2,
    dispense_pb2,
    finding_pb2,
    prescription_pb2,
    prescription_status_pb2,
    settlement_pb2,
)
from rxoutflow_server.application.ports import BarredNumber
from rxoutflow_server.domain.attempt import Attempt, AttemptState, LineQuantity
from rxoutflow_server.domain.benefit import Category, Line
from rxoutflow_server.domain.delivery import Delivery, DeliveryState
from rxoutflow_server.domain.dispense import CommittedLine, Dispense, DispenseState
from rxoutflow_server.domain.plan import Plan
from rxoutflow_server.domain.prescription import (
    LineUse,
    Prescription,
    RevocationOutcome,
    Validity,
)
from rxoutflow_server.domain.prescription_rules import (
    EncounterKind,
    Finding,
    Practitioner,
    PrescribedLine,
    PrescriptionFacts,
    PrescriptionType,
    Severity,
)
from rxoutflow_server.domain.returns import Cause, HandedOver, Return, ReturnedLine
from rxoutflow_server.domain.reversal import Reversal
from rxoutflow_server.domain.settlement import NOTHING, Amounts, Settlement, SettlementState

ATTEMPT_STATES = {
    AttemptState.RESERVED: attempt_pb2.Attempt.STATE_RESERVED,
    AttemptState.COMMITTED: attempt_pb2.Attempt.STATE_COMMITTED,
    AttemptState.DISPENSED: attempt_pb2.Attempt.STATE_DISPENSED,
    AttemptState.RELEASED: attempt_pb2.Attempt.STATE_RELEASED,
    AttemptState.EXPIRED: attempt_pb2.Attempt.STATE_EXPIRED,
}
VALIDITIES = {
    Validity.ACTIVE: prescription_status_pb2.PrescriptionStatus.VALIDITY_ACTIVE,
    Validity.EXPIRED: prescription_status_pb2.PrescriptionStatus.VALIDITY_EXPIRED,
    Validity.REVOKED: prescription_status_pb2.PrescriptionStatus.VALIDITY_REVOKED,
    Validity.MARKED_FOR_REVOCATION: (
        prescription_status_pb2.PrescriptionStatus.VALIDITY_MARKED_FOR_REVOCATION
    ),
}
REVOCATION_OUTCOMES = {
    RevocationOutcome.REVOKED: prescription_status_pb2.REVOCATION_OUTCOME_REVOKED,
    RevocationOutcome.MARKED: prescription_status_pb2.REVOCATION_OUTCOME_MARKED,
    RevocationOutcome.ALREADY_DISPENSED: (
        prescription_status_pb2.REVOCATION_OUTCOME_ALREADY_DISPENSED
    ),
    RevocationOutcome.REST_REVOKED: prescription_status_pb2.REVOCATION_OUTCOME_REST_REVOKED,
    RevocationOutcome.EXPIRED: prescription_status_pb2.REVOCATION_OUTCOME_EXPIRED,
    RevocationOutcome.ALREADY_REVOKED: prescription_status_pb2.REVOCATION_OUTCOME_ALREADY_REVOKED,
    RevocationOutcome.NEVER_REGISTERED: (
        prescription_status_pb2.REVOCATION_OUTCOME_NEVER_REGISTERED
    ),
}
SETTLEMENT_STATES = {
    SettlementState.HELD: settlement_pb2.Settlement.STATE_HELD,
    SettlementState.POSTED: settlement_pb2.Settlement.STATE_POSTED,
    SettlementState.VOIDED: settlement_pb2.Settlement.STATE_VOIDED,
    SettlementState.REVERSED: settlement_pb2.Settlement.STATE_REVERSED,
}
_DELIVERY_STATES = {
    DeliveryState.READY: dispense_pb2.Delivery.STATE_READY,
    DeliveryState.DISPATCHED: dispense_pb2.Delivery.STATE_DISPATCHED,
    DeliveryState.SIGNED_FOR: dispense_pb2.Delivery.STATE_SIGNED_FOR,
}
DISPENSE_STATES = {
    DispenseState.COMMITTING: dispense_pb2.DispenseProgress.STATE_COMMITTING,
    DispenseState.HELD: dispense_pb2.DispenseProgress.STATE_HELD,
    DispenseState.COMMITTED: dispense_pb2.DispenseProgress.STATE_COMMITTED,
    DispenseState.REFUSED: dispense_pb2.DispenseProgress.STATE_REFUSED,
    DispenseState.DISPENSED: dispense_pb2.DispenseProgress.STATE_DISPENSED,
    DispenseState.COMPLETED: dispense_pb2.DispenseProgress.STATE_COMPLETED,
    DispenseState.RELEASED: dispense_pb2.DispenseProgress.STATE_RELEASED,
}
CATEGORIES = {
    Category.A: settlement_pb2.CataloguedLine.CATEGORY_A,
    Category.B: settlement_pb2.CataloguedLine.CATEGORY_B,
    Category.C: settlement_pb2.CataloguedLine.CATEGORY_C,
}
_CAUSES = {
    dispense_pb2.DispenseReturn.CAUSE_QUALITY: Cause.QUALITY,
    dispense_pb2.DispenseReturn.CAUSE_DISPENSING_ERROR: Cause.DISPENSING_ERROR,
    dispense_pb2.DispenseReturn.CAUSE_NOT_DELIVERED: Cause.NOT_DELIVERED,
    dispense_pb2.DispenseReturn.CAUSE_PATIENT: Cause.PATIENT,
}
SEVERITIES = {
    Severity.WARN: finding_pb2.RuleFinding.SEVERITY_WARN,
    Severity.REFUSE: finding_pb2.RuleFinding.SEVERITY_REFUSE,
}
_CATEGORY_OF = {value: key for key, value in CATEGORIES.items()}
_PRESCRIPTION_TYPES = {
    prescription_pb2.Prescription.TYPE_WESTERN: PrescriptionType.WESTERN,
    prescription_pb2.Prescription.TYPE_PATENT: PrescriptionType.PATENT,
    prescription_pb2.Prescription.TYPE_HERBAL: PrescriptionType.HERBAL,
}
_ENCOUNTER_KINDS = {
    prescription_pb2.Encounter.KIND_VISIT: EncounterKind.VISIT,
    prescription_pb2.Encounter.KIND_INTERNET: EncounterKind.INTERNET,
}


def timestamp(time: datetime | None) -> Timestamp | None:
    """A time on the wire."""
    if time is None:
        return None
    return to_timestamp(time)


def instant(stamp: Timestamp) -> datetime:
    """A time from the wire, aware, UTC."""
    return to_datetime(stamp)


def line_quantities(lines: Iterable[attempt_pb2.LineQuantity]) -> tuple[LineQuantity, ...]:
    """Quantities of lines, in the order of the lines."""
    return tuple(
        sorted(
            (LineQuantity(line.line_id, line.quantity) for line in lines),
            key=lambda line: line.line_id,
        )
    )


def priced_quantities(lines: Iterable[settlement_pb2.PricedLine]) -> tuple[LineQuantity, ...]:
    """What a commitment takes from the ledger."""
    return tuple(LineQuantity(line.line_id, line.quantity) for line in _by_line(lines))


def committed_lines(
    lines: Iterable[settlement_pb2.PricedLine | dispense_pb2.DispensedLine],
) -> tuple[CommittedLine, ...]:
    """Products and quantities, of a commitment or of the record of its handover."""
    ordered = sorted(lines, key=lambda line: line.line_id)
    return tuple(CommittedLine(line.line_id, line.drug_code, line.quantity) for line in ordered)


def _by_line(lines: Iterable[settlement_pb2.PricedLine]) -> list[settlement_pb2.PricedLine]:
    return sorted(lines, key=lambda line: line.line_id)


def attempt_message(attempt: Attempt, payer_region_code: str) -> attempt_pb2.Attempt:
    """An attempt as its home region states it."""
    return attempt_pb2.Attempt(
        attempt_id=attempt.attempt_id,
        prescription_number=attempt.prescription_number,
        fence=attempt.fence,
        state=ATTEMPT_STATES[attempt.state],
        pharmacy_code=attempt.pharmacy_code,
        dispensing_region_code=attempt.dispensing_region_code,
        payer_region_code=payer_region_code,
        lines=[
            attempt_pb2.LineQuantity(line_id=line.line_id, quantity=line.quantity)
            for line in attempt.lines
        ],
        create_time=timestamp(attempt.create_time),
        lease_expire_time=timestamp(attempt.lease_expire_time),
        update_time=timestamp(attempt.update_time),
        settlement_id=attempt.settlement_id,
        cause_sha256=attempt.cause_sha256,
    )


def status_message(
    prescription: Prescription, holder_name: str, now: datetime
) -> prescription_status_pb2.PrescriptionStatus:
    """A prescription's state as its home region states it."""
    status = prescription_status_pb2.PrescriptionStatus
    live = prescription.live_attempt
    current = prescription.with_fills_of(now)
    next_fill_day = current.next_fill_day
    return status(
        prescription_number=prescription.number,
        issuer_institution_code=prescription.issuer_code,
        payer_region_code=prescription.payer_region_code,
        validity=VALIDITIES[prescription.validity_at(now)],
        hospital_review=status.REVIEW_APPROVED,
        pharmacy_review=(
            status.REVIEW_APPROVED if prescription.pharmacy_reviewed else status.REVIEW_PENDING
        ),
        lines=[_line_use(line, current.open_of(line)) for line in prescription.lines],
        live_attempt=attempt_message(live, prescription.payer_region_code) if live else None,
        holder_name=holder_name,
        expire_time=timestamp(prescription.expire_time),
        register_time=timestamp(prescription.register_time),
        update_time=timestamp(prescription.update_time),
        version=prescription.version,
        prescription_sha256=prescription.statement_sha256,
        opened_fills=current.opened_fills if current.plan.fill_count > 1 else 0,
        next_fill_day=next_fill_day.isoformat() if next_fill_day else "",
    )


def barred_message(barred: BarredNumber) -> prescription_status_pb2.PrescriptionStatus:
    """What there is to state of a number that was revoked before it was registered."""
    return prescription_status_pb2.PrescriptionStatus(
        prescription_number=barred.prescription_number,
        issuer_institution_code=barred.issuer_code,
        validity=VALIDITIES[Validity.REVOKED],
        update_time=timestamp(barred.time),
        version=1,
    )


def _line_use(line: LineUse, open_now: int) -> prescription_status_pb2.LineUse:
    return prescription_status_pb2.LineUse(
        line_id=line.line_id,
        authorised=line.authorised,
        available=line.available,
        claimed=line.claimed,
        committed=line.committed,
        dispensed=line.dispensed,
        returned=line.returned,
        open=open_now,
    )


def amounts_message(amounts: Amounts) -> settlement_pb2.Amounts:
    """Amounts on the wire."""
    return settlement_pb2.Amounts(**{name: getattr(amounts, name) for name in Amounts.__slots__})


def amounts(message: settlement_pb2.Amounts) -> Amounts:
    """Amounts from the wire."""
    return Amounts(**{name: getattr(message, name) for name in Amounts.__slots__})


def settlement_message(settlement: Settlement, payer_region_code: str) -> settlement_pb2.Settlement:
    """A settlement as its payer region states it."""
    return settlement_pb2.Settlement(
        settlement_id=settlement.settlement_id,
        attempt_id=settlement.attempt_id,
        prescription_number=settlement.prescription_number,
        payer_region_code=payer_region_code,
        dispensing_region_code=settlement.dispensing_region_code,
        pharmacy_code=settlement.pharmacy_code,
        state=SETTLEMENT_STATES[settlement.state],
        amounts=amounts_message(settlement.amounts),
        tariff_version=settlement.tariff_version,
        create_time=timestamp(settlement.create_time),
        update_time=timestamp(settlement.update_time),
        cause_sha256=settlement.cause_sha256,
        reversed_amounts=(
            amounts_message(settlement.reversed) if settlement.reversed != NOTHING else None
        ),
    )


def reversal_message(
    reversal: Reversal, settlement: Settlement, payer_region_code: str
) -> settlement_pb2.Reversal:
    """A reversal as the payer region states it."""
    return settlement_pb2.Reversal(
        reversal_id=reversal.reversal_id,
        settlement_id=settlement.settlement_id,
        attempt_id=settlement.attempt_id,
        prescription_number=settlement.prescription_number,
        payer_region_code=payer_region_code,
        dispensing_region_code=settlement.dispensing_region_code,
        pharmacy_code=settlement.pharmacy_code,
        amounts=amounts_message(reversal.amounts),
        reverse_time=timestamp(reversal.time),
        cause_sha256=reversal.cause_sha256,
    )


def catalogued_line(priced: settlement_pb2.PricedLine, line: Line) -> settlement_pb2.CataloguedLine:
    """A priced line with what the catalogue says of it."""
    return settlement_pb2.CataloguedLine(
        line=priced,
        category=CATEGORIES[line.category],
        first_self_pay_bp=line.first_self_pay_bp,
        limit_price_micro_yuan=line.limit_price_micro_yuan,
        limited_use_unmet=line.limited_use_unmet,
    )


def benefit_lines(pricing: settlement_pb2.Pricing) -> tuple[Line, ...]:
    """The lines that the benefit formula takes, from what the dispensing region states."""
    return tuple(_benefit_line(line) for line in pricing.lines)


def _benefit_line(line: settlement_pb2.CataloguedLine) -> Line:
    limited = line.HasField("limit_price_micro_yuan")
    return Line(
        quantity=line.line.quantity,
        unit_price_micro_yuan=line.line.unit_price_micro_yuan,
        category=_CATEGORY_OF[line.category],
        first_self_pay_bp=line.first_self_pay_bp,
        limit_price_micro_yuan=line.limit_price_micro_yuan if limited else None,
        limited_use_unmet=line.limited_use_unmet,
        drug_code=line.line.drug_code,
    )


def cause_of(content: dispense_pb2.DispenseReturn) -> Cause:
    """Why medicine comes back."""
    return _CAUSES[content.cause]


def returned_lines(content: dispense_pb2.DispenseReturn) -> tuple[ReturnedLine, ...]:
    """What comes back, in the order of the lines."""
    ordered = sorted(content.lines, key=lambda line: line.line_id)
    return tuple(
        ReturnedLine(line.line_id, line.quantity, tuple(line.trace_codes)) for line in ordered
    )


def handed_over(content: dispense_pb2.DispenseRecord) -> tuple[HandedOver, ...]:
    """What a record says was handed over, with its boxes."""
    return tuple(
        HandedOver(
            line_id=line.line_id,
            quantity=line.quantity,
            boxes=frozenset(each.code for each in line.trace_codes if not each.loose_sale),
            loose_boxes=frozenset(each.code for each in line.trace_codes if each.loose_sale),
        )
        for line in content.lines
    )


def return_message(returned: Return) -> dispense_pb2.ReturnProgress:
    """How far the dispensing region has brought a return."""
    back = returned.amounts
    return dispense_pb2.ReturnProgress(
        reversal_id=returned.reversal_id,
        prescription_number=returned.prescription_number,
        settlement_id=returned.settlement_id,
        booked_by_home=returned.booked,
        reversed_by_payer=back is not None,
        amounts=amounts_message(back) if back is not None else None,
        update_time=timestamp(returned.update_time),
    )


def progress_message(
    dispense: Dispense, returns: Iterable[Return] = ()
) -> dispense_pb2.DispenseProgress:
    """How far the dispensing region has brought a dispense, and what came back since."""
    return dispense_pb2.DispenseProgress(
        prescription_number=dispense.prescription_number,
        attempt_id=dispense.attempt_id,
        settlement_id=dispense.settlement_id,
        state=DISPENSE_STATES[dispense.state],
        booked_by_home=dispense.booked,
        posted_by_payer=dispense.posted or not dispense.insured,
        update_time=timestamp(dispense.update_time),
        returns=map(return_message, returns),
    )


def delivery_message(delivery: Delivery) -> dispense_pb2.DeliveryProgress:
    """A delivery on the wire."""
    return dispense_pb2.DeliveryProgress(
        delivery=dispense_pb2.Delivery(
            state=_DELIVERY_STATES[delivery.state],
            carrier=delivery.carrier,
            parcel_number=delivery.parcel_number,
            fee_fen=delivery.fee_fen,
        ),
        state_time=timestamp(delivery.state_time),
        statement_sha256=delivery.statement_sha256,
    )


def finding_message(finding: Finding) -> finding_pb2.RuleFinding:
    """A finding of a rule on the wire."""
    return finding_pb2.RuleFinding(
        rule_id=finding.rule_id,
        severity=SEVERITIES[finding.severity],
        field=finding.field,
        message=finding.message,
        source=finding.source,
    )


def prescription_facts(
    content: prescription_pb2.Prescription, issue_day: date
) -> PrescriptionFacts:
    """What the rules need to know of a prescription."""
    patient, encounter, issuer = content.patient, content.encounter, content.issuer
    long_prescription = content.long_prescription
    resident = prescription_pb2.Patient.IDENTITY_DOCUMENT_RESIDENT_CARD
    return PrescriptionFacts(
        issue_time=instant(content.issue_time),
        expire_time=instant(content.expire_time),
        issue_day=issue_day,
        type=_PRESCRIPTION_TYPES[content.type],
        lines=tuple(
            PrescribedLine(
                line.drug_code,
                line.supply_days,
                line.quantity,
                limited_use_stated=line.HasField("limited_use"),
            )
            for line in content.lines
        ),
        encounter_kind=_ENCOUNTER_KINDS[encounter.kind],
        patient_age_months=_age_in_months(patient.birth_date, issue_day),
        prescriber=_practitioner(issuer.prescriber),
        reviewer=(
            _practitioner(issuer.reviewing_pharmacist)
            if issuer.HasField("reviewing_pharmacist")
            else None
        ),
        institution_code=issuer.institution_code,
        patient_identity_number=(
            patient.identity_number if patient.identity_document == resident else None
        ),
        is_emergency=content.emergency,
        supply_reason=content.supply_reason,
        is_long_prescription=content.HasField("long_prescription"),
        long_assessment=long_prescription.assessment,
        fill_count=max(1, long_prescription.fill_count),
        fill_interval_days=long_prescription.fill_interval_days,
        dose_count=content.herbal_formula.dose_count,
        is_follow_up=encounter.follow_up,
        # An internet follow-up names the diagnosis that a physical hospital made before.
        diagnosis_established=encounter.follow_up and bool(encounter.diagnoses),
        diagnosis_codes=tuple(diagnosis.code for diagnosis in encounter.diagnoses),
        guardian_present=bool(patient.guardian_name),
    )


def plan_of(content: prescription_pb2.Prescription) -> Plan:
    """How the signed prescription wants to be filled."""
    fill_count = max(1, content.long_prescription.fill_count)
    return Plan(
        fill_count=fill_count,
        fill_interval_days=content.long_prescription.fill_interval_days if fill_count > 1 else 0,
        dose_count=content.herbal_formula.dose_count,
    )


def _practitioner(person: prescription_pb2.Practitioner) -> Practitioner:
    return Practitioner(person.person_code, person.name)


def _age_in_months(birth_date: date_pb2.Date, on: date) -> int:
    born = date(birth_date.year, birth_date.month, birth_date.day)
    months = (on.year - born.year) * 12 + on.month - born.month
    return months - (1 if on.day < born.day else 0)
