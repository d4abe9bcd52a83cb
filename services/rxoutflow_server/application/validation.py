"""Required fields and ranges of what is signed or asked, before any rule looks at it.

The contract marks required fields; they are checked from its descriptors, so the two cannot differ.
So are enums and times: a number that the contract does not name, or an instant that no calendar
has, is refused here and never reaches a command. What the descriptors cannot say (ranges, line
numbers, formats) stands here once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import date_pb2

from rxoutflow.statements.verification import MAX_CLOCK_AHEAD
from rxoutflow.v1.attempt_pb2 import Adjudication
from rxoutflow.v1.dispense_pb2 import (
    Delivery,
    DeliveryUpdate,
    DispensedLine,
    DispenseRecord,
    DispenseReturn,
)
from rxoutflow.v1.prescription_pb2 import Prescription, PrescriptionLine
from rxoutflow.v1.settlement_pb2 import (
    Amounts,
    CataloguedLine,
    PricedLine,
    Pricing,
    Reversal,
    Settlement,
)
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.trace_codes import TRACE_CODE

_REGION_CODE = re.compile(r"[0-9]{6}")
_HOSPITAL_NUMBER_LENGTH = 40
_INSURED_ID_LENGTH = 40
_MAX_QUANTITY = 10**9
_MAX_UNIT_PRICE = 10**12
_MAX_AMOUNT_FEN = 10**15
_MAX_WEIGHT_GRAMS = 1_000_000
_CARRIER_LENGTH = 80
_MAX_DELIVERY_FEE_FEN = 10**9
_EVIDENCE = re.compile(r"[^\x00-\x09\x0b-\x1f\x7f]{1,2000}")
_REASON_LENGTH = 500
_MAX_DOCUMENTS = 20
_SHA256_BYTES = 32
_YEAR_9999 = 253_370_764_800
_NANOS = 10**9
_BEHAVIOR = field_behavior_pb2.field_behavior
_EMPTY_UNLESS_SET = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_ENUM)
"""Types of a field that is not set when it has no content. Zero is a number; its range is checked
where that is known."""

_REQUIRED = "is required"
_UNKNOWN = "has a value that this contract does not know"


def check_required(message: Message, path: str = "") -> None:
    """Refuse a message that lacks a required field, or has an unknown enum value or no real time.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    fault = _fault_of(message)
    if fault is not None:
        raise invalid(f"{path}{fault.path}".removeprefix("."), fault.problem)


def check_prescription(content: Prescription) -> None:
    """Refuse a prescription with missing or impossible fields.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    check_required(content)
    _check_date("patient.birth_date", content.patient.birth_date)
    _check_form("patient.payer_region_code", content.patient.payer_region_code, _REGION_CODE)
    _check_length(
        "hospital_prescription_number",
        content.hospital_prescription_number,
        _HOSPITAL_NUMBER_LENGTH,
    )
    _check_length(
        "patient.insured_person_id", content.patient.insured_person_id, _INSURED_ID_LENGTH
    )
    if content.expire_time.ToNanoseconds() <= content.issue_time.ToNanoseconds():
        raise invalid("expire_time", "must be after issue_time")
    _check_range("patient.weight_grams", content.patient.weight_grams, 0, _MAX_WEIGHT_GRAMS)
    _check_lines(content.lines)
    _check_herbal(content)
    _check_range("long_prescription.fill_count", content.long_prescription.fill_count, 0, 366)
    interval = content.long_prescription.fill_interval_days
    _check_range("long_prescription.fill_interval_days", interval, 0, 366)


def check_priced_lines(lines: Sequence[PricedLine]) -> None:
    """Refuse lines named twice, or with impossible quantities or prices.

    What is required of each is checked before, with the message that they came in.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    if not lines:
        raise invalid("lines", "is required")
    seen: set[int] = set()
    for index, line in enumerate(lines):
        if line.line_id in seen:
            raise invalid(f"lines[{index}].line_id", "is named twice")
        seen.add(line.line_id)
        _check_range(f"lines[{index}].quantity", line.quantity, 1, _MAX_QUANTITY)
        _check_range(
            f"lines[{index}].unit_price_micro_yuan", line.unit_price_micro_yuan, 0, _MAX_UNIT_PRICE
        )


def check_quoted_lines(lines: Sequence[PricedLine]) -> None:
    """Refuse lines to quote that lack something, or that ``check_priced_lines`` refuses.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    for index, line in enumerate(lines):
        check_required(line, f"lines[{index}]")
    check_priced_lines(lines)


def check_pricing(content: Pricing) -> None:
    """Refuse another region's prices that no catalogue could give.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    check_required(content)
    check_priced_lines([line.line for line in content.lines])
    for index, line in enumerate(content.lines):
        if line.category == CataloguedLine.CATEGORY_UNSPECIFIED:
            raise invalid(f"lines[{index}].category", "is required")
        _check_range(
            f"lines[{index}].limit_price_micro_yuan",
            line.limit_price_micro_yuan,
            0,
            _MAX_UNIT_PRICE,
        )


