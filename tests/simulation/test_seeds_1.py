"""Part 1 of the gate's seeds; see ``shards``."""

from __future__ import annotations

import pytest

from simulation import shards
from support.board import Ran

PART = 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(shards.SHARDS))
def test_no_invariant_is_violated(number: int) -> None:
    assert shards.shard(PART, number).violations == ()


@pytest.mark.timeout(3600)
def test_enough_was_tried(ran: Ran) -> None:
    parts = [shards.shard(PART, number) for number in range(shards.SHARDS)]
    name = f"L3 simulation, part {PART + 1} of {shards.PARTS}"
    ran(f"{name}, seeds", sum(each.seeds for each in parts), shards.SEEDS_OF_GATE // shards.PARTS)
    ran(
        f"{name}, events", sum(each.events for each in parts), shards.EVENTS_OF_GATE // shards.PARTS
    )
    ran(
        f"L11 histories of the simulation, part {PART + 1} of {shards.PARTS}, all of them strictly "
        "serialisable: operations",
        sum(each.operations for each in parts),
        shards.OPERATIONS_OF_GATE // shards.PARTS,
    )


@pytest.mark.timeout(3600)
def test_nearly_every_transition_that_can_be_reached_is_reached(ran: Ran) -> None:
    missing, percent = shards.unreached(PART)
    assert percent >= shards.REACHED_PERCENT, missing
    name = f"L3 simulation, part {PART + 1} of {shards.PARTS}, per cent of transitions reached"
    ran(name, percent, shards.REACHED_PERCENT)
