"""Schemes over three regions: held, set free, given back; and what a late change would mean."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import date, timedelta

import pytest

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.adjustment_report import COLUMNS, page, write_csv
from rxoutflow_server.application.payer import adjusting
from rxoutflow_server.application.payer.adjusting import Review, review
from rxoutflow_server.domain.benefit import Enrolment, SchemeShare
from rxoutflow_server.domain.settlement import Settlement
from rxoutflow_server.domain.tariff import ByTier, Tariff, Tariffs
from support.pki import NOW
from support.schemes import DISEASE, scheme
from support.world import DRUGS, PERSON, World, person

HOME, DISPENSING, PAYER = "350200", "350500", "320600"
LISTED = scheme(drug_codes=frozenset({DRUGS[0]}))
ENROLLED = replace(person(), enrolments=(Enrolment("S1"),))
TODAY = NOW.date()


@pytest.fixture
async def world() -> World:
    """The payer's person is enrolled in a scheme that lists the first of two drugs."""
    made = World.create(HOME, DISPENSING, PAYER)
    use_tariffs(made, replace(tariff_of(made), schemes=(LISTED,)))
    await made.platforms[PAYER].store.transact(lambda tx: tx.payer.save_person(ENROLLED))
    return made


def tariff_of(world: World) -> Tariff:
    return world.platforms[PAYER].region.tariffs.in_force(PAYER, TODAY)


def use_tariffs(world: World, *tariffs: Tariff) -> None:
    object.__setattr__(world.platforms[PAYER].region, "tariffs", Tariffs(tariffs))


async def committed(world: World, disease: str = DISEASE) -> tuple[str, SignedStatement]:
    """A commitment of two lines for which the payer holds money."""
    content = world.prescription(HOME, PAYER, lines=2)
    content.encounter.special_disease_code = disease
    code = await world.register(HOME, content)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    request = world.commit_request(DISPENSING, attempt, amounts)
    await world.commit(DISPENSING, request)
    return code, request.commitment


async def dispensed(world: World) -> SignedStatement:
    _, commitment = await committed(world)
    request = world.record_request(DISPENSING, commitment)
    await world.record(DISPENSING, request)
    await world.settle()
    return request.dispense_record


async def settlement(world: World) -> Settlement:
    (found,) = await world.platforms[PAYER].store.read(
        lambda tx: tx.payer.settlements_of_year(NOW.year)
    )
    return found


async def test_a_hold_uses_up_the_scheme_and_ordinary_care_each_for_its_own_lines(
    world: World,
) -> None:
    await committed(world)

    held = await settlement(world)
    # 30.00 each: 10.00 deductible and 90 % of the rest; 10.00 left of the deductible and 60 %.
    assert held.schemes == (SchemeShare("S1", (0,), 3_000, 1_000, 1_800),)
    assert (held.amounts.deductible_fen, held.amounts.pool_fen) == (2_000, 3_000)
    found = await world.person(PAYER)
    assert found.enrolments == (Enrolment("S1", 1_000, 1_800),)
    assert (found.used_deductible_fen, found.used_cap_fen) == (10_000, 1_200)


async def test_a_prescription_for_another_disease_uses_up_ordinary_care_only(world: World) -> None:
    await committed(world, "M01600")

    found = await world.person(PAYER)
    assert found.enrolments == (Enrolment("S1"),)
    assert found.used_cap_fen == 3_000


async def test_a_hold_that_is_set_free_restores_the_scheme(world: World) -> None:
    content = world.prescription(HOME, PAYER, lines=2)
    content.encounter.special_disease_code = DISEASE
    code = await world.register(HOME, content)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, amounts))
    assert await world.person(PAYER) != ENROLLED

    await world.release(DISPENSING, attempt)
    await world.settle()

    assert await world.person(PAYER) == ENROLLED


async def test_a_return_of_the_scheme_s_line_restores_the_scheme_alone(world: World) -> None:
    record = await dispensed(world)

    await world.take_back(DISPENSING, world.return_request(DISPENSING, record, {1: 20}))
    await world.settle()

    found = await world.person(PAYER)
    assert found.enrolments == (Enrolment("S1"),)
    assert (found.used_deductible_fen, found.used_cap_fen) == (10_000, 1_200)


async def test_returns_of_all_lines_restore_everything(world: World) -> None:
    record = await dispensed(world)

    for line in (1, 2):
        await world.take_back(DISPENSING, world.return_request(DISPENSING, record, {line: 20}))
        await world.settle()

    assert await world.person(PAYER) == ENROLLED
    assert (await settlement(world)).state == "reversed"


async def test_a_new_year_begins_with_nothing_used_of_the_scheme(world: World) -> None:
    await committed(world)
    world.clock.now += timedelta(days=400)

    found = (await world.person(PAYER)).in_year(world.clock.now.year)

    assert found.enrolments == (Enrolment("S1"),)


# --- a late change --------------------------------------------------------------------------------


