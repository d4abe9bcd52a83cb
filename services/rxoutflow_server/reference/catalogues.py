"""A region's drug catalogue from CSV, all faults reported at once.

The file is UTF-8, named after its region (``350500.csv``), with the columns of ``COLUMNS`` in any
order. Prices are decimal yuan for one smallest unit, with at most six decimals, and are read
exactly: no float is ever made. The version id is the region and a digest of the file's bytes, so
two catalogues with one version id hold the same prices.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from rxoutflow_server.domain.benefit import Category
from rxoutflow_server.domain.catalogue import DRUG_CODE_LENGTH, Catalogue, Drug, DrugFlag
from rxoutflow_server.domain.money import WHOLE_BP
from rxoutflow_server.reference import Problem, ReferenceDataError

COLUMNS = (
    "drug_code",
    "generic_name",
    "generic_group",
    "dosage_form",
    "specification",
    "unit",
    "price_yuan",
    "category",
    "first_self_pay_bp",
    "limit_price_yuan",
    "limited_use",
    "flags",
)
"""``first_self_pay_bp``, ``limit_price_yuan``, ``limited_use`` and ``flags`` may be empty; several
flags are separated by blanks."""

_T = TypeVar("_T")

_REGION_CODE = re.compile(r"[0-9]{6}")
_DRUG_CODE = re.compile(rf"[0-9A-Z]{{{DRUG_CODE_LENGTH}}}")
_YUAN = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?")
_BASIS_POINTS = re.compile(r"[0-9]{1,5}")


def load_catalogue(path: Path) -> Catalogue:
    """The catalogue in this file.

    Raises:
        ReferenceDataError: the file cannot be read, or rows are wrong; it names all of them.
    """
    if not _REGION_CODE.fullmatch(path.stem):
        raise ReferenceDataError(path, "file name", "must be the six-digit region code and .csv")
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ReferenceDataError(path, "file", f"not readable as UTF-8 text: {error}") from error
    drugs = _read_rows(path, text)
    digest = sha256(content).hexdigest()[:12]
    return Catalogue(region_code=path.stem, version_id=f"{path.stem}-{digest}", drugs=drugs)


def _read_rows(path: Path, text: str) -> list[Drug]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    drugs: dict[str, Drug] = {}
    problems: list[Problem] = []
    try:
        _require_columns(path, reader.fieldnames or ())
        for values in reader:
            row = _Row(reader.line_num, values)
            drug = row.drug()
            if drug.drug_code in drugs:
                row.fault("drug_code", "used in an earlier row too")
            drugs[drug.drug_code] = drug
            problems += row.problems
    except csv.Error as error:
        problems.append(Problem(f"row {reader.reader.line_num}", f"not readable as CSV: {error}"))
    if not drugs and not problems:
        problems.append(Problem("row 2", "no drugs: the file holds only its header"))
    if problems:
        raise ReferenceDataError(path, problems[0].where, problems[0].problem, problems[1:])
    return list(drugs.values())


def _require_columns(path: Path, found: Sequence[str]) -> None:
    missing = [column for column in COLUMNS if column not in found]
    unknown = [column for column in found if column not in COLUMNS]
    if missing:
        raise ReferenceDataError(path, "row 1", f"missing columns: {', '.join(missing)}")
    if unknown or len(found) != len(COLUMNS):
        named = ", ".join(unknown) or "a column twice"
        raise ReferenceDataError(path, "row 1", f"unexpected columns: {named}")


class _Row:
    """One row of the file; collects its faults and goes on with a stand-in value."""

    def __init__(self, number: int, values: Mapping[str, str | None]) -> None:
        self.problems: list[Problem] = []
        self._number = number
        self._values = values
        if len(values) > len(COLUMNS):
            self.fault("flags", "more cells than columns: quote a cell that holds a comma")

    def fault(self, column: str, problem: str) -> None:
        self.problems.append(Problem(f"row {self._number}, column {column}", problem))

    def drug(self) -> Drug:
        """The row's drug; of use only while there are no problems."""
        drug = Drug(
            drug_code=self._read("drug_code", _drug_code, ""),
            generic_name=self._read("generic_name", _text, ""),
            generic_group=self._read("generic_group", _text, ""),
            dosage_form=self._read("dosage_form", _text, ""),
            specification=self._read("specification", _text, ""),
            unit=self._read("unit", _text, ""),
            price_micro_yuan=self._read("price_yuan", _micro_yuan, 0),
            category=self._read("category", _category, Category.C),
            first_self_pay_bp=self._read("first_self_pay_bp", _first_self_pay_bp, 0),
            limit_price_micro_yuan=self._read("limit_price_yuan", _limit_price, None),
            limited_use=self._read("limited_use", _limited_use, None),
            flags=self._read("flags", _flags, frozenset()),
        )
        if drug.first_self_pay_bp and drug.category is not Category.B:
            self.fault("first_self_pay_bp", "only category B has a first self-pay: leave it empty")
        return drug

    def _read(self, column: str, parse: Callable[[str], _T], stand_in: _T) -> _T:
        text = self._values.get(column)
        if text is None:
            self.fault(column, "missing: the row has too few cells")
            return stand_in
        try:
            return parse(text.strip())
        except ValueError as error:
            self.fault(column, str(error))
            return stand_in


def _text(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _drug_code(text: str) -> str:
    if not _DRUG_CODE.fullmatch(text):
        raise ValueError(f"must be {DRUG_CODE_LENGTH} digits and capital letters")
    return text


def _micro_yuan(text: str) -> int:
    match = _YUAN.fullmatch(text)
    if match is None:
        raise ValueError("must be yuan with at most six decimals, like 0.35")
    whole, decimals = match.groups(default="")
    return int(whole + decimals.ljust(6, "0"))


def _limit_price(text: str) -> int | None:
    return _micro_yuan(text) if text else None


def _category(text: str) -> Category:
    if text not in set(Category):
        raise ValueError("must be A, B or C")
    return Category(text)


def _first_self_pay_bp(text: str) -> int:
    if not text:
        return 0
    if not _BASIS_POINTS.fullmatch(text) or int(text) > WHOLE_BP:
        raise ValueError(f"must be basis points, 0 to {WHOLE_BP}")
    return int(text)


def _limited_use(text: str) -> str | None:
    return text or None


def _flags(text: str) -> frozenset[DrugFlag]:
    words = text.split()
    if unknown := [word for word in words if word not in set(DrugFlag)]:
        raise ValueError(f"unknown flags: {', '.join(unknown)}; known are {', '.join(DrugFlag)}")
    return frozenset(DrugFlag(word) for word in words)
