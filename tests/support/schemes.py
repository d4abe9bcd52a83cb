"""Schemes and tariffs with schemes, for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from rxoutflow_server.domain.tariff import (
    AnnualDeductible,
    ByAreaStatus,
    ByPerson,
    ByTier,
    Scheme,
    SchemeKind,
    Tariff,
)

DISEASE = "M03900"
LISTED, LISTED_TOO, UNLISTED = "A" * 23, "B" * 23, "C" * 23


def scheme(code: str = "S1", **changes: Any) -> Scheme:
    """90 % after 10.00 yuan, up to 500.00 yuan."""
    made = Scheme(
        scheme_code=code,
        name="a scheme",
        kind=SchemeKind.SPECIAL_DISEASE,
        document="none: a test's",
        disease_codes=frozenset({DISEASE}),
        drug_codes=frozenset({LISTED}),
        deductible=AnnualDeductible(ByPerson(1_000, 1_000)),
        ratio_bp=ByTier(9_000, 9_000, 9_000),
        retired_bonus_bp=0,
        cap_fen=ByPerson(50_000, 50_000),
        area_factor_bp=ByAreaStatus(),
    )
    return replace(made, **changes)


def tariff(*schemes: Scheme, **changes: Any) -> Tariff:
    """50 % after 100.00 yuan, up to 1,000.00 yuan, in ordinary care."""
    made = Tariff(
        version_id="350500-test",
        region_code="350500",
        document="none: a test's",
        unverified=True,
        valid_from=date(2026, 1, 1),
        valid_until=None,
        deductible=AnnualDeductible(ByPerson(10_000, 10_000)),
        ratio_bp=ByTier(5_000, 5_000, 5_000),
        retired_bonus_bp=0,
        cap_fen=ByPerson(100_000, 100_000),
        area_factor_bp=ByAreaStatus(),
        schemes=schemes,
    )
    return replace(made, **changes)
