"""Whatever a Protobuf library writes is accepted; spoiled in any one way, it is refused."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rxoutflow.statements import StatementMalformed, check_wire, wire
from rxoutflow.v1.statement_pb2 import ProtectedHeader, SignedStatement
from support.every_kind import every_kind
from support.sheets import KINDS
from support.wire import LENGTH, Node, descriptor_of, encode, encode_node, messages, parse

Draw = Callable[[st.SearchStrategy[Any]], Any]
Honest = tuple[type[Message], bytes]
Spoil = Callable[[Draw, list[Node]], bytes]

MESSAGES = (*KINDS, ProtectedHeader, SignedStatement, every_kind())
UNKNOWN_NUMBER = 9999

SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_STRING: st.text(max_size=4),
}


def values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return contents(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from(sorted(field.enum_type.values_by_number))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=4)
    return SCALARS[field.cpp_type]


def contents(descriptor: Descriptor, depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Any content of a message, as arguments of its constructor."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        if field.message_type is not None and depth == 0:
            continue
        value = values(field, depth)
        fields[field.name] = st.lists(value, max_size=2) if field.is_repeated else value
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def honest(draw: Draw) -> Honest:
    """The bytes of some message of some type, as a Protobuf library writes them."""
    kind: type[Message] = draw(st.sampled_from(MESSAGES))
    message = kind(**draw(contents(descriptor_of(kind))))
    return kind, message.SerializeToString()


def some_message(draw: Draw, tree: list[Node]) -> list[Node]:
    """The fields of a message somewhere in the tree."""
    return draw(st.sampled_from(list(messages(tree))))  # type: ignore[no-any-return] # a Draw's


def some_field(
    draw: Draw, tree: list[Node], fits: Callable[[Node], bool] = lambda _node: True
) -> tuple[list[Node], Node]:
    """A field that fits, somewhere in the tree, and the fields beside it."""
    choices = [(fields, node) for fields in messages(tree) for node in fields if fits(node)]
    assume(choices)
    return draw(st.sampled_from(choices))  # type: ignore[no-any-return] # a Draw's


def repeat_a_singular_field(draw: Draw, tree: list[Node]) -> bytes:
    fields, node = some_field(draw, tree, lambda node: not node.field.is_repeated)  # type: ignore[union-attr] # parsed
    fields.insert(draw(st.integers(0, len(fields))), node)
    return encode(tree)


def add_an_unknown_field(draw: Draw, tree: list[Node]) -> bytes:
    fields = some_message(draw, tree)
    unknown = draw(st.sampled_from([Node(UNKNOWN_NUMBER, 0, 1), Node(UNKNOWN_NUMBER, LENGTH, b"")]))
    fields.insert(draw(st.integers(0, len(fields))), unknown)
    return encode(tree)


def pad_a_tag(draw: Draw, tree: list[Node]) -> bytes:
    some_field(draw, tree)[1].pad_tag = draw(st.integers(1, 3))
    return encode(tree)


def pad_a_length(draw: Draw, tree: list[Node]) -> bytes:
    node = some_field(draw, tree, lambda node: node.wire_type == LENGTH)[1]
    node.pad_length = draw(st.integers(1, 3))
    return encode(tree)


def pad_a_value(draw: Draw, tree: list[Node]) -> bytes:
    node = some_field(draw, tree, lambda node: node.wire_type == 0)[1]
    node.pad_value = draw(st.integers(1, 3))
    return encode(tree)


def change_a_wire_type(draw: Draw, tree: list[Node]) -> bytes:
    node = some_field(draw, tree)[1]
    node.wire_type = draw(st.sampled_from([t for t in (0, 1, 2, 3, 4, 5) if t != node.wire_type]))
    return encode(tree)


def spoil_a_string(draw: Draw, tree: list[Node]) -> bytes:
    node = some_field(
        draw,
        tree,
        lambda node: node.field.type == FieldDescriptor.TYPE_STRING,  # type: ignore[union-attr] # parsed
    )[1]
    assert isinstance(node.value, bytes)
    node.value += b"\xff"
    return encode(tree)


def cut_the_end_off(draw: Draw, tree: list[Node]) -> bytes:
    data, boundaries, end = encode(tree), {0}, 0
    for node in tree:
        end += len(encode_node(node))
        boundaries.add(end)
    cuts = sorted(set(range(len(data))) - boundaries)
    assume(cuts)
    return data[: draw(st.sampled_from(cuts))]


SPOILS: list[Spoil] = [
    repeat_a_singular_field,
    add_an_unknown_field,
    pad_a_tag,
    pad_a_length,
    pad_a_value,
    change_a_wire_type,
    spoil_a_string,
    cut_the_end_off,
]

patient = settings(
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None
)


@patient
@given(honest())
def test_what_a_library_writes_is_in_plain_form(example: Honest) -> None:
    kind, data = example
    check_wire(data, descriptor_of(kind))


@patient
@given(honest(), st.randoms(use_true_random=False))
def test_the_order_of_fields_is_free(example: Honest, random: Random) -> None:
    kind, data = example
    tree = parse(data, descriptor_of(kind))
    for fields in messages(tree):
        random.shuffle(fields)
    check_wire(encode(tree), descriptor_of(kind))


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@patient
@given(example=honest(), data=st.data())
def test_spoiled_in_any_one_way_it_is_refused(
    spoil: Spoil, example: Honest, data: st.DataObject
) -> None:
    kind, honest_bytes = example
    spoiled = spoil(data.draw, parse(honest_bytes, descriptor_of(kind)))
    with pytest.raises(StatementMalformed):
        check_wire(spoiled, descriptor_of(kind))


@patient
@given(honest(), st.data())
def test_damaged_bytes_are_refused_or_such_as_every_parser_takes(
    example: Honest, data: st.DataObject
) -> None:
    kind, honest_bytes = example
    damaged = bytearray(honest_bytes + data.draw(st.binary(max_size=2)))
    assume(damaged)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_wire(bytes(damaged), descriptor_of(kind))
    except StatementMalformed:
        return
    kind.FromString(bytes(damaged))
    parse(bytes(damaged), descriptor_of(kind))


@patient
@given(honest(), st.data())
def test_the_short_way_accepts_nothing_that_the_walk_refuses(
    example: Honest, data: st.DataObject
) -> None:
    kind, honest_bytes = example
    descriptor = descriptor_of(kind)
    bounds = wire.Bounds(
        max_depth=data.draw(st.integers(1, 16)), max_elements=data.draw(st.integers(0, 40))
    )
    spoil = data.draw(st.sampled_from([None, *SPOILS]))
    some = honest_bytes if spoil is None else spoil(data.draw, parse(honest_bytes, descriptor))
    with pytest.MonkeyPatch.context() as patch:
        short = wire._is_as_written_by_a_library(some, descriptor, bounds)
        patch.setattr(wire, "_is_as_written_by_a_library", lambda *_: False)
        if short:
            check_wire(some, descriptor, bounds)
