"""What holds for every settlement: nothing lost, nothing invented, nothing upside down."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date
from fractions import Fraction
from itertools import pairwise
from math import floor

from hypothesis import assume, given
from hypothesis import strategies as st

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
from rxoutflow_server.domain.money import apportion, half_up, spread
from rxoutflow_server.domain.tariff import (
    AnnualDeductible,
    AreaStatus,
    ByAreaStatus,
    ByPerson,
    ByTier,
    PersonType,
    PerVisitDeductible,
    Tariff,
)

# Small prices and quantities on purpose: rounding shows most where fen are few.
quantities = st.one_of(st.integers(1, 30), st.integers(1, 500_000))
prices = st.one_of(st.integers(0, 60_000), st.integers(0, 500_000_000))
fen = st.one_of(st.integers(0, 300), st.integers(0, 3_000_000))
basis_points = st.integers(0, 10_000)

lines = st.builds(
    Line,
    quantity=quantities,
    unit_price_micro_yuan=prices,
    category=st.sampled_from(Category),
    first_self_pay_bp=basis_points,
    limit_price_micro_yuan=st.none() | prices,
    limited_use_unmet=st.booleans(),
)
cases = st.builds(
    Case,
    lines=st.lists(lines, max_size=6).map(tuple),
    standing=st.builds(
        Standing,
        person_type=st.sampled_from(PersonType),
        issuing_tier=st.sampled_from((1, 2, 3)),
        area_status=st.sampled_from(AreaStatus),
        used_deductible_fen=fen,
        used_cap_fen=fen,
    ),
    funding=st.builds(
        Funding, own_account_fen=fen, family_accounts_fen=st.lists(fen, max_size=3).map(tuple)
    ),
)
by_person = st.builds(ByPerson, active=fen, retired=fen)
by_tier = st.builds(ByTier, tier_1=fen, tier_2=fen, tier_3=fen)


@st.composite
def line_shares(draw: st.DrawFn) -> LineShare:
    """A share as settlements have it: the person's parts are what the person's sources paid."""
    own, excess, first, deductible, ratio, pool = (draw(fen) for _ in range(6))
    person = own + excess + first + deductible + ratio
    cuts = sorted(draw(st.lists(st.integers(0, person), min_size=1, max_size=4)))
    account, *family, cash = [b - a for a, b in pairwise([0, *cuts, person])]
    return LineShare(
        amount_fen=person + pool,
        deductible_fen=deductible,
        pool_fen=pool,
        account_fen=account,
        family_accounts_fen=tuple(family),
        cash_fen=cash,
        own_fen=own,
        excess_fen=excess,
        first_self_pay_fen=first,
    )


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    bonus = draw(basis_points)
    ratio = st.integers(0, 10_000 - bonus)
    return Tariff(
        version_id="any",
        region_code="350500",
        document="none",
        unverified=True,
        valid_from=date(2023, 1, 1),
        valid_until=None,
        deductible=draw(
            st.builds(AnnualDeductible, by_person) | st.builds(PerVisitDeductible, by_tier, fen)
        ),
        ratio_bp=ByTier(draw(ratio), draw(ratio), draw(ratio)),
        retired_bonus_bp=bonus,
        cap_fen=draw(by_person),
        area_factor_bp=draw(
            st.builds(ByAreaStatus, basis_points, basis_points, basis_points, basis_points)
        ),
    )


@given(tariffs(), cases)
def test_every_identity_holds(tariff: Tariff, case: Case) -> None:
    result = benefit(tariff, case)
    outside = result.own_fen + result.excess_fen + result.first_self_pay_fen

    assert result.total_fen == outside + result.inscope_fen
    assert result.inscope_fen == result.deductible_fen + result.pool_fen + result.ratio_self_fen
    assert result.person_fen == result.total_fen - result.pool_fen
    assert result.person_fen == result.account_fen + result.family_fen + result.cash_fen
    assert result.total_fen == sum(line.amount_fen for line in result.lines)
    assert min(result.deductible_fen, result.pool_fen, result.ratio_self_fen, result.cash_fen) >= 0


@given(tariffs(), cases)
def test_the_pool_never_pays_beyond_the_cap_and_accounts_never_beyond_their_grant(
    tariff: Tariff, case: Case
) -> None:
    result = benefit(tariff, case)
    cap = tariff.cap_fen.of(case.standing.person_type)

    assert result.pool_fen <= max(0, cap - case.standing.used_cap_fen)
    assert result.account_fen <= case.funding.own_account_fen
    granted = case.funding.family_accounts_fen
    assert all(
        drawn <= limit for drawn, limit in zip(result.family_accounts_fen, granted, strict=True)
    )


@given(tariffs(), cases, st.data())
def test_raising_a_price_never_lowers_what_the_person_pays_nor_raises_it_by_more(
    tariff: Tariff, case: Case, data: st.DataObject
) -> None:
    assume(case.lines)
    index = data.draw(st.integers(0, len(case.lines) - 1))
    raised = case.lines[index].unit_price_micro_yuan + data.draw(st.integers(1, 100_000))
    dearer = with_line(case, index, replace(case.lines[index], unit_price_micro_yuan=raised))
    before, after = benefit(tariff, case), benefit(tariff, dearer)

    assert before.person_fen <= after.person_fen
    assert before.cash_fen <= after.cash_fen
    assert after.person_fen - before.person_fen <= after.total_fen - before.total_fen


@given(tariffs(), cases, st.data())
def test_raising_a_quantity_lowers_what_the_person_pays_by_a_fen_at_most_and_only_under_a_limit(
    tariff: Tariff, case: Case, data: st.DataObject
) -> None:
    assume(case.lines)
    index = data.draw(st.integers(0, len(case.lines) - 1))
    line = case.lines[index]
    more = replace(line, quantity=line.quantity + data.draw(st.integers(1, 30)))
    before, after = benefit(tariff, case), benefit(tariff, with_line(case, index, more))

    slack = 0 if line.limit_price_micro_yuan is None else 1
    assert before.person_fen <= after.person_fen + slack


def test_the_fen_of_slack_under_a_limit_price_does_occur() -> None:
    tariff = Tariff(
        version_id="any",
        region_code="350500",
        document="none",
        unverified=True,
        valid_from=date(2023, 1, 1),
        valid_until=None,
        deductible=AnnualDeductible(ByPerson(0, 0)),
        ratio_bp=ByTier(9_000, 9_000, 9_000),
        retired_bonus_bp=0,
        cap_fen=ByPerson(1_000, 1_000),
        area_factor_bp=ByAreaStatus(),
    )
    standing = Standing(PersonType.ACTIVE, 1, AreaStatus.FILED)
    line = Line(1, 6_000, Category.A, limit_price_micro_yuan=4_000)
    one = Case((line,), standing, Funding())
    two = Case((replace(line, quantity=2),), standing, Funding())

    assert (benefit(tariff, one).person_fen, benefit(tariff, two).person_fen) == (1, 0)


def with_line(case: Case, index: int, line: Line) -> Case:
    return replace(case, lines=(*case.lines[:index], line, *case.lines[index + 1 :]))


@given(tariffs(), cases)
def test_returns_of_all_lines_equal_the_whole_settlement(tariff: Tariff, case: Case) -> None:
    result = benefit(tariff, case)
    shares = apportion_to_lines(result)

    assert [share.amount_fen for share in shares] == [line.amount_fen for line in result.lines]
    assert sum(share.deductible_fen for share in shares) == result.deductible_fen
    assert sum(share.pool_fen for share in shares) == result.pool_fen
    assert sum(share.account_fen for share in shares) == result.account_fen
    assert sum(share.cash_fen for share in shares) == result.cash_fen
    if shares:
        by_account = zip(*(share.family_accounts_fen for share in shares), strict=True)
        assert tuple(map(sum, by_account)) == result.family_accounts_fen


@given(tariffs(), cases)
def test_a_line_takes_no_fund_money_beyond_what_it_brought_into_scope(
    tariff: Tariff, case: Case
) -> None:
    result = benefit(tariff, case)

    for share, line in zip(apportion_to_lines(result), result.lines, strict=True):
        assert share.deductible_fen + share.pool_fen <= line.inscope_fen


@given(line_shares(), st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_returns_by_portions_add_up_to_the_line(share: LineShare, portions: list[int]) -> None:
    quantity, returned = sum(portions), 0
    back = []
    for portion in portions:
        back.append(return_of_line(share, quantity, returned, portion))
        returned += portion

    assert sum(part.amount_fen for part in back) == share.amount_fen
    assert sum(part.pool_fen for part in back) == share.pool_fen
    assert sum(part.account_fen for part in back) == share.account_fen
    assert sum(part.family_fen for part in back) == share.family_fen
    assert sum(part.cash_fen for part in back) == share.cash_fen
    assert sum(part.deductible_fen for part in back) == share.deductible_fen
    assert sum(part.own_fen for part in back) == share.own_fen
    assert sum(part.excess_fen for part in back) == share.excess_fen
    assert sum(part.first_self_pay_fen for part in back) == share.first_self_pay_fen
    assert sum(part.ratio_self_fen for part in back) == share.ratio_self_fen


@given(line_shares(), st.integers(1, 40), st.data())
def test_a_portion_is_what_its_quantity_took_to_a_few_fen(
    share: LineShare, quantity: int, data: st.DataObject
) -> None:
    before = data.draw(st.integers(0, quantity - 1))
    portion = data.draw(st.integers(1, quantity - before))
    back = return_of_line(share, quantity, before, portion)
    taken = (share.pool_fen, share.account_fen, share.cash_fen, share.deductible_fen)
    given_back = (back.pool_fen, back.account_fen, back.cash_fen, back.deductible_fen)
    for fen_taken, fen_back in zip(taken, given_back, strict=True):
        assert abs(fen_back - Fraction(fen_taken * portion, quantity)) < 4


@given(st.lists(fen, min_size=1, max_size=6), st.data())
def test_a_spread_never_takes_back_what_it_gave(weights: list[int], data: st.DataObject) -> None:
    whole = sum(weights)
    totals = sorted(data.draw(st.lists(st.integers(0, whole), min_size=2, max_size=6)))
    rows = [spread(total, weights) for total in totals]
    assert spread(whole, weights) == tuple(weights)
    for total, row in zip(totals, rows, strict=True):
        assert sum(row) == total
        assert all(0 <= part <= weight for part, weight in zip(row, weights, strict=True))
    for row, later in pairwise(rows):
        assert all(part <= grown for part, grown in zip(row, later, strict=True))


@given(fen, st.lists(fen, min_size=1, max_size=8))
def test_a_split_loses_nothing_and_rounds_each_part_by_less_than_one(
    total: int, weights: list[int]
) -> None:
    assume(sum(weights))
    parts = apportion(total, weights)

    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1


@given(st.integers(0, 10**18), st.integers(1, 10**9))
def test_rounding_agrees_with_exact_fractions(numerator: int, denominator: int) -> None:
    assert half_up(numerator, denominator) == nearest(Fraction(numerator, denominator))


def nearest(value: Fraction) -> int:
    """Round half up, written another way than the code under test."""
    below = floor(value)
    return below + 1 if value - below >= Fraction(1, 2) else below


def test_a_second_hand_written_calculation_agrees_on_a_thousand_random_cases() -> None:
    source = random.Random(20230101)

    for _ in range(1_000):
        tariff, case = random_tariff(source), random_case(source)
        assert figures(benefit(tariff, case)) == by_hand(tariff, case)


def figures(result: Benefit) -> dict[str, int]:
    return {
        "total": result.total_fen,
        "own": result.own_fen,
        "excess": result.excess_fen,
        "first": result.first_self_pay_fen,
        "inscope": result.inscope_fen,
        "deductible": result.deductible_fen,
        "pool": result.pool_fen,
        "ratio_self": result.ratio_self_fen,
        "person": result.person_fen,
        "account": result.account_fen,
        "family": result.family_fen,
        "cash": result.cash_fen,
    }


def by_hand(tariff: Tariff, case: Case) -> dict[str, int]:
    """The formula in exact fractions of a yuan, sharing no arithmetic with the domain."""
    sums = dict.fromkeys(("total", "own", "excess", "first", "inscope"), 0)
    for line in case.lines:
        for name, amount in line_by_hand(line).items():
            sums[name] += amount
    who, tier = case.standing.person_type, case.standing.issuing_tier
    retired = who is PersonType.RETIRED
    left = deductible_left_by_hand(tariff, case.standing)
    deductible = sums["inscope"] if sums["inscope"] < left else left
    base = sums["inscope"] - deductible
    ratio = Fraction(getattr(tariff.ratio_bp, f"tier_{tier}"), 10_000)
    ratio += Fraction(tariff.retired_bonus_bp, 10_000) if retired else 0
    area = case.standing.area_status
    assert area is not None
    factor = Fraction(getattr(tariff.area_factor_bp, area.value), 10_000)
    cap = tariff.cap_fen.retired if retired else tariff.cap_fen.active
    cap_left = cap - case.standing.used_cap_fen if cap > case.standing.used_cap_fen else 0
    pool = min(nearest(base * ratio * factor), cap_left)
    person = sums["total"] - pool
    account = min(case.funding.own_account_fen, person)
    family = min(sum(case.funding.family_accounts_fen), person - account)
    return sums | {
        "deductible": deductible,
        "pool": pool,
        "ratio_self": base - pool,
        "person": person,
        "account": account,
        "family": family,
        "cash": person - account - family,
    }


def line_by_hand(line: Line) -> dict[str, int]:
    price = Fraction(line.unit_price_micro_yuan, 1_000_000)
    total = nearest(line.quantity * price * 100)
    if line.category is Category.C or line.limited_use_unmet:
        return {"total": total, "own": total}
    excess = 0
    if line.limit_price_micro_yuan is not None:
        limit = nearest(line.quantity * Fraction(line.limit_price_micro_yuan, 1_000_000) * 100)
        excess = total - limit if total > limit else 0
    share = Fraction(line.first_self_pay_bp, 10_000) if line.category is Category.B else 0
    first = nearest((total - excess) * Fraction(share))
    return {"total": total, "excess": excess, "first": first, "inscope": total - excess - first}


def deductible_left_by_hand(tariff: Tariff, standing: Standing) -> int:
    match tariff.deductible:
        case AnnualDeductible(amount):
            whole = amount.retired if standing.person_type is PersonType.RETIRED else amount.active
            return max(whole - standing.used_deductible_fen, 0)
        case PerVisitDeductible(amount, maximum):
            visit: int = getattr(amount, f"tier_{standing.issuing_tier}")
            return max(min(visit, maximum - standing.used_deductible_fen), 0)


def random_tariff(source: random.Random) -> Tariff:
    def some() -> int:
        return source.choice((0, source.randrange(50_000), source.randrange(3_000_000)))

    annual = AnnualDeductible(ByPerson(some(), some()))
    per_visit = PerVisitDeductible(ByTier(some(), some(), some()), some())
    return Tariff(
        version_id="any",
        region_code="350500",
        document="none",
        unverified=True,
        valid_from=date(2023, 1, 1),
        valid_until=None,
        deductible=source.choice((annual, per_visit)),
        ratio_bp=ByTier(*(source.randrange(9_001) for _ in range(3))),
        retired_bonus_bp=source.randrange(1_001),
        cap_fen=ByPerson(some(), some()),
        area_factor_bp=ByAreaStatus(*(source.randrange(10_001) for _ in range(4))),
    )


def random_case(source: random.Random) -> Case:
    def some() -> int:
        return source.choice((0, source.randrange(50_000)))

    return Case(
        lines=tuple(random_line(source) for _ in range(source.randrange(1, 6))),
        standing=Standing(
            person_type=source.choice(list(PersonType)),
            issuing_tier=source.choice((1, 2, 3)),
            area_status=source.choice(list(AreaStatus)),
            used_deductible_fen=some(),
            used_cap_fen=some(),
        ),
        funding=Funding(some(), tuple(some() for _ in range(source.randrange(4)))),
    )


def random_line(source: random.Random) -> Line:
    price = source.choice((source.randrange(5_000), source.randrange(200_000_000)))
    return Line(
        quantity=source.choice((source.randrange(1, 60), source.randrange(1, 200_000))),
        unit_price_micro_yuan=price,
        category=source.choice(list(Category)),
        first_self_pay_bp=source.randrange(10_001),
        limit_price_micro_yuan=source.choice((None, source.randrange(2 * price + 1))),
        limited_use_unmet=source.random() < 0.1,
    )
