"""Prescriptions as people write them: a JSON file becomes a Prescription message.

Keys are the field names of the contract's ``Prescription``; enums go by their short names
(``WESTERN``), dates as ``1962-04-03``. What the hospital's profile and the clock know is left out
and filled in on issue: number, times, hospital, people. Beside the fields a file may say

- ``about``: what it shows, for people; goes nowhere;
- ``validity_days``: local days that it is valid, counting the day of issue (default 1);
- ``issued_days_ago``: to write one in the past, for demonstrations (default 0).

Everything is checked by the contract's own descriptors: unknown keys, missing required fields,
types, ranges. Errors name file and path, such as ``lines[1].quantity``, and never repeat a value,
for it may be personal. Whether the prescription obeys the rules is for the pre-check to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import TypeVar, cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.type.date_pb2 import Date

from rxoutflow.errors import InvalidInput
from rxoutflow.json_files import parse_object, read_object, unknown_key
from rxoutflow.v1.prescription_pb2 import Prescription

CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")
"""The civil time of every pooling region; it has had no daylight saving time since 1991."""

MAX_VALIDITY_DAYS = 84
"""Beyond this nothing can be meant; the rules set lower limits (R1)."""

MAX_DAYS_AGO = 3650

FILLED_IN = frozenset(
    {
        "prescription_number",
        "issue_time",
        "expire_time",
        "issuer.institution_code",
        "issuer.institution_name",
        "issuer.prescriber",
        "issuer.reviewing_pharmacist",
    }
)
"""Fields that profile and clock know."""

_OPTIONAL = FILLED_IN | {"hospital_prescription_number", "lines[].line_id"}
_EXTRA = ("about", "validity_days", "issued_days_ago")
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: 2**31 - 1,
    FieldDescriptor.TYPE_INT64: 2**63 - 1,
}
_INDEX = re.compile(r"\[[0-9]+\]")

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class Draft:
    """A prescription as written, before number, times, hospital and people are filled in.

    ``times`` says from when until when it would be valid if it were issued now.
    """

    content: Prescription
    about: str = ""
    validity_days: int = 1
    issued_days_ago: int = 0

    def times(self, now: datetime) -> tuple[datetime, datetime]:
        """Time of issue, and the end of the last local day of validity (half open)."""
        issue = now - timedelta(days=self.issued_days_ago)
        last_day = issue.astimezone(CHINA).date() + timedelta(days=self.validity_days)
        return issue, datetime.combine(last_day, time(), CHINA)


def read_draft(path: Path) -> Draft:
    """The prescription in this JSON file.

    Raises:
        InvalidInput: file and path of the first thing that is wrong.
    """
    return _draft(str(path), read_object(path))


def parse_draft(text: str, source: str = "prescription") -> Draft:
    """The prescription in this JSON text; ``source`` is what messages call it.

    Raises:
        InvalidInput: the path of the first thing that is wrong.
    """
    return _draft(source, parse_object(text, source))


def read_message(path: Path, kind: type[_M]) -> _M:
    """A message of the contract from a JSON file, by the same rules.

    Raises:
        InvalidInput: file and path of the first thing that is wrong.
    """
    message = kind()
    _fill(message, read_object(path), str(path), "")
    return message


def _draft(source: str, values: dict[str, object]) -> Draft:
    content = Prescription()
    fields = {key: value for key, value in values.items() if key not in _EXTRA}
    _fill(content, fields, source, "")
    for index, line in enumerate(content.lines, start=1):
        line.line_id = line.line_id or index
    about = values.get("about", "")
    if not isinstance(about, str):
        raise InvalidInput(f"{source}: about: must be a text")
    return Draft(
        content,
        about,
        _days(source, values, "validity_days", 1, 1, MAX_VALIDITY_DAYS),
        _days(source, values, "issued_days_ago", 0, 0, MAX_DAYS_AGO),
    )


def _days(
    source: str, values: Mapping[str, object], key: str, default: int, least: int, most: int
) -> int:
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidInput(f"{source}: {key}: must be an integer from {least} to {most}")
    return value


def _fill(message: Message, values: Mapping[str, object], source: str, path: str) -> None:
    by_name = {field.name: field for field in _fields(message)}
    for key, value in values.items():
        where = f"{path}.{key}" if path else key
        if key not in by_name:
            known = [*by_name, *(_EXTRA if isinstance(message, Prescription) else ())]
            raise InvalidInput(f"{source}: {unknown_key(where, known)}")
        if where in FILLED_IN:
            raise InvalidInput(f"{source}: {where}: is filled in on issue: leave it out")
        _set(message, by_name[key], value, source, where)
    for name in _missing(message, values):
        where = f"{path}.{name}" if path else name
        if _INDEX.sub("[]", where) not in _OPTIONAL:
            raise InvalidInput(f"{source}: {where}: is missing")


def _missing(message: Message, values: Mapping[str, object]) -> Iterator[str]:
    for field in _fields(message):
        if _is_required(field) and values.get(field.name) in (None, "", [], {}):
            yield field.name


def _fields(message: Message) -> Sequence[FieldDescriptor]:
    # The stubs type the fields as a union with the C implementation of the same interface.
    return cast("Sequence[FieldDescriptor]", message.DESCRIPTOR.fields)


def _is_required(field: FieldDescriptor) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviors


def _set(message: Message, field: FieldDescriptor, value: object, source: str, path: str) -> None:
    if not field.is_repeated:
        _set_one(message, field, value, source, path)
        return
    if not isinstance(value, list):
        raise InvalidInput(f"{source}: {path}: must be a list")
    target = getattr(message, field.name)
    for index, item in enumerate(value):
        where = f"{path}[{index}]"
        if field.message_type is not None:
            _fill(target.add(), _object(item, source, where), source, where)
        else:
            target.append(_scalar(field, item, source, where))


def _set_one(
    message: Message, field: FieldDescriptor, value: object, source: str, path: str
) -> None:
    if field.message_type is None:
        setattr(message, field.name, _scalar(field, value, source, path))
        return
    part: Message = getattr(message, field.name)
    part.SetInParent()
    if isinstance(part, Date):
        _fill_date(part, value, source, path)
    else:
        _fill(part, _object(value, source, path), source, path)


def _object(value: object, source: str, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{source}: {path}: must be an object")
    return value


def _fill_date(target: Date, value: object, source: str, path: str) -> None:
    try:
        day = date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidInput(f"{source}: {path}: must be a date such as 1962-04-03") from None
    target.year, target.month, target.day = day.year, day.month, day.day


def _scalar(field: FieldDescriptor, value: object, source: str, path: str) -> object:
    if field.enum_type is not None:
        return _enum_number(field.enum_type, value, source, path)
    if field.type in _INTEGERS:
        return _integer(field, value, source, path)
    if field.type == FieldDescriptor.TYPE_BOOL:
        if not isinstance(value, bool):
            raise InvalidInput(f"{source}: {path}: must be true or false")
        return value
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, str):
        return value
    raise InvalidInput(f"{source}: {path}: must be a text")


def _integer(field: FieldDescriptor, value: object, source: str, path: str) -> int:
    # What the contract requires is at least 1 throughout; what it does not require may be 0.
    least, most = int(_is_required(field)), _INTEGERS[field.type]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{source}: {path}: must be an integer of at least {least}")
    if value > most:
        raise InvalidInput(f"{source}: {path}: must be at most {most}")
    return value


def _enum_number(enum: EnumDescriptor, value: object, source: str, path: str) -> int:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    numbers = {item.name.removeprefix(prefix): item.number for item in enum.values[1:]}
    if not isinstance(value, str) or value.removeprefix(prefix) not in numbers:
        raise InvalidInput(f"{source}: {path}: must be one of {', '.join(numbers)}")
    return numbers[value.removeprefix(prefix)]
