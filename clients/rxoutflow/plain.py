"""Messages of the contract as plain values, for JSON and for people.

Fields go by their contract names; enums by their short names (``RESERVED``), times as RFC 3339 in
UTC, dates as ``1962-04-03``, bytes in hexadecimal, and all integers stay integers: amounts in fen
are numbers here, not the strings that Protobuf's own JSON makes of them. Fields that are not set
are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"


def plain(message: Message) -> dict[str, Plain]:
    """The message as a dictionary."""
    fields = cast("list[tuple[FieldDescriptor, object]]", message.ListFields())
    return {field.name: _value(field, value) for field, value in fields}


def short_name(message: Message, field: str) -> str:
    """The name of an enum field's value without the enum's prefix, such as ``RESERVED``."""
    # The stubs type descriptors as a union with the C implementation of the same interface.
    enum = cast("EnumDescriptor", message.DESCRIPTOR.fields_by_name[field].enum_type)
    return _short(enum, getattr(message, field))


def _value(field: FieldDescriptor, value: object) -> Plain:
    if field.is_repeated:
        return [_one(field, item) for item in cast("Iterable[object]", value)]
    return _one(field, value)


def _one(field: FieldDescriptor, value: object) -> Plain:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Date):
        return f"{value.year:04}-{value.month:02}-{value.day:02}"
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return _short(field.enum_type, cast("int", value))
    return value.hex() if isinstance(value, bytes) else cast("Plain", value)


def _short(enum: EnumDescriptor, number: int) -> str:
    value = enum.values_by_number.get(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return value.name.removeprefix(prefix) if value else str(number)
