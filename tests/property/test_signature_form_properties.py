"""Signature values: whatever bytes arrive, at most one form of a signature is ever accepted."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from rxoutflow.statements.algorithms import SignatureWrong, VerificationKey, verification_key
from support.pki import Authority

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
NUMBERS = st.integers(1, ORDER - 1)
KEY: VerificationKey = verification_key(Authority.create("any").certificate)


@given(NUMBERS, NUMBERS)
def test_all_writings_of_a_signature_have_one_normal_form(r: int, s: int) -> None:
    writings = {
        form
        for each in (s, ORDER - s)
        for form in (
            encode_dss_signature(r, each),
            r.to_bytes(32, "big") + each.to_bytes(32, "big"),
        )
    }
    (normal,) = {KEY.normal_form(each) for each in writings}
    assert decode_dss_signature(normal) == (r, min(s, ORDER - s))
    assert KEY.normal_form(normal) == normal


@given(st.binary(max_size=80) | st.binary(min_size=64, max_size=72))
def test_bytes_are_a_signature_with_a_normal_form_or_none(data: bytes) -> None:
    try:
        normal = KEY.normal_form(data)
    except SignatureWrong:
        return
    assert KEY.normal_form(normal) == normal


@given(NUMBERS, NUMBERS, st.data())
def test_damaged_der_is_never_a_second_writing(r: int, s: int, data: st.DataObject) -> None:
    """Whatever is taken as it is, the library would write in no other way."""
    honest = encode_dss_signature(r, min(s, ORDER - s))
    damaged = bytearray(honest + data.draw(st.binary(max_size=2)))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at : at + 1] = data.draw(st.binary(max_size=2))
    try:
        normal = KEY.normal_form(bytes(damaged))
    except SignatureWrong:
        return
    assert encode_dss_signature(*decode_dss_signature(normal)) == normal
    assert decode_dss_signature(normal)[1] <= ORDER // 2


@pytest.mark.parametrize(
    "second",
    [
        "30 07 02 02 00 01 02 01 01",  # r begins with a zero that it does not need
        "30 07 02 01 01 02 02 00 01",
        "30 81 06 02 01 01 02 01 01",  # a length in the long form
        "30 07 02 81 01 01 02 01 01",
        "30 80 02 01 01 02 01 01 00 00",  # an indefinite length
        "30 06 02 01 01 02 01 01 00",  # something after the end
        "30 07 02 01 01 02 01 01 00",
        "30 06 02 01 81 02 01 01",  # a negative number
        "31 06 02 01 01 02 01 01",  # a set
    ],
)
def test_der_has_no_second_writing(second: str) -> None:
    assert KEY.normal_form(bytes.fromhex("30 06 02 01 01 02 01 01")).hex() == "3006020101020101"
    with pytest.raises(SignatureWrong):
        KEY.normal_form(bytes.fromhex(second))


@given(NUMBERS, st.sampled_from([0, ORDER, ORDER + 1, 2**256, 2**300]))
def test_numbers_out_of_range_are_no_signature(number: int, wrong: int) -> None:
    for r, s in ((number, wrong), (wrong, number)):
        value = encode_dss_signature(r, s)
        assume(len(value) != 64)  # which is read as the two numbers of a token
        with pytest.raises(SignatureWrong):
            KEY.normal_form(value)


@given(st.binary(min_size=1, max_size=80))
def test_foreign_bytes_never_verify(data: bytes) -> None:
    with pytest.raises(SignatureWrong):
        KEY.verify(data, b"something signed")
