"""Family mutual aid: which allotments may be drawn on a day, in which order, up to which limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from rxoutflow.v1 import settlement_pb2
from rxoutflow_server.application.clearing.books import local_day
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.domain.family import Authorisation, Authorisations, Grant, grants
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.family import COLUMNS, load_authorisations
from support.invariants import check_accounts, read_region
from support.world import PERSON, World

BEGIN, END = date(2026, 3, 1), date(2026, 4, 1)
FIRST = Authorisation("SYN2", "SYN1", 1, 2, None, BEGIN, END)
SECOND = Authorisation("SYN3", "SYN1", 2, 1, None, BEGIN, None)
DAY = timedelta(days=1)


def nothing(under: Authorisation) -> int:
    return 0


# --- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (BEGIN - DAY, []),
        (BEGIN, [SECOND, FIRST]),
        (END - DAY, [SECOND, FIRST]),
        (END, [SECOND]),
    ],
)
def test_an_authorisation_holds_from_its_first_day_up_to_that_on_which_it_ends(
    day: date, expected: list[Authorisation]
) -> None:
    known = Authorisations([FIRST, SECOND])
    assert list(known.in_force("SYN1", day)) == expected
    assert known.in_force("SYN2", day) == ()


@pytest.mark.parametrize(
    ("limit", "drawn", "given"),
    [
        (None, 10**9, 300),
        (0, 0, 0),
        (299, 0, 299),
        (300, 0, 300),
        (301, 0, 300),
        (400, 101, 299),
        (400, 400, 0),
        (400, 401, 0),
    ],
)
def test_an_allotment_gives_what_it_holds_within_what_is_left_of_the_limit(
    limit: int | None, drawn: int, given: int
) -> None:
    under = replace(FIRST, limit_fen=limit)
    assert grants((300, 70), [under], lambda _: drawn) == (Grant(1, given),)


def test_allotments_are_granted_in_the_order_of_the_authorisations() -> None:
    in_force = Authorisations([FIRST, SECOND]).in_force("SYN1", BEGIN)
    assert grants((300, 70), in_force, nothing) == (Grant(2, 70), Grant(1, 300))
    assert grants((300,), in_force, nothing) == (Grant(1, 300),), "there is no second allotment"


# --- the file -------------------------------------------------------------------------------------


def file_with(folder: Path, *rows: str) -> Path:
    path = folder / "family.csv"
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n", encoding="utf-8")
    return path


ROW = "SYN2,SYN1,1,2,,2026-03-01,2026-04-01"
OPEN = "SYN3,SYN1,2,1,,2026-03-01,"


def test_a_file_of_authorisations_is_read_with_its_dates(tmp_path: Path) -> None:
    known = load_authorisations(file_with(tmp_path, ROW, OPEN))
    assert known.in_force("SYN1", BEGIN) == (SECOND, FIRST)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("syn2,SYN1,1,1,,2026-03-01,", "grantor_person_id"),
        ("SYN1,SYN1,1,1,,2026-03-01,", "grantor_person_id"),
        ("SYN2,,1,1,,2026-03-01,", "beneficiary_person_id"),
        ("SYN2,SYN1,0,1,,2026-03-01,", "allotment"),
        ("SYN2,SYN1,1,first,,2026-03-01,", "order"),
        ("SYN2,SYN1,1,1,-1,2026-03-01,", "limit_fen"),
        ("SYN2,SYN1,1,1,,2026-02-30,", "valid_from"),
        ("SYN2,SYN1,1,1,,20260301,", "valid_from"),
        ("SYN2,SYN1,1,1,,2026-03-01,2026-03-01", "valid_until"),
        ("SYN2,SYN1,1,1,,2026-03-01", "valid_until"),
    ],
)
def test_a_wrong_row_is_refused_by_row_and_column(tmp_path: Path, row: str, column: str) -> None:
    with pytest.raises(ReferenceDataError, match=f"row 3, column {column}") as refused:
        load_authorisations(file_with(tmp_path, OPEN, row))
    assert "SYN" not in str(refused.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("SYN4,SYN1,1,3,,2026-03-31,", "allotment 1 is authorised twice on 2026-03-31"),
        ("SYN4,SYN1,3,2,,2026-03-31,", "order 2 is given twice on 2026-03-31"),
    ],
)
def test_two_that_contradict_each_other_on_a_day_are_refused(
    tmp_path: Path, row: str, what: str
) -> None:
    with pytest.raises(ReferenceDataError, match=what):
        load_authorisations(file_with(tmp_path, ROW, row))
    load_authorisations(file_with(tmp_path, ROW, row.replace("2026-03-31", "2026-04-01")))


# --- a settlement ---------------------------------------------------------------------------------

HOME, DISPENSING, PAYER = "350200", "350500", "350100"


async def payer_with(allotments: tuple[int, ...], known: Sequence[Authorisation] | None) -> World:
    """A world whose payer has a person with only these allotments, and these authorisations."""
    world = World.create(HOME, DISPENSING, PAYER)
    tx_person = await world.person(PAYER)
    platform = world.platforms[PAYER]
    person = replace(
        tx_person, insured_person_id=PERSON, own_account_fen=0, family_accounts_fen=allotments
    )
    connection = platform.store.connection
    connection.execute("BEGIN")
    for table in ("account_openings", "benefit_openings", "insured_persons"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - the names stand here
    connection.execute("COMMIT")
    await platform.store.transact(lambda tx: tx.payer.add_person(person))
    authorise(world, known)
    return world


def authorise(world: World, known: Sequence[Authorisation] | None) -> None:
    family = None if known is None else Authorisations(known)
    # The platform's parts share one region, which a command never changes.
    object.__setattr__(world.platforms[PAYER].region, "family", family)


async def dispense(world: World) -> settlement_pb2.Amounts:
    """A handover that is quoted, held, recorded and paid; what was quoted."""
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    request = world.commit_request(DISPENSING, attempt, amounts)
    await world.commit(DISPENSING, request)
    await world.record(DISPENSING, world.record_request(DISPENSING, request.commitment))
    await world.settle()
    check_accounts(read_region(PAYER, world.platforms[PAYER].store.connection))
    return amounts


def word(world: World, allotment: int, order: int, **changes: object) -> Authorisation:
    """An authorisation that begins today."""
    today = local_day(world.clock.now)
    one = Authorisation(f"SYN-{allotment}", PERSON, allotment, order, None, today, None)
    return replace(one, **changes)  # type: ignore[arg-type] # any field, by name


async def left(world: World) -> tuple[int, ...]:
    return (await world.person(PAYER)).family_accounts_fen


async def test_without_a_file_allotments_are_drawn_as_they_stand() -> None:
    world = await payer_with((300, 200), None)
    assert (await dispense(world)).family_fen == 500
    assert await left(world) == (0, 0)


async def test_allotments_are_drawn_in_the_authorised_order_and_kept_apart() -> None:
    world = await payer_with((300, 10_000, 70), None)
    authorise(world, [word(world, 2, 9), word(world, 3, 1)])
    amounts = await dispense(world)
    assert amounts.family_fen > 70
    assert await left(world) == (300, 10_000 - (amounts.family_fen - 70), 0)


@pytest.mark.parametrize(
    ("begins", "ends", "drawn"), [(0, None, 300), (1, None, 0), (-1, 1, 300), (-1, 0, 0)]
)
async def test_the_day_of_dispensing_decides(begins: int, ends: int | None, drawn: int) -> None:
    world = await payer_with((300,), None)
    today = local_day(world.clock.now)
    until = None if ends is None else today + ends * DAY
    authorise(world, [word(world, 1, 1, valid_from=today + begins * DAY, valid_until=until)])
    assert (await dispense(world)).family_fen == drawn
    assert await left(world) == (300 - drawn,)


async def test_a_limit_holds_over_all_settlements_under_the_authorisation() -> None:
    world = await payer_with((10_000,), None)
    paid = (await dispense(world)).family_fen
    assert paid > 0
    authorise(world, [word(world, 1, 1, limit_fen=paid + 7)])
    assert (await dispense(world)).family_fen == 7, "what was drawn today counts"
    assert (await dispense(world)).family_fen == 0
    assert await left(world) == (10_000 - paid - 7,)


async def test_what_was_revoked_after_the_quote_is_not_drawn_by_the_hold() -> None:
    world = await payer_with((300,), None)
    _, code = await world.issue(HOME, PAYER)
    attempt = await world.claim(DISPENSING, code)
    amounts = await world.quote(DISPENSING, attempt)
    authorise(world, [])
    with pytest.raises(Refusal) as refused:
        await world.commit(DISPENSING, world.commit_request(DISPENSING, attempt, amounts))
    assert refused.value.reason is Reason.QUOTE_CHANGED
    assert await left(world) == (300,)
