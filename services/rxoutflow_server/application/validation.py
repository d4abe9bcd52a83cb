"""Required fields and ranges of what is signed or asked, before any rule looks at it.

The contract marks required fields; they are checked from its descriptors, so the two cannot differ.
So are enums and times: a number that the contract does not name, or an instant that no calendar
has, is refused here and never reaches a command. What the descriptors cannot say (ranges, line
numbers, formats) stands here once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, cast
from uuid import UUID

from google.api import field_behavior_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import date_pb2

from rxoutflow.v1.dispense_pb2 import DispensedLine, DispenseRecord
from rxoutflow.v1.prescription_pb2 import Prescription, PrescriptionLine
from rxoutflow.v1.settlement_pb2 import Amounts, CataloguedLine, PricedLine, Pricing
from rxoutflow_server.domain.errors import Reason, Refusal

_REGION_CODE = re.compile(r"[0-9]{6}")
_HOSPITAL_NUMBER_LENGTH = 40
_INSURED_ID_LENGTH = 40
_MAX_QUANTITY = 10**9
_MAX_UNIT_PRICE = 10**12
_MAX_AMOUNT_FEN = 10**15
_MAX_WEIGHT_GRAMS = 1_000_000
_MAX_DELIVERY_FEE_FEN = 10**9
_TRACE_CODE = re.compile(r"[0-9]{20}")
_YEAR_9999 = 253_370_764_800
_NANOS = 10**9


def check_required(message: Message, path: str = "") -> None:
    """Refuse a message that lacks a required field, or has an unknown enum value or no real time.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    for field in cast(Sequence[FieldDescriptor], message.DESCRIPTOR.fields):
        here = f"{path}.{field.name}" if path else field.name
        if _is_required(field) and not _is_set(message, field):
            raise invalid(here, "is required")
        if field.enum_type is not None:
            _check_known(here, field, getattr(message, field.name))
        if field.message_type is not None:
            for index, value in _values(message, field):
                within = f"{here}[{index}]" if index is not None else here
                if isinstance(value, Timestamp):
                    _check_time(within, value)
                check_required(value, within)


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


def check_priced_lines(lines: Iterable[PricedLine]) -> None:
    """Refuse lines without products, named twice, or with impossible quantities or prices.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    lines = list(lines)
    if not lines:
        raise invalid("lines", "is required")
    seen: set[int] = set()
    for index, line in enumerate(lines):
        if line.line_id in seen:
            raise invalid(f"lines[{index}].line_id", "is named twice")
        seen.add(line.line_id)
        check_required(line, f"lines[{index}]")
        _check_range(f"lines[{index}].quantity", line.quantity, 1, _MAX_QUANTITY)
        _check_range(
            f"lines[{index}].unit_price_micro_yuan", line.unit_price_micro_yuan, 0, _MAX_UNIT_PRICE
        )


def check_pricing(content: Pricing) -> None:
    """Refuse another region's prices that no catalogue could give.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    check_required(content)
    check_priced_lines(line.line for line in content.lines)
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


def check_dispense_record(content: DispenseRecord) -> None:
    """Refuse a record with missing fields, malformed trace codes or an impossible delivery fee.

    Raises:
        Refusal: FIELD_INVALID naming the field.
    """
    # A dispense that only the patient pays has a settlement id too: it names the commitment.
    check_required(content)
    _check_range("delivery.fee_fen", content.delivery.fee_fen, 0, _MAX_DELIVERY_FEE_FEN)
    for index, line in enumerate(content.lines):
        _check_trace_codes(f"lines[{index}]", line)


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


def _is_required(field: FieldDescriptor) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviors


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    if field.is_repeated:
        return len(getattr(message, field.name)) > 0
    if field.has_presence:
        return message.HasField(field.name)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_ENUM):
        return bool(getattr(message, field.name))
    return True  # zero is a number; ranges are checked where they are known


def _values(message: Message, field: FieldDescriptor) -> Iterable[tuple[int | None, Message]]:
    if field.is_repeated:
        return enumerate(getattr(message, field.name))
    if message.HasField(field.name):
        return [(None, getattr(message, field.name))]
    return []


def _check_known(field: str, descriptor: FieldDescriptor, value: Any) -> None:  # noqa: ANN401 - a number, or several
    known = cast(EnumDescriptor, descriptor.enum_type).values_by_number
    if any(each not in known for each in (value if descriptor.is_repeated else (value,))):
        raise invalid(field, "has a value that this contract does not know")


def _check_time(field: str, time: Timestamp) -> None:
    if not (0 <= time.seconds < _YEAR_9999 and 0 <= time.nanos < _NANOS):
        raise invalid(field, "is no time between the years 1970 and 9998")


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
        _check_form(f"{here}.trace_codes[{index}].code", trace_code.code, _TRACE_CODE)
