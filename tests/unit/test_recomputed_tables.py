"""Every row that follows from evidence is computed again: found if it is another, and put right.

Whole lives of prescriptions, over one region, over two of which one dispenses and pays, and over
three. No store that only lived is ever under suspicion, whatever is still on its way; and what
documentation says is computed is what is computed.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from functools import cache
from pathlib import Path

import psycopg
import pytest

from rxoutflow_server.application.recompute.payer import Formula
from rxoutflow_server.storage.maintenance import Records, looking, writing
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.moving import move
from rxoutflow_server.storage.platform_stores import Database, StorePlace
from rxoutflow_server.storage.recomputing import Finding, Recomputation, Report
from rxoutflow_server.storage.scratch import Scratch
from support.adjudications import OVERDUE, adjudicate, decision
from support.postgres import fresh_schema
from support.world import PERSON, World

HOME, OTHER, PAYER = "350200", "350500", "320600"
SCHEMA = "computed"
STORAGE = Path(__file__).parents[2] / "docs" / "storage.md"

CONSTELLATIONS = {
    "one region": (HOME, HOME, HOME),
    "dispensing and payer in one": (HOME, OTHER, OTHER),
    "home and payer in one": (HOME, OTHER, HOME),
    "three regions": (HOME, OTHER, PAYER),
}


async def sold(
    world: World, dispensing: str, code: str, *returns: dict[int, int], insured: bool = True
) -> AsyncIterator[str]:
    """A handover, and what comes back of it; told before anything of it has arrived."""
    attempt = await world.claim(dispensing, code)
    amounts = await world.quote(dispensing, attempt) if insured else None
    request = world.commit_request(dispensing, attempt, amounts)
    await world.commit(dispensing, request)
    record = world.record_request(dispensing, request.commitment)
    await world.record(dispensing, record)
    yield "handed over"
    for lines in returns:
        await world.settle()
        world.clock.now += timedelta(hours=1)
        back = world.return_request(dispensing, record.dispense_record, lines)
        await world.take_back(dispensing, back)
        yield "taken back"


async def lives(world: World, home: str, dispensing: str, payer: str) -> AsyncIterator[str]:
    """What prescriptions go through; told after each step, with its events still waiting."""
    _, code = await world.issue(home, payer, lines=2)
    async for step in sold(world, dispensing, code, {1: 5}, {1: 3, 2: 20}):
        yield step
    _, code = await world.issue(home, payer)
    async for step in sold(world, dispensing, code, {1: 7}, {1: 2}, insured=False):
        yield step
    _, code = await world.issue(home, payer)
    attempt = await world.claim(dispensing, code)
    await world.release(dispensing, attempt)
    yield "released"
    await world.claim(dispensing, code)
    world.clock.now += timedelta(minutes=31)
    await world.expire_leases(home)
    yield "expired"
    number, code = await world.issue(home, payer)
    attempt = await world.claim(dispensing, code)
    request = world.commit_request(dispensing, attempt, await world.quote(dispensing, attempt))
    await world.commit(dispensing, request)
    await world.revoke(number)
    yield "wanted back"
    await world.correct(
        dispensing, world.correction_request(dispensing, number, request.request_id)
    )
    yield "corrected"
    silent = []
    for handed_over in (True, False):
        _, code = await world.issue(home, payer)
        attempt = await world.claim(dispensing, code)
        request = world.commit_request(dispensing, attempt, await world.quote(dispensing, attempt))
        await world.commit(dispensing, request)
        silent.append((handed_over, attempt, request.commitment))
    world.clock.now += OVERDUE
    for handed_over, attempt, commitment in silent:
        await adjudicate(world, decision(world, attempt, handed_over=handed_over))
        yield "adjudicated"
        if handed_over:
            await world.settle()
            await world.record(dispensing, world.record_request(dispensing, commitment))
            yield "recorded late"
    await world.issue(home, payer)
    yield "issued"


def formula(world: World, code: str) -> Formula:
    region = world.platforms[code].region

    def tier(home: str, institution_code: str) -> int | None:
        found = region.trust.region(home, world.clock.now).institution(institution_code)
        return found.tier if found is not None else None

    return Formula(code, region.tariffs, tier)


def suspicions(world: World) -> list[Finding]:
    return [
        finding
        for code, platform in world.platforms.items()
        for finding in Recomputation(Records.on(platform.store.connection), formula(world, code))
        .run()
        .findings
    ]


@pytest.mark.parametrize("constellation", CONSTELLATIONS)
async def test_a_life_is_never_under_suspicion_whatever_is_on_its_way(constellation: str) -> None:
    home, dispensing, payer = CONSTELLATIONS[constellation]
    world = World.create(*dict.fromkeys((home, dispensing, payer)))
    async for step in lives(world, home, dispensing, payer):
        assert suspicions(world) == [], step
        for code in world.platforms:
            await world.deliver_from(code)
            assert suspicions(world) == [], f"{step}; {code} has told the others"
        await world.settle()
        assert suspicions(world) == [], f"{step}, and everybody knows"


# --- what is otherwise ----------------------------------------------------------------------------


@cache
def lived(constellation: str) -> tuple[World, dict[str, bytes]]:
    return asyncio.run(_lived(*CONSTELLATIONS[constellation]))


async def _lived(home: str, dispensing: str, payer: str) -> tuple[World, dict[str, bytes]]:
    world = World.create(*dict.fromkeys((home, dispensing, payer)))
    async for _ in lives(world, home, dispensing, payer):
        await world.settle()
    stores = {code: each.store.connection.serialize() for code, each in world.platforms.items()}
    return world, stores


_ENTRY = (
    "INSERT INTO ledger_entries (prescription_number, settlement_id, book, movement, reversal_id,"
    " counterpart_code, pharmacy_code, mode, day, posted_day, total_fen, pool_fen, account_fen,"
    " family_fen, cash_fen) SELECT {}, book, movement, reversal_id, counterpart_code,"
    " pharmacy_code, mode, day, posted_day, total_fen, pool_fen, account_fen, family_fen, cash_fen"
    " FROM ledger_entries WHERE book = 'sales' AND movement = 'posting' LIMIT 1"
)
_INVENTED = "follows from nothing"
AT_THE_DISPENSER = {
    "more receivable": (
        "UPDATE ledger_entries SET pool_fen = pool_fen + 1, total_fen = total_fen + 1"
        " WHERE book = 'receivable'",
        "pool_fen is",
    ),
    "another owes it": (
        "UPDATE ledger_entries SET counterpart_code = '999999' WHERE book = 'receivable'",
        "counterpart_code is another",
    ),
    "a receivable forgotten": ("DELETE FROM ledger_entries WHERE book = 'receivable'", "missing"),
    "a sale cheaper": (
        "UPDATE ledger_entries SET cash_fen = cash_fen - 1, total_fen = total_fen - 1"
        " WHERE book = 'sales' AND movement = 'posting' AND mode = 'self_pay'",
        "cash_fen is",
    ),
    "a returned sale forgotten": (
        "DELETE FROM ledger_entries WHERE book = 'sales' AND movement = 'reversal'",
        "missing",
    ),
    "a sale invented": (_ENTRY.format("prescription_number, 'invented'"), _INVENTED),
    "a sale of nothing that is known": (_ENTRY.format("'invented', 'invented'"), _INVENTED),
    "something payable invented": (
        _ENTRY.replace("SELECT {}, book", "SELECT {}, 'payable'").format(
            "'invented', settlement_id"
        ),
        _INVENTED,
    ),
    "more counted": ("UPDATE agreement_uses SET fen = fen + 1 WHERE reversal_id = ''", "fen is"),
    "counts forgotten": ("DELETE FROM agreement_uses", "missing"),
    "counts invented": (
        "INSERT INTO agreement_uses (prescription_number, settlement_id, reversal_id,"
        " institution_code, day, fen, statement_sha256) SELECT prescription_number, settlement_id,"
        " reversal_id, 'P99999900001', day, fen, statement_sha256 FROM agreement_uses LIMIT 1",
        _INVENTED,
    ),
}
AT_THE_PAYER = {
    "the index set back": ("UPDATE prescription_index SET version = version - 1", "version is"),
    "the index to another status": (
        "UPDATE prescription_index SET status_sha256 ="
        " (SELECT sha256 FROM statements ORDER BY sha256 LIMIT 1) WHERE version > 1",
        "status_sha256 is another",
    ),
    "the index invented": (
        "INSERT INTO prescription_index (insured_person_id, prescription_number, version,"
        " status_sha256) SELECT insured_person_id, 'invented', version, status_sha256"
        " FROM prescription_index LIMIT 1",
        _INVENTED,
    ),
    "an end changed": (
        "UPDATE attempt_ends SET state = 'expired' WHERE state = 'released'",
        "state is expired, should be released",
    ),
    "an end invented": (
        "INSERT INTO attempt_ends (insured_person_id, attempt_id, state)"
        " SELECT insured_person_id, 'invented', state FROM attempt_ends LIMIT 1",
        _INVENTED,
    ),
}
_OF_OWN = {
    "the index forgotten": ("DELETE FROM prescription_index", "missing"),
    "ends forgotten": ("DELETE FROM attempt_ends", "missing"),
    "the index of another person": (
        "UPDATE prescription_index SET insured_person_id = 'N0' || insured_person_id",
        _INVENTED,
    ),
}
AT_HOME = {
    "a hospital's number changed": (
        "UPDATE hospital_numbers SET hospital_prescription_number = 'A1'"
        " WHERE prescription_number = (SELECT MIN(prescription_number) FROM prescriptions)",
        _INVENTED,
    ),
    "hospitals' numbers forgotten": ("DELETE FROM hospital_numbers", "missing"),
    "a hospital's number invented": (
        "INSERT INTO hospital_numbers (issuer_code, hospital_prescription_number,"
        " prescription_number) SELECT issuer_code, 'A1', prescription_number"
        " FROM hospital_numbers LIMIT 1",
        _INVENTED,
    ),
    "counts of a hospital forgotten": ("DELETE FROM agreement_uses", "missing"),
}
CASES = [
    *(("one region", HOME, each) for each in (*AT_THE_DISPENSER, *AT_THE_PAYER, *_OF_OWN)),
    *(("one region", HOME, each) for each in AT_HOME),
    *(("three regions", OTHER, each) for each in AT_THE_DISPENSER),
    *(("three regions", PAYER, each) for each in AT_THE_PAYER),
    *(("three regions", HOME, each) for each in AT_HOME),
    *(("home and payer in one", HOME, each) for each in (*AT_THE_PAYER, *_OF_OWN, *AT_HOME)),
    *(("dispensing and payer in one", OTHER, each) for each in AT_THE_DISPENSER),
]
TAMPERING = AT_THE_DISPENSER | AT_THE_PAYER | _OF_OWN | AT_HOME


def computed(place: StorePlace, constellation: str, code: str) -> Report:
    world, _ = lived(constellation)
    with looking(place) as records:
        return Recomputation(records, formula(world, code)).run()


def rebuilt(place: StorePlace, constellation: str, code: str) -> Report:
    world, _ = lived(constellation)
    with writing(place, None) as records:
        return Recomputation(records, formula(world, code), mending=True).run()


def rows(place: StorePlace) -> dict[str, list[str]]:
    """The rows that are computed."""
    with looking(place) as records, Scratch() as scratch, records.snapshot():
        return {
            table.name: sorted(
                str(tuple(row))
                for row in records.connection.execute(
                    f"SELECT {', '.join(table.columns)} FROM {table.name}",  # noqa: S608 - names of the schema
                    (),
                ).fetchall()
            )
            for table in scratch.compared
        }


def prove(place: StorePlace, constellation: str, code: str, how: str) -> None:
    """Whatever was done to the rows at the place is found, named and put right."""
    _, problem = TAMPERING[how]
    found = computed(place, constellation, code).findings
    assert any(problem in each.problem for each in found), found
    assert all(each.derived for each in found), found
    assert PERSON not in str(found)
    assert len(rebuilt(place, constellation, code).findings) == len(found)
    assert computed(place, constellation, code).findings == []


@pytest.mark.parametrize(("constellation", "code", "how"), CASES)
def test_rows_that_do_not_follow_are_found_and_put_right(
    tmp_path: Path, constellation: str, code: str, how: str
) -> None:
    path = tmp_path / "platform.db"
    path.write_bytes(lived(constellation)[1][code])
    before = rows(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(TAMPERING[how][0]).rowcount > 0
    prove(path, constellation, code, how)
    assert rows(path) == before


@pytest.mark.parametrize("how", [*AT_THE_DISPENSER, *AT_THE_PAYER, *_OF_OWN, *AT_HOME])
def test_so_they_are_in_a_database(tmp_path: Path, how: str) -> None:
    address = fresh_schema(SCHEMA)
    path = tmp_path / "platform.db"
    path.write_bytes(lived("one region")[1][HOME])
    move(path, address, SCHEMA, lambda name, done: None)
    place = Database(address, SCHEMA, 2)
    before = rows(place)
    with psycopg.connect(address, options=f"-c search_path={SCHEMA}") as connection:
        assert connection.execute(TAMPERING[how][0].encode()).rowcount > 0
    prove(place, "one region", HOME, how)
    assert rows(place) == before


def test_an_entry_that_no_statement_here_gives_a_person_is_missed_and_not_made_up(
    tmp_path: Path,
) -> None:
    path = tmp_path / "platform.db"
    path.write_bytes(lived("three regions")[1][PAYER])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM prescription_index")
    found = computed(path, "three regions", PAYER).findings
    assert {each.table for each in found} == {"prescription_index"}
    (lost,) = [each for each in found if not each.derived]
    assert "no statement here says whose prescription it is" in lost.problem
    rebuilt(path, "three regions", PAYER)
    assert computed(path, "three regions", PAYER).findings == [lost]


@pytest.mark.parametrize("which", ["action = 'handed over'", "sequence >= 4"])
def test_steps_that_are_not_there_any_more_are_missed_and_no_book_follows_them(
    tmp_path: Path, which: str
) -> None:
    path = tmp_path / "platform.db"
    path.write_bytes(lived("one region")[1][HOME])
    before = rows(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"DELETE FROM steps WHERE {which}")  # noqa: S608 - stands above
    found = computed(path, "one region", HOME).findings
    assert {each.derived for each in found} == {False}
    assert any("step" in each.problem for each in found)
    rebuilt(path, "one region", HOME)
    assert rows(path) == before


# --- what documentation says ----------------------------------------------------------------------


def test_documentation_has_every_table_in_one_class_and_those_are_computed_that_it_says() -> None:
    text = STORAGE.read_text(encoding="utf-8")
    listed = text.split("<!-- tables -->")[1]
    classes = {
        name.strip(): re.findall(r"`(\w+)`", names)
        for name, names in re.findall(r"^\| (\w[\w ]*) \| ([^|]*) \|", listed, re.MULTILINE)
    }
    store = MemoryStore.open("platform")
    schema = store.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    named = [name for names in classes.values() for name in names]
    tables = [name for (name,) in schema.fetchall() if name != "_sqlite_migrations"]
    assert sorted(named) == sorted(tables)
    with Scratch() as scratch:
        compared = {table.name for table in scratch.compared}
    assert set(classes["computed"]) == compared
