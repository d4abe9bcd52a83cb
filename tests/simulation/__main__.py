"""Replays one seed, or runs many: ``make sim SEED=n`` and ``make sim SEEDS=2000 START=0``.

One seed: the last part of its trace, the trace's hash, and the verdict. Many: progress, every
violation with its seed, what was reached, and for the first violation a smaller run that fails
alike. The exit status tells whether everything held.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from simulation import coverage
from simulation.plan import Parameters
from simulation.run import Result, simulate
from simulation.shrink import shrunk

_CHUNK = 4


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="replay this seed")
    parser.add_argument("--tail", type=int, default=60, help="lines of its trace to show")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        sys.exit(_replay(Parameters(arguments.seed), arguments.tail))
    sys.exit(_many(range(arguments.start, arguments.start + arguments.seeds), arguments.jobs))


def _replay(parameters: Parameters, tail: int) -> int:
    result = simulate(parameters)
    _say("\n".join(result.tail[-tail:]))
    _say(f"{result.events:,} events in {result.seconds:.0f} seconds of virtual time")
    _say(f"trace {result.hash}")
    _say(f"VIOLATION {result.violation}\n{result.details}" if result.violation else "held")
    return int(bool(result.violation))


def _many(seeds: range, jobs: int) -> int:
    pairs: Counter[coverage.Pair] = Counter()
    kinds: Counter[str] = Counter()
    failed: list[Result] = []
    for done, result in enumerate(_results(seeds, jobs), 1):
        pairs += result.pairs
        kinds += result.kinds
        if result.violation:
            failed.append(result)
            _say(f"VIOLATION {result.parameters}: {result.violation}")
        if done % 50 == 0 or done == len(seeds):
            _say(f"{done} of {len(seeds)} seeds, {kinds.total():,} events, {len(failed)} violated")
    _say(coverage.table(pairs))
    _say(", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items())))
    if failed:
        small = shrunk(failed[0])
        _say(f"smaller: {small.parameters}: {small.violation}")
    return int(bool(failed))


def _results(seeds: range, jobs: int) -> Iterator[Result]:
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(simulate, map(Parameters, seeds), chunksize=_CHUNK)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
