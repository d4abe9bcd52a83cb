"""The seeds of the gate, in parts: a file of tests for each part, so that parts run side by side.

A part is run once a process, whoever asks for it: the tests of single shards, which say where
something went wrong, and the test of what all shards of the part reached together.
"""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context

from simulation import coverage
from simulation.plan import Parameters
from simulation.run import Result, simulate

PARTS, SHARDS, SEEDS = 2, 8, 95
"""Parts, shards of a part, seeds of a shard: 1,520 seeds in all."""

SEEDS_OF_GATE, EVENTS_OF_GATE = 1_500, 3_000_000
OPERATIONS_OF_GATE = 50_000
REACHED_PERCENT = 95

_TOGETHER = 5
"""Seeds after which what they left is cleared away; looking for it meanwhile costs more."""


@dataclass(frozen=True)
class Shard:
    """What came of some seeds."""

    seeds: int
    events: int
    operations: int
    violations: tuple[str, ...]
    pairs: Counter[coverage.Pair]


@cache
def shard(part: int, number: int) -> Shard:
    """Run a shard, or say again what came of it.

    In a process of its own, so that nothing that other tests have left behind is in its way.
    """
    first = (part * SHARDS + number) * SEEDS
    with get_context("spawn").Pool(1) as alone:
        return alone.apply(_run, (first,))


def _run(first: int) -> Shard:
    results = [_simulated(seed) for seed in range(first, first + SEEDS)]
    pairs: Counter[coverage.Pair] = Counter()
    for result in results:
        pairs += result.pairs
    return Shard(
        len(results),
        sum(result.events for result in results),
        sum(result.operations for result in results),
        tuple(
            f"{result.parameters}: {result.violation} (make sim SEED={result.parameters.seed})"
            for result in results
            if result.violation
        ),
        pairs,
    )


def _simulated(seed: int) -> Result:
    gc.disable()
    if seed % _TOGETHER == 0:
        gc.collect()
    return simulate(Parameters(seed))


def unreached(part: int) -> tuple[list[coverage.Pair], int]:
    """The pairs that a part did not reach, and how many per cent it did reach."""
    pairs: Counter[coverage.Pair] = Counter()
    for number in range(SHARDS):
        pairs += shard(part, number).pairs
    wanted = coverage.reachable()
    missing = sorted(pair for pair in wanted if not pairs[pair])
    return missing, 100 * (len(wanted) - len(missing)) // len(wanted)
