"""Spoiled copies of requests: structured, and the same for the same seed.

Four families, for any request of the contract:

- ``wire``: the serialised request cut, doubled, mistyped, over-long, padded, flipped;
- ``envelope``: a signed statement in it with parts of others, of nobody, or in another order, and
  headers that say something else, also signed anew by whoever signed them;
- ``content``: what is signed spoiled, as bytes and field by field, and *signed by all the right
  people*, so that only the rules about content can refuse it;
- ``field``: fields of the request itself, each with values that its type allows and its meaning
  does not.

Those of signed statements are in ``mutant_statements``. Nothing here knows what has to come of a
mutant; see ``leniency``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rxoutflow.v1.statement_pb2 import SignedStatement
from support import wire
from support.wire import FIXED32, FIXED64, GROUP, LENGTH, VARINT, Node

HUGE = 10_000_000
"""Bytes of the largest strings."""

INTEGERS = (
    -(2**63), -(2**31) - 1, -(2**31), -(10**12), -1, 0, 1, 2, 366, 10_001,
    2**31 - 1, 2**31, 10**12, 10**12 + 1, 2**53 + 1, 2**63 - 1,
)  # fmt: skip
TEXTS = (
    "", " ", "0", "-1", "null", "350200", "35020", "3502000", "999999", "３５０２００",
    "٣٥٠٢٠٠", "𝟛𝟝𝟘𝟚𝟘𝟘", "*", "%", "_", "'; DROP TABLE prescriptions; --", "../../etc/passwd",
    "{}", "${jndi:ldap://x}", "\u202e123", "\u200b", "é" * 50, "e\u0301" * 50, "张三丰", "😀" * 20,
    "\ufdfa" * 100, "a" * 41, "a" * 10_000, "1" * 30, "9" * 30, "1" * 400, "9" * 18, "9" * 19,
    "P35050000001", "P350500000011", "p35050000002", "H35020000001", "00000000-0000-0000-0000",
    "019ce000-0000-7000-8000-000000000000", "019ce000000070008000000000000000", "Infinity", "1e9",
    "2026-02-30", "9999-12-31", "0001-01-01", "application/x", "\uffff", "\x7f", "NaN", "0x10",
    "+1", "1_0", "1.0", "٣", "²", "½", "true", "[]", "\ufeff350200", "350200\u00a0", "A" * 255,
    "A" * 256, "0" * 65_536, *map(chr, range(32)),
)  # fmt: skip
BYTES = (b"", b"\0", b"\xff" * 31, b"\xff" * 32, b"\0" * 32, b"\0" * 33, b"x" * 5000)
TIMES = (
    (0, 0), (-1, 0), (0, -1), (0, 10**9), (-62_135_596_800, 0), (-62_135_596_801, 0),
    (253_402_300_799, 999_999_999), (253_402_300_800, 0), (2**63 - 1, 0), (-(2**63), 0),
    (4_102_444_800, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A spoiled request: what was done to it, and how to get its bytes."""

    family: str
    what: str
    make: Callable[[], bytes | None]
    """None if it cannot be made after all."""


def chosen(families: Sequence[list[Mutant]], most: int, random: Random) -> list[Mutant]:
    """As many of each family as there is room for; what one leaves over, the others get."""
    taken: list[Mutant] = []
    by_size = sorted(families, key=len)
    for index, family in enumerate(by_size):
        room = (most - len(taken)) // (len(by_size) - index)
        taken += family if len(family) <= room else random.sample(family, room)
    return taken


# bytes

Bytes = tuple[str, Callable[[], bytes]]


def wire_mutants(request: Message, random: Random) -> Iterator[Mutant]:
    """The serialised request, spoiled."""
    data = request.SerializeToString()
    for what, make in spoiled_bytes(data, cast(Descriptor, request.DESCRIPTOR), random):
        yield Mutant("wire", what, make)
    for _ in range(100):
        yield Mutant("wire", "fields at random", partial(bytes, _fields_at_random(random)))
    noise = random.randbytes(1 << 20)
    yield Mutant("wire", "a mebibyte of noise", lambda: noise)
    yield Mutant("wire", "10 MB of zeros", lambda: bytes(HUGE))


def spoiled_bytes(data: bytes, descriptor: Descriptor, random: Random) -> Iterator[Bytes]:
    """The serialised message with its bytes or one of its fields spoiled."""
    yield from _cut(data, random)
    yield from _appended(data)
    for _ in range(12):
        yield "noise", partial(bytes, random.randbytes(random.randrange(1, 200)))
    for _ in range(40):
        yield "a bit flipped", partial(flipped, data, random.randrange(2**32))
    count = sum(len(fields) for fields in wire.messages(wire.parse(data, descriptor)))
    for index in range(count):
        for what, spoil in _SPOILS.items():
            seed = random.randrange(2**32)
            yield f"field {index} {what}", partial(_spoiled, data, descriptor, index, spoil, seed)


