"""``benefit``: settle a case on paper, with the very formula that settles real ones.

A case is a JSON object whose keys are those of the formula. All are required, save those of schemes
(``special_disease_code``, ``enrolled``, a line's ``drug_code``), and others are refused.
Figures are integers: fen, 10⁻⁶ yuan, basis points, smallest units. JSON goes to standard output and
nothing else does; the explanation goes to standard error. A case that cannot be settled ends with
exit status 2 and names the key. Without ``--tariffs`` the figures come from the unverified
demonstration tariffs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, TypeVar

import click

from rxoutflow_server.domain.benefit import (
    Benefit,
    Case,
    Category,
    Enrolment,
    Funding,
    Line,
    Standing,
    benefit,
)
from rxoutflow_server.domain.errors import Refusal
from rxoutflow_server.domain.explanation import explain
from rxoutflow_server.domain.tariff import AreaStatus, PersonType, Tariff, Tariffs
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.fields import FieldError, Fields
from rxoutflow_server.reference.tariffs import load_tariffs

OUTPUT_KEYS = (
    "total_fen",
    "own_fen",
    "excess_fen",
    "first_self_pay_fen",
    "inscope_fen",
    "deductible_fen",
    "pool_fen",
    "ratio_self_fen",
    "person_fen",
    "account_fen",
    "family_fen",
    "cash_fen",
)

SCHEME_KEYS = ("scheme_code", "lines", "inscope_fen", "deductible_fen", "pool_fen")
"""What is said of each scheme that covers a line; ``lines`` are positions from 0."""

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)


class BadInput(click.ClickException):
    """The case or the tariffs cannot be used."""

    exit_code = 2


@click.group("benefit")
def benefit_group() -> None:
    """What the fund and the person pay."""


@benefit_group.command()
@click.argument("case", metavar="CASE.json", type=click.File("rb"))
@click.option("--batch", is_flag=True, help="Read a list of cases, write a list of results.")
@click.option("--explain", "explained", is_flag=True, help="Say on stderr what gave each figure.")
@click.option(
    "--tariffs",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of tariff files; the unverified demonstration tariffs by default.",
)
def quote(case: IO[bytes], batch: bool, explained: bool, folder: Path | None) -> None:
    """Settle the case in CASE.json; - reads standard input."""
    try:
        tariffs = _load(folder)
        quoted = [
            _quote(Fields(values, path), tariffs) for path, values in _cases(case.read(), batch)
        ]
    except (FieldError, ReferenceDataError) as error:
        raise BadInput(str(error)) from error
    if explained:
        for number, item in enumerate(quoted, start=1):
            click.echo(f"case {number}\n{item.explanation()}", err=True)
    results = [_output(item.result) for item in quoted]
    click.echo(json.dumps(results if batch else results[0], indent=2))


@dataclass(frozen=True, slots=True)
class _Quoted:
    tariff: Tariff
    case: Case
    result: Benefit

    def explanation(self) -> str:
        steps = explain(self.tariff, self.case, self.result)
        return "\n".join(f"{step.name:24} {step.fen:>12} fen  {step.because}" for step in steps)


def _output(result: Benefit) -> dict[str, object]:
    """The figures; what falls to schemes only where something does."""
    figures: dict[str, object] = {key: getattr(result, key) for key in OUTPUT_KEYS}
    if result.schemes:
        figures["schemes"] = [
            {key: getattr(share, key) for key in SCHEME_KEYS} for share in result.schemes
        ]
    return figures


def _load(folder: Path | None) -> Tariffs:
    if folder is not None:
        return load_tariffs(folder)
    with as_file(files("rxoutflow_server.sandbox") / "data" / "tariffs") as demonstration:
        return load_tariffs(demonstration)


def _cases(content: bytes, batch: bool) -> list[tuple[str, object]]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the input is not readable as JSON: {error}") from error
    if not batch:
        if isinstance(values, list):
            raise BadInput("the input is a list of cases: add --batch")
        return [("", values)]
    if not isinstance(values, list):
        raise BadInput("with --batch the input is a list of cases")
    return [(f"[{index}]", value) for index, value in enumerate(values)]


def _quote(fields: Fields, tariffs: Tariffs) -> _Quoted:
    region, day = fields.text("payer_region"), _day(fields, "date")
    lines = tuple(_line(line) for line in fields.tables("lines"))
    disease = fields.text("special_disease_code") if fields.has("special_disease_code") else ""
    case = Case(lines, _standing(fields), _funding(fields), disease)
    fields.close()
    try:
        tariff = tariffs.in_force(region, day)
    except Refusal as refusal:
        raise FieldError(fields.path("payer_region"), refusal.message) from refusal
    return _Quoted(tariff, case, benefit(tariff, case))


def _day(fields: Fields, key: str) -> date:
    text = fields.text(key)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise FieldError(fields.path(key), "must be a day like 2023-01-31")
    return day


def _standing(fields: Fields) -> Standing:
    return _checked(
        fields,
        lambda: Standing(
            person_type=_choice(fields, "person_type", PersonType),
            issuing_tier=fields.integer("issuing_tier"),
            area_status=_choice(fields, "area_status", AreaStatus),
            used_deductible_fen=fields.integer("used_deductible_fen"),
            used_cap_fen=fields.integer("used_cap_fen"),
            enrolments=_enrolments(fields),
        ),
    )


def _enrolments(fields: Fields) -> tuple[Enrolment, ...]:
    if not fields.has("enrolled"):
        return ()
    enrolments = []
    for scheme in fields.tables("enrolled", may_be_empty=True):
        enrolments.append(
            Enrolment(
                scheme_code=scheme.text("scheme_code"),
                used_deductible_fen=scheme.integer("used_deductible_fen"),
                used_cap_fen=scheme.integer("used_cap_fen"),
            )
        )
        scheme.close()
    codes = [each.scheme_code for each in enrolments]
    if len(set(codes)) < len(codes):
        raise FieldError(fields.path("enrolled"), "a scheme_code is named twice")
    return tuple(enrolments)


def _funding(fields: Fields) -> Funding:
    own, family = fields.integer("own_account_fen"), fields.integers("family_accounts_fen")
    return Funding(own_account_fen=own, family_accounts_fen=family)


def _line(fields: Fields) -> Line:
    limit = None
    if fields.value("limit_price_micro_yuan") is not None:
        limit = fields.integer("limit_price_micro_yuan")
    line = _checked(
        fields,
        lambda: Line(
            quantity=fields.integer("quantity"),
            unit_price_micro_yuan=fields.integer("unit_price_micro_yuan"),
            category=_choice(fields, "category", Category),
            first_self_pay_bp=fields.integer("first_self_pay_bp"),
            limit_price_micro_yuan=limit,
            limited_use_unmet=fields.boolean("limited_use_unmet"),
            drug_code=fields.text("drug_code") if fields.has("drug_code") else "",
        ),
    )
    fields.close()
    return line


def _choice(fields: Fields, key: str, choices: type[_E]) -> _E:
    text = fields.text(key)
    if text not in set(choices):
        raise FieldError(fields.path(key), f"must be one of {', '.join(choices)}")
    return choices(text)


def _checked(fields: Fields, build: Callable[[], _T]) -> _T:
    """Build a part of the case, and give what the domain refuses the path of its key."""
    try:
        return build()
    except Refusal as refusal:
        raise FieldError(fields.path(refusal.detail["field"]), refusal.message) from refusal
