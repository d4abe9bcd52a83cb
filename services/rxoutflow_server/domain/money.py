"""Exact arithmetic on money: rounding, splitting, and the amount of a line.

Everything is an integer: amounts in fen, unit prices in 10⁻⁶ yuan, ratios in basis points. Nothing
here makes a float, so nothing here loses a fen: the parts of a split always add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

WHOLE_BP = 10_000
"""One hundred per cent, in basis points."""

MICRO_YUAN_PER_FEN = 10_000
MICRO_YUAN_PER_YUAN = 1_000_000


def half_up(numerator: int, denominator: int) -> int:
    """Round a non-negative fraction to the nearest integer, halves up.

    Raises:
        ValueError: the numerator is negative or the denominator is not positive.
    """
    if numerator < 0 or denominator <= 0:
        raise ValueError(f"half_up takes a non-negative fraction, not {numerator}/{denominator}")
    return (2 * numerator + denominator) // (2 * denominator)


def line_amount_fen(quantity: int, unit_price_micro_yuan: int) -> int:
    """What a quantity costs, rounded once, to the fen."""
    return half_up(quantity * unit_price_micro_yuan, MICRO_YUAN_PER_FEN)


def apportion(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Split a total in proportion to weights, largest remainder first.

    The parts add up to the total; each is its exact share rounded down or up to the next integer;
    equal remainders are served in the order given, so the same input always gives the same split.
    A total no larger than the sum of the weights never gives a part larger than its weight.

    Raises:
        ValueError: something is negative, or a positive total has no weight to go to.
    """
    whole = sum(weights)
    if total < 0 or min(weights, default=0) < 0:
        raise ValueError("apportion takes a non-negative total and non-negative weights")
    if total == 0:
        return (0,) * len(weights)
    if whole == 0:
        raise ValueError(f"a total of {total} has no weight to go to")
    shares = [divmod(total * weight, whole) for weight in weights]
    parts = [share for share, _ in shares]
    by_remainder = sorted(range(len(parts)), key=lambda index: -shares[index][1])
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return tuple(parts)


def spread(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Split a total in proportion to weights, so that no part shrinks when the total grows.

    ``apportion`` cannot promise that. Here fen after fen goes to whoever is due next, which is the
    rule of Sainte-Laguë: the parts add up to the total, none is larger than its weight, and a total
    of all weights gives the weights themselves. So amounts that come back bit by bit never take
    anything away again. Who is due at the same time is served in the order given.

    Raises:
        ValueError: something is negative, or the total is more than all weights together.
    """
    whole = sum(weights)
    if min(weights, default=0) < 0 or not 0 <= total <= whole:
        raise ValueError("spread takes non-negative weights and a total of at most their sum")
    if total == 0:
        return (0,) * len(weights)
    parts = [half_up(total * weight, whole) for weight in weights]
    while sum(parts) > total:
        served = [index for index, part in enumerate(parts) if part]
        parts[max(served, key=lambda index: _due(index, parts[index], weights))] -= 1
    while sum(parts) < total:
        waiting = [index for index, part in enumerate(parts) if part < weights[index]]
        parts[min(waiting, key=lambda index: _due(index, parts[index] + 1, weights))] += 1
    return tuple(parts)


def _due(index: int, nth: int, weights: Sequence[int]) -> tuple[Fraction, int]:
    """When the nth fen of a part is due, and its place among those that are due then."""
    return Fraction(2 * nth - 1, weights[index]), index


def yuan(micro_yuan: int) -> str:
    """A unit price for people, exact, with two decimals or as many as it needs."""
    whole, part = divmod(micro_yuan, MICRO_YUAN_PER_YUAN)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{decimals}"


def percent(basis_points: int) -> str:
    """A share for people, exact, without decimals where it needs none."""
    whole, part = divmod(basis_points, 100)
    return f"{whole}.{part:02d} %" if part else f"{whole} %"
