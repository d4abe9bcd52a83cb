"""A region's drug catalogue from CSV, all faults reported at once.

The file is UTF-8, named after its region (``350500.csv``), with the columns of ``COLUMNS`` and, as
it likes, of ``OPTIONAL_COLUMNS``, in any order. Prices are decimal yuan for one smallest unit, with
at most six decimals, and are read exactly: no float is ever made. The version id is the region and
a digest of the file's bytes, so two catalogues with one version id hold the same prices.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from rxoutflow_server.domain.benefit import Category
from rxoutflow_server.domain.catalogue import DRUG_CODE_LENGTH, Catalogue, Drug, DrugFlag
from rxoutflow_server.domain.money import WHOLE_BP
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.rows import Columns, Row, read_bytes, read_rows

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

OPTIONAL_COLUMNS = ("package_unit", "units_per_package")
"""How many of the smallest unit make a package, and what that is called; both or neither."""

_REGION_CODE = re.compile(r"[0-9]{6}")
_DRUG_CODE = re.compile(rf"[0-9A-Z]{{{DRUG_CODE_LENGTH}}}")
_YUAN = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?")
_BASIS_POINTS = re.compile(r"[0-9]{1,5}")
_CATEGORIES = frozenset(Category)
_KNOWN_FLAGS = frozenset(DrugFlag)
_UNITS = re.compile(r"[1-9][0-9]{0,8}")


def load_catalogue(path: Path) -> Catalogue:
    """The catalogue in this file.

    Raises:
        ReferenceDataError: the file cannot be read, or rows are wrong; it names all of them.
    """
    if not _REGION_CODE.fullmatch(path.stem):
        raise ReferenceDataError(path, "file name", "must be the six-digit region code and .csv")
    return parse_catalogue(path, read_bytes(path))


def parse_catalogue(path: Path, content: bytes) -> Catalogue:
    """The catalogue in this content of a file that is named after its region.

    Raises:
        ReferenceDataError: rows are wrong; it names all of them.
    """
    digest = sha256(content).hexdigest()[:12]
    seen: set[str] = set()
    columns = Columns(COLUMNS, OPTIONAL_COLUMNS)
    drugs = read_rows(path, content, columns, lambda row: _drug(row, seen))
    return Catalogue(region_code=path.stem, version_id=f"{path.stem}-{digest}", drugs=drugs)


def _drug(row: Row, seen: set[str]) -> Drug:
    """The row's drug; of use only while the row has no faults."""
    drug = Drug(
        drug_code=row.read("drug_code", _drug_code, ""),
        generic_name=row.read("generic_name", _text, ""),
        generic_group=row.read("generic_group", _text, ""),
        dosage_form=row.read("dosage_form", _text, ""),
        specification=row.read("specification", _text, ""),
        unit=row.read("unit", _text, ""),
        price_micro_yuan=row.read("price_yuan", _micro_yuan, 0),
        category=row.read("category", _category, Category.C),
        first_self_pay_bp=row.read("first_self_pay_bp", _first_self_pay_bp, 0),
        limit_price_micro_yuan=row.read("limit_price_yuan", _limit_price, None),
        limited_use=row.read("limited_use", _limited_use, None),
        flags=row.read("flags", _flags, frozenset()),
        package_unit=row.read_optional("package_unit", _package_unit, None),
        units_per_package=row.read_optional("units_per_package", _units, None),
    )
    if (drug.package_unit is None) != (drug.units_per_package is None):
        row.fault("units_per_package", "give package_unit and units_per_package, or neither")
    if drug.first_self_pay_bp and drug.category is not Category.B:
        row.fault("first_self_pay_bp", "only category B has a first self-pay: leave it empty")
    if drug.drug_code in seen:
        row.fault("drug_code", "used in an earlier row too")
    seen.add(drug.drug_code)
    return drug


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
    if text not in _CATEGORIES:
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


def _package_unit(text: str) -> str | None:
    return text or None


def _units(text: str) -> int | None:
    if text and not _UNITS.fullmatch(text):
        raise ValueError("must be a whole number of at least 1")
    return int(text) if text else None


def _flags(text: str) -> frozenset[DrugFlag]:
    words = text.split()
    if unknown := [word for word in words if word not in _KNOWN_FLAGS]:
        raise ValueError(f"unknown flags: {', '.join(unknown)}; known are {', '.join(DrugFlag)}")
    return frozenset(DrugFlag(word) for word in words)
