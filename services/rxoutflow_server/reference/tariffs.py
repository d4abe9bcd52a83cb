"""Tariffs from TOML: one file for each payer region, its versions inside.

Every key is required, save ``valid_until`` (absent: open) and the statuses of ``area_factor_bp``
that ``others = 10000`` stands for; nothing is guessed and unknown keys are refused. Amounts are
integers in fen, ratios in basis points, days are TOML dates.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

from rxoutflow_server.domain.money import WHOLE_BP
from rxoutflow_server.domain.tariff import (
    AnnualDeductible,
    AreaStatus,
    ByAreaStatus,
    ByPerson,
    ByTier,
    Deductible,
    PerVisitDeductible,
    Tariff,
    Tariffs,
)
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.fields import FieldError, Fields

_REGION_CODE = re.compile(r"[0-9]{6}")


def load_tariffs(folder: Path) -> Tariffs:
    """All tariff versions in the folder's TOML files.

    Raises:
        ReferenceDataError: the folder has none, or a file is wrong.
    """
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise ReferenceDataError(folder, "*.toml", "no tariff file here: name another folder")
    tariffs = [tariff for file in files for tariff in _read(file)]
    try:
        return Tariffs(tariffs)
    except ValueError as error:
        raise ReferenceDataError(folder, "version", str(error)) from error


def _read(file: Path) -> list[Tariff]:
    try:
        with file.open("rb") as stream:
            return list(_versions(Fields(tomllib.load(stream))))
    except FieldError as fault:
        raise ReferenceDataError(file, fault.where, fault.problem) from fault
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReferenceDataError(file, "file", f"not readable as TOML: {error}") from error


def _versions(document: Fields) -> Iterator[Tariff]:
    region_code = document.text("region_code")
    if not _REGION_CODE.fullmatch(region_code):
        raise FieldError("region_code", "must be six digits")
    document.text("region_name")
    for version in document.tables("version"):
        yield _version(region_code, version)
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
        )
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(fields.path(""), str(error)) from error
    fields.close()
    return tariff


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
