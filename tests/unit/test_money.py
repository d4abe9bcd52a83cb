"""Rounding and splitting, against hand-computed figures."""

from __future__ import annotations

import pytest

from rxoutflow_server.domain.money import apportion, half_up, line_amount_fen, yuan


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        (0, 1, 0),
        (1, 2, 1),
        (3, 2, 2),
        (5, 2, 3),
        (49, 100, 0),
        (50, 100, 1),
        (51, 100, 1),
        (7, 1, 7),
    ],
)
def test_halves_round_up(numerator: int, denominator: int, expected: int) -> None:
    assert half_up(numerator, denominator) == expected


@pytest.mark.parametrize(("numerator", "denominator"), [(-1, 2), (1, 0), (1, -2)])
def test_a_fraction_that_is_negative_or_undefined_is_refused(
    numerator: int, denominator: int
) -> None:
    with pytest.raises(ValueError, match="non-negative fraction"):
        half_up(numerator, denominator)


def test_an_amount_beyond_the_precision_of_a_float_is_exact() -> None:
    assert line_amount_fen(10**12 + 1, 10**7 + 1) == 1_000_000_100_001_000


@pytest.mark.parametrize(
    ("quantity", "price", "expected"),
    [(6, 32_500_000, 19_500), (150_000, 350, 5_250), (1, 4_999, 0), (1, 5_000, 1)],
)
def test_a_line_amount_is_rounded_once(quantity: int, price: int, expected: int) -> None:
    assert line_amount_fen(quantity, price) == expected


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (0, (), ()),
        (0, (0, 0), (0, 0)),
        (10, (1, 1), (5, 5)),
        (10, (3, 3, 3), (4, 3, 3)),
        (11, (3, 3, 3), (4, 4, 3)),
        (100, (1, 2, 0), (33, 67, 0)),
        (7, (10, 0, 90), (1, 0, 6)),
    ],
)
def test_a_split_gives_the_largest_remainders_first_and_ties_to_the_earlier(
    total: int, weights: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert apportion(total, weights) == expected


@pytest.mark.parametrize(("total", "weights"), [(1, ()), (1, (0, 0)), (-1, (1,)), (1, (2, -1))])
def test_a_split_that_would_lose_or_invent_money_is_refused(
    total: int, weights: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"weight"):
        apportion(total, weights)


@pytest.mark.parametrize(
    ("micro_yuan", "text"),
    [(0, "0.00"), (350, "0.00035"), (1_500_000, "1.50"), (12_345_678, "12.345678")],
)
def test_a_price_is_shown_exactly(micro_yuan: int, text: str) -> None:
    assert yuan(micro_yuan) == text
