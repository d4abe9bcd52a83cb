"""L11 on the simulation: what its clients heard is what one prescription can have said.

The runs are those of the simulation, with faults and crashes; here only the clients' side counts.
"""

from __future__ import annotations

import pytest

from simulation.histories import recorded
from simulation.plan import Parameters
from simulation.run import simulate
from support.board import Ran
from support.history import Kind, NotSerialisable

SEEDS = range(1001, 1013)
FLOOR = 400


def test_what_clients_hear_is_strictly_serialisable(ran: Ran) -> None:
    operations = 0
    for seed in SEEDS:
        with recorded() as recorder:
            result = simulate(Parameters(seed))
        assert not result.violation, f"seed {seed}: {result.violation}"
        operations += recorder.check()
    ran("L11 histories of the simulation, all strictly serialisable", operations, FLOOR)


def test_a_grant_too_many_in_a_run_is_found() -> None:
    with recorded() as recorder:
        simulate(Parameters(SEEDS[0]))
    recorder.check()
    number = recorder.prescriptions()[0]
    for name in ("one too many", "and another"):
        call = recorder.begin(Kind.CLAIM, number, name, name)
        call.ok(attempt=name, lines={1: 1}, until=float("inf"))
    with pytest.raises(NotSerialisable):
        recorder.check()
