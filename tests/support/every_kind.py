"""A message with a field of every kind that Protobuf has, so that tests do not depend on ours."""

from __future__ import annotations

from typing import TypeAlias

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Label: TypeAlias = FieldDescriptorProto.Label.ValueType
ONCE, MANY = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED

SCALARS = (
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool",
    "fixed32", "fixed64", "sfixed32", "sfixed64", "float", "double", "string", "bytes",
)  # fmt: skip


def every_kind() -> type[Message]:
    """``EveryKind``: scalars, an enum, itself; singular from 1, repeated from 31, in a choice."""
    file = FileDescriptorProto(name="every_kind.proto", package="test", syntax="proto3")
    colour = file.enum_type.add(name="Colour")
    for number, name in enumerate(("NONE", "RED", "GREEN")):
        colour.value.add(name=name, number=number)
    message = file.message_type.add(name="EveryKind")
    message.oneof_decl.add(name="choice")
    for index, kind in enumerate((*SCALARS, "enum", "message"), 1):
        for name, number, label in (("a", index, 1), ("many", 30 + index, 3)):
            field = message.field.add(name=f"{name}_{kind}", number=number, label=label)
            _set_type(field, kind)
    for number, kind in ((61, "int32"), (62, "string"), (63, "message")):
        field = message.field.add(name=f"either_{kind}", number=number, label=1, oneof_index=0)
        _set_type(field, kind)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("test.EveryKind"))


def with_a_message(label: Label, inner: Label) -> Descriptor:
    """A message with messages in it once or many times, which hold a number once or many times."""
    file = FileDescriptorProto(name="around.proto", package="test", syntax="proto3")
    around = file.message_type.add(name="Around")
    message = FieldDescriptorProto.TYPE_MESSAGE
    around.field.add(name="inner", number=1, label=label, type=message, type_name=".test.Inner")
    file.message_type.add(name="Inner").field.add(
        name="number", number=1, label=inner, type=FieldDescriptorProto.TYPE_INT32
    )
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindMessageTypeByName("test.Around")


def descriptor_with(**field: object) -> Descriptor:
    """A message with one unusual field."""
    file = FileDescriptorProto(name="unusual.proto", package="test", syntax="proto2")
    message = file.message_type.add(name="Unusual")
    message.nested_type.add(name="Part")
    message.field.add(name="part", number=1, label=1, type_name=".test.Unusual.Part", **field)
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindMessageTypeByName("test.Unusual")


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if kind == "enum":
        field.type_name = ".test.Colour"
    if kind == "message":
        field.type_name = ".test.EveryKind"
