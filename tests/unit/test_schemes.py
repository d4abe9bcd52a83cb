"""R15: schemes for listed diseases and drugs, and what the accounts may pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rxoutflow_server.domain.benefit import (
    Benefit,
    Case,
    Category,
    Enrolment,
    Funding,
    Line,
    SchemeShare,
    Standing,
    apportion_to_lines,
    benefit,
    return_of_line,
)
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.explanation import explain
from rxoutflow_server.domain.tariff import (
    AccountRules,
    AnnualDeductible,
    AreaStatus,
    ByAreaStatus,
    ByPerson,
    ByTier,
    Part,
    PersonType,
    PerVisitDeductible,
)
from support.schemes import DISEASE, LISTED, LISTED_TOO, UNLISTED, scheme, tariff

ENROLLED = Standing(PersonType.ACTIVE, 2, None, enrolments=(Enrolment("S1"),))
TWO_LINES = (
    Line(1, 200_000_000, Category.A, drug_code=LISTED),
    Line(1, 300_000_000, Category.A, drug_code=UNLISTED),
)
CASE = Case(TWO_LINES, ENROLLED, Funding(), DISEASE)
# 200.00: less 10.00, 90 % of 190.00 is 171.00. 300.00: less 100.00, 50 % of 200.00 is 100.00.
SHARE = SchemeShare("S1", (0,), 20_000, 1_000, 17_100)


def test_a_listed_drug_falls_to_the_scheme_and_the_rest_to_ordinary_care() -> None:
    result = benefit(tariff(scheme()), CASE)

    assert result.schemes == (SHARE,)
    assert result.ordinary == SchemeShare("", (1,), 30_000, 10_000, 10_000)
    assert (result.deductible_fen, result.pool_fen) == (11_000, 27_100)
    assert result.person_fen == 50_000 - 27_100


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(replace(CASE, special_disease_code=""), id="no disease is named"),
        pytest.param(replace(CASE, special_disease_code="M01600"), id="another disease"),
        pytest.param(replace(CASE, standing=replace(ENROLLED, enrolments=())), id="not enrolled"),
        pytest.param(
            replace(CASE, standing=replace(ENROLLED, enrolments=(Enrolment("S2"),))),
            id="enrolled in another scheme",
        ),
        pytest.param(
            replace(CASE, lines=tuple(replace(line, drug_code="") for line in TWO_LINES)),
            id="drugs that are not listed",
        ),
    ],
)
def test_without_disease_enrolment_and_listed_drug_everything_is_ordinary_care(case: Case) -> None:
    result = benefit(tariff(scheme()), case)

    assert result.schemes == ()
    assert result == benefit(tariff(), case)


def test_a_scheme_that_a_version_does_not_have_covers_nothing() -> None:
    assert benefit(tariff(), CASE).schemes == ()


def test_a_drug_falls_to_the_first_scheme_of_the_tariff_that_lists_it() -> None:
    first = scheme("S2", drug_codes=frozenset({LISTED}))
    second = scheme("S1", drug_codes=frozenset({LISTED, LISTED_TOO}))
    standing = replace(ENROLLED, enrolments=(Enrolment("S1"), Enrolment("S2")))
    lines = (*TWO_LINES, Line(1, 50_000_000, Category.A, drug_code=LISTED_TOO))
    result = benefit(tariff(first, second), Case(lines, standing, Funding(), DISEASE))

    assert [(share.scheme_code, share.lines) for share in result.schemes] == [
        ("S2", (0,)),
        ("S1", (2,)),
    ]
    assert result.ordinary.lines == (1,)


def test_a_scheme_has_its_own_deductible_and_cap_used_up_beside_those_of_ordinary_care() -> None:
    used = replace(
        ENROLLED,
        used_deductible_fen=10_000,
        used_cap_fen=99_990,
        enrolments=(Enrolment("S1", used_deductible_fen=1_000, used_cap_fen=49_000),),
    )
    result = benefit(tariff(scheme()), replace(CASE, standing=used))

    assert result.schemes == (SchemeShare("S1", (0,), 20_000, 0, 1_000),)
    assert result.ordinary == SchemeShare("", (1,), 30_000, 0, 10)


def test_what_the_scheme_s_cap_leaves_over_stays_with_the_person() -> None:
    standing = replace(ENROLLED, enrolments=(Enrolment("S1", used_cap_fen=50_000),))
    result = benefit(tariff(scheme()), replace(CASE, standing=standing))

    assert result.schemes[0].pool_fen == 0
    assert result.pool_fen == result.ordinary.pool_fen == 10_000


def test_first_self_pay_limit_price_and_own_cost_come_before_the_scheme() -> None:
    lines = (
        Line(1, 200_000_000, Category.B, 1_000, 150_000_000, drug_code=LISTED),
        Line(1, 80_000_000, Category.A, limited_use_unmet=True, drug_code=LISTED),
    )
    result = benefit(tariff(scheme()), replace(CASE, lines=lines))

    assert (result.own_fen, result.excess_fen, result.first_self_pay_fen) == (8_000, 5_000, 1_500)
    assert result.schemes[0].inscope_fen == 13_500


def test_away_from_home_the_scheme_s_own_factor_applies() -> None:
    away = replace(ENROLLED, area_status=AreaStatus.UNFILED)
    unfiled = scheme(area_factor_bp=ByAreaStatus(unfiled=5_000))
    result = benefit(tariff(unfiled), replace(CASE, standing=away))

    assert result.schemes[0].pool_fen == 8_550
    assert result.ordinary.pool_fen == 10_000


def test_a_scheme_may_deduct_by_visit() -> None:
    by_visit = scheme(deductible=PerVisitDeductible(ByTier(0, 500, 800), 900))
    used = replace(ENROLLED, enrolments=(Enrolment("S1", used_deductible_fen=600),))
    result = benefit(tariff(by_visit), replace(CASE, standing=used))

    assert result.schemes[0].deductible_fen == 300


def test_returns_of_all_lines_restore_each_scheme_and_each_source() -> None:
    case = replace(CASE, funding=Funding(5_000, (2_000, 1_000)))
    result = benefit(tariff(scheme()), case)
    covered, ordinary = apportion_to_lines(result)

    assert (covered.scheme_code, covered.deductible_fen, covered.pool_fen) == ("S1", 1_000, 17_100)
    assert (ordinary.scheme_code, ordinary.deductible_fen, ordinary.pool_fen) == (
        "",
        10_000,
        10_000,
    )
    assert covered.account_fen + ordinary.account_fen == 5_000
    assert return_of_line(covered, 1, 0, 1) == covered


@pytest.mark.parametrize(
    "schemes",
    [
        (replace(SHARE, lines=(0, 1)),),
        (replace(SHARE, lines=(2,)),),
        (replace(SHARE, lines=()),),
        (replace(SHARE, inscope_fen=19_999),),
        (SHARE, replace(SHARE, scheme_code="S2")),
        (replace(SHARE, pool_fen=0, deductible_fen=12_000),),
    ],
)
def test_a_result_whose_schemes_do_not_add_up_cannot_exist(
    schemes: tuple[SchemeShare, ...],
) -> None:
    result = benefit(tariff(scheme()), CASE)

    with pytest.raises(InvariantBroken):
        replace(result, schemes=schemes)


def test_a_scheme_that_takes_more_than_its_scope_cannot_exist() -> None:
    with pytest.raises(InvariantBroken, match="no more than is in its scope"):
        replace(SHARE, pool_fen=19_001)


@pytest.mark.parametrize("field", ["used_deductible_fen", "used_cap_fen"])
def test_a_negative_use_of_a_scheme_is_refused_by_name(field: str) -> None:
    with pytest.raises(Refusal) as refused:
        Enrolment("S1", **{field: -1})

    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.detail == {"field": field}


@pytest.mark.parametrize(
    "change",
    [
        {"disease_codes": frozenset()},
        {"drug_codes": frozenset()},
        {"retired_bonus_bp": 1_001},
        {"deductible": AnnualDeductible(ByPerson(-1, 0))},
    ],
)
def test_a_scheme_that_lists_nothing_or_could_pay_more_than_the_bill_cannot_be_built(
    change: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="must"):
        scheme(**change)


def test_two_schemes_with_one_code_cannot_be_in_one_tariff() -> None:
    with pytest.raises(ValueError, match="scheme_code"):
        tariff(scheme(), scheme())


def test_an_explanation_tells_the_scheme_from_ordinary_care() -> None:
    rules = tariff(scheme())
    result = benefit(rules, CASE)
    steps = {step.name: step for step in explain(rules, CASE, result)}

    assert steps["S1 pool"].fen == 17_100
    assert steps["S1 pool"].because == (
        "scheme S1: 90 % for active, tier 2, × 100 % at home, of 19000 fen"
    )
    assert steps["S1 inscope"].because == "a scheme (none: a test's): lines 1"
    assert steps["ordinary pool"].fen == 10_000
    assert steps["pool"].fen == 27_100
    assert steps["deductible"].fen == 11_000


# --- accounts -------------------------------------------------------------------------------------

FIVE_PARTS = Case(
    lines=(
        Line(1, 100_000_000, Category.C),
        Line(1, 200_000_000, Category.B, 1_000, 150_000_000),
    ),
    standing=Standing(PersonType.ACTIVE, 2, None),
    funding=Funding(1_000_000, (1_000_000,)),
)
"""Own 100.00, excess 50.00, first self-pay 15.00, deductible 100.00, ratio self-pay 17.50."""


def under(own: set[Part], family: set[Part], funding: Funding | None = None) -> Benefit:
    rules = AccountRules(frozenset(own), frozenset(family))
    case = FIVE_PARTS if funding is None else replace(FIVE_PARTS, funding=funding)
    return benefit(tariff(accounts=rules), case)


@pytest.mark.parametrize(
    ("part", "fen"),
    [
        (Part.OWN, 10_000),
        (Part.EXCESS, 5_000),
        (Part.FIRST_SELF_PAY, 1_500),
        (Part.DEDUCTIBLE, 10_000),
        (Part.RATIO_SELF, 1_750),
    ],
)
def test_an_account_pays_only_the_parts_that_it_may(part: Part, fen: int) -> None:
    assert under({part}, set()).account_fen == fen
    assert under(set(), {part}).family_fen == fen
    assert under({part}, {part}).family_fen == 0
    assert under({part}, {part}, Funding(400, (300,))).family_fen == 300


def test_accounts_that_may_pay_nothing_leave_everything_to_cash() -> None:
    result = under(set(), set())

    assert (result.account_fen, result.family_fen) == (0, 0)
    assert result.cash_fen == result.person_fen


def test_the_own_account_pays_first_what_the_family_s_may_not() -> None:
    result = under({Part.OWN, Part.DEDUCTIBLE}, {Part.DEDUCTIBLE}, Funding(10_000, (10_000,)))

    assert (result.account_fen, result.family_fen) == (10_000, 10_000)
    own_cost, covered = apportion_to_lines(result)
    assert (own_cost.account_fen, covered.account_fen) == (10_000, 0)
    assert (own_cost.family_fen, covered.family_fen) == (0, 10_000)


def test_a_return_gives_no_account_what_it_could_not_have_paid() -> None:
    result = under({Part.DEDUCTIBLE}, {Part.RATIO_SELF})
    own_cost, covered = apportion_to_lines(result)

    assert (own_cost.account_fen, own_cost.family_fen, own_cost.cash_fen) == (0, 0, 10_000)
    assert (covered.account_fen, covered.family_fen) == (10_000, 1_750)


def test_a_result_in_which_an_account_pays_what_it_may_not_cannot_exist() -> None:
    result = under({Part.OWN}, set())

    with pytest.raises(InvariantBroken, match="only the parts"):
        replace(result, account_fen=10_001, cash_fen=result.cash_fen - 1)


def test_an_explanation_says_what_accounts_may_pay() -> None:
    rules = AccountRules(frozenset({Part.DEDUCTIBLE}), frozenset())
    limited = tariff(accounts=rules)
    steps = {s.name: s for s in explain(limited, FIVE_PARTS, benefit(limited, FIVE_PARTS))}

    assert steps["account"].because.endswith(", for deductible")
    assert steps["family"].because.endswith(", for nothing")
