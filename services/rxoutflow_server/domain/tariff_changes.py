"""What a new set of tariffs changes, row by row: which figure, for whom, on which days.

A tariff is laid out as rows, each a figure that decides somebody's settlement and the words for who
that is. Two sets are compared on every day, so it does not matter how either is cut into versions:
two versions with the same figures make no change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise

from rxoutflow_server.domain.errors import Refusal
from rxoutflow_server.domain.money import MICRO_YUAN_PER_FEN, percent, yuan
from rxoutflow_server.domain.tariff import (
    TIERS,
    AnnualDeductible,
    AreaStatus,
    Part,
    PersonType,
    PerVisitDeductible,
    Scheme,
    Tariff,
    Tariffs,
    Terms,
)

EVERYBODY = "everybody"
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a tariff, in words."""

    figure: str
    whom: str
    value: str


@dataclass(frozen=True, slots=True)
class Change:
    """One figure that changes; ``NOTHING`` stands for a figure that is not there."""

    figure: str
    whom: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Span:
    """Days of a region on which the same figures change. ``end`` is the first day after, if any."""

    region_code: str
    begin: date
    end: date | None
    old_version: str
    new_version: str
    changes: tuple[Change, ...]


def rows(tariff: Tariff) -> list[Row]:
    """Every figure of a tariff."""
    found = list(_terms("", "", tariff))
    for scheme in tariff.schemes:
        found += _scheme(scheme)
    for kind, allowed in (("own", tariff.accounts.own), ("family", tariff.accounts.family)):
        found += [
            Row(f"{kind} account pays {part}", EVERYBODY, "yes" if part in allowed else "no")
            for part in Part
        ]
    return found


def changes(old: Tariffs, new: Tariffs) -> list[Span]:
    """What changes from one set to the other, by region and day."""
    regions = sorted({*old.regions(), *new.regions()})
    return [span for region in regions for span in _changes_of_region(region, old, new)]


def _changes_of_region(region_code: str, old: Tariffs, new: Tariffs) -> Iterator[Span]:
    pending: Span | None = None
    for begin, end in _spans(region_code, old, new):
        span = _compare(region_code, begin, end, old, new)
        if pending is not None and _continues(pending, span):
            pending = replace(pending, end=end)
            continue
        if pending is not None and pending.changes:
            yield pending
        pending = span
    if pending is not None and pending.changes:
        yield pending


def _continues(earlier: Span, later: Span) -> bool:
    return (earlier.changes, earlier.old_version, earlier.new_version) == (
        later.changes,
        later.old_version,
        later.new_version,
    )


def _spans(region_code: str, old: Tariffs, new: Tariffs) -> Iterator[tuple[date, date | None]]:
    """Stretches of days on which each set has one version in force, or none."""
    days = set()
    for version in (*old.of_region(region_code), *new.of_region(region_code)):
        days.add(version.valid_from)
        if version.valid_until is not None:
            days.add(version.valid_until)
    ordered = sorted(days)
    yield from pairwise(ordered)
    if ordered:
        yield ordered[-1], None


def _compare(region_code: str, begin: date, end: date | None, old: Tariffs, new: Tariffs) -> Span:
    before, after = _in_force(old, region_code, begin), _in_force(new, region_code, begin)
    return Span(
        region_code=region_code,
        begin=begin,
        end=end,
        old_version=before.version_id if before else NOTHING,
        new_version=after.version_id if after else NOTHING,
        changes=tuple(_row_changes(before, after)),
    )


def _in_force(tariffs: Tariffs, region_code: str, day: date) -> Tariff | None:
    try:
        return tariffs.in_force(region_code, day)
    except Refusal:
        return None


def _row_changes(old: Tariff | None, new: Tariff | None) -> Iterator[Change]:
    before = {(row.figure, row.whom): row.value for row in rows(old)} if old else {}
    after = {(row.figure, row.whom): row.value for row in rows(new)} if new else {}
    for figure, whom in dict.fromkeys((*before, *after)):
        was, becomes = before.get((figure, whom), NOTHING), after.get((figure, whom), NOTHING)
        if was != becomes:
            yield Change(figure, whom, was, becomes)


def _scheme(scheme: Scheme) -> list[Row]:
    name, whom = f"scheme {scheme.scheme_code}: ", "enrolled, "
    return [
        *_terms(name, whom, scheme),
        *(
            Row(f"{name}disease {code}", "enrolled", "listed")
            for code in sorted(scheme.disease_codes)
        ),
        *(Row(f"{name}drug {code}", "enrolled", "listed") for code in sorted(scheme.drug_codes)),
    ]


def _terms(name: str, whom: str, terms: Terms) -> Iterator[Row]:
    yield from _deductible(name, whom, terms)
    for person in PersonType:
        for tier in TIERS:
            share = percent(terms.ratio_for(person, tier))
            yield Row(f"{name}fund's share", f"{whom}{person}, tier {tier}", share)
    for person in PersonType:
        yield Row(f"{name}cap a year", f"{whom}{person}", _yuan(terms.cap_fen.of(person)))
    for status in AreaStatus:
        factor = percent(terms.area_factor_bp.of(status))
        yield Row(f"{name}factor away from home", f"{whom}{status}", factor)


def _deductible(name: str, whom: str, terms: Terms) -> Iterator[Row]:
    match terms.deductible:
        case AnnualDeductible(amount):
            for person in PersonType:
                yield Row(f"{name}deductible a year", f"{whom}{person}", _yuan(amount.of(person)))
        case PerVisitDeductible(by_tier, maximum):
            for tier in TIERS:
                yield Row(
                    f"{name}deductible a visit", f"{whom}tier {tier}", _yuan(by_tier.of(tier))
                )
            yield Row(f"{name}deductible a year at most", f"{whom}{EVERYBODY}", _yuan(maximum))


def _yuan(fen: int) -> str:
    return f"{yuan(fen * MICRO_YUAN_PER_FEN)} yuan"