def check_amounts(field: str, amounts: Amounts) -> None:
    """Refuse amounts of another region that are negative or do not add up.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    for part in amounts.DESCRIPTOR.fields:
        _check_range(f"{field}.{part.name}", getattr(amounts, part.name), 0, _MAX_AMOUNT_FEN)
    outside = amounts.own_fen + amounts.excess_fen + amounts.first_self_pay_fen
    inscope = amounts.deductible_fen + amounts.pool_fen + amounts.ratio_self_fen
    adds_up = (
        amounts.total_fen == outside + amounts.inscope_fen
        and amounts.inscope_fen == inscope
        and amounts.total_fen == amounts.pool_fen + amounts.person_fen
        and amounts.person_fen == amounts.account_fen + amounts.family_fen + amounts.cash_fen
    )
    if not adds_up:
        raise invalid(field, "does not add up: see the identities of the contract")


def check_payment(content: Settlement | Reversal) -> None:
    """Refuse a payer's word on money with missing fields or amounts that do not add up.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    check_required(content)
    check_amounts("amounts", content.amounts)


def check_adjudication(content: Adjudication) -> None:
    """Refuse a decision with missing fields, too long evidence or digests that are none.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    check_required(content)
    check_uuid("adjudication_id", content.adjudication_id)
    _check_form("evidence", content.evidence, _EVIDENCE)
    if len(content.document_sha256) > _MAX_DOCUMENTS:
        raise invalid("document_sha256", f"must be at most {_MAX_DOCUMENTS}")
    for index, digest in enumerate(content.document_sha256):
        _check_range(f"document_sha256[{index}]", len(digest), _SHA256_BYTES, _SHA256_BYTES)


def check_dispense_record(content: DispenseRecord) -> None:
    """Refuse a record with missing fields, malformed trace codes or an impossible delivery fee.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    # A dispense that only the patient pays has a settlement id too: it names the commitment.
    check_required(content)
    _check_range("delivery.fee_fen", content.delivery.fee_fen, 0, _MAX_DELIVERY_FEE_FEN)
    _check_parcel("delivery.", content.delivery)
    for index, line in enumerate(content.lines):
        _check_trace_codes(f"lines[{index}]", line)


def check_delivery_update(content: DeliveryUpdate, now: datetime) -> None:
    """Refuse an update with missing fields, too long texts, or a time that is still to come.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    check_required(content)
    _check_parcel("", content)
    if content.state_time.ToDatetime(UTC) > now + MAX_CLOCK_AHEAD:
        raise invalid("state_time", "must not be ahead")


def _check_parcel(path: str, content: Delivery | DeliveryUpdate) -> None:
    _check_length(f"{path}carrier", content.carrier, _CARRIER_LENGTH)
    _check_length(f"{path}parcel_number", content.parcel_number, _CARRIER_LENGTH)


def check_dispense_return(content: DispenseReturn) -> None:
    """Refuse a return with missing fields, impossible quantities or malformed trace codes.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    check_required(content)
    check_uuid("reversal_id", content.reversal_id)
    _check_length("reason", content.reason, _REASON_LENGTH)
    for index, line in enumerate(content.lines):
        _check_range(f"lines[{index}].quantity", line.quantity, 1, _MAX_QUANTITY)
        for place, code in enumerate(line.trace_codes):
            check_trace_code(f"lines[{index}].trace_codes[{place}]", code)


def check_trace_code(field: str, code: str) -> None:
    """Refuse a trace code in any other spelling than twenty ASCII digits.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    if not TRACE_CODE.fullmatch(code):
        raise invalid(field, "must be 20 digits, without blanks, as the box shows them")


def check_uuid(field: str, value: str) -> None:
    """Refuse an id that is no UUID.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    try:
        UUID(value)
    except ValueError:
        raise invalid(field, "must be a UUID") from None


def invalid(field: str, problem: str) -> Refusal:
    """A refusal that names a field and what is wrong with it."""
    return Refusal(Reason.FIELD_INVALID, f"{field}: {problem}", field=field)


