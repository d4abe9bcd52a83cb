"""What the exchange is meant to take although it differs: written by hand, field by field.

A mutant that is answered OK must say the same as the request that it was made from, but for fields
that are for people, or free by meaning: :func:`differences` tells. Everything that is not in
:data:`FREE` or :data:`FREE_AT` has to be exactly as it was, or the request has to be refused.
Statements are compared by what they say and who says it; a signature value may only differ if its
signer signed anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from rxoutflow.numbers import NumberInvalid, PickupCode
from rxoutflow.v1.statement_pb2 import ProtectedHeader, Signature, SignedStatement
from support.premises import STATEMENTS
from support.world import PRICE

Accepts = Callable[[Any, Any], bool]
"""Whether a value may stand in the place of another."""


def anything(_value: Any, _base: Any) -> bool:
    return True


def something(value: Any, _base: Any) -> bool:
    return bool(value)


def known(value: Any, _base: Any) -> bool:
    """A value of an enum that is not its zero; unknown ones have been refused before."""
    return bool(0 < value < 9)


def uuid(value: Any, _base: Any) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def between(least: int, most: int) -> Accepts:
    return lambda value, _base: bool(least <= value <= most)


def up_to(length: int) -> Accepts:
    return lambda value, _base: 0 < len(value) <= length


def form(pattern: str) -> Accepts:
    return lambda value, _base: re.fullmatch(pattern, value, re.ASCII) is not None


def time(value: Any, _base: Any) -> bool:
    return bool(0 <= value.seconds < 253_370_764_800 and 0 <= value.nanos < 10**9)


def same_code(value: Any, base: Any) -> bool:
    """As people type it: case, blanks and look-alikes do not matter."""
    try:
        return str(PickupCode.parse(value)) == str(base)
    except NumberInvalid:
        return False


def stripped(value: Any, base: Any) -> bool:
    return str(value).strip() == str(base)


def some_lines(value: Any, base: Any) -> bool:
    """Some of the lines, or all, in any order, each at most as much, at most at that price."""
    most = {line.line_id: line for line in base}
    ids = [line.line_id for line in value]
    return len(set(ids)) == len(ids) and all(
        line.line_id in most and _no_more(line, most[line.line_id]) for line in value
    )


def _no_more(line: Any, most: Any) -> bool:
    priced = hasattr(line, "unit_price_micro_yuan")
    price_fits = not priced or (
        line.drug_code == most.drug_code and 0 <= line.unit_price_micro_yuan <= PRICE
    )
    return bool(price_fits and 1 <= line.quantity <= most.quantity)


def some_priced_lines(value: Any, base: Any) -> bool:
    return len(value) > 0 and some_lines(value, base)


def any_order(value: Any, base: Any) -> bool:
    return sorted(map(_bytes, value)) == sorted(map(_bytes, base))


def repeated(value: Any, base: Any) -> bool:
    """The same once more: it has no second effect."""
    return 1 <= len(value) <= 100 and {_bytes(each) for each in value} == set(map(_bytes, base))


def catalogued(value: Any, base: Any) -> bool:
    """Prices of another region for lines of the prescription, as its catalogue may have them."""
    most = {line.line.line_id: line.line.quantity for line in base}
    ids = [line.line.line_id for line in value]
    return (
        bool(ids)
        and len(set(ids)) == len(ids)
        and all(
            1 <= line.line.quantity <= most.get(line.line.line_id, 0)
            and 0 <= line.line.unit_price_micro_yuan <= 10**12
            and line.line.drug_code
            and line.category in (1, 2, 3)
            and 0 <= line.first_self_pay_bp <= 10_000
            and 0 <= line.limit_price_micro_yuan <= 10**12
            for line in value
        )
    )


def handed_over(value: Any, base: Any) -> bool:
    """The committed lines; which batches and boxes they came from is the pharmacy's to say."""

    def committed(line: Any) -> tuple[int, str, int]:
        return line.line_id, line.drug_code, line.quantity

    boxes = [code.code for line in value for code in line.trace_codes]
    return (
        sorted(map(committed, value)) == sorted(map(committed, base))
        and all(line.batch_numbers and line.trace_codes for line in value)
        and all(re.fullmatch("[0-9]{20}", box) for box in boxes)
    )


