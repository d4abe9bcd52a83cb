"""Runs that once found a bug, and have to stay clean: each with what it was.

Each comes with a plant that brings the bug back. A run that does not find it any more, because
plans are drawn in another way by now, is noticed by that: find the bug anew, and let
``shrink.shrunk`` make it small.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulation.plan import Parameters
from simulation.plants import Plant, replaced


@dataclass(frozen=True)
class Pinned:
    """A run, and the bug that it found."""

    parameters: Parameters
    bug: Plant


PINNED: dict[str, Pinned] = {
    "an event signed ahead of the other region's clock was set aside for good": Pinned(
        Parameters(
            seed=64,
            prescriptions=2,
            visits=1,
            horizon=90.0,
            faults=(2,),
            without=frozenset({"clogs", "crashes", "cuts", "disk", "lost requests", "stragglers"}),
        ),
        Plant(
            [
                replaced(
                    "rxoutflow_server.application.exchange.outbox:_is_ahead",
                    lambda _: lambda error: False,
                )
            ],
            within=1,
        ),
    ),
}
"""Runs by the bug that they found."""