def mismatch(field: str, problem: str) -> Refusal:
    """A refusal of signed content that contradicts its signer, its caller or another statement."""
    return Refusal(Reason.SIGNED_CONTENT_MISMATCH, f"{field}: {problem}", field=field)


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with a message, and with which of its fields: the path begins with a dot."""

    path: str
    problem: str

    def inside(self, path: str) -> _Fault:
        """The same fault, as the message that holds the faulty one has it."""
        return _Fault(f"{path}{self.path}", self.problem)


_Demand = Callable[[Any], _Fault | None]
"""What the contract asks of a field of a message: it finds the fault of one, if that has one."""


def _fault_of(message: Message) -> _Fault | None:
    for demand in _demands(message.DESCRIPTOR):
        fault = demand(message)
        if fault is not None:
            return fault
    return None


@lru_cache(maxsize=512)
def _demands(descriptor: Descriptor) -> tuple[_Demand, ...]:
    """All demands on a type of message, in the order of its fields; not read for each message."""
    if descriptor is Timestamp.DESCRIPTOR:
        return (_real_time,)
    return tuple(chain.from_iterable(map(_demands_on, descriptor.fields)))


def _demands_on(field: FieldDescriptor) -> Iterator[_Demand]:
    if field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[_BEHAVIOR]:
        if field.has_presence:
            yield _present(field.name)
        elif field.is_repeated or field.cpp_type in _EMPTY_UNLESS_SET:
            yield _filled(field.name)
    if field.enum_type is not None:
        known = frozenset(field.enum_type.values_by_number)
        yield (_all_known if field.is_repeated else _known)(field.name, known)
    if field.message_type is not None:
        yield (_all_sound if field.is_repeated else _sound)(field.name)


def _present(name: str) -> _Demand:
    missing = _Fault(f".{name}", _REQUIRED)
    return lambda message: None if message.HasField(name) else missing


def _filled(name: str) -> _Demand:
    missing = _Fault(f".{name}", _REQUIRED)
    return lambda message: None if getattr(message, name) else missing


def _known(name: str, known: frozenset[int]) -> _Demand:
    unknown = _Fault(f".{name}", _UNKNOWN)
    return lambda message: None if getattr(message, name) in known else unknown


def _all_known(name: str, known: frozenset[int]) -> _Demand:
    unknown = _Fault(f".{name}", _UNKNOWN)
    return lambda message: None if known.issuperset(getattr(message, name)) else unknown


def _sound(name: str) -> _Demand:
    def demand(message: Message) -> _Fault | None:
        fault = _fault_of(getattr(message, name)) if message.HasField(name) else None
        return fault and fault.inside(f".{name}")

    return demand


def _all_sound(name: str) -> _Demand:
    def demand(message: Message) -> _Fault | None:
        for index, each in enumerate(getattr(message, name)):
            fault = _fault_of(each)
            if fault is not None:
                return fault.inside(f".{name}[{index}]")
        return None

    return demand


def _real_time(time: Timestamp) -> _Fault | None:
    if 0 <= time.seconds < _YEAR_9999 and 0 <= time.nanos < _NANOS:
        return None
    return _Fault("", "is no time between the years 1970 and 9998")


def _check_date(field: str, value: date_pb2.Date) -> None:
    try:
        date(value.year, value.month, value.day)
    except ValueError:
        raise invalid(field, "is not a day of the calendar") from None


def _check_form(field: str, value: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(value):
        raise invalid(field, f"must have the form {form.pattern}")


def _check_length(field: str, value: str, longest: int) -> None:
    if len(value) > longest:
        raise invalid(field, f"must have at most {longest} characters")


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise invalid(field, f"must be {least} to {most}")


def _check_lines(lines: Iterable[PrescriptionLine]) -> None:
    previous = 0
    for index, line in enumerate(lines):
        here = f"lines[{index}]"
        if line.line_id <= previous:
            raise invalid(f"{here}.line_id", "must ascend from 1")
        previous = line.line_id
        _check_range(f"{here}.quantity", line.quantity, 1, _MAX_QUANTITY)
        _check_range(f"{here}.supply_days", line.supply_days, 1, 366)
        if line.HasField("single_dose"):
            dose = line.single_dose.value_milli
            _check_range(f"{here}.single_dose.value_milli", dose, 1, _MAX_QUANTITY)


def _check_herbal(content: Prescription) -> None:
    herbal = content.type == Prescription.TYPE_HERBAL
    if herbal and not content.HasField("herbal_formula"):
        raise invalid("herbal_formula", "is required on a herbal prescription")
    if not herbal and content.HasField("herbal_formula"):
        raise invalid("herbal_formula", "belongs on a herbal prescription only")
    if herbal:
        _check_range("herbal_formula.dose_count", content.herbal_formula.dose_count, 1, 366)


def _check_trace_codes(here: str, line: DispensedLine) -> None:
    _check_range(f"{here}.quantity", line.quantity, 1, _MAX_QUANTITY)
    for index, trace_code in enumerate(line.trace_codes):
        check_trace_code(f"{here}.trace_codes[{index}].code", trace_code.code)