def _fields_at_random(random: Random) -> bytes:
    """What is a message of some type, but hardly of this one."""
    tree = []
    for _ in range(random.randrange(1, 5)):
        wire_type = random.choice((VARINT, FIXED64, LENGTH, LENGTH, FIXED32))
        values: dict[int, int | bytes] = {
            VARINT: random.randrange(2**64),
            FIXED64: random.randbytes(8),
            LENGTH: random.choice(TEXTS).encode(),
            FIXED32: random.randbytes(4),
        }
        tree.append(Node(random.randrange(1, 9), wire_type, values[wire_type]))
    return wire.encode(tree)


def flipped(data: bytes, seed: int) -> bytes:
    """One bit flipped."""
    if not data:
        return b"\x08"
    random = Random(seed)
    position, bit = random.randrange(len(data)), random.randrange(8)
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def _cut(data: bytes, random: Random) -> Iterator[Bytes]:
    lengths = range(len(data)) if len(data) < 40 else random.sample(range(len(data)), 30)
    for length in sorted({0, 1, 2, *lengths} & set(range(len(data)))):
        yield f"cut to {length} bytes", partial(bytes, data[:length])


def _appended(data: bytes) -> Iterator[Bytes]:
    for number in (15, 99, 9999, 19_000, 2**29 - 1):
        for wire_type, value in (
            (VARINT, b"\1"),
            (FIXED64, bytes(8)),
            (LENGTH, b"\3abc"),
            (FIXED32, bytes(4)),
        ):
            added = data + wire.varint(number << 3 | wire_type) + value
            yield f"unknown field {number}, wire type {wire_type}", partial(bytes, added)
    deep = b""
    for _ in range(120):
        deep = wire.varint(1 << 3 | LENGTH) + wire.varint(len(deep)) + deep
    length = wire.varint(99 << 3 | LENGTH)
    for what, added in {
        "field number 0": b"\0\0",
        "an open group": wire.varint(99 << 3 | GROUP),
        "a group's end": wire.varint(99 << 3 | 4),
        "wire type 6": wire.varint(99 << 3 | 6),
        "a varint without end": b"\x78" + b"\xff" * 11,
        "a length beyond the end": length + wire.varint(2**31),
        "a length of 64 bits": length + wire.varint(2**64 - 1),
        "nested 120 times": deep,
        "everything twice": data,
    }.items():
        yield what, partial(bytes, data + added)


def _spoiled(data: bytes, descriptor: Descriptor, index: int, spoil: Spoil, seed: int) -> bytes:
    """One field, counted from the front at any depth, spoiled."""
    tree = wire.parse(data, descriptor)
    for fields in wire.messages(tree):
        if index < len(fields):
            spoil(fields, index, Random(seed))
            return wire.encode(tree)
        index -= len(fields)
    raise AssertionError("no such field")


Spoil = Callable[[list[Node], int, Random], None]


def _gone(fields: list[Node], at: int, _random: Random) -> None:
    del fields[at]


def _twice(fields: list[Node], at: int, _random: Random) -> None:
    fields.insert(at, fields[at])


def _as_varint(fields: list[Node], at: int, _random: Random) -> None:
    fields[at].wire_type, fields[at].value = VARINT, 1


def _as_fixed(fields: list[Node], at: int, _random: Random) -> None:
    fields[at].wire_type, fields[at].value = FIXED64, b"\1" * 8


def _not_text(fields: list[Node], at: int, _random: Random) -> None:
    fields[at].wire_type, fields[at].value = LENGTH, b"\xff\xfe\xc0\x80"


def _padded(fields: list[Node], at: int, _random: Random) -> None:
    fields[at].pad_tag = fields[at].pad_length = fields[at].pad_value = 2


def _renumbered(fields: list[Node], at: int, random: Random) -> None:
    fields[at].number = random.randrange(1, 20)


def _shuffled(fields: list[Node], _at: int, random: Random) -> None:
    random.shuffle(fields)


_SPOILS: Mapping[str, Spoil] = {
    "gone": _gone,
    "twice": _twice,
    "as a number": _as_varint,
    "as eight bytes": _as_fixed,
    "not UTF-8": _not_text,
    "padded": _padded,
    "under another number": _renumbered,
    "in another order": _shuffled,
}


# fields


