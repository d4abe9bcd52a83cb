"""Where each figure of a settlement comes from, in words for a person at a desk.

``explain`` reads the figures of a settlement and the rows of the tariff that gave them. It computes
no amount of its own, so it can never disagree with what is paid.
"""

from __future__ import annotations

from dataclasses import dataclass

from rxoutflow_server.domain.benefit import (
    Benefit,
    Case,
    Category,
    Enrolment,
    Line,
    LineParts,
    SchemeShare,
    Standing,
)
from rxoutflow_server.domain.money import percent, yuan
from rxoutflow_server.domain.tariff import ALL_PARTS, Part, Tariff, Terms


@dataclass(frozen=True, slots=True)
class Step:
    """One figure of a settlement and the rule that gave it."""

    name: str
    fen: int
    because: str


def explain(tariff: Tariff, case: Case, result: Benefit) -> list[Step]:
    """Say where each figure comes from: which line, or which row of which tariff.

    Reads the figures of ``result`` and computes none of its own, so it can never disagree.
    """
    steps: list[Step] = []
    for number, (line, parts) in enumerate(zip(case.lines, result.lines, strict=True), start=1):
        steps += _explain_line(f"line {number}", line, parts)
    return steps + _explain_payer(tariff, case.standing, result) + _explain_person(result)


def _explain_line(name: str, line: Line, parts: LineParts) -> list[Step]:
    price = f"{line.quantity} × {yuan(line.unit_price_micro_yuan)} yuan"
    steps = [Step(f"{name} amount", parts.amount_fen, price)]
    if line.is_own_cost:
        why = "category C" if line.category is Category.C else "limited use not met"
        return [*steps, Step(f"{name} own", parts.own_fen, why)]
    if line.limit_price_micro_yuan is not None and parts.excess_fen:
        limit = f"above the limit price of {yuan(line.limit_price_micro_yuan)} yuan"
        steps.append(Step(f"{name} excess", parts.excess_fen, limit))
    if parts.first_self_pay_fen:
        first = f"category B, {percent(line.first_self_pay_bp)} before the ratio"
        steps.append(Step(f"{name} first self-pay", parts.first_self_pay_fen, first))
    return [*steps, Step(f"{name} inscope", parts.inscope_fen, f"category {line.category}")]


def _explain_payer(tariff: Tariff, standing: Standing, result: Benefit) -> list[Step]:
    source = f"tariff {tariff.version_id} ({tariff.document}"
    source += ", unverified)" if tariff.unverified else ")"
    used = Enrolment("", standing.used_deductible_fen, standing.used_cap_fen)
    if not result.schemes:
        steps = _explain_terms("", source, tariff, standing, used, result.ordinary)
    else:
        steps = _explain_schemes(source, tariff, standing, used, result)
    return [
        *steps,
        Step("ratio self-pay", result.ratio_self_fen, "inscope, less deductible, less pool"),
    ]


def _explain_schemes(
    source: str, tariff: Tariff, standing: Standing, used: Enrolment, result: Benefit
) -> list[Step]:
    enrolled = {enrolment.scheme_code: enrolment for enrolment in standing.enrolments}
    steps = []
    for share in result.schemes:
        scheme = tariff.scheme(share.scheme_code)
        if scheme is not None:
            code, lines = share.scheme_code, ", ".join(str(index + 1) for index in share.lines)
            why = f"{scheme.name} ({scheme.document}): lines {lines}"
            steps.append(Step(f"{code} inscope", share.inscope_fen, why))
            steps += _explain_terms(
                f"{code} ", f"scheme {code}", scheme, standing, enrolled[code], share
            )
    steps += _explain_terms("ordinary ", source, tariff, standing, used, result.ordinary)
    return [
        *steps,
        Step("deductible", result.deductible_fen, "of all schemes and ordinary care"),
        Step("pool", result.pool_fen, "of all schemes and ordinary care"),
    ]


def _explain_terms(
    name: str,
    source: str,
    terms: Terms,
    standing: Standing,
    used: Enrolment,
    share: SchemeShare,
) -> list[Step]:
    person, tier = standing.person_type, standing.issuing_tier
    left = terms.deductible.left_fen(person, tier, used.used_deductible_fen)
    factor = terms.area_factor_bp.of(standing.area_status)
    base = share.inscope_fen - share.deductible_fen
    cap_left = terms.cap_left_fen(person, used.used_cap_fen)
    pays = (
        f"{source}: {percent(terms.ratio_for(person, tier))} for {person}, tier {tier}, "
        f"× {percent(factor)} {_where(standing)}, of {base} fen"
    )
    if share.pool_fen == cap_left:
        pays += f", capped at the {cap_left} fen left of the yearly cap"
    return [
        Step(f"{name}deductible", share.deductible_fen, f"{source}: {left} fen left to deduct"),
        Step(f"{name}pool", share.pool_fen, pays),
    ]


def _explain_person(result: Benefit) -> list[Step]:
    own, family = result.accounts.own, result.accounts.family
    return [
        Step("person", result.person_fen, "total less pool"),
        Step("account", result.account_fen, f"own account, up to what it grants{_only(own)}"),
        Step(
            "family",
            result.family_fen,
            f"family accounts in order, up to what they grant{_only(family)}",
        ),
        Step("cash", result.cash_fen, "the rest"),
    ]


def _only(allowed: frozenset[Part]) -> str:
    if allowed == ALL_PARTS:
        return ""
    return ", for " + (", ".join(part for part in Part if part in allowed) or "nothing")


def _where(standing: Standing) -> str:
    return "at home" if standing.area_status is None else f"for {standing.area_status}"
