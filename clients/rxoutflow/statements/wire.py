"""Plain wire form: refuses encodings that two parsers could read differently.

Protobuf parsers accept a singular field twice (the last wins, or the two are merged), two members
of one oneof, over-long varints, unknown fields and scattered lists. A signer could show one thing
and another reader see a second one in the same signed bytes. So bytes are checked against the
message's descriptor before anything is done with what they say:

- every field is known, has the wire type of its kind, and a singular one stands there once;
- varints are as short as they can be and in the range of their kind; enum values are known;
- lists of numbers are packed, in one piece; strings are UTF-8; there are no groups;
- everything ends where its length says, and size, depth and number of elements are bounded.

The order of fields is free, as it is in Protobuf. Refusals name the field, never what it holds.

Most senders write what every Protobuf library writes. Bytes that come out of the library again just
as they went in, once unknown fields are dropped, keep all of these rules but two, which a walk over
the enums and the message's type decide. Only other bytes are walked over one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from rxoutflow.statements.errors import StatementMalformed


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a receiver takes: bytes in all, messages inside each other, fields and elements."""

    max_bytes: int = 256 * 1024
    max_depth: int = 16
    max_elements: int = 20_000


DEFAULT_BOUNDS = Bounds()


def check_wire(data: bytes, descriptor: Descriptor, bounds: Bounds = DEFAULT_BOUNDS) -> None:
    """Check that the bytes are a message of this type in plain wire form.

    Raises:
        StatementMalformed: naming the path of the field at fault, for instance ``lines.quantity``.
    """
    if len(data) > bounds.max_bytes:
        raise StatementMalformed(f"{descriptor.name} is larger than {bounds.max_bytes} bytes")
    if _is_as_written_by_a_library(data, descriptor, bounds):
        return
    try:
        _check_message(data, 0, len(data), descriptor, _Budget(bounds))
    except _Fault as fault:
        path = ".".join(reversed(fault.path))
        raise StatementMalformed(
            f"{descriptor.name} is not in plain wire form, at {path or 'its top level'}: {fault}; "
            "serialise it with a Protobuf library from the published contract",
            field=path,
        ) from None


def _is_as_written_by_a_library(data: bytes, descriptor: Descriptor, bounds: Bounds) -> bool:
    """Whether the bytes are plain for certain; if not, they have to be walked over.

    Every element takes a byte at least, so that few bytes cannot hold too many. Of more bytes, what
    the type has room for and the lists that came tell; they are not parsed for that if they are
    many.
    """
    form = _form(descriptor)
    few = len(data) <= bounds.max_elements
    if form.depth > bounds.max_depth or not (few or len(data) <= _PARSED_ANYWAY):
        return False
    try:
        message = form.kind.FromString(data)
    except DecodeError:
        return False
    if not few and _elements_at_most(message, form) > bounds.max_elements:
        return False
    message.DiscardUnknownFields()
    return message.SerializeToString() == data and _knows_enums(message, form)


def _elements_at_most(message: Message, form: _Form) -> int:
    return form.singular + sum(1 + len(getattr(message, name)) for name in form.lists)


_PARSED_ANYWAY = 2048
"""So few bytes do no harm when parsed, whatever they hold."""

_WITHOUT_END = 1 << 40


@dataclass(frozen=True, slots=True)
class _Form:
    """What a type says of its messages: how deep they nest at most, and where enums are in them.

    ``singular`` is how many elements they hold at most besides the lists named, which hold no
    messages. It has no end for types with other lists.
    """

    kind: type[Message]
    depth: int
    singular: int
    lists: tuple[str, ...]
    enums: tuple[tuple[str, bool, frozenset[int]], ...]
    inner: tuple[tuple[str, bool, _Form], ...]


@cache
def _form(descriptor: Descriptor) -> _Form:
    return _form_within(descriptor, ())


