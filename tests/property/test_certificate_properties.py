"""Whatever bytes are kept, they come back as they were, with certificates in them or without."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow.v1.attempt_pb2 import Attempt, Claim
from rxoutflow.v1.prescription_pb2 import Prescription
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.tables.certificates import (
    LARGEST,
    SMALLEST,
    put_together,
    taken_apart,
)
from support.pki import NOW
from support.records import certificate
from support.sheets import Cast, signed

SIZES = st.one_of(
    st.integers(0, 400), st.sampled_from([SMALLEST - 1, SMALLEST, LARGEST, LARGEST + 1, 20_000])
)


def varint(number: int) -> bytes:
    return bytes((number & 0x7F | 0x80, number >> 7)) if number >= 0x80 else bytes((number,))


def field(value: bytes, length: int | None = None, tag: int = 0x1A) -> bytes:
    """A value as a field of a message; its length may be a lie."""
    return bytes((tag,)) + varint(len(value) if length is None else length) + value


@st.composite
def like_certificates(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """Fields that hold a certificate, or nearly."""
    size = draw(SIZES)
    within = draw(content)
    body = within + bytes(max(0, size - 4 - len(within)))
    claimed = len(body) + draw(st.sampled_from([0, 0, 0, 1, -1, 300]))
    der = b"\x30\x82" + max(0, claimed).to_bytes(2, "big") + body
    length = min(0x3FFF, len(der) + draw(st.sampled_from([0, 0, 0, 1])))
    before = draw(st.sampled_from([b"", sha256(der).digest(), sha256(der).digest()[1:]]))
    return before + field(der, length, draw(st.sampled_from([0x1A, 0x1A, 0x1A, 0x22])))


SCRAPS = st.one_of(
    st.binary(max_size=80), st.sampled_from([b"\x00", b"\x1a", b"\x30\x82", b"\x1a\xf4\x03\x30"])
)
JUNK = st.recursive(
    SCRAPS,
    lambda inner: st.one_of(like_certificates(inner), st.lists(inner, max_size=4).map(b"".join)),
    max_leaves=8,
)


WHICH = ("prescription", "claim", "attempt", "answer")


@cache
def statements() -> tuple[bytes, ...]:
    """Real ones, and a message that holds all of them."""
    cast = Cast.create("350200")
    kinds = (Prescription, Claim, Attempt)
    made = [signed(cast.message(kind), cast.sheet(kind), at=NOW) for kind in kinds]
    whole = [each.SerializeToString() for each in made]
    return (*whole, b"".join(field(each, tag=0x0A) for each in whole))


def again(whole: bytes) -> bytes:
    kept, certificates = taken_apart(whole)
    assert all(sha256(each).digest() == digest for digest, each in certificates.items())
    return put_together(kept, certificates.__getitem__)


@given(st.one_of(st.binary(max_size=600), JUNK))
def test_any_bytes_come_back_as_they_were(whole: bytes) -> None:
    assert again(whole) == whole


@given(st.data())
def test_a_part_of_a_statement_comes_back_as_it_was(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(statements()))
    begin = data.draw(st.integers(0, len(whole)))
    part = whole[begin : data.draw(st.integers(begin, len(whole)))]
    assert again(part) == part


@given(JUNK)
def test_what_has_no_certificate_is_kept_as_it_is_and_nothing_becomes_larger(whole: bytes) -> None:
    kept, certificates = taken_apart(whole)
    if certificates:
        assert len(kept) < len(whole)
    elif not whole.startswith(b"\x00"):
        assert kept == whole


@pytest.mark.parametrize("which", WHICH)
def test_of_a_certificate_in_a_signature_four_bytes_are_left(which: str) -> None:
    """Its digest stands in the signature already."""
    whole = statements()[WHICH.index(which)]
    kept, certificates = taken_apart(whole)
    times = {each: whole.count(each) for each in certificates.values()}
    assert times
    taken = sum(len(each) * count for each, count in times.items())
    assert len(kept) <= len(whole) - taken + 1 + 4 * (sum(times.values()) + 1)
    assert again(whole) == whole


def test_a_certificate_that_nothing_names_before_it_leaves_its_digest() -> None:
    der = certificate("intermediate")
    whole = field(b"value", tag=0x12) + field(der)
    kept, certificates = taken_apart(whole)
    assert certificates == {sha256(der).digest(): der}
    assert len(kept) == len(whole) - len(der) + 32 + 1 + 4
    assert again(whole) == whole


@pytest.mark.parametrize("length", [65_535, 65_536, 65_567, 200_000])
@pytest.mark.parametrize("names_it", [False, True])
def test_however_long_the_bytes_around_a_certificate_are(length: int, names_it: bool) -> None:
    der = certificate("somebody's")
    before = sha256(der).digest() + b"." * length if names_it else b"." * length
    whole = before + field(der) + b"." * length
    assert again(whole) == whole
    assert len(taken_apart(whole)[1]) == 1


def test_what_begins_with_a_zero_is_kept_too() -> None:
    for whole in (b"\x00", b"\x00\x00\x00\x00\x00", b"\x00" + statements()[0]):
        assert again(whole) == whole


@given(st.data())
def test_a_form_that_was_changed_is_a_defect_or_other_bytes_and_never_more(
    data: st.DataObject,
) -> None:
    kept, certificates = taken_apart(data.draw(st.sampled_from(statements())))
    at = data.draw(st.integers(0, len(kept)))
    end = data.draw(st.integers(at, len(kept)))
    changed = kept[:at] + data.draw(st.binary(max_size=12)) + kept[end:]

    def find(digest: bytes) -> bytes:
        if digest not in certificates:
            raise InvariantBroken("no such certificate")
        return certificates[digest]

    try:
        whole = put_together(changed, find)
    except InvariantBroken:
        return
    assert len(whole) <= len(changed) * LARGEST


@given(st.binary(max_size=60))
def test_no_bytes_put_together_make_another_error(kept: bytes) -> None:
    try:
        put_together(b"\x00" + kept, lambda digest: b"certificate")
    except InvariantBroken as error:
        assert "do not fit together" in str(error)  # noqa: PT017 - it need not be raised
