"""A payer region's insured persons from CSV: who they are, and what accounts and accumulators hold.

This is what a platform starts from, for people that it does not know yet; from then on the store
has the truth. A region with a registry of its insured feeds the platform from there instead.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from rxoutflow_server.domain.benefit import Enrolment
from rxoutflow_server.domain.settlement import InsuredPerson
from rxoutflow_server.domain.tariff import AreaStatus, PersonType
from rxoutflow_server.reference.rows import Columns, Row, read_bytes, read_rows
from rxoutflow_server.reference.tariffs import SCHEME_CODE

COLUMNS = (
    "insured_person_id",
    "person_type",
    "area_status",
    "own_account_fen",
    "family_accounts_fen",
    "used_deductible_fen",
    "used_cap_fen",
    "direct_settlement_suspended",
)
"""``family_accounts_fen`` holds balances in the order of use, separated by semicolons."""

OPTIONAL_COLUMNS = ("enrolled_schemes",)
"""``enrolled_schemes`` holds codes of the tariff's schemes, separated by semicolons."""

_PERSON_ID = re.compile(r"[0-9A-Z]{1,40}")
_FEN = re.compile(r"[0-9]{1,12}")
E = TypeVar("E", bound=StrEnum)


def load_insured(path: Path, year: int) -> list[InsuredPerson]:
    """The insured persons in this file, with accumulators of a benefit year.

    Raises:
        ReferenceDataError: the file cannot be read, or rows are wrong; it names all of them.
    """
    seen: set[str] = set()
    columns = Columns(COLUMNS, OPTIONAL_COLUMNS)
    return read_rows(path, read_bytes(path), columns, lambda row: _person(row, year, seen))


def _person(row: Row, year: int, seen: set[str]) -> InsuredPerson:
    person = InsuredPerson(
        insured_person_id=row.read("insured_person_id", read_person_id, ""),
        person_type=row.read(
            "person_type", lambda text: _one_of(PersonType, text), PersonType.ACTIVE
        ),
        area_status=row.read(
            "area_status", lambda text: _one_of(AreaStatus, text), AreaStatus.FILED
        ),
        own_account_fen=row.read("own_account_fen", read_fen, 0),
        family_accounts_fen=row.read("family_accounts_fen", _fens, ()),
        year=year,
        used_deductible_fen=row.read("used_deductible_fen", read_fen, 0),
        used_cap_fen=row.read("used_cap_fen", read_fen, 0),
        direct_settlement_suspended=row.read("direct_settlement_suspended", _boolean, False),
        enrolments=row.read_optional("enrolled_schemes", _enrolments, ()),
    )
    if person.insured_person_id in seen:
        row.fault("insured_person_id", "used in an earlier row too")
    seen.add(person.insured_person_id)
    return person


def read_person_id(text: str) -> str:
    """An insured person's number.

    Raises:
        ValueError: it has another form.
    """
    if not _PERSON_ID.fullmatch(text):
        raise ValueError("must be 1 to 40 digits and capital letters")
    return text


def _one_of(choices: type[E], text: str) -> E:
    if text not in set(choices):
        raise ValueError(f"must be one of {', '.join(choices)}")
    return choices(text)


def read_fen(text: str) -> int:
    """An amount in fen.

    Raises:
        ValueError: it is none, or too large.
    """
    if not _FEN.fullmatch(text):
        raise ValueError("must be fen, a whole number of at least 0")
    return int(text)


def _fens(text: str) -> tuple[int, ...]:
    return tuple(read_fen(part.strip()) for part in text.split(";")) if text else ()


def _enrolments(text: str) -> tuple[Enrolment, ...]:
    codes = [part.strip() for part in text.split(";")] if text else []
    if wrong := [code for code in codes if not SCHEME_CODE.fullmatch(code)]:
        raise ValueError(f"not scheme codes: {', '.join(map(repr, wrong))}")
    if len(set(codes)) < len(codes):
        raise ValueError("a scheme is named twice")
    return tuple(Enrolment(code) for code in sorted(codes))


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"