def _form_within(descriptor: Descriptor, around: tuple[Descriptor, ...]) -> _Form:
    _table(descriptor)  # groups and maps are refused
    kind = GetMessageClass(descriptor)
    if descriptor in around:
        return _Form(kind, _WITHOUT_END, _WITHOUT_END, (), (), ())
    inner = [
        (field.name, field.is_repeated, _form_within(field.message_type, (*around, descriptor)))
        for field in descriptor.fields
        if field.message_type is not None
    ]
    lists = [
        field.name
        for field in descriptor.fields
        if field.is_repeated and field.message_type is None
    ]
    enums = [
        (field.name, field.is_repeated, frozenset(field.enum_type.values_by_number))
        for field in descriptor.fields
        if field.enum_type is not None
    ]
    within = [_WITHOUT_END if many or form.lists else form.singular for _, many, form in inner]
    return _Form(
        kind,
        1 + max((form.depth for _, _, form in inner), default=0),
        sum(not field.is_repeated for field in descriptor.fields) + sum(within),
        tuple(lists),
        tuple(enums),
        tuple((name, many, form) for name, many, form in inner if form.enums or form.inner),
    )


def _knows_enums(message: Message, form: _Form) -> bool:
    for name, many, known in form.enums:
        value = getattr(message, name)
        if not (known.issuperset(value) if many else value in known):
            return False
    for name, many, inner in form.inner:
        if many:
            if not all(_knows_enums(each, inner) for each in getattr(message, name)):
                return False
        elif message.HasField(name) and not _knows_enums(getattr(message, name), inner):
            return False
    return True


class _Fault(Exception):
    """What is wrong, with the names of the fields around it, innermost first."""

    def __init__(self, problem: str, *path: str) -> None:
        super().__init__(problem)
        self.path = list(path)


class _Budget:
    """What is left of the bounds while walking over one message."""

    __slots__ = ("depth", "elements")

    def __init__(self, bounds: Bounds) -> None:
        self.depth = bounds.max_depth
        self.elements = bounds.max_elements

    def spend(self, elements: int) -> None:
        self.elements -= elements
        if self.elements < 0:
            raise _Fault("it has too many elements")


_Check = Callable[[bytes, int, int, _Budget], int]
"""Checks a value that begins at a position within an end; returns where it ends."""


@dataclass(frozen=True, slots=True)
class _Field:
    """What may follow a tag. Fields that exclude each other share a bit; lists have none."""

    name: str
    check: _Check
    slot: int


def _check_message(
    data: bytes, position: int, end: int, descriptor: Descriptor, budget: _Budget
) -> None:
    """Check all fields between two positions. This is the hot loop: short tags take no call."""
    table = _table(descriptor)
    seen = fields = 0
    while position < end:
        tag = data[position]
        if tag < 0x80:
            position += 1
        else:
            tag, position = _varint(data, position, end)
        field = table.get(tag)
        if field is None:
            raise _Fault(f"field number {tag >> 3} is unknown or has another wire type")
        if seen & field.slot:
            raise _Fault("a singular field, or a choice, stands there twice", field.name)
        seen |= field.slot
        fields += 1
        try:
            position = field.check(data, position, end, budget)
        except _Fault as fault:
            fault.path.append(field.name)
            raise
    budget.spend(fields)


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a varint of at most 64 bits; return it and where it ends."""
    if position < end and data[position] < 0x80:
        return data[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _Fault("it ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >> 64:
                break
            return value, position
    raise _Fault("a number is over-long")


def _span(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a length; return where the content begins and ends."""
    length, start = _varint(data, position, end)
    if length > end - start:
        raise _Fault("it ends too early")
    return start, start + length


def _number(accepts: Callable[[int], bool]) -> _Check:
    """A varint whose value, read as unsigned, is accepted."""

    def check(data: bytes, position: int, end: int, _budget: _Budget) -> int:
        value, position = _varint(data, position, end)
        if not accepts(value):
            raise _Fault("a number is out of range or an unknown enum value")
        return position

    return check


def _fixed(width: int) -> _Check:
    """A value of fixed width in bytes."""

    def check(_data: bytes, position: int, end: int, _budget: _Budget) -> int:
        if width > end - position:
            raise _Fault("it ends too early")
        return position + width

    return check


def _blob(data: bytes, position: int, end: int, _budget: _Budget) -> int:
    return _span(data, position, end)[1]