def boxes(codes: Sequence[str]) -> bool:
    """Some trace codes, each once."""
    return 0 < len(set(codes)) == len(codes) <= 1000 and all(
        re.fullmatch("[0-9]{20}", code) for code in codes
    )


def booked(value: Any, base: Any) -> bool:
    """As :func:`handed_over`; boxes have been judged where they were sold."""

    def committed(line: Any) -> tuple[int, int]:
        return line.line_id, line.quantity

    return sorted(map(committed, value)) == sorted(map(committed, base))


def came_back(value: Any, base: Any) -> bool:
    """Lines that were handed over, or parts of them; boxes are whole, and of their line."""
    boxes = {line.line_id: set(line.trace_codes) for line in base}
    whole = {line.line_id: line.quantity for line in base}
    return came_back_somewhere(value, base) and all(
        not line.trace_codes
        or (
            line.quantity == whole[line.line_id]
            and len(line.trace_codes) == len(set(line.trace_codes))
            and set(line.trace_codes) <= boxes[line.line_id]
        )
        for line in value
    )


def came_back_somewhere(value: Any, base: Any) -> bool:
    """As :func:`came_back`; boxes are judged where they were sold."""
    most = {line.line_id: line.quantity for line in base}
    ids = [line.line_id for line in value]
    return (
        bool(ids)
        and len(set(ids)) == len(ids)
        and all(1 <= line.quantity <= most.get(line.line_id, 0) for line in value)
        and all(re.fullmatch("[0-9]{20}", code) for line in value for code in line.trace_codes)
    )


def soon_after(value: Any, base: Any) -> bool:
    """Not before, and no further ahead than clocks may differ."""
    ahead = value.ToNanoseconds() - base.ToNanoseconds()
    return time(value, base) and 0 <= ahead <= 600 * 10**9


def no_more_money(value: Any, base: Any) -> bool:
    """Amounts that add up, none above what was paid."""
    names = [field.name for field in base.DESCRIPTOR.fields]
    return balanced(value, base) and all(
        getattr(value, name) <= getattr(base, name) for name in names
    )


def same_day_or_later(value: Any, base: Any) -> bool:
    day = 86_400
    zone = 8 * 3600
    return time(value, base) and (value.seconds + zone) // day >= (base.seconds + zone) // day


def delivery(value: Any, _base: Any) -> bool:
    return not value.ListFields() or (value.state > 0 and 0 <= value.fee_fen <= 10**9)


def balanced(value: Any, _base: Any) -> bool:
    """Amounts of which none is negative and that add up."""
    outside = value.own_fen + value.excess_fen + value.first_self_pay_fen
    return (
        all(number >= 0 for _, number in value.ListFields())
        and value.total_fen == outside + value.inscope_fen == value.pool_fen + value.person_fen
        and value.inscope_fen == value.deductible_fen + value.pool_fen + value.ratio_self_fen
        and value.person_fen == value.account_fen + value.family_fen + value.cash_fen
    )


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


FOR_PEOPLE = {
    "Prescription": "renewed_prescription_number supply_reason note",
    "Issuer": "department_code phone",
    "Practitioner": "title",
    "Patient": "identity_number allergies guardian_name",
    "Encounter": "special_disease_code history",
    "PrescriptionLine": "dosage_form specification manufacturer approval_number route frequency"
    " self_pay_reason",
    "Commitment": "review_note",
    "HerbalFormula": "instruction",
    "LongPrescription": "assessment",
}
"""Texts that people read and no rule judges; those that have to be there are in NAMED."""

NAMED = {
    "Issuer": "institution_name department_name",
    "Practitioner": "name",
    "Patient": "name",
    "Encounter": "encounter_number diagnoses",
    "Diagnosis": "code name",
    "PrescriptionLine": "drug_code generic_name unit",
    "ClaimRelease": "reason",
    "Correction": "reason",
    "Revocation": "reason",
    "Collector": "identity_proof",
    "DispensedLine": "batch_numbers",
    "LongPrescription": "reason",
}

