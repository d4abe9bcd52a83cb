"""Tariffs from TOML: one file for each payer region, its versions inside.

Every key is required, save ``valid_until`` (absent: open), the statuses of ``area_factor_bp`` that
``others = 10000`` stands for, ``scheme`` (absent: none) and ``accounts`` (absent: accounts may pay
whatever the person owes). Nothing is guessed and unknown keys are refused. Amounts are integers in
fen, ratios in basis points, days are TOML dates. A fault is named with file, line and key.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from rxoutflow_server.domain.catalogue import DRUG_CODE_LENGTH
from rxoutflow_server.domain.money import WHOLE_BP
from rxoutflow_server.domain.tariff import (
    ANY_PART,
    AccountRules,
    AnnualDeductible,
    AreaStatus,
    ByAreaStatus,
    ByPerson,
    ByTier,
    Deductible,
    Part,
    PerVisitDeductible,
    Scheme,
    SchemeKind,
    Tariff,
    Tariffs,
)
from rxoutflow_server.reference import Problem, ReferenceDataError
from rxoutflow_server.reference.fields import FieldError, Fields
from rxoutflow_server.reference.toml_lines import line_of

E = TypeVar("E", bound=StrEnum)

_REGION_CODE = re.compile(r"[0-9]{6}")
_DRUG_CODE = re.compile(rf"[0-9A-Z]{{{DRUG_CODE_LENGTH}}}")
SCHEME_CODE = re.compile(r"[0-9A-Z][0-9A-Z-]{0,39}")


@dataclass(frozen=True, slots=True)
class Placed:
    """A version, and where it was read."""

    tariff: Tariff
    file: Path
    where: str
    line: int | None


def load_tariffs(folder: Path) -> Tariffs:
    """All tariff versions in the folder's TOML files.

    Raises:
        ReferenceDataError: the folder has none, a file is wrong, or two versions contradict.
    """
    return together([placed for file in tariff_files(folder) for placed in read_tariff_file(file)])


def tariff_files(folder: Path) -> list[Path]:
    """The folder's tariff files, in order.

    Raises:
        ReferenceDataError: it has none.
    """
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise ReferenceDataError(folder, "*.toml", "no tariff file here: name another folder")
    return files


def together(placed: Iterable[Placed]) -> Tariffs:
    """Versions from several files as one set.

    Raises:
        ReferenceDataError: two are in force on one day, or share an id; it names the later one.
    """
    by_region: dict[str, list[Placed]] = defaultdict(list)
    seen: dict[str, Placed] = {}
    for each in sorted(placed, key=lambda each: each.tariff.valid_from):
        by_region[each.tariff.region_code].append(each)
        earlier = seen.setdefault(each.tariff.version_id, each)
        if earlier is not each:
            problem = f"{each.tariff.version_id} is used twice; the other is in {earlier.file}"
            raise _refused(each, "version_id", problem)
    for versions in by_region.values():
        _refuse_overlap(versions)
    return Tariffs(each.tariff for each in seen.values())


def _refuse_overlap(versions: list[Placed]) -> None:
    for earlier, later in pairwise(versions):
        begin = later.tariff.valid_from
        if earlier.tariff.in_force_on(begin):
            problem = (
                f"versions {earlier.tariff.version_id} and {later.tariff.version_id} of region "
                f"{later.tariff.region_code} are both in force on {begin.isoformat()}: "
                f"end the earlier one ({earlier.file.name}) with valid_until = {begin.isoformat()}"
            )
            raise _refused(later, "valid_from", problem)


def refuse_gaps(placed: Iterable[Placed]) -> None:
    """Hold a region's versions to follow each other without a day between.

    Raises:
        ReferenceDataError: there are days on which none is in force; it names the later version.
    """
    placed = list(placed)
    for gap in Tariffs(each.tariff for each in placed).gaps():
        (later,) = [each for each in placed if each.tariff is gap.later]
        problem = (
            f"nothing is in force from {gap.begin.isoformat()} up to {gap.end.isoformat()}: "
            f"{gap.earlier.version_id} ends before {gap.later.version_id} begins; close the gap, "
            "or add a version that pays nothing on those days"
        )
        raise _refused(later, "valid_from", problem)


def refuse_changed_versions(known: Iterable[Placed], offered: Iterable[Placed]) -> None:
    """Hold versions that settlements may refer to as they are.

    Their end, the document they cite and whether somebody has verified them may change.

    Raises:
        ReferenceDataError: a known version is missing or has other figures.
    """
    by_id = {each.tariff.version_id: each for each in offered}
    file = next(each.file for each in by_id.values())
    for each in known:
        version_id = each.tariff.version_id
        if version_id not in by_id:
            problem = f"{version_id} is missing: settlements refer to it, so keep it in the file"
            raise ReferenceDataError(file, "version", problem)
        if _figures(by_id[version_id].tariff) != _figures(each.tariff):
            problem = (
                f"{version_id} has other figures than in {each.file}: settlements refer to it, so"
                " leave it as it is, set its valid_until, and add a version"
            )
            raise _refused(by_id[version_id], "version_id", problem)


def _figures(tariff: Tariff) -> Tariff:
    """The tariff without what may change after it has begun."""
    schemes = tuple(replace(scheme, document="", name="") for scheme in tariff.schemes)
    return replace(tariff, valid_until=None, unverified=True, document="", schemes=schemes)


def _refused(placed: Placed, key: str, problem: str) -> ReferenceDataError:
    return ReferenceDataError(placed.file, f"{placed.where}.{key}", problem, line=placed.line)


def read_tariff_file(file: Path) -> list[Placed]:
    """The versions in one file, in the file's order.

    Raises:
        ReferenceDataError: with the first fault of every version that is wrong.
    """
    try:
        text = file.read_bytes().decode("utf-8")
        document = Fields(tomllib.loads(text))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReferenceDataError(file, "file", f"not readable as TOML: {error}") from error
    try:
        read = list(_versions(document))
    except FieldError as fault:
        raise _faulty(file, text, [fault]) from fault
    if faults := [each for each in read if isinstance(each, FieldError)]:
        raise _faulty(file, text, faults)
    return [
        Placed(tariff, file, f"version[{index}]", line_of(text, f"version[{index}]"))
        for index, tariff in enumerate(read)
        if isinstance(tariff, Tariff)
    ]


def _faulty(file: Path, text: str, faults: list[FieldError]) -> ReferenceDataError:
    first, *more = [Problem(each.where, each.problem, line_of(text, each.where)) for each in faults]
    return ReferenceDataError(file, first.where, first.problem, more, line=first.line)


def _versions(document: Fields) -> Iterator[Tariff | FieldError]:
    """The versions, or what is wrong with them."""
    region_code = document.text("region_code")
    if not _REGION_CODE.fullmatch(region_code):
        raise FieldError("region_code", "must be six digits")
    document.text("region_name")
    for version in document.tables("version"):
        try:
            yield _version(region_code, version)
        except FieldError as fault:
            yield fault
    document.close()


def _version(region_code: str, fields: Fields) -> Tariff:
    try:
        tariff = Tariff(
            version_id=fields.text("version_id"),
            region_code=region_code,
            document=fields.text("document"),
            unverified=fields.boolean("unverified"),
            valid_from=_day(fields, "valid_from"),
            valid_until=_day(fields, "valid_until") if fields.has("valid_until") else None,
            deductible=_deductible(fields.table("deductible")),
            ratio_bp=_by_tier(fields.table("ratio_bp")),
            retired_bonus_bp=fields.integer("retired_bonus_bp"),
            cap_fen=_by_person(fields.table("cap_fen")),
            area_factor_bp=_area_factors(fields.table("area_factor_bp")),
            schemes=_schemes(fields),
            accounts=_accounts(fields.table("accounts")) if fields.has("accounts") else ANY_PART,
        )
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(fields.path(""), str(error)) from error
    fields.close()
    return tariff


def _schemes(fields: Fields) -> tuple[Scheme, ...]:
    if not fields.has("scheme"):
        return ()
    return tuple(_scheme(scheme) for scheme in fields.tables("scheme"))


def _scheme(fields: Fields) -> Scheme:
    try:
        scheme = Scheme(
            scheme_code=_scheme_code(fields),
            name=fields.text("name"),
            kind=_one_of(SchemeKind, fields.text("kind"), fields.path("kind")),
            document=fields.text("document"),
            disease_codes=frozenset(fields.texts("disease_codes")),
            drug_codes=_drug_codes(fields),
            deductible=_deductible(fields.table("deductible")),
            ratio_bp=_by_tier(fields.table("ratio_bp")),
            retired_bonus_bp=fields.integer("retired_bonus_bp"),
            cap_fen=_by_person(fields.table("cap_fen")),
            area_factor_bp=_area_factors(fields.table("area_factor_bp")),
        )
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(fields.path(""), str(error)) from error
    fields.close()
    return scheme


def _scheme_code(fields: Fields) -> str:
    code = fields.text("scheme_code")
    if not SCHEME_CODE.fullmatch(code):
        raise FieldError(
            fields.path("scheme_code"), "must be 1 to 40 digits, capital letters and hyphens"
        )
    return code


def _drug_codes(fields: Fields) -> frozenset[str]:
    codes = fields.texts("drug_codes")
    for index, code in enumerate(codes):
        if not _DRUG_CODE.fullmatch(code):
            raise FieldError(
                f"{fields.path('drug_codes')}[{index}]",
                f"must be {DRUG_CODE_LENGTH} digits and capital letters",
            )
    return frozenset(codes)


def _accounts(fields: Fields) -> AccountRules:
    rules = AccountRules(
        own=_parts(fields, "own_account_pays"), family=_parts(fields, "family_accounts_pay")
    )
    fields.close()
    return rules


def _parts(fields: Fields, key: str) -> frozenset[Part]:
    texts = enumerate(fields.texts(key))
    return frozenset(_one_of(Part, text, f"{fields.path(key)}[{index}]") for index, text in texts)


def _one_of(choices: type[E], text: str, path: str) -> E:
    if text not in set(choices):
        raise FieldError(path, f"must be one of {', '.join(choices)}")
    return choices(text)


def _day(fields: Fields, key: str) -> date:
    value = fields.value(key)
    if not isinstance(value, date) or isinstance(value, datetime):
        raise FieldError(fields.path(key), "must be a date without quotes, like 2023-01-01")
    return value


def _deductible(fields: Fields) -> Deductible:
    deductible: Deductible
    match fields.text("kind"):
        case "annual":
            deductible = AnnualDeductible(_by_person(fields.table("amount_fen")))
        case "per_visit":
            maximum = fields.integer("yearly_maximum_fen")
            deductible = PerVisitDeductible(_by_tier(fields.table("amount_fen")), maximum)
        case _:
            raise FieldError(fields.path("kind"), 'must be "annual" or "per_visit"')
    fields.close()
    return deductible


def _by_person(fields: Fields) -> ByPerson:
    amounts = ByPerson(active=fields.integer("active"), retired=fields.integer("retired"))
    fields.close()
    return amounts


def _by_tier(fields: Fields) -> ByTier:
    figures = ByTier(
        tier_1=fields.integer("tier_1"),
        tier_2=fields.integer("tier_2"),
        tier_3=fields.integer("tier_3"),
    )
    fields.close()
    return figures


def _area_factors(fields: Fields) -> ByAreaStatus:
    named = {status.value: fields.integer(status) for status in AreaStatus if fields.has(status)}
    unnamed = [status.value for status in AreaStatus if status.value not in named]
    if unnamed and (not fields.has("others") or fields.integer("others") != WHOLE_BP):
        raise FieldError(
            fields.path("others"),
            f"must be {WHOLE_BP}, to say that the document names no factor for "
            + ", ".join(unnamed),
        )
    fields.close()
    return ByAreaStatus(**named)