def _text(data: bytes, position: int, end: int, _budget: _Budget) -> int:
    start, stop = _span(data, position, end)
    try:
        data[start:stop].decode()
    except UnicodeDecodeError:
        raise _Fault("a string is not UTF-8") from None
    return stop


def _nested(descriptor: Descriptor) -> _Check:
    """A message within a message."""

    def check(data: bytes, position: int, end: int, budget: _Budget) -> int:
        start, stop = _span(data, position, end)
        if budget.depth <= 1:
            raise _Fault("messages are nested too deeply")
        budget.depth -= 1
        _check_message(data, start, stop, descriptor, budget)
        budget.depth += 1
        return stop

    return check


def _packed(element: _Check) -> _Check:
    """A list of numbers in one piece."""

    def check(data: bytes, position: int, end: int, budget: _Budget) -> int:
        position, stop = _span(data, position, end)
        while position < stop:
            budget.spend(1)
            position = element(data, position, stop, budget)
        return stop

    return check


_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_INT32_RANGES = (range(1 << 31), range((1 << 64) - (1 << 31), 1 << 64))


def _any_number(_value: int) -> bool:
    return True


def _int32(value: int) -> bool:
    """Whether it is an int32: negative ones are extended to 64 bits on the wire."""
    return any(value in values for values in _INT32_RANGES)


_SCALARS: dict[int, tuple[int, _Check]] = {
    FieldDescriptor.TYPE_INT64: (_VARINT, _number(_any_number)),
    FieldDescriptor.TYPE_UINT64: (_VARINT, _number(_any_number)),
    FieldDescriptor.TYPE_SINT64: (_VARINT, _number(_any_number)),
    FieldDescriptor.TYPE_INT32: (_VARINT, _number(_int32)),
    FieldDescriptor.TYPE_UINT32: (_VARINT, _number(range(1 << 32).__contains__)),
    FieldDescriptor.TYPE_SINT32: (_VARINT, _number(range(1 << 32).__contains__)),
    FieldDescriptor.TYPE_BOOL: (_VARINT, _number(range(2).__contains__)),
    FieldDescriptor.TYPE_FIXED64: (_FIXED64, _fixed(8)),
    FieldDescriptor.TYPE_SFIXED64: (_FIXED64, _fixed(8)),
    FieldDescriptor.TYPE_DOUBLE: (_FIXED64, _fixed(8)),
    FieldDescriptor.TYPE_FIXED32: (_FIXED32, _fixed(4)),
    FieldDescriptor.TYPE_SFIXED32: (_FIXED32, _fixed(4)),
    FieldDescriptor.TYPE_FLOAT: (_FIXED32, _fixed(4)),
    FieldDescriptor.TYPE_STRING: (_LENGTH, _text),
    FieldDescriptor.TYPE_BYTES: (_LENGTH, _blob),
}


@cache
def _table(descriptor: Descriptor) -> dict[int, _Field]:
    """What may stand in a message of this type, by tag."""
    entries = [_entry(field) for field in descriptor.fields]
    return dict(entries)


def _entry(field: FieldDescriptor) -> tuple[int, _Field]:
    """The tag under which a field stands on the wire, and what may follow."""
    wire_type, check = _wire_type_and_check(field)
    slot = _slot(field)
    if field.is_repeated and wire_type != _LENGTH:
        wire_type, check = _LENGTH, _packed(check)
        slot = 1 << field.index
    return field.number << 3 | wire_type, _Field(field.name, check, slot)


def _wire_type_and_check(field: FieldDescriptor) -> tuple[int, _Check]:
    message, choices = field.message_type, field.enum_type
    if message is not None:
        if field.type == FieldDescriptor.TYPE_GROUP or message.GetOptions().map_entry:
            raise TypeError(f"{field.full_name}: maps and groups have no place in statements")
        return _LENGTH, _nested(message)
    if choices is not None:
        return _VARINT, _number(frozenset(choices.values_by_number).__contains__)
    return _SCALARS[field.type]


def _slot(field: FieldDescriptor) -> int:
    """The bit that marks a singular field, or the choice it belongs to, as seen."""
    if field.is_repeated:
        return 0
    choice = field.containing_oneof
    return 1 << (choice.fields[0].index if choice is not None else field.index)
