"""How many cases a layer of tests ran, and how many it had to run.

    def test_something(ran: Ran) -> None:
        ...
        ran("L8 authority matrix", cases, 3_000)

The run's end prints the figures: see ``tests/conftest.py``.
"""

from __future__ import annotations

from collections.abc import Callable

Ran = Callable[[str, int, int], None]
"""Reports what ran, how many cases of it, and the least that had to; fails below that."""


def reporter(record_property: Callable[[str, object], None]) -> Ran:
    """What the fixture ``ran`` is."""

    def ran(what: str, cases: int, floor: int) -> None:
        assert cases >= floor, f"{what}: ran {cases} cases, must run at least {floor}"
        record_property("floor", f"{what}: {cases:,} (at least {floor:,})")

    return ran
