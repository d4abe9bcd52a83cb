"""What holds for every settlement with schemes and account rules."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date
from fractions import Fraction
from math import floor

from hypothesis import assume, given
from hypothesis import strategies as st

from rxoutflow_server.domain.benefit import (
    Case,
    Category,
    Enrolment,
    Funding,
    Line,
    Standing,
    apportion_to_lines,
    benefit,
)
from rxoutflow_server.domain.settlement import use_of_lines
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
    Scheme,
    SchemeKind,
    Tariff,
)

DISEASES, DRUGS, SCHEMES = ("D1", "D2"), ("1", "2", "3", "4"), ("S1", "S2", "S3")

fen = st.one_of(st.integers(0, 300), st.integers(0, 3_000_000))
basis_points = st.integers(0, 10_000)
lines = st.builds(
    Line,
    quantity=st.integers(1, 30),
    unit_price_micro_yuan=st.one_of(st.integers(0, 60_000), st.integers(0, 500_000_000)),
    category=st.sampled_from(Category),
    first_self_pay_bp=basis_points,
    limit_price_micro_yuan=st.none() | st.integers(0, 500_000_000),
    limited_use_unmet=st.booleans(),
    drug_code=st.sampled_from(("", *DRUGS)),
)


def subsets(choices: tuple[str, ...] | tuple[Part, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(choices))


@st.composite
def terms(draw: st.DrawFn) -> dict[str, object]:
    bonus = draw(basis_points)
    ratio = st.integers(0, 10_000 - bonus)
    annual = st.builds(AnnualDeductible, st.builds(ByPerson, fen, fen))
    per_visit = st.builds(PerVisitDeductible, st.builds(ByTier, fen, fen, fen), fen)
    return {
        "deductible": draw(annual | per_visit),
        "ratio_bp": ByTier(draw(ratio), draw(ratio), draw(ratio)),
        "retired_bonus_bp": bonus,
        "cap_fen": ByPerson(draw(fen), draw(fen)),
        "area_factor_bp": ByAreaStatus(*(draw(basis_points) for _ in range(4))),
    }


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    return a_tariff(
        draw(terms()),
        [
            (code, draw(subsets(DISEASES)) or {"D1"}, draw(subsets(DRUGS)) or {"1"}, draw(terms()))
            for code in SCHEMES[: draw(st.integers(0, 3))]
        ],
        AccountRules(draw(subsets(tuple(Part))), draw(subsets(tuple(Part)))),  # type: ignore[arg-type] # subsets of parts
    )


def a_tariff(ordinary: dict, schemes: list, accounts: AccountRules) -> Tariff:  # type: ignore[type-arg] # keyword tables
    return Tariff(
        version_id="any",
        region_code="350500",
        document="none",
        unverified=True,
        valid_from=date(2023, 1, 1),
        valid_until=None,
        schemes=tuple(
            Scheme(
                scheme_code=code,
                name=code,
                kind=SchemeKind.SPECIAL_DISEASE,
                document="none",
                disease_codes=frozenset(diseases),
                drug_codes=frozenset(drugs),
                **own,
            )
            for code, diseases, drugs, own in schemes
        ),
        accounts=accounts,
        **ordinary,
    )


enrolments = st.lists(
    st.builds(Enrolment, st.sampled_from(SCHEMES), fen, fen),
    max_size=3,
    unique_by=lambda each: each.scheme_code,
)
cases = st.builds(
    Case,
    lines=st.lists(lines, max_size=6).map(tuple),
    standing=st.builds(
        Standing,
        person_type=st.sampled_from(PersonType),
        issuing_tier=st.sampled_from((1, 2, 3)),
        area_status=st.none() | st.sampled_from(AreaStatus),
        used_deductible_fen=fen,
        used_cap_fen=fen,
        enrolments=enrolments.map(tuple),
    ),
    funding=st.builds(Funding, fen, st.lists(fen, max_size=3).map(tuple)),
    special_disease_code=st.sampled_from(("", *DISEASES)),
)


@given(tariffs(), cases)
def test_a_settlement_is_the_sum_of_its_schemes_and_ordinary_care(
    tariff: Tariff, case: Case
) -> None:
    result = benefit(tariff, case)
    shares = (result.ordinary, *result.schemes)

    assert sorted(i for share in shares for i in share.lines) == list(range(len(case.lines)))
    assert sum(share.inscope_fen for share in shares) == result.inscope_fen
    assert sum(share.deductible_fen for share in shares) == result.deductible_fen
    assert sum(share.pool_fen for share in shares) == result.pool_fen
    outside = result.own_fen + result.excess_fen + result.first_self_pay_fen
    covered = result.deductible_fen + result.pool_fen + result.ratio_self_fen
    assert result.total_fen == outside + covered
    paid = result.pool_fen + result.account_fen + result.family_fen + result.cash_fen
    assert result.total_fen == paid
    assert result.cash_fen >= 0


@given(tariffs(), cases)
def test_no_scheme_pays_beyond_its_cap_nor_deducts_beyond_what_is_left(
    tariff: Tariff, case: Case
) -> None:
    result = benefit(tariff, case)
    used = {each.scheme_code: each for each in case.standing.enrolments}

    for share in result.schemes:
        scheme, enrolment = tariff.scheme(share.scheme_code), used[share.scheme_code]
        assert scheme is not None
        cap = scheme.cap_fen.of(case.standing.person_type)
        assert share.pool_fen <= max(0, cap - enrolment.used_cap_fen)
        assert share.deductible_fen <= deductible_by_hand(
            scheme, case.standing, enrolment.used_deductible_fen
        )


@given(tariffs(), cases, st.data())
def test_raising_a_price_never_lowers_what_the_person_pays_in_whole_or_in_cash(
    tariff: Tariff, case: Case, data: st.DataObject
) -> None:
    assume(case.lines)
    index = data.draw(st.integers(0, len(case.lines) - 1))
    line = case.lines[index]
    raised = line.unit_price_micro_yuan + data.draw(st.integers(1, 100_000))
    dearer = replace(line, unit_price_micro_yuan=raised)
    changed = replace(case, lines=(*case.lines[:index], dearer, *case.lines[index + 1 :]))
    before, after = benefit(tariff, case), benefit(tariff, changed)

    assert before.person_fen <= after.person_fen
    assert before.cash_fen <= after.cash_fen


@given(tariffs(), cases)
def test_returns_of_all_lines_equal_the_whole_settlement_in_every_source_and_scheme(
    tariff: Tariff, case: Case
) -> None:
    result = benefit(tariff, case)
    shares = apportion_to_lines(result)

    assert [share.amount_fen for share in shares] == [line.amount_fen for line in result.lines]
    assert sum(share.account_fen for share in shares) == result.account_fen
    assert sum(share.cash_fen for share in shares) == result.cash_fen
    for index, drawn in enumerate(result.family_accounts_fen):
        assert sum(share.family_accounts_fen[index] for share in shares) == drawn * bool(shares)
    restored = use_of_lines(shares)
    for part in (result.ordinary, *result.schemes):
        expected = (part.deductible_fen, part.pool_fen)
        assert restored.get(part.scheme_code, (0, 0)) == expected


@given(tariffs(), cases)
def test_no_line_gives_an_account_more_than_the_parts_of_it_that_the_account_may_pay(
    tariff: Tariff, case: Case
) -> None:
    rules = tariff.accounts
    for share in apportion_to_lines(benefit(tariff, case)):
        parts = {
            Part.OWN: share.own_fen,
            Part.EXCESS: share.excess_fen,
            Part.FIRST_SELF_PAY: share.first_self_pay_fen,
            Part.DEDUCTIBLE: share.deductible_fen,
            Part.RATIO_SELF: share.ratio_self_fen,
        }
        assert share.account_fen <= sum(parts[part] for part in rules.own)
        assert share.family_fen <= sum(parts[part] for part in rules.family)
        either = rules.own | rules.family
        assert share.account_fen + share.family_fen <= sum(parts[part] for part in either)


@given(tariffs(), cases)
def test_accounts_leave_no_cash_that_they_could_have_paid(tariff: Tariff, case: Case) -> None:
    result = benefit(tariff, case)
    own, family = case.funding.own_account_fen, sum(case.funding.family_accounts_fen)
    parts = (
        result.own_fen,
        result.excess_fen,
        result.first_self_pay_fen,
        result.deductible_fen,
        result.ratio_self_fen,
    )

    paid = result.account_fen + result.family_fen
    assert paid == most_by_hand(tariff.accounts, parts, own, family)


def most_by_hand(rules: AccountRules, parts: tuple[int, ...], own: int, family: int) -> int:
    """The most that two purses can pay of parts, each of some: the smallest cut between them."""
    cuts = []
    for with_own in (False, True):
        for with_family in (False, True):
            reached = (rules.own if with_own else set()) | (rules.family if with_family else set())
            cut = sum(fen for part, fen in zip(Part, parts, strict=True) if part in reached)
            cut += (0 if with_own else own) + (0 if with_family else family)
            cuts.append(cut)
    return min(cuts)


def test_a_second_hand_written_calculation_agrees_on_a_thousand_random_scheme_cases() -> None:
    source = random.Random(20260101)
    covered = 0

    for _ in range(1_000):
        tariff, case = random_tariff(source), random_case(source)
        result = benefit(tariff, case)
        by_scheme = {share.scheme_code: share for share in (result.ordinary, *result.schemes)}
        expected = by_hand(tariff, case)
        covered += len(expected) > 1
        assert {
            code: (share.inscope_fen, share.deductible_fen, share.pool_fen)
            for code, share in by_scheme.items()
        } == expected
    assert covered >= 300


def nearest(value: Fraction) -> int:
    below = floor(value)
    return below + 1 if value - below >= Fraction(1, 2) else below


def by_hand(tariff: Tariff, case: Case) -> dict[str, tuple[int, int, int]]:
    """Inscope, deductible and pool of each scheme, in fractions, line by line."""
    inscope: dict[str, int] = {"": 0}
    for line in case.lines:
        code = scheme_by_hand(tariff, case, line)
        inscope[code] = inscope.get(code, 0) + inscope_by_hand(line)
    found = {}
    for code, amount in inscope.items():
        rules = tariff if code == "" else tariff.scheme(code)
        used = next(
            ((e.used_deductible_fen, e.used_cap_fen) for e in case.standing.enrolments
             if e.scheme_code == code),
            (case.standing.used_deductible_fen, case.standing.used_cap_fen),
        )  # fmt: skip
        assert rules is not None
        deductible = min(amount, deductible_by_hand(rules, case.standing, used[0]))
        share = Fraction(getattr(rules.ratio_bp, f"tier_{case.standing.issuing_tier}"), 10_000)
        retired = case.standing.person_type is PersonType.RETIRED
        share += Fraction(rules.retired_bonus_bp, 10_000) if retired else 0
        if case.standing.area_status is not None:
            share *= Fraction(getattr(rules.area_factor_bp, case.standing.area_status), 10_000)
        cap = rules.cap_fen.retired if retired else rules.cap_fen.active
        pool = min(nearest((amount - deductible) * share), max(0, cap - used[1]))
        found[code] = (amount, deductible, pool)
    return found


def scheme_by_hand(tariff: Tariff, case: Case, line: Line) -> str:
    enrolled = {each.scheme_code for each in case.standing.enrolments}
    for scheme in tariff.schemes:
        if (
            scheme.scheme_code in enrolled
            and case.special_disease_code in scheme.disease_codes
            and line.drug_code in scheme.drug_codes
        ):
            return scheme.scheme_code
    return ""


def inscope_by_hand(line: Line) -> int:
    total = nearest(line.quantity * Fraction(line.unit_price_micro_yuan, 10_000))
    if line.category is Category.C or line.limited_use_unmet:
        return 0
    within = total
    if line.limit_price_micro_yuan is not None:
        within = min(total, nearest(line.quantity * Fraction(line.limit_price_micro_yuan, 10_000)))
    share = Fraction(line.first_self_pay_bp, 10_000) if line.category is Category.B else Fraction(0)
    return within - nearest(within * share)


def deductible_by_hand(rules: Tariff | Scheme, standing: Standing, used: int) -> int:
    match rules.deductible:
        case AnnualDeductible(amount):
            retired = standing.person_type is PersonType.RETIRED
            return max((amount.retired if retired else amount.active) - used, 0)
        case PerVisitDeductible(amount, maximum):
            visit: int = getattr(amount, f"tier_{standing.issuing_tier}")
            return max(min(visit, maximum - used), 0)


def random_tariff(source: random.Random) -> Tariff:
    schemes = [
        (
            code,
            source.sample(DISEASES, source.randrange(1, 3)),
            source.sample(DRUGS, source.randrange(1, 4)),
            random_terms(source),
        )
        for code in SCHEMES[: source.randrange(1, 4)]
    ]
    return a_tariff(random_terms(source), schemes, AccountRules())


def random_terms(source: random.Random) -> dict[str, object]:
    def some() -> int:
        return source.choice((0, source.randrange(5_000), source.randrange(300_000)))

    annual = AnnualDeductible(ByPerson(some(), some()))
    per_visit = PerVisitDeductible(ByTier(some(), some(), some()), some())
    return {
        "deductible": source.choice((annual, per_visit)),
        "ratio_bp": ByTier(*(source.randrange(9_001) for _ in range(3))),
        "retired_bonus_bp": source.randrange(1_001),
        "cap_fen": ByPerson(some(), some()),
        "area_factor_bp": ByAreaStatus(*(source.randrange(10_001) for _ in range(4))),
    }


def random_case(source: random.Random) -> Case:
    def some() -> int:
        return source.choice((0, source.randrange(5_000)))

    enrolled = source.sample(SCHEMES, source.randrange(4))
    return Case(
        lines=tuple(random_line(source) for _ in range(source.randrange(1, 6))),
        standing=Standing(
            person_type=source.choice(list(PersonType)),
            issuing_tier=source.choice((1, 2, 3)),
            area_status=source.choice((None, *AreaStatus)),
            used_deductible_fen=some(),
            used_cap_fen=some(),
            enrolments=tuple(Enrolment(code, some(), some()) for code in enrolled),
        ),
        funding=Funding(some(), (some(),)),
        special_disease_code=source.choice(DISEASES),
    )


def random_line(source: random.Random) -> Line:
    price = source.choice((source.randrange(5_000), source.randrange(200_000_000)))
    return Line(
        quantity=source.randrange(1, 60),
        unit_price_micro_yuan=price,
        category=source.choice(list(Category)),
        first_self_pay_bp=source.randrange(10_001),
        limit_price_micro_yuan=source.choice((None, source.randrange(2 * price + 1))),
        limited_use_unmet=source.random() < 0.1,
        drug_code=source.choice(DRUGS),
    )
