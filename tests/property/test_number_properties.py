"""Typing errors in prescription numbers: which ones the check digit finds.

ISO 7064 MOD 11,10 finds every single wrong digit. It does not find every adjacent transposition:
the test states how many it misses, so that nobody believes more than is true.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.iso7064 import mod_11_10

from rxoutflow.numbers import (
    NumberInvalid,
    PickupCode,
    PrescriptionNumber,
    new_pickup_secret,
    new_prescription_number,
)

MOMENTS = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
NUMBERS = st.builds(
    lambda region, serial, now, entropy: str(
        new_prescription_number(
            f"{region:06}", f"H{region:06}{serial:05}", now, lambda count: entropy[:count]
        )
    ),
    st.integers(0, 999_999),
    st.integers(0, 99_999),
    MOMENTS,
    st.binary(min_size=8, max_size=8),
)


def is_accepted(text: str) -> bool:
    try:
        PrescriptionNumber.parse(text)
    except NumberInvalid:
        return False
    return True


@given(NUMBERS)
def test_a_number_reads_back(text: str) -> None:
    assert str(PrescriptionNumber.parse(text)) == text


@given(NUMBERS, st.integers(0, 29), st.integers(1, 9))
def test_every_single_wrong_digit_is_found(text: str, place: int, shift: int) -> None:
    wrong = str((int(text[place]) + shift) % 10)
    assert not is_accepted(text[:place] + wrong + text[place + 1 :])


def test_of_swapped_neighbours_more_than_97_in_100_are_found() -> None:
    numbers = random.Random(11064)
    swapped = missed = 0
    for _ in range(500):
        body = f"{numbers.randrange(10**29):029}"
        text = body + mod_11_10.calc_check_digit(body)
        for place in range(29):
            if text[place] != text[place + 1]:
                swap = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
                swapped += 1
                missed += is_accepted(swap)
    assert missed / swapped < 0.03


@given(NUMBERS, st.binary(min_size=10, max_size=10))
def test_a_pickup_code_reads_back_however_it_is_grouped(text: str, entropy: bytes) -> None:
    secret = new_pickup_secret(lambda count: entropy[:count])
    code = PickupCode.parse(f"{text}.{secret}")
    assert PickupCode.parse(code.readable.lower()) == code
    assert PickupCode.parse(str(code)) == code


@given(st.text(max_size=60))
def test_no_text_makes_the_parsers_fail_otherwise(text: str) -> None:
    for parse in (PrescriptionNumber.parse, PickupCode.parse):
        try:
            parse(text)
        except NumberInvalid:
            continue
        pytest.fail("a random text was accepted")
