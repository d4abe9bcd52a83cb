"""The figures of the prescription rules from TOML: one file for a region, its versions inside.

A region sets what the national measures leave to it; a figure that a version does not name is the
national one. Unknown keys are refused, versions may not overlap, and a day that no version covers
has the national figures. ``[version.suspicion]`` holds the thresholds of R23.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path

from rxoutflow_server.domain.prescription_rules import NATIONAL, Parameters
from rxoutflow_server.domain.rule_book import RuleBook, RuleVersion
from rxoutflow_server.domain.suspicions import DEFAULT_THRESHOLDS, Thresholds
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.fields import FieldError, Fields

_REGION_CODE = re.compile(r"[0-9]{6}")
_DIAGNOSES = "long_antimicrobial_diagnoses"
_FIGURES = (
    "max_validity_days",
    "max_supply_days",
    "max_emergency_supply_days",
    "max_lines",
    "long_usual_weeks",
    "long_max_weeks",
    "guardian_age_years",
    "adult_age_years",
)


def load_rules(file: Path, region_code: str) -> RuleBook:
    """The rule book of a region.

    Raises:
        ReferenceDataError: the file cannot be read, is of another region, or is wrong: with key and
            reason.
    """
    try:
        with file.open("rb") as stream:
            return RuleBook(tuple(_versions(Fields(tomllib.load(stream)), region_code)))
    except FieldError as fault:
        raise ReferenceDataError(file, fault.where, fault.problem) from fault
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReferenceDataError(file, "file", f"not readable as TOML: {error}") from error


def _versions(document: Fields, region_code: str) -> Iterator[RuleVersion]:
    stated = document.text("region_code")
    if not _REGION_CODE.fullmatch(stated) or stated != region_code:
        raise FieldError("region_code", f"must be that of this platform, {region_code}")
    document.text("region_name")
    versions = [_version(each) for each in document.tables("version")]
    document.close()
    for earlier, later in pairwise(versions):
        end = earlier.parameters.valid_until
        if end is None or later.parameters.valid_from < end:
            raise FieldError(
                "version",
                f"{later.parameters.version_id} begins before {earlier.parameters.version_id} ends:"
                " put versions in the order of their days and let each end where the next begins",
            )
    yield from versions


def _version(entry: Fields) -> RuleVersion:
    parameters = Parameters(
        version_id=entry.text("version_id"),
        document=entry.text("document"),
        valid_from=_day(entry, "valid_from"),
        valid_until=_day(entry, "valid_until") if entry.has("valid_until") else None,
        long_antimicrobial_diagnoses=_diagnoses(entry),
        **{name: _figure(entry, name, getattr(NATIONAL, name)) for name in _FIGURES},
    )
    thresholds = DEFAULT_THRESHOLDS
    if entry.has("suspicion"):
        thresholds = _thresholds(entry.table("suspicion"))
    entry.close()
    _require_sensible(entry, parameters)
    return RuleVersion(parameters, thresholds)


def _thresholds(entry: Fields) -> Thresholds:
    names = [each.name for each in fields(Thresholds)]
    found = Thresholds(
        **{name: _figure(entry, name, getattr(DEFAULT_THRESHOLDS, name)) for name in names}
    )
    entry.close()
    return found


def _figure(entry: Fields, name: str, national: int) -> int:
    if not entry.has(name):
        return national
    value = entry.integer(name)
    if value < 1:
        raise FieldError(entry.path(name), "must be at least 1")
    return value


def _diagnoses(entry: Fields) -> tuple[str, ...]:
    if not entry.has(_DIAGNOSES):
        return NATIONAL.long_antimicrobial_diagnoses
    values = entry.value(_DIAGNOSES)
    if not isinstance(values, list) or not all(isinstance(each, str) and each for each in values):
        raise FieldError(entry.path(_DIAGNOSES), "must be a list of ICD-10 prefixes in quotes")
    return tuple(values)


def _require_sensible(entry: Fields, parameters: Parameters) -> None:
    if parameters.valid_until is not None and parameters.valid_until <= parameters.valid_from:
        raise FieldError(entry.path("valid_until"), "must be a later day than valid_from")
    if parameters.long_max_weeks < parameters.long_usual_weeks:
        raise FieldError(entry.path("long_max_weeks"), "must not be below long_usual_weeks")


def _day(entry: Fields, key: str) -> date:
    value = entry.value(key)
    if not isinstance(value, date) or isinstance(value, datetime):
        raise FieldError(entry.path(key), "must be a date without quotes, like 2026-01-01")
    return value