FREE: Mapping[str, Accepts] = {
    **{f"{kind}.{name}": anything for kind, names in FOR_PEOPLE.items() for name in names.split()},
    **{f"{kind}.{name}": something for kind, names in NAMED.items() for name in names.split()},
    # requests
    "request_id": uuid,
    "pickup_code": same_code,
    "pickup_secret": form(r"[0-9A-HJKMNP-TV-Z]{16}"),
    "page_size": between(0, 2**31),
    "page_token": anything,
    "resume_token": form(r"[0-9]{0,18}"),
    "GetTrustListRequest.region_code": form(r"|350200|350500|320600"),
    "held_sequence": anything,
    "BatchRegisterPrescriptionsRequest.requests": repeated,
    "DeliverEventsRequest.events": repeated,
    "QuoteSettlementRequest.lines": some_priced_lines,
    "PosServiceQuoteSettlementRequest.lines": some_priced_lines,
    "PeerEvent.event_id": uuid,
    "PeerEvent.create_time": time,
    # what pharmacies sign
    "Claim.lines": some_lines,
    "Correction.corrected_request_id": uuid,
    "Collector.kind": known,
    "Commitment.settlement_id": uuid,
    "Commitment.lines": any_order,
    "DispenseRecord.dispense_time": time,
    "DispenseRecord.lines": handed_over,
    "DispenseRecord.delivery": delivery,
    "DispenseReturn.reversal_id": uuid,
    "DispenseReturn.cause": between(1, 4),
    "DispenseReturn.reason": up_to(500),
    "DispenseReturn.return_time": soon_after,
    "DispenseReturn.lines": came_back,
    "DeliveryUpdate.state": between(2, 3),
    "DeliveryUpdate.state_time": soon_after,
    "DeliveryUpdate.carrier": up_to(80),
    "DeliveryUpdate.parcel_number": form(r"(?s).{0,80}"),
    # what adjudicators sign, and what operators say
    "Adjudication.adjudication_id": uuid,
    "Adjudication.finding": between(1, 2),
    "Adjudication.evidence": form(r"[^\x00-\x09\x0b-\x1f\x7f]{1,2000}"),
    "Adjudication.document_sha256": lambda value, _base: (
        len(value) <= 20 and all(len(each) == 32 for each in value)
    ),
    "DiscardDeadLetterRequest.reason": form(r"(?s)[^\x00-\x1f\x7f]{1,200}"),
    # what hospitals sign
    "Prescription.hospital_prescription_number": up_to(40),
    "Prescription.type": known,
    "Prescription.outflow_basis": known,
    "Prescription.issue_time": time,
    "Prescription.expire_time": time,
    "Prescription.emergency": anything,
    "Prescription.lines": something,
    "Patient.insured_person_id": up_to(40),
    "Patient.payer_region_code": form(r"[0-9]{6}"),
    "Patient.sex": known,
    "Patient.identity_document": between(0, 2),
    "Patient.weight_grams": between(0, 1_000_000),
    "Patient.pregnant": anything,
    "Patient.breastfeeding": anything,
    "Date.year": between(1, 9999),
    "Date.month": between(1, 12),
    "Date.day": between(1, 31),
    "Encounter.kind": known,
    "Encounter.follow_up": anything,
    "Diagnosis.system": known,
    "PrescriptionLine.line_id": between(1, 2**31),
    "PrescriptionLine.quantity": between(1, 10**12),
    "PrescriptionLine.supply_days": between(1, 366),
    "PrescriptionLine.substitution_allowed": anything,
    "Prescription.long_prescription": something,
    # books that are compared
    "DayBook.day": form(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "DayBook.totals": anything,
    "DayBook.page": anything,
    "period": form(r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])"),
    "ClearingStatement.revision": between(1, 2**31),
    "ClearingStatement.create_time": time,
    # tokens of the payer
    "ECredential.credential_id": anything,
    "ECredential.issue_time": time,
    "ECredential.expire_time": time,
}
"""Fields whose value is free everywhere, by ``Message.field`` or by ``field`` in all messages."""

