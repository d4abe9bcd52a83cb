"""The benefit formula on worked cases, under the demonstration tariffs."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from pathlib import Path

import pytest

import rxoutflow_server.sandbox
from rxoutflow_server.domain.benefit import (
    Benefit,
    Case,
    Category,
    Funding,
    Line,
    LineShare,
    Standing,
    apportion_to_lines,
    benefit,
    return_of_line,
)
from rxoutflow_server.domain.errors import InvariantBroken, Reason, Refusal
from rxoutflow_server.domain.explanation import explain
from rxoutflow_server.domain.tariff import (
    AnnualDeductible,
    AreaStatus,
    ByPerson,
    ByTier,
    PersonType,
    Tariff,
)
from rxoutflow_server.reference.tariffs import load_tariffs

TARIFFS = load_tariffs(Path(rxoutflow_server.sandbox.__file__).parent / "data" / "tariffs")
DAY = date(2024, 5, 1)

A, B, C = Category
ACTIVE, RETIRED = PersonType
FILED, REFERRED, EMERGENCY, UNFILED = AreaStatus


def tariff_of(region_code: str) -> Tariff:
    return TARIFFS.in_force(region_code, DAY)


NANTONG_FIRST_OF_THE_YEAR = Case(
    lines=(
        Line(6, 32_500_000, B, 1_000, limit_price_micro_yuan=30_000_000),
        Line(10, 45_800_000, A),
        Line(2, 88_000_000, B, 1_000),
        Line(3, 19_900_000, C),
    ),
    standing=Standing(ACTIVE, 3, FILED),
    funding=Funding(20_000),
)
NANTONG_RETIRED = Case(
    lines=(Line(4, 27_350_000, A), Line(3, 61_230_000, B, 500)),
    standing=Standing(RETIRED, 1, FILED, used_deductible_fen=50_000, used_cap_fen=120_000),
    funding=Funding(),
)
QUANZHOU_UNFILED = Case(
    lines=(Line(5, 48_330_000, B, 1_000), Line(14, 56_000_000, A)),
    standing=Standing(ACTIVE, 2, UNFILED, used_deductible_fen=20_000),
    funding=Funding(10_000, (30_000,)),
)
HENGYANG_NEAR_ITS_LIMITS = Case(
    lines=(
        Line(7, 39_990_000, A),
        Line(1, 128_500_000, B, 2_000, 100_000_000, limited_use_unmet=True),
    ),
    standing=Standing(RETIRED, 2, REFERRED, used_deductible_fen=27_000, used_cap_fen=195_000),
    funding=Funding(5_000),
)
ANKANG_HERBS = Case(
    lines=(Line(150_000, 350, A), Line(100_000, 1_240, B, 1_000), Line(90_000, 85, A)),
    standing=Standing(ACTIVE, 3, FILED, used_deductible_fen=20_000),
    funding=Funding(),
)

WORKED = [
    pytest.param(
        "320600",
        NANTONG_FIRST_OF_THE_YEAR,
        (88870, 5970, 1500, 3560, 77840, 77840, 0, 0, 20000, 0, 68870),
        id="the first of the year is all deductible",
    ),
    pytest.param(
        "320600",
        NANTONG_RETIRED,
        (29309, 0, 0, 918, 28391, 0, 24132, 4259, 0, 0, 5177),
        id="the retired bonus is added to the ratio",
    ),
    pytest.param(
        "350500",
        QUANZHOU_UNFILED,
        (102565, 0, 0, 2417, 100148, 40000, 33683, 26465, 10000, 30000, 28882),
        id="away from home unfiled lowers the ratio",
    ),
    pytest.param(
        "430400",
        HENGYANG_NEAR_ITS_LIMITS,
        (40843, 12850, 0, 0, 27993, 3000, 5000, 19993, 5000, 0, 30843),
        id="the yearly maximum and the cap end both",
    ),
    pytest.param(
        "610900",
        ANKANG_HERBS,
        (18415, 0, 0, 1240, 17175, 0, 8588, 8587, 0, 0, 9827),
        id="herbs by the milligram round once a line",
    ),
]


def figures(result: Benefit) -> tuple[int, ...]:
    return (
        result.total_fen,
        result.own_fen,
        result.excess_fen,
        result.first_self_pay_fen,
        result.inscope_fen,
        result.deductible_fen,
        result.pool_fen,
        result.ratio_self_fen,
        result.account_fen,
        result.family_fen,
        result.cash_fen,
    )


@pytest.mark.parametrize(("region_code", "case", "expected"), WORKED)
def test_a_worked_case_gives_the_published_figures(
    region_code: str, case: Case, expected: tuple[int, ...]
) -> None:
    result = benefit(tariff_of(region_code), case)

    assert figures(result) == expected
    assert result.person_fen == result.total_fen - result.pool_fen
    assert result.tariff_version_id == f"{region_code}-demo-2023"


def test_a_first_self_pay_on_category_a_is_ignored() -> None:
    case = replace(ANKANG_HERBS, lines=(Line(1, 10_000_000, A, 1_000),))

    assert benefit(tariff_of("610900"), case).first_self_pay_fen == 0


def test_a_line_outside_its_limited_use_is_own_cost_whatever_its_limit_price() -> None:
    line = Line(1, 10_000_000, A, 0, 1_000_000, limited_use_unmet=True)
    result = benefit(tariff_of("610900"), replace(ANKANG_HERBS, lines=(line,)))

    assert (result.own_fen, result.excess_fen, result.inscope_fen) == (1_000, 0, 0)


def test_a_deductible_and_a_cap_used_beyond_their_amount_leave_nothing_and_take_nothing() -> None:
    standing = Standing(ACTIVE, 1, FILED, used_deductible_fen=99_999_999, used_cap_fen=99_999_999)
    result = benefit(tariff_of("320600"), replace(NANTONG_RETIRED, standing=standing))

    assert (result.deductible_fen, result.pool_fen) == (0, 0)


def test_a_per_visit_deductible_of_zero_deducts_nothing_in_tier_1() -> None:
    standing = Standing(ACTIVE, 1, FILED)
    result = benefit(tariff_of("430400"), replace(HENGYANG_NEAR_ITS_LIMITS, standing=standing))

    assert result.deductible_fen == 0


def test_family_accounts_pay_in_the_order_given() -> None:
    case = replace(NANTONG_RETIRED, funding=Funding(1_000, (0, 4_000, 500)))
    result = benefit(tariff_of("320600"), case)

    assert result.family_accounts_fen == (0, 4_000, 177)
    assert result.cash_fen == 0


def test_a_settlement_without_lines_is_zero() -> None:
    result = benefit(tariff_of("320600"), replace(NANTONG_RETIRED, lines=()))

    assert set(figures(result)) == {0}
    assert apportion_to_lines(result) == ()


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Line(0, 1, A), "quantity"),
        (lambda: Line(1, -1, A), "unit_price_micro_yuan"),
        (lambda: Line(1, 1, B, 10_001), "first_self_pay_bp"),
        (lambda: Line(1, 1, B, 0, -1), "limit_price_micro_yuan"),
        (lambda: Standing(ACTIVE, 4, FILED), "issuing_tier"),
        (lambda: Standing(ACTIVE, 1, FILED, -1), "used_deductible_fen"),
        (lambda: Standing(ACTIVE, 1, FILED, 0, -1), "used_cap_fen"),
        (lambda: Funding(-1), "own_account_fen"),
        (lambda: Funding(0, (1, -1)), "family_accounts_fen[1]"),
    ],
)
def test_a_figure_out_of_range_is_refused_by_name(build: object, field: str) -> None:
    assert callable(build)
    with pytest.raises(Refusal) as refused:
        build()

    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.detail == {"field": field}


@pytest.mark.parametrize(
    "field",
    [field.name for field in fields(Benefit) if field.type == "int"],
)
def test_a_result_with_one_figure_off_by_a_fen_cannot_exist(field: str) -> None:
    result = benefit(tariff_of("350500"), QUANZHOU_UNFILED)

    with pytest.raises(InvariantBroken):
        replace(result, **{field: getattr(result, field) + 1})


def test_a_result_with_a_negative_figure_cannot_exist_even_if_the_sums_agree() -> None:
    result = benefit(tariff_of("350500"), replace(QUANZHOU_UNFILED, funding=Funding()))

    with pytest.raises(InvariantBroken, match="negative"):
        replace(result, account_fen=-1, cash_fen=result.cash_fen + 1)


def test_an_explanation_names_every_total_and_the_tariff_it_came_from() -> None:
    tariff = tariff_of("350500")
    result = benefit(tariff, QUANZHOU_UNFILED)
    steps = {step.name: step for step in explain(tariff, QUANZHOU_UNFILED, result)}

    assert steps["pool"].fen == 33_683
    assert steps["pool"].because == (
        "tariff 350500-demo-2023 (泉政办〔2022〕28号, unverified): 80 % for active, tier 2, "
        "× 70 % for unfiled, of 60148 fen"
    )
    assert steps["deductible"].fen == 40_000
    assert steps["line 1 first self-pay"].because == "category B, 10 % before the ratio"
    assert steps["cash"].fen == result.cash_fen


def test_an_explanation_says_when_the_cap_decided_and_why_a_line_is_own_cost() -> None:
    tariff = tariff_of("430400")
    result = benefit(tariff, HENGYANG_NEAR_ITS_LIMITS)
    steps = {step.name: step for step in explain(tariff, HENGYANG_NEAR_ITS_LIMITS, result)}

    assert "capped at the 5000 fen left" in steps["pool"].because
    assert steps["line 2 own"].because == "limited use not met"


def test_a_line_that_took_no_pool_money_gives_none_back() -> None:
    result = benefit(tariff_of("430400"), HENGYANG_NEAR_ITS_LIMITS)
    first, own_cost = apportion_to_lines(result)

    assert (first.pool_fen, own_cost.pool_fen) == (5_000, 0)
    assert (first.deductible_fen, own_cost.deductible_fen) == (3_000, 0)
    assert first.account_fen + own_cost.account_fen == 5_000
    assert own_cost.amount_fen == 12_850


def test_a_return_by_portions_gives_back_the_line_exactly() -> None:
    share = LineShare(1_000, 100, 333, 334, (166,), 167)
    portions = [return_of_line(share, 3, before, 1) for before in range(3)]

    assert [portion.pool_fen for portion in portions] == [111, 111, 111]
    assert [portion.account_fen for portion in portions] == [111, 112, 111]
    assert sum(portion.amount_fen for portion in portions) == 1_000
    assert return_of_line(share, 3, 0, 3) == share


def test_a_return_of_more_than_went_out_is_refused_and_says_what_is_left() -> None:
    share = LineShare(1_000, 0, 1_000, 0, (), 0)

    with pytest.raises(Refusal, match="1 of this line") as refused:
        return_of_line(share, 3, 2, 2)

    assert refused.value.reason is Reason.QUANTITY_EXCEEDED
    assert refused.value.detail == {"returnable": "1"}


@pytest.mark.parametrize(("before", "returning"), [(-1, 1), (0, 0), (1, -1)])
def test_a_return_of_nothing_is_refused(before: int, returning: int) -> None:
    with pytest.raises(Refusal) as refused:
        return_of_line(LineShare(1_000, 0, 1_000, 0, (), 0), 3, before, returning)

    assert refused.value.reason is Reason.FIELD_INVALID


def test_a_line_whose_fen_is_deducted_takes_no_pool_money_for_it() -> None:
    tariff = replace(
        tariff_of("320600"),
        deductible=AnnualDeductible(ByPerson(active=1, retired=1)),
        ratio_bp=ByTier(10_000, 10_000, 10_000),
        retired_bonus_bp=0,
    )
    case = Case((Line(1, 10_000, A),) * 3, Standing(ACTIVE, 1, FILED), Funding())
    shares = apportion_to_lines(benefit(tariff, case))

    assert [share.deductible_fen for share in shares] == [1, 0, 0]
    assert [share.pool_fen for share in shares] == [0, 1, 1]
    assert [share.cash_fen for share in shares] == [1, 0, 0]
