"""Numbers and codes: what they are made of, what is forgiven, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from rxoutflow.numbers import (
    NumberInvalid,
    PickupCode,
    PrescriptionNumber,
    new_id,
    new_pickup_secret,
    new_prescription_number,
)

NOW = datetime(2026, 3, 2, 9, 30, 0, 123_000, tzinfo=UTC)
MILLISECONDS = 1_772_443_800_123
NUMBER = "350200" + str(MILLISECONDS) + "00001" + "00042" + "4"
SECRET = "0123456789ABCDEF"


def zeros(count: int) -> bytes:
    return bytes(count)


def forty_two(count: int) -> bytes:
    return (42).to_bytes(count)


def ones(count: int) -> bytes:
    return b"\xff" * count


def test_a_number_is_made_of_region_time_hospital_random_part_and_check_digit() -> None:
    number = new_prescription_number("350200", "H35020000001", NOW, forty_two)
    assert str(number) == NUMBER
    assert (number.region_code, number.institution_serial) == ("350200", "00001")
    assert number.time == NOW


def test_a_number_that_was_made_parses_to_itself() -> None:
    number = new_prescription_number("320600", "H32060099999", NOW, ones)
    assert PrescriptionNumber.parse(f" {number}\n") == number


@pytest.mark.parametrize(
    "text",
    ["", NUMBER[:-1], NUMBER + "0", "A" + NUMBER[1:], NUMBER[:-1] + "5", "３" + NUMBER[1:]],
    ids=["nothing", "a digit less", "a digit more", "a letter", "check digit", "full-width"],
)
def test_what_is_no_number_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(NumberInvalid) as caught:
        PrescriptionNumber.parse(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    ("region_code", "institution_code"), [("35020", "H35020000001"), ("350200", "H12")]
)
def test_a_number_is_not_made_from_codes_of_another_form(
    region_code: str, institution_code: str
) -> None:
    with pytest.raises(NumberInvalid):
        new_prescription_number(region_code, institution_code, NOW, zeros)


@pytest.mark.parametrize(
    "typed",
    [
        f"{NUMBER}.{SECRET}",
        f"{NUMBER}.{SECRET.lower()}",
        f"{NUMBER}{SECRET}",
        f" {NUMBER[:10]} {NUMBER[10:]} . 0123-4567-89AB-CDEF ",
        f"{NUMBER}.{SECRET.replace('0', 'o').replace('1', 'l')}",
        f"{NUMBER.replace('0', 'O').replace('1', 'I')}.{SECRET}",
        f"{NUMBER}。０１２３４５６７８９ＡＢＣＤＥＦ",
    ],
    ids=["plain", "small", "no dot", "groups", "o and l", "O and I in the number", "full-width"],
)
def test_a_pickup_code_is_read_as_people_type_it(typed: str) -> None:
    assert str(PickupCode.parse(typed)) == f"{NUMBER}.{SECRET}"


@pytest.mark.parametrize(
    "typed",
    ["", NUMBER, f"{NUMBER}.{SECRET[:-1]}", f"{NUMBER[:-1]}5.{SECRET}", f"{NUMBER}.{SECRET[:-1]}U"],
    ids=["nothing", "no secret", "a character less", "check digit", "U is not in the alphabet"],
)
def test_what_is_no_pickup_code_is_refused(typed: str) -> None:
    with pytest.raises(NumberInvalid):
        PickupCode.parse(typed)


def test_the_readable_form_of_a_pickup_code_reads_back() -> None:
    code = PickupCode.parse(f"{NUMBER}.{SECRET}")
    assert PickupCode.parse(code.readable) == code


def test_the_secret_does_not_show_where_a_code_is_printed_by_accident() -> None:
    assert SECRET not in repr(PickupCode.parse(f"{NUMBER}.{SECRET}"))


def test_a_secret_is_sixteen_characters_of_all_its_random_bits() -> None:
    assert new_pickup_secret(zeros) == "0" * 16
    assert new_pickup_secret(ones) == "Z" * 16
    assert new_pickup_secret(forty_two) == "0" * 14 + "1A"


@pytest.mark.parametrize("random_bytes", [zeros, ones])
def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front(random_bytes: type) -> None:
    made = UUID(new_id(NOW, random_bytes))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == MILLISECONDS


def test_an_id_has_74_random_bits() -> None:
    low, high = (UUID(new_id(NOW, source)).int for source in (zeros, ones))
    assert (low ^ high).bit_count() == 74