def field_mutants(request: Message) -> Iterator[Mutant]:
    """Fields of the request itself, one at a time, outside signed statements."""
    for what, make in changed_fields(request):
        yield Mutant("field", what, lambda make=make: _serialised(make()))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    texts = [field for field, value in request.ListFields() if isinstance(value, str)]
    for field in texts[:2]:
        yield Mutant("field", f"{field.name} with 10 MB", partial(_with_huge, request, field.name))


def _serialised(message: Message | None) -> bytes | None:
    return None if message is None else message.SerializeToString()


def _with_huge(request: Message, name: str) -> bytes:
    copy = type(request)()
    copy.CopyFrom(request)
    setattr(copy, name, getattr(request, name) + "x" * HUGE)
    return copy.SerializeToString()


def changed_fields(message: Message) -> Iterator[tuple[str, Callable[[], Message | None]]]:
    """The message with one field changed, at any depth outside signed statements."""
    for path in _paths(message, depth=5):
        name = ".".join(each.name for each, _ in path)
        for value in _values(path[-1][0], getattr(_holder(message, path), path[-1][0].name)):
            yield f"{name} = {value!r:.40}", partial(_changed, message, path, value)


Path = tuple[tuple[FieldDescriptor, int | None], ...]
"""Fields from the outside in; of a repeated message, which element."""


def _paths(message: Message, depth: int) -> Iterator[Path]:
    if isinstance(message, SignedStatement) or depth == 0:
        return
    for field in cast(Sequence[FieldDescriptor], message.DESCRIPTOR.fields):
        yield ((field, None),)
        if field.message_type is not None:
            for index, inner in _inner(message, field):
                for rest in _paths(inner, depth - 1):
                    yield ((field, index), *rest)


def _inner(message: Message, field: FieldDescriptor) -> Sequence[tuple[int | None, Message]]:
    """The message in a field; of several, the first."""
    if field.is_repeated:
        return list(enumerate(getattr(message, field.name)))[:1]
    return [(None, getattr(message, field.name))] if message.HasField(field.name) else []


def _holder(message: Message, path: Path) -> Message:
    for field, index in path[:-1]:
        value = getattr(message, field.name)
        message = value if index is None else value[index]
    return message


def _changed(message: Message, path: Path, value: Any) -> Message | None:
    copy = type(message)()
    copy.CopyFrom(message)
    try:
        _assign(_holder(copy, path), path[-1][0], value)
    except (ValueError, TypeError):
        return None  # its type does not allow it
    return copy


def _assign(holder: Message, field: FieldDescriptor, value: Any) -> None:
    if value is _CLEAR or field.is_repeated:
        holder.ClearField(field.name)
    if value is _CLEAR:
        return
    if field.is_repeated:
        getattr(holder, field.name).extend(value)
    elif field.message_type is not None:
        getattr(holder, field.name).CopyFrom(value)
        getattr(holder, field.name).SetInParent()
    else:
        setattr(holder, field.name, value)


class _Clear:
    def __repr__(self) -> str:
        return "cleared"


_CLEAR = _Clear()


def _values(field: FieldDescriptor, present: Any) -> Iterator[Any]:
    yield _CLEAR
    if field.is_repeated:
        present = list(present)
        yield from (present * 2, present[::-1], present[:1], present[1:], present[:1] * 500)
        if field.message_type is None:
            yield from ([value] for value in _scalars(field, present[0] if present else ""))
    elif field.message_type is None:
        yield from _scalars(field, present)
    elif field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
        yield from (Timestamp(seconds=seconds, nanos=nanos) for seconds, nanos in TIMES)
    else:
        yield type(present)()


def _scalars(field: FieldDescriptor, present: Any) -> Iterator[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            yield from BYTES
        case FieldDescriptor.CPPTYPE_STRING:
            yield from TEXTS
            yield from _variants(str(present))
        case FieldDescriptor.CPPTYPE_ENUM:
            yield from (*range(9), 99, -1, 2**31 - 1)
        case FieldDescriptor.CPPTYPE_BOOL:
            yield not present
        case _:
            yield from INTEGERS
            yield from (int(present) + 1, int(present) - 1, int(present) * 2)


def _variants(text: str) -> Iterator[str]:
    """A number, code or token, nearly right."""
    if not text:
        return
    middle = len(text) // 2
    yield from (text[:-1], text[1:], text + text[-1], f" {text} ", text[::-1], text * 100)
    yield from (text.upper(), text.lower(), text.swapcase(), f"{text}\n", f"{text}\0")
    yield from (text[:middle], text[:middle] + " " + text[middle:], text.replace(".", "", 1))
    yield text.translate({ord(digit): ord(digit) - 48 + 0xFF10 for digit in "0123456789"})
    places = {0, 1, 5, 6, middle, len(text) - 2, len(text) - 1}
    for place in sorted(places & set(range(len(text)))):
        yield text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :]
