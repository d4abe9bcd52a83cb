"""Protobuf's wire form as a tree that tests can spoil, apart from the implementation under test.

A tree is a list of :class:`Node`, one for each field as it stands on the wire. ``parse`` reads
honest bytes by a descriptor; ``encode`` writes any tree, honest or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

VARINT, FIXED64, LENGTH, GROUP, FIXED32 = 0, 1, 2, 3, 5


@dataclass
class Node:
    """A field on the wire; ``pad`` counts superfluous varint bytes of tag, length and value."""

    number: int
    wire_type: int
    value: int | bytes | list[Node]
    field: FieldDescriptor | None = None
    pad_tag: int = 0
    pad_length: int = 0
    pad_value: int = 0


def descriptor_of(kind: type[Message]) -> Descriptor:
    """The descriptor of a message class; the stubs know it under two names."""
    return cast(Descriptor, kind.DESCRIPTOR)


def varint(value: int, pad: int = 0) -> bytes:
    """A varint with superfluous bytes after it that add nothing to its value."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F)
    digits += [0] * pad
    return bytes(digit | 0x80 for digit in digits[:-1]) + bytes([digits[-1]])


def encode(tree: list[Node]) -> bytes:
    return b"".join(map(encode_node, tree))


def encode_node(node: Node) -> bytes:
    tag = varint(node.number << 3 | node.wire_type, node.pad_tag)
    match node.value:
        case int(value):
            return tag + varint(value, node.pad_value)
        case list(children):
            content = encode(children)
        case content:
            pass
    if node.wire_type != LENGTH:
        return tag + content
    return tag + varint(len(content), node.pad_length) + content


def parse(data: bytes, descriptor: Descriptor) -> list[Node]:
    """Read bytes that an honest library wrote."""
    tree = []
    while data:
        tag, data = _read(data)
        field = descriptor.fields_by_number[tag >> 3]
        node = Node(tag >> 3, tag & 7, b"", field)
        if node.wire_type == VARINT:
            node.value, data = _read(data)
        else:
            width = {FIXED64: 8, FIXED32: 4}.get(node.wire_type)
            if width is None:
                width, data = _read(data)
            node.value, data = data[:width], data[width:]
            if field.message_type is not None:
                node.value = parse(node.value, field.message_type)
        tree.append(node)
    return tree


def messages(tree: list[Node]) -> Iterator[list[Node]]:
    """The fields of the message itself and of every message within it."""
    yield tree
    for node in tree:
        if isinstance(node.value, list):
            yield from messages(node.value)


def _read(data: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, data[index + 1 :]
    raise AssertionError("not honest bytes")
