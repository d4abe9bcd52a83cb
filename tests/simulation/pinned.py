"""Runs that once found a bug, and have to stay clean: each with what it was."""

from __future__ import annotations

from simulation.plan import Parameters

PINNED: dict[str, Parameters] = {
    "an event signed ahead of the other region's clock was set aside for good": Parameters(
        seed=64,
        prescriptions=2,
        visits=1,
        horizon=90.0,
        faults=(2,),
        without=frozenset({"clogs", "crashes", "cuts", "disk", "lost requests", "stragglers"}),
    ),
}
"""Parameters by the bug that they found."""