_OF_PLATFORM = {
    "Attempt": "fence state pharmacy_code dispensing_region_code payer_region_code lines"
    " create_time lease_expire_time update_time settlement_id cause_sha256 attempt_id",
    "PrescriptionStatus": "issuer_institution_code payer_region_code validity hospital_review"
    " pharmacy_review lines live_attempt holder_name expire_time register_time update_time version"
    " prescription_sha256 opened_fills next_fill_day cause_sha256",
}
_WORD: Mapping[str, Accepts] = {
    f"{kind}.{name}": anything for kind, names in _OF_PLATFORM.items() for name in names.split()
}
"""The home region's word on its own affairs, which nobody else can judge."""

_RETURNED: Mapping[str, Accepts] = {
    "DispenseReturn.return_time": time,
    "DispenseReturn.lines": came_back_somewhere,
}
_SETTLED: Mapping[str, Accepts] = {
    **dict.fromkeys(
        [f"Settlement.{name}" for name in ("tariff_version", "cause_sha256", "state")], anything
    ),
    "Settlement.create_time": time,
    "Settlement.update_time": time,
    "Settlement.amounts": balanced,
}
_SHOWN: Mapping[str, Accepts] = {
    f"Prescription.{name}": anything
    for name in ("encounter", "type", "outflow_basis", "herbal_formula", "long_prescription",
                 "issue_time", "expire_time", "hospital_prescription_number", "emergency")
} | {
    f"Patient.{name}": anything
    for name in ("name", "sex", "birth_date", "identity_document", "weight_grams")
} | {
    f"PrescriptionLine.{name}": anything
    for name in ("drug_code", "generic_name", "unit", "single_dose", "limited_use", "supply_days",
                 "line_id", "quantity", "substitution_allowed")
} | {"Issuer.institution_name": anything, "Issuer.department_name": anything,
     "Practitioner.name": anything, "Prescription.lines": anything}  # fmt: skip
"""Of a prescription, what the payer does not judge: it was registered at home."""

_DRAFT: Mapping[str, Accepts] = {
    "prescription_number": something,
    "Issuer.institution_code": something,
    "Practitioner.person_code": something,
}
"""Of a prescription that is only checked, not registered: what signatures will settle."""

_ALONE: Mapping[str, Accepts] = {
    "Commitment.mode": known,
    "Commitment.accepted_amounts": anything,
    "Commitment.lines": some_priced_lines,
}
"""A pharmacist may let the patient pay alone; if not, only the very amounts are accepted."""

