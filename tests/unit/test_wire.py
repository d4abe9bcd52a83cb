"""Plain wire form: what two parsers could read differently is refused, case by case."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.timestamp_pb2 import Timestamp

from rxoutflow.statements import Bounds, StatementMalformed, check_wire, wire
from rxoutflow.v1.attempt_pb2 import Attempt, Claim
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ED25519,
    SIGNER_ROLE_PLATFORM,
    ProtectedHeader,
)
from support.every_kind import MANY, ONCE, descriptor_with, every_kind, with_a_message
from support.sheets import Cast
from support.wire import (
    FIXED32,
    FIXED64,
    GROUP,
    LENGTH,
    VARINT,
    Node,
    descriptor_of,
    encode,
    varint,
)

EveryKind = every_kind()
KIND = descriptor_of(EveryKind)

INT32, INT64, UINT32, SINT32, BOOL, STRING, BYTES, ENUM, SELF = 1, 2, 3, 5, 7, 14, 15, 16, 17
MANY_INT32, MANY_BOOL, MANY_DOUBLE, MANY_STRING, MANY_ENUM = 31, 37, 43, 44, 46


def number(field: int, value: int, pad_tag: int = 0, pad_value: int = 0) -> Node:
    return Node(field, VARINT, value, pad_tag=pad_tag, pad_value=pad_value)


def block(field: int, value: bytes | list[Node], pad_length: int = 0) -> Node:
    return Node(field, LENGTH, value, pad_length=pad_length)


def check(*nodes: Node) -> None:
    check_wire(encode(list(nodes)), KIND)


ACCEPTED = {
    "nothing at all": [],
    "the smallest int32, ten bytes long": [number(INT32, 2**64 - 2**31)],
    "the largest int32": [number(INT32, 2**31 - 1)],
    "int64 minus one, ten bytes long": [number(INT64, 2**64 - 1)],
    "the largest uint32": [number(UINT32, 2**32 - 1)],
    "a known enum value": [number(ENUM, 2)],
    "zero where it could be left out": [number(INT32, 0), number(BOOL, 0), block(STRING, b"")],
    "fields in another order": [block(STRING, b"a"), number(INT32, 1)],
    "a list of messages in two places": [block(47, []), number(INT32, 1), block(47, [])],
    "a packed list": [block(MANY_INT32, varint(1) + varint(2**64 - 1))],
    "a packed list of doubles": [block(MANY_DOUBLE, bytes(16))],
    "strings of Chinese and beyond the BMP": [block(STRING, "处方𠮷".encode())],
    "bytes that are not UTF-8": [block(BYTES, b"\xff\xfe")],
    "one member of a choice": [number(61, 1)],
}

REFUSED = {
    "an unknown field": ([number(99, 1)], ""),
    "field number zero": ([number(0, 1)], ""),
    "an unknown field within a message": ([block(SELF, [number(99, 1)])], "a_message"),
    "a singular number twice": ([number(INT32, 1), number(INT32, 1)], "a_int32"),
    "a singular string twice": ([block(STRING, b"a"), block(STRING, b"a")], "a_string"),
    "a singular message twice": ([block(SELF, []), block(SELF, [])], "a_message"),
    "two members of a choice": ([number(61, 1), block(62, b"a")], "either_string"),
    "a packed list in two pieces": (
        [block(MANY_INT32, b"\1"), block(MANY_INT32, b"\1")],
        "many_int32",
    ),
    "a list of numbers that is not packed": ([number(MANY_INT32, 1)], ""),
    "a list of doubles that is not packed": ([Node(MANY_DOUBLE, FIXED64, bytes(8))], ""),
    "a number in the wire type of a string": ([block(INT32, b"\1")], ""),
    "a string in the wire type of a number": ([number(STRING, 1)], ""),
    "a number of fixed width for a varint": ([Node(INT32, FIXED32, bytes(4))], ""),
    "a group": ([Node(SELF, GROUP, b"")], ""),
    "the end of a group": ([Node(SELF, 4, b"")], ""),
    "an over-long tag": ([number(INT32, 1, pad_tag=1)], ""),
    "an over-long value": ([number(INT32, 1, pad_value=1)], "a_int32"),
    "an over-long zero": ([number(INT32, 0, pad_value=1)], "a_int32"),
    "an over-long length": ([block(STRING, b"a", pad_length=1)], "a_string"),
    "an over-long number in a packed list": (
        [block(MANY_INT32, varint(1, pad=2))],
        "many_int32",
    ),
    "a number of eleven bytes": ([number(INT64, 2**70)], "a_int64"),
    "a number of 65 bits": ([number(INT64, 2**64)], "a_int64"),
    "an int32 that is too large": ([number(INT32, 2**31)], "a_int32"),
    "a negative int32 in five bytes": ([number(INT32, 2**32 - 1)], "a_int32"),
    "an int32 that is too small": ([number(INT32, 2**64 - 2**31 - 1)], "a_int32"),
    "a uint32 that is too large": ([number(UINT32, 2**32)], "a_uint32"),
    "a sint32 that is too large": ([number(SINT32, 2**32)], "a_sint32"),
    "a truth value of two": ([number(BOOL, 2)], "a_bool"),
    "a truth value of two in a list": ([block(MANY_BOOL, b"\1\2")], "many_bool"),
    "an unknown enum value": ([number(ENUM, 3)], "a_enum"),
    "a negative enum value": ([number(ENUM, 2**64 - 1)], "a_enum"),
    "an unknown enum value in a list": ([block(MANY_ENUM, b"\1\3")], "many_enum"),
    "half a double in a list": ([block(MANY_DOUBLE, bytes(12))], "many_double"),
    "a string that is not UTF-8": ([block(STRING, b"\xff")], "a_string"),
    "an over-long UTF-8 form": ([block(STRING, b"\xc0\xaf")], "a_string"),
    "a surrogate": ([block(STRING, b"\xed\xa0\x80")], "a_string"),
    "a string in a list that is not UTF-8": ([block(MANY_STRING, b"\xff")], "many_string"),
    "a fault two messages down": (
        [block(SELF, [block(47, [number(BOOL, 7)])])],
        "a_message.many_message.a_bool",
    ),
}


@pytest.mark.parametrize("tree", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_plain_forms_are_accepted(tree: list[Node]) -> None:
    check(*tree)


@pytest.mark.parametrize(("tree", "path"), REFUSED.values(), ids=REFUSED.keys())
def test_other_forms_are_refused_by_the_path_of_the_field(tree: list[Node], path: str) -> None:
    with pytest.raises(StatementMalformed) as refused:
        check(*tree)
    assert refused.value.detail == {"field": path}


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a tag without a value
        b"\x80",  # half a tag
        b"\x08\x80",  # half a value
        b"\x72",  # a string without a length
        b"\x72\x02a",  # a string that is shorter than its length
        b"\x72\xff\xff\xff\xff\x0f",  # a length of four gigabytes
        b"\x45\x00\x00\x00",  # three bytes of fixed32
        b"\x8a\x01\x01\x08",  # a message that ends within a field
        b"\x8a\x01\x02\x08\x80\x01",  # a value that runs out of its message
        b"\xff" * 11,
    ],
)
def test_what_ends_too_early_is_refused(data: bytes) -> None:
    with pytest.raises(StatementMalformed):
        check_wire(data, KIND)


def nested(levels: int) -> bytes:
    tree: list[Node] = []
    for _ in range(levels - 1):
        tree = [block(SELF, tree)]
    return encode(tree)


def test_sixteen_messages_within_each_other_are_the_most() -> None:
    check_wire(nested(16), KIND)
    with pytest.raises(StatementMalformed, match="too deeply"):
        check_wire(nested(17), KIND)


def test_depth_is_counted_down_again_on_the_way_out() -> None:
    check_wire(encode([block(47, [])] * 40), KIND)


def test_elements_are_bounded_wherever_they_stand() -> None:
    bounds = Bounds(max_elements=10)
    check_wire(encode([block(MANY_INT32, bytes(9))]), KIND, bounds)
    for tree in (
        [block(MANY_INT32, bytes(10))],
        [block(MANY_STRING, b"")] * 11,
        [block(SELF, [block(MANY_STRING, b"")] * 10)],
    ):
        with pytest.raises(StatementMalformed, match="too many"):
            check_wire(encode(tree), KIND, bounds)


@pytest.mark.parametrize("priors", [bytes(32), b""], ids=["digests", "nothing"])
def test_a_header_of_many_bytes_may_have_as_many_elements_as_its_bound(priors: bytes) -> None:
    """Which way it is checked makes no difference, nor how few bytes an element takes."""
    bounds = Bounds(max_bytes=2048, max_depth=2, max_elements=32)
    header = ProtectedHeader(
        algorithm=SIGNATURE_ALGORITHM_ED25519,
        certificate_sha256=bytes(32),
        role=SIGNER_ROLE_PLATFORM,
        institution_code="H35020000001",
        region_code="350200",
        sign_time=Timestamp(seconds=1, nanos=1),
        audience="*",
        prior_signature_sha256=[priors] * 23,
    )
    check_wire(header.SerializeToString(), ProtectedHeader.DESCRIPTOR, bounds)
    header.prior_signature_sha256.append(priors)
    with pytest.raises(StatementMalformed, match="too many"):
        check_wire(header.SerializeToString(), ProtectedHeader.DESCRIPTOR, bounds)


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        (with_a_message(ONCE, MANY), [block(1, [block(1, bytes(40))])]),
        (with_a_message(MANY, ONCE), [block(1, [])] * 42),
        (with_a_message(MANY, MANY), [block(1, [block(1, bytes(5))])] * 6),
    ],
    ids=["a list in a message", "a list of messages", "lists in a list of messages"],
)
def test_elements_are_counted_in_all_messages(kind: Descriptor, tree: list[Node]) -> None:
    check_wire(encode(tree), kind, Bounds(max_elements=42))
    with pytest.raises(StatementMalformed, match="too many"):
        check_wire(encode(tree), kind, Bounds(max_elements=41))


def test_a_header_needs_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(*_: object) -> None:
        raise AssertionError("walked over")

    monkeypatch.setattr(wire, "_check_message", walk)
    header = ProtectedHeader(certificate_sha256=bytes(32), prior_signature_sha256=[bytes(32)] * 3)
    bounds = Bounds(max_bytes=2048, max_depth=2, max_elements=32)
    check_wire(header.SerializeToString(), ProtectedHeader.DESCRIPTOR, bounds)


def test_size_is_bounded_before_anything_is_read() -> None:
    bounds = Bounds(max_bytes=4)
    check_wire(encode([block(BYTES, b"ab")]), KIND, bounds)
    with pytest.raises(StatementMalformed, match="larger than 4 bytes"):
        check_wire(b"\xff" * 5, KIND, bounds)


def test_a_quarter_of_a_megabyte_is_the_most_by_default() -> None:
    data = encode([block(BYTES, bytes(256 * 1024 - 4))])
    assert len(data) == 256 * 1024
    check_wire(data, KIND)
    with pytest.raises(StatementMalformed):
        check_wire(data + b"\0", KIND)


def test_a_full_prescription_is_in_plain_form() -> None:
    check_wire(Cast.create().prescription().SerializeToString(), Prescription.DESCRIPTOR)


def test_the_path_names_fields_of_the_contract_and_never_their_content() -> None:
    tree = [Node(4, LENGTH, [Node(2, LENGTH, b"secret \xff")])]
    with pytest.raises(StatementMalformed) as refused:
        check_wire(encode(tree), Claim.DESCRIPTOR)
    assert refused.value.detail == {"field": "collector.identity_proof"}
    assert "secret" not in str(refused.value)


def test_zero_is_a_known_value_of_every_enum() -> None:
    check_wire(encode([number(4, 0)]), Attempt.DESCRIPTOR)


def test_messages_with_groups_are_not_for_statements() -> None:
    descriptor = descriptor_with(type=FieldDescriptorProto.TYPE_GROUP)
    with pytest.raises(TypeError, match="groups"):
        check_wire(b"", descriptor)
