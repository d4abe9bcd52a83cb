"""Facts that were signed by a clock that was ahead: they arrive once time has caught up."""

from __future__ import annotations

from datetime import timedelta

from rxoutflow_server.storage.tables.transaction import PlatformTables
from support.world import World

HOME, PAYER = "350200", "320600"


async def test_a_fact_signed_ahead_of_the_other_regions_clock_is_sent_again_until_it_is_taken() -> (
    None
):
    world = World.create(HOME, PAYER)
    now = world.clock.now
    world.clock.now = now + timedelta(minutes=20)
    await world.issue(home=HOME, payer=PAYER)
    platform = world.platforms[HOME]

    world.clock.now = now
    _make_due(world)
    await world.deliver_from(HOME)
    assert await world.dead_events(HOME) == []
    assert platform.store.connection.execute("SELECT state FROM outbox").fetchall() == [
        ("pending",)
    ]

    world.clock.now = now + timedelta(minutes=25)
    await world.deliver_from(HOME)
    assert platform.store.connection.execute("SELECT state FROM outbox").fetchall() == []
    index = PlatformTables(world.platforms[PAYER].store.connection).payer.indexed("TEST0001")
    assert len(index) == 1


def _make_due(world: World) -> None:
    """The sender's clock has been set back as well; its outbox is asked all the same."""
    connection = world.platforms[HOME].store.connection
    connection.execute("UPDATE outbox SET next_try_time = 0")