FREE_AT: Mapping[str, Mapping[str, Accepts]] = {
    "ClearingService/ClearPeriod": {"dispensing_region_code": form("350200|350500")},
    "HospitalService/PrecheckPrescription": _DRAFT,
    "HisService/PrecheckPrescription": _DRAFT,
    "HospitalService/GetOutcome": {"request_id": lambda value, base: value == base},
    "PharmacyService/GetOutcome": {"request_id": lambda value, base: value == base},
    "HisService/GetOutcome": {"request_id": lambda value, base: value == base},
    "PosService/GetOutcome": {"request_id": lambda value, base: value == base},
    "HisService/GetPrescription": {"prescription_number": stripped},
    "HisService/ListStatements": {"prescription_number": stripped},
    "PosService/ListStatements": {"prescription_number": stripped},
    "PosService/GetDispense": {"prescription_number": stripped},
    "PosService/QuoteSettlement": {"prescription_number": stripped},
    "PosService/FindPrescription": {"prescription_number": stripped},
    "PharmacyService/CommitClaim (self-pay)": {
        "Commitment.lines": some_priced_lines,
        "Commitment.accepted_amounts": anything,
    },
    "PharmacyService/CommitClaim": _ALONE,
    "PosService/CommitClaim": _ALONE,
    "HomeService/CommitAttempt": {
        **_SETTLED,
        "Commitment.mode": known,
        "Commitment.lines": lambda value, base: bool(value)
        and {line.line_id: line.quantity for line in value}.items()
        <= {line.line_id: line.quantity for line in base}.items(),
    },
    "PayerService/QuoteBenefit": {
        **_SHOWN,
        "Pricing.attempt_id": anything,
        "Pricing.settlement_id": anything,
        "Pricing.catalogue_version": anything,
        "Pricing.pharmacy_code": form(r"(?s).350500.*"),
        "Pricing.dispense_day": form(r"2026-?(0[1-3]|W..?).*"),
        "Pricing.lines": catalogued,
    },
    "PayerService/HoldBenefit": {
        **_SHOWN,
        **{name: free for name, free in _WORD.items() if name not in (
            "Attempt.attempt_id", "Attempt.fence", "Attempt.pharmacy_code",
            "Attempt.dispensing_region_code", "Attempt.payer_region_code",
        )},
        "Pricing.catalogue_version": anything,
        "Pricing.dispense_day": form(r"2026-?(0[1-3]|W..?).*"),
        "CataloguedLine.category": between(1, 2),
        "CataloguedLine.first_self_pay_bp": between(0, 10_000),
        "CataloguedLine.limit_price_micro_yuan": between(PRICE, 10**12),
    },
    "PeerService/GetCheckpoint": {"held_size": between(0, 2**63)},
    "SupervisionService/GetConsistencyProof": {
        "first_size": between(1, 2**63),
        "second_size": between(0, 2**63),
    },
    "SupervisionService/ListLogEntries": {
        "start_index": between(0, 2**63),
        "page_size": between(0, 1000),
    },
    "PeerService/SellTraceCodes": {
        "SellTraceCodesRequest.prescription_number": something,
        "SellTraceCodesRequest.attempt_id": uuid,
        "SellTraceCodesRequest.pharmacy_code": form(r"(?s).350500.*"),
        "SellTraceCodesRequest.trace_codes": lambda value, _base: boxes(
            [each.code for each in value]
        ),
    },
    "PeerService/TakeBackTraceCodes": {
        "TakeBackTraceCodesRequest.prescription_number": something,
        "TakeBackTraceCodesRequest.attempt_id": uuid,
        "TakeBackTraceCodesRequest.pharmacy_code": form(r"(?s).350500.*"),
        "TakeBackTraceCodesRequest.codes": lambda value, _base: boxes(value),
    },
    "PeerService/DeliverEvents (boxes)": {
        "PeerEvent.trace_code_sales": lambda value, base: all(each in base for each in value),
        "TraceCodeSale.trace_codes": something,
        "TraceCodeSale.sell_time": time,
        "DispenseRecord.fence": anything, "DispenseRecord.lines": something,
    },
    "PeerService/DeliverEvents (index)": {**_WORD, "PeerEvent.insured_person_id": anything},
    "PeerService/DeliverEvents (marked for revocation)": {
        **_WORD, "PeerEvent.insured_person_id": anything,
    },
    "PeerService/DeliverEvents (released)": {**_WORD, "PeerEvent.insured_person_id": anything},
    "PeerService/DeliverEvents (void)": {
        **_WORD, "Attempt.state": between(3, 5), "PeerEvent.insured_person_id": anything,
    },
    "PeerService/DeliverEvents (adjudicated)": {
        "PeerEvent.insured_person_id": anything, "Adjudication.attempt_id": anything,
        "Adjudication.fence": anything,
    },
    "PeerService/DeliverEvents (book)": {
        "DispenseRecord.settlement_id": something, "DispenseRecord.lines": booked,
    },
    "PeerService/DeliverEvents (post)": {
        "DispenseRecord.fence": anything, "DispenseRecord.lines": something,
    },
    "PeerService/DeliverEvents (returned)": _RETURNED,
    "PeerService/DeliverEvents (to be reversed)": _RETURNED,
    "PeerService/DeliverEvents (return booked)": {
        **_WORD, "PeerEvent.insured_person_id": anything,
    },
    "PeerService/DeliverEvents (reversed)": {
        "PeerEvent.insured_person_id": anything,
        **{f"Reversal.{name}": anything for name in (
            "reversal_id", "settlement_id", "attempt_id", "pharmacy_code", "cause_sha256",
            "dispensing_region_code",
        )},
        "Reversal.amounts": balanced,
        "Reversal.reverse_time": time,
    },
    "PeerService/DeliverEvents (given back)": {
        "PeerEvent.insured_person_id": anything,
        "Reversal.amounts": no_more_money,
        "Reversal.reverse_time": same_day_or_later,
    },
    "PeerService/DeliverEvents (settled)": {
        **_SETTLED,
        "PeerEvent.insured_person_id": anything,
        "Settlement.attempt_id": anything,
        "Settlement.settlement_id": anything,
        "Settlement.pharmacy_code": anything,
        "Settlement.dispensing_region_code": anything,
    },
    "PeerService/DeliverEvents (paid)": {
        **_SETTLED,
        "PeerEvent.insured_person_id": anything,
        "Settlement.attempt_id": anything,
        "Settlement.pharmacy_code": anything,
    },
}  # fmt: skip
"""Fields whose value is free at one method besides, or in another way."""


