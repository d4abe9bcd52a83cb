"""Identifiers that people and systems pass around: numbers, pickup codes, request ids.

A prescription number has 30 digits: home region (6), Unix time in milliseconds (13), serial of the
issuing hospital (5), random (5), check digit (1; ISO 7064 MOD 11,10). Anyone can route by its first
six digits. A pickup code (取药码) is that number, a dot, and a secret of 16 characters of
Crockford's base 32. Ids of requests and settlements are UUIDv7 (RFC 9562): they sort by time.

Parsing a pickup code forgives what people do when they type: small letters, blanks, hyphens, O for
0, I or L for 1, full-width characters, a missing dot. It never guesses a digit: a wrong check digit
is refused. Time and randomness are passed in; messages never repeat what was typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Self
from uuid import UUID

from stdnum.iso7064 import mod_11_10

RandomBytes = Callable[[int], bytes]
"""A source of that many random bytes, such as :func:`secrets.token_bytes`."""

NUMBER_LENGTH = 30
SECRET_LENGTH = 16
SECRET_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # noqa: S105 - an alphabet, not a secret
"""Crockford's base 32: no I, L, O or U, which people confuse or read as words."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SECRET = re.compile(rf"[{SECRET_ALPHABET}]{{{SECRET_LENGTH}}}")
_SEPARATORS = re.compile(r"[\s\-‐‑–—_.。·]")
_MISREAD = str.maketrans("OIL", "011")
_MAX_TYPED = 256
"""Nobody types more for a code. Bounded first, because normalising text can take long."""


class NumberInvalid(ValueError):
    """What was given is no prescription number or pickup code: a typing error, most likely."""


@dataclass(frozen=True, slots=True)
class PrescriptionNumber:
    """A prescription number, taken apart.

    ``milliseconds`` is Unix time; ``institution_serial`` the last five digits of the hospital's
    code; ``random`` five more digits.

    Raises:
        NumberInvalid: a part is not made of as many digits as it has to have.
    """

    region_code: str
    milliseconds: int
    institution_serial: str
    random: str

    def __post_init__(self) -> None:
        parts = (self.region_code, 6), (self.institution_serial, 5), (self.random, 5)
        if not all(_is_digits(part, length) for part, length in parts):
            raise NumberInvalid("region, serial and random part must be 6, 5 and 5 digits")
        if not 0 <= self.milliseconds < 10**13:
            raise NumberInvalid("the time must be 13 digits of milliseconds since 1970")

    def __str__(self) -> str:
        digits = f"{self.region_code}{self.milliseconds:013}{self.institution_serial}{self.random}"
        return digits + mod_11_10.calc_check_digit(digits)

    @property
    def time(self) -> datetime:
        """When the number was made, by its maker's clock, UTC."""
        return _EPOCH + self.milliseconds * _MILLISECOND

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a number apart. Blanks around it do not matter.

        Raises:
            NumberInvalid: it does not have 30 digits, or the check digit is wrong.
        """
        digits = text.strip()
        if not _is_digits(digits, NUMBER_LENGTH):
            raise NumberInvalid(f"a prescription number has {NUMBER_LENGTH} digits and only digits")
        if not _check_digit_is_right(digits):
            raise NumberInvalid("the check digit of the prescription number is wrong: read it anew")
        return cls(digits[:6], int(digits[6:19]), digits[19:24], digits[24:29])


@dataclass(frozen=True, slots=True)
class PickupCode:
    """A pickup code: ``str()`` of it is what goes on the wire and into the QR code.

    Raises:
        NumberInvalid: the secret is not 16 characters of the alphabet.
    """

    number: PrescriptionNumber
    secret: str

    def __post_init__(self) -> None:
        if not _SECRET.fullmatch(self.secret):
            raise NumberInvalid(f"the secret of a pickup code has {SECRET_LENGTH} characters")

    def __str__(self) -> str:
        return f"{self.number}.{self.secret}"

    def __repr__(self) -> str:
        return f"PickupCode({self.number}.{'*' * SECRET_LENGTH})"

    @property
    def readable(self) -> str:
        """In groups, to be read aloud or typed; :meth:`parse` takes it back."""
        number, secret = str(self.number), self.secret
        digits = " ".join(number[start : start + 5] for start in range(0, NUMBER_LENGTH, 5))
        return f"{digits} . {'-'.join(secret[start : start + 4] for start in range(0, 16, 4))}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a code as somebody typed it.

        Raises:
            NumberInvalid: it is not 30 digits with a right check digit and 16 characters.
        """
        plain = _plain(text) if len(text) <= _MAX_TYPED else ""
        if len(plain) != NUMBER_LENGTH + SECRET_LENGTH:
            raise NumberInvalid(
                f"a pickup code has {NUMBER_LENGTH} digits, a dot and {SECRET_LENGTH} characters"
            )
        number = PrescriptionNumber.parse(plain[:NUMBER_LENGTH])
        return cls(number, plain[NUMBER_LENGTH:])


@lru_cache(maxsize=4096)
def _check_digit_is_right(digits: str) -> bool:
    """A number passes a platform many times, and its check digit is slow to compute."""
    return bool(mod_11_10.is_valid(digits))


def _plain(text: str) -> str:
    """What was typed, as it was meant."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text)).upper().translate(_MISREAD)


def new_prescription_number(
    region_code: str, institution_code: str, now: datetime, random_bytes: RandomBytes
) -> PrescriptionNumber:
    """Make a number for a prescription of this hospital, written now (aware).

    Raises:
        NumberInvalid: the codes do not have their form.
    """
    random = int.from_bytes(random_bytes(8)) % 10**5
    return PrescriptionNumber(
        region_code, _unix_milliseconds(now), institution_code[-5:], f"{random:05}"
    )


def new_pickup_secret(random_bytes: RandomBytes) -> str:
    """Make the secret of a pickup code: 80 random bits."""
    bits = int.from_bytes(random_bytes(10))
    return "".join(
        SECRET_ALPHABET[bits >> shift & 31] for shift in range(5 * (SECRET_LENGTH - 1), -1, -5)
    )


def new_id(now: datetime, random_bytes: RandomBytes) -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, 74 random bits."""
    random = int.from_bytes(random_bytes(10))
    version_and_random = 7 << 12 | random >> 68 & 0xFFF
    variant_and_random = 2 << 62 | random & (1 << 62) - 1
    head = _unix_milliseconds(now) << 80
    return str(UUID(int=head | version_and_random << 64 | variant_and_random))


def _unix_milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _is_digits(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isdigit()