def later_tariffs(world: World) -> Tariffs:
    """From today on the scheme pays all after its deductible, though it was told too late."""
    old = tariff_of(world)
    better = replace(LISTED, ratio_bp=ByTier(10_000, 10_000, 10_000))
    ended = replace(old, valid_until=TODAY)
    return Tariffs([ended, replace(old, version_id="late", valid_from=TODAY, schemes=(better,))])


async def reviewed(
    world: World, tariffs: Tariffs, *, tier: int | None = 3, begin: date = TODAY
) -> Review:
    return await world.platforms[PAYER].store.read(
        lambda tx: review(tx, PAYER, tariffs, lambda home, code: tier, begin, None)
    )


async def test_a_late_change_lists_what_settlements_would_be_and_changes_nothing(
    world: World,
) -> None:
    await dispensed(world)
    before = await world.person(PAYER), await settlement(world)
    found = await reviewed(world, later_tariffs(world))

    (adjustment,) = found.adjustments
    assert found.reviewed == 1
    assert adjustment.notes == ()
    assert adjustment.new_version == "late"
    assert adjustment.pool_difference_fen == 200
    assert before == (await world.person(PAYER), await settlement(world))


async def test_a_change_that_eats_a_cap_moves_the_settlements_after_it(world: World) -> None:
    await dispensed(world)
    world.clock.now += timedelta(minutes=5)
    await dispensed(world)
    capped = replace(
        later_tariffs(world).in_force(PAYER, TODAY),
        schemes=(replace(LISTED, cap_fen=replace(LISTED.cap_fen, active=2_500)),),
    )
    found = await reviewed(world, Tariffs([replace(tariff_of(world), valid_until=TODAY), capped]))

    # 18.00 as before, then 7.00 that are left of the new cap instead of 27.00.
    (second,) = found.adjustments
    assert found.reviewed == 2
    assert second.pool_difference_fen == -2_000


async def test_without_a_change_nothing_is_listed(world: World) -> None:
    await dispensed(world)
    found = await reviewed(world, Tariffs([tariff_of(world)]))

    assert (found.reviewed, found.adjustments) == (1, ())
    assert "1 settlements were computed again, 0 differ" in page(PAYER, found)


async def test_a_settlement_before_the_first_day_is_left_out(world: World) -> None:
    await dispensed(world)
    found = await reviewed(world, later_tariffs(world), begin=TODAY + timedelta(days=1))

    assert (found.reviewed, found.adjustments) == (0, ())


async def test_what_cannot_be_computed_again_says_so(world: World) -> None:
    record = await dispensed(world)
    (unknown_tier,) = (await reviewed(world, later_tariffs(world), tier=None)).adjustments
    assert unknown_tier.new is None
    assert unknown_tier.notes == (adjusting.INCOMPLETE,)

    (none_in_force,) = (
        await reviewed(world, Tariffs([replace(tariff_of(world), valid_until=TODAY)]))
    ).adjustments
    assert none_in_force.notes == (adjusting.NO_TARIFF,)

    await world.take_back(DISPENSING, world.return_request(DISPENSING, record, {1: 10}))
    await world.settle()
    (returned,) = (await reviewed(world, later_tariffs(world))).adjustments
    assert adjusting.PARTLY_RETURNED in returned.notes


async def test_a_person_whose_standing_changed_since_is_told_from_the_rest(world: World) -> None:
    await dispensed(world)
    found = await world.person(PAYER)
    moved = replace(found, enrolments=())
    await world.platforms[PAYER].store.transact(lambda tx: tx.payer.save_person(moved))
    (adjustment,) = (await reviewed(world, later_tariffs(world))).adjustments

    assert adjustment.notes == (adjusting.NOT_REPRODUCED,)


async def test_the_list_names_the_person_in_the_file_but_not_on_the_page(world: World) -> None:
    await dispensed(world)
    found = await reviewed(world, later_tariffs(world))
    file = io.StringIO()
    write_csv(file, found.adjustments)
    header, row = file.getvalue().splitlines()

    assert header == ",".join(COLUMNS)
    assert dict(zip(COLUMNS, row.split(","), strict=True)) | {"settlement_id": ""} == {
        "settlement_id": "",
        "prescription_number": found.adjustments[0].settlement.prescription_number,
        "insured_person_id": PERSON,
        "dispensing_region": DISPENSING,
        "day": TODAY.isoformat(),
        "state": "posted",
        "old_version": f"{PAYER}-test",
        "new_version": "late",
        "old_deductible_fen": "2000",
        "new_deductible_fen": "2000",
        "old_pool_fen": "3000",
        "new_pool_fen": "3200",
        "old_person_fen": "3000",
        "new_person_fen": "2800",
        "pool_difference_fen": "200",
        "notes": "",
    }
    text = page(PAYER, found)
    assert PERSON not in text
    assert "2.00 yuan more" in text
    assert "| 30.00 | 32.00 | 2.00 |" in text
