"""A payer region's authorisations of family mutual aid (家庭共济授权) from CSV, checked as a whole.

The file is the present state with its dates: who revokes an authorisation sets ``valid_until``, the
first day on which it no longer holds, and leaves the row. A region that has no such file lets every
allotment of the insured file be drawn, in the order in which it stands there.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from rxoutflow_server.domain.family import Authorisation, Authorisations
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.insured import read_fen, read_person_id
from rxoutflow_server.reference.rows import Columns, Row, read_bytes, read_rows

COLUMNS = (
    "grantor_person_id",
    "beneficiary_person_id",
    "allotment",
    "order",
    "limit_fen",
    "valid_from",
    "valid_until",
)
"""``allotment`` is the place in the beneficiary's ``family_accounts_fen``, from 1. An empty
``limit_fen`` or ``valid_until`` is none."""

_NUMBER = re.compile(r"[1-9][0-9]?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FIRST_DAY = date(1, 1, 1)


def load_authorisations(path: Path) -> Authorisations:
    """The authorisations in this file.

    Raises:
        ReferenceDataError: the file cannot be read, or rows are wrong or contradict each other; no
            person is named.
    """
    rows = read_rows(path, read_bytes(path), Columns(COLUMNS), _authorisation)
    try:
        return Authorisations(each for each in rows if each is not None)
    except ValueError as error:
        problem = f"of one beneficiary, {error}: end the earlier one before that day"
        raise ReferenceDataError(path, "rows", problem) from None


def _authorisation(row: Row) -> Authorisation | None:
    grantor = row.read("grantor_person_id", read_person_id, "")
    beneficiary = row.read("beneficiary_person_id", read_person_id, "")
    allotment = row.read("allotment", _number, 1)
    order = row.read("order", _number, 1)
    limit = row.read("limit_fen", lambda text: read_fen(text) if text else None, None)
    begin = row.read("valid_from", _day, _FIRST_DAY)
    end = row.read("valid_until", lambda text: _day(text) if text else None, None)
    if row.problems:
        return None
    try:
        return Authorisation(grantor, beneficiary, allotment, order, limit, begin, end)
    except ValueError as error:
        row.fault("valid_until" if "valid" in str(error) else "grantor_person_id", str(error))
        return None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a whole number from 1 to 99")
    return int(text)


def _day(text: str) -> date:
    if _DAY.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass  # which is said below
    raise ValueError("must be a day as YYYY-MM-DD")
