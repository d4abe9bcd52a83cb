"""Making a failing run small: as little as fails in the same way.

Prescriptions, visits, time, kinds of faults and single faults are taken away as long as a violation
of the same invariant remains. The result is a ``Parameters`` that anybody can run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simulation.plan import KINDS, Parameters
from simulation.run import Result, simulate

MOST_RUNS = 150
"""Runs that are spent on one failure."""


def shrunk(failing: Result, most: int = MOST_RUNS) -> Result:
    """The smallest run that was found to fail as the given one does."""
    best, left = failing, most
    improved = True
    while improved and left > 0:
        improved = False
        for smaller in _smaller(best):
            left -= 1
            result = simulate(smaller)
            if _same(result, failing):
                best, improved = result, True
                break
            if left <= 0:
                break
    return best


def _same(one: Result, other: Result) -> bool:
    return bool(one.violation) and _kind(one) == _kind(other)


def _kind(result: Result) -> str:
    """The exception and, of a violation, the number of the invariant."""
    return ":".join(result.violation.split(":")[:2])[:20]


def _smaller(result: Result) -> Iterator[Parameters]:
    """What might fail as well, the largest steps first."""
    best = result.parameters
    faults = best.faults if best.faults is not None else tuple(range(result.faults))
    if faults:
        yield replace(best, faults=())
    for kind in KINDS:
        if kind in result.kinds_of_faults and kind not in best.without:
            yield replace(best, without=best.without | {kind}, faults=None)
    half = len(faults) // 2
    if half:
        yield replace(best, faults=faults[half:])
        yield replace(best, faults=faults[:half])
    count = result.prescriptions
    for fewer in dict.fromkeys((1, count // 2, count - 1)):
        if 0 < fewer < count:
            yield replace(best, prescriptions=fewer)
    if best.visits != 1:
        yield replace(best, visits=1)
    horizon = result.horizon
    if horizon > 20:
        yield replace(best, horizon=horizon / 2)
    if len(faults) <= 12:
        for index in range(len(faults)):
            yield replace(best, faults=faults[:index] + faults[index + 1 :])
