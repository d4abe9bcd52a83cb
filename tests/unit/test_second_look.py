"""R23 on real evidence: what a region kept on a day, looked at beside the running service."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from rxoutflow_server.application.region import LOCAL_TIME
from rxoutflow_server.application.second_look import suspicions_of_day
from rxoutflow_server.domain.suspicions import Pattern, Suspicion, Thresholds
from support.world import World

HOME, ELSEWHERE = "350200", "350500"
LOW = Thresholds(encounter_prescriptions=2, prescriptions_an_hour=3, early_refill_days=1)


def looked_at(world: World, days: int = 0) -> list[Suspicion]:
    platform = world.platforms[HOME]
    day = world.clock.now.astimezone(LOCAL_TIME).date() + timedelta(days=days)
    return asyncio.run(
        platform.store.read(
            lambda tx: suspicions_of_day(tx, platform.region.listed_signer, day, LOW)
        )
    )


def test_one_visit_on_two_sheets_is_found_at_home() -> None:
    world = World.create(HOME, ELSEWHERE)

    async def issue_twice() -> tuple[str, str]:
        first, _ = await world.issue(HOME, ELSEWHERE)
        second, _ = await world.issue(HOME, ELSEWHERE)
        return first, second

    numbers = asyncio.run(issue_twice())

    split = [each for each in looked_at(world) if each.pattern is Pattern.SPLIT_ENCOUNTER]
    assert [set(each.prescription_numbers) for each in split] == [set(numbers)]


def test_what_happened_on_another_day_is_not_reported() -> None:
    world = World.create(HOME, ELSEWHERE)
    asyncio.run(world.issue(HOME, ELSEWHERE))
    asyncio.run(world.issue(HOME, ELSEWHERE))

    assert looked_at(world, days=1) == []
    assert looked_at(world, days=-1) == []


def test_an_early_refill_is_seen_by_what_was_prescribed_before() -> None:
    world = World.create(HOME, ELSEWHERE)
    first, _ = asyncio.run(world.issue(HOME, ELSEWHERE))
    world.clock.now += timedelta(days=3)
    second, _ = asyncio.run(world.issue(HOME, ELSEWHERE))

    early = [each for each in looked_at(world) if each.pattern is Pattern.EARLY_REFILL]

    assert [each.prescription_numbers for each in early] == [(first, second)]
    assert "4 days of supply left" in early[0].words