@dataclass(frozen=True)
class Comparison:
    """How a mutant of a request may differ: at which method, and whether it was signed anew."""

    method: str
    signed_anew: bool

    def differences(self, mutant: Message, base: Message, path: str = "") -> list[str]:
        """Paths of the fields that differ and may not."""
        found = []
        for field in cast(Sequence[FieldDescriptor], base.DESCRIPTOR.fields):
            here = f"{path}.{field.name}" if path else field.name
            if not _same(mutant, base, field) and not self._allowed(mutant, base, field):
                found += self._within(mutant, base, field, here)
        return found

    def _allowed(self, mutant: Message, base: Message, field: FieldDescriptor) -> bool:
        name = f"{base.DESCRIPTOR.name}.{field.name}"
        table = {**FREE, **FREE_AT.get(self.method, {})}
        accepts = table.get(name, table.get(field.name))
        value, before = getattr(mutant, field.name), getattr(base, field.name)
        return accepts is not None and accepts(value, before)

    def _within(
        self, mutant: Message, base: Message, field: FieldDescriptor, path: str
    ) -> list[str]:
        value, before = getattr(mutant, field.name), getattr(base, field.name)
        if field.message_type is None or isinstance(before, Timestamp):
            return [path]
        values, befores = (value, before) if field.is_repeated else ([value], [before])
        if len(values) != len(befores):
            return [path]
        found = []
        for one, other in zip(values, befores, strict=True):
            if isinstance(other, SignedStatement):
                found += self._statement(one, other, path)
            else:
                found += self.differences(one, other, path)
        return found

    def _statement(self, mutant: SignedStatement, base: SignedStatement, path: str) -> list[str]:
        if mutant.payload_type != base.payload_type:
            return [f"{path}.payload_type"]
        if len(mutant.signatures) != len(base.signatures):
            return [f"{path}.signatures"]
        kind = STATEMENTS[base.payload_type]
        try:
            content = kind.FromString(mutant.payload)
        except DecodeError:
            return [f"{path}.payload"]
        found = self.differences(content, kind.FromString(base.payload), f"{path}.payload")
        pairs = zip(mutant.signatures, base.signatures, strict=True)
        for index, (one, other) in enumerate(pairs):
            if not self._same_signer(one, other):
                found.append(f"{path}.signatures[{index}]")
        return found

    def _same_signer(self, one: Signature, other: Signature) -> bool:
        """The same header but for its time and priors, which the signature itself covers."""
        if list(one.certificate_chain)[:1] != list(other.certificate_chain)[:1]:
            return False
        if not self.signed_anew:
            return (one.protected, one.value) == (other.protected, other.value)
        headers = [ProtectedHeader.FromString(each.protected) for each in (one, other)]
        for header in headers:
            header.ClearField("sign_time")
            header.ClearField("prior_signature_sha256")
        return headers[0] == headers[1]


def _same(mutant: Message, base: Message, field: FieldDescriptor) -> bool:
    if field.has_presence and mutant.HasField(field.name) != base.HasField(field.name):
        return False
    value, before = getattr(mutant, field.name), getattr(base, field.name)
    if field.is_repeated:
        return list(value) == list(before)
    return bool(value == before)
