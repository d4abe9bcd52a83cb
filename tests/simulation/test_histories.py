"""L11 on the simulation: what its clients heard is what one prescription can have said.

Every run is held to that; see ``run`` and the tests of the gate's seeds. Here it is shown that the
clients of a run are recorded, and that what none of them can have heard is found.
"""

from __future__ import annotations

import pytest

from simulation.histories import recorded
from simulation.plan import Parameters
from simulation.run import simulate
from support.history import Kind, NotSerialisable

SEED = 1001


def test_a_grant_too_many_in_a_run_is_found() -> None:
    with recorded() as recorder:
        simulate(Parameters(SEED))
    recorder.check()
    number = recorder.prescriptions()[0]
    for name in ("one too many", "and another"):
        call = recorder.begin(Kind.CLAIM, number, name, name)
        call.ok(attempt=name, lines={1: 1}, until=float("inf"))
    with pytest.raises(NotSerialisable):
        recorder.check()
