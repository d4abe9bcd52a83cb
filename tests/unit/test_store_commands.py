"""``store`` as its operator uses it, on the records of one in which everything has happened."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from click.testing import CliRunner, Result

from rxoutflow.v1.home_service_pb2 import GrantClaimRequest
from rxoutflow_server import cli_store
from rxoutflow_server.application.home import attempts
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.cli_store import store_group
from rxoutflow_server.storage.platform_stores import Database
from rxoutflow_server.storage.postgres import PostgresStore
from rxoutflow_server.storage.sqlite import SqliteStore
from support.postgres import fresh_schema
from support.world import PERSON, World

REGION = "350200"
"""Home, dispensing and payer region of everything."""

SCHEMA = "moved"


@dataclass(frozen=True)
class Life:
    """A region in which prescriptions went every way, its records, and a code nobody has used."""

    world: World
    records: bytes
    pickup_code: str


@cache
def lived() -> Life:
    return asyncio.run(_lived())


async def _lived() -> Life:
    world = World.create(REGION)
    _, code = await world.issue(REGION, REGION, lines=2)
    await world.dispense(REGION, code)
    _, code = await world.issue(REGION, REGION)
    await world.release(REGION, await world.claim(REGION, code))
    await world.claim(REGION, code)
    world.clock.now += timedelta(minutes=31)
    await world.expire_leases(REGION)
    attempt = await world.claim(REGION, code)
    request = world.commit_request(REGION, attempt, await world.quote(REGION, attempt))
    await world.commit(REGION, request)
    record = world.record_request(REGION, request.commitment)
    await world.record(REGION, record)
    await world.settle()
    await world.take_back(REGION, world.return_request(REGION, record.dispense_record, {1: 5}))
    await world.settle()
    _, code = await world.issue(REGION, REGION)
    attempt = await world.claim(REGION, code)
    request = world.commit_request(REGION, attempt, await world.quote(REGION, attempt))
    await world.commit(REGION, request)
    await world.revoke(attempt.prescription_number)
    await world.release(REGION, attempt)
    _, code = await world.issue(REGION, REGION)
    await world.commit(REGION, world.commit_request(REGION, await world.claim(REGION, code), None))
    _, unused = await world.issue(REGION, REGION)
    await world.settle()
    return Life(world, world.platforms[REGION].store.connection.serialize(), unused)


@dataclass
class Office:
    """A platform's file and configuration, and the commands for it."""

    path: Path
    config: Path
    loaded: SimpleNamespace

    def store(self, command: str, *arguments: str | Path) -> Result:
        words = (command, "--config", self.config, *arguments)
        result = CliRunner().invoke(store_group, [str(each) for each in words])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    def spoil(self, sql: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            assert connection.execute(sql).rowcount > 0

    def rows(self) -> dict[str, list[tuple[object, ...]]]:
        return rows_of(self.path)


def rows_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)  # noqa: S608 - a table's own name
            for (name,) in names.fetchall()
        }


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    life = lived()
    path, config = tmp_path / "platform.db", tmp_path / "platform.toml"
    path.write_bytes(life.records)
    config.write_text('[store]\npath = "platform.db"\n')
    region = life.world.platforms[REGION].region
    loaded = SimpleNamespace(
        records=path, region_code=REGION, reference=SimpleNamespace(tariffs=None)
    )
    monkeypatch.setattr(cli_store, "load_platform", lambda file, now: loaded)
    monkeypatch.setattr(cli_store, "load_tariffs", lambda folder: region.tariffs)
    monkeypatch.setattr(cli_store, "load_trust", lambda config: region.trust)
    monkeypatch.setattr(cli_store, "utc_now", lambda: life.world.clock.now)
    return Office(path, config, loaded)


# --- verify and rebuild ---------------------------------------------------------------------------


def test_a_store_that_nobody_touched_is_as_its_evidence_says(office: Office) -> None:
    result = office.store("verify")
    assert result.exit_code == 0, result.output
    assert "5 prescriptions, 1 insured persons" in result.output
    assert "0 differences" in result.output


TAMPERING = {
    "a state edited": (
        "UPDATE attempts SET state = 'released' WHERE state = 'dispensed'",
        "state is released, should be dispensed",
    ),
    "a fence lowered": (
        "UPDATE prescriptions SET fence = fence - 1 WHERE fence = 3",
        "fence is 2, should be 3",
    ),
    "an attempt's fence lowered": (
        "UPDATE attempts SET fence = 9 WHERE fence = 2",
        "fence is 9, should be 2",
    ),
    "a ledger set back": (
        "UPDATE prescription_lines SET dispensed = 0 WHERE dispensed > 0 AND returned = 0",
        "dispensed is 0, should be 20",
    ),
    "a revocation undone": (
        "UPDATE prescriptions SET validity = 'active' WHERE validity = 'revoked'",
        "validity is active, should be revoked",
    ),
    "a return forgotten": ("DELETE FROM booked_returns", "is missing"),
    "an attempt invented": (
        "INSERT INTO attempts SELECT prescription_number, 'invented', 77, 'released',"
        " pharmacy_code, dispensing_region_code, lines, create_time, NULL, update_time, '',"
        " cause_sha256 FROM attempts LIMIT 1",
        "follows from nothing",
    ),
    "a settlement deleted": (
        "DELETE FROM settlements WHERE state = 'posted' AND reversed_pool_fen = 0",
        "is missing",
    ),
    "a settlement voided": (
        "UPDATE settlements SET state = 'voided' WHERE state = 'posted'",
        "state is voided, should be posted",
    ),
    "a reversal deleted": ("DELETE FROM reversals", "is missing"),
    "an accumulator raised": (
        "UPDATE insured_persons SET used_cap_fen = used_cap_fen + 100",
        "used_cap_fen is",
    ),
    "an account filled": (
        "UPDATE insured_persons SET own_account_fen = own_account_fen + 100",
        "own_account_fen is",
    ),
    "an entry on an account changed": (
        "UPDATE account_entries SET fen = fen + 1 WHERE movement = 'post'",
        "fen is",
    ),
    "an entry in the books lost": (
        "DELETE FROM ledger_entries WHERE book = 'payable' AND movement = 'posting'",
        "is missing",
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_found_and_put_right(office: Office, how: str) -> None:
    before = office.rows()
    sql, problem = TAMPERING[how]
    office.spoil(sql)
    found = office.store("verify")
    assert found.exit_code == 1
    assert problem in found.output
    assert PERSON not in found.output

    rebuilt = office.store("rebuild")
    assert rebuilt.exit_code == 0, rebuilt.output
    assert problem in rebuilt.output
    assert office.rows() == before
    assert office.store("verify").exit_code == 0


def test_everything_that_is_derived_comes_back_from_the_evidence_alone(office: Office) -> None:
    before = office.rows()
    for table in ("settlements", "reversals", "booked_returns", "prescription_lines", "attempts"):
        office.spoil(f"DELETE FROM {table}")  # noqa: S608 - the names stand here
    assert office.store("rebuild").exit_code == 0
    assert office.rows() == before


def test_the_store_is_copied_before_it_is_written(office: Office) -> None:
    office.spoil("UPDATE insured_persons SET used_cap_fen = used_cap_fen + 100")
    spoiled = office.rows()
    result = office.store("rebuild")
    (copy,) = office.path.parent.glob("platform.db.before-rebuild-*")
    assert f"the store as it was is in {copy}" in result.output
    assert rows_of(copy) == spoiled


def test_rebuilding_what_is_right_writes_nothing(office: Office) -> None:
    result = office.store("rebuild")
    assert (result.exit_code, "nothing to write" in result.output) == (0, True)
    assert list(office.path.parent.glob("*before-rebuild*")) == []


BEYOND_REPAIR = {
    "a statement deleted": "DELETE FROM statements WHERE payload_type LIKE '%.commitment.%'",
    "a statement edited": (
        "UPDATE statements SET statement ="
        " CAST(substr(statement, 1, 70) || x'ff' || substr(statement, 72) AS BLOB)"
        " WHERE payload_type LIKE '%.claim.%'"
    ),
    "a statement that is none any more": "UPDATE statements SET statement = x'ffff'",
    "an answer edited": "UPDATE outcomes SET response = x'ff'",
    "a leaf of the log deleted": "DELETE FROM log_leaves WHERE leaf_index = 3",
    "a certificate deleted": "DELETE FROM certificates WHERE sha256 = "
    "(SELECT MAX(sha256) FROM certificates)",
    "a certificate edited": "UPDATE certificates SET certificate ="
    " CAST(substr(certificate, 1, 100) || x'ff' || substr(certificate, 102) AS BLOB)"
    " WHERE sha256 = (SELECT MIN(sha256) FROM certificates)",
}


@pytest.mark.parametrize("how", BEYOND_REPAIR)
def test_lost_evidence_is_named_and_nothing_is_made_up_for_it(office: Office, how: str) -> None:
    office.spoil(BEYOND_REPAIR[how])
    before = office.rows()
    assert office.store("verify").exit_code == 1
    assert office.store("rebuild").exit_code != 0
    assert office.rows() == before


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM certificates", "is not kept any more"),
        ("UPDATE certificates SET certificate = x'00'", "was changed"),
    ],
)
def test_evidence_without_its_certificates_is_named_with_what_is_wrong(
    office: Office, sql: str, problem: str
) -> None:
    office.spoil(sql)
    found = office.store("verify")
    told = rf"the statement of \d+ cannot be read: certificate \w+ {problem}"
    assert re.search(told, found.output)
    assert PERSON not in found.output


def test_an_answer_without_its_certificate_is_named(office: Office) -> None:
    office.spoil("UPDATE outcomes SET response = CAST(x'0000000001' || zeroblob(32) AS BLOB)")
    found = office.store("verify")
    assert found.exit_code == 1
    assert "a certificate in the stored answer is not kept any more" in found.output


async def test_nothing_is_rebuilt_or_moved_while_the_service_runs(office: Office) -> None:
    async with SqliteStore.open(office.path, "platform"):
        with closing(sqlite3.connect(office.path)) as connection, connection:
            connection.execute("UPDATE insured_persons SET used_cap_fen = used_cap_fen + 100")
        for command, *more in (["rebuild"], ["move", "--to", "dbname=none"]):
            result = await asyncio.to_thread(office.store, command, *more)
            assert result.exit_code == 2
            assert "is open in another process" in result.output


# --- backup ---------------------------------------------------------------------------------------


async def test_a_backup_is_made_beside_the_service_and_checked(
    office: Office, tmp_path: Path
) -> None:
    target = tmp_path / "backup.db"
    async with SqliteStore.open(office.path, "platform") as store:
        result = await asyncio.to_thread(office.store, "backup", target)
        await store.transact(lambda tx: None)
    assert result.exit_code == 0, result.output
    assert "a whole store of kind platform" in result.output
    assert "statements" in result.output
    assert rows_of(target) == office.rows()


async def test_an_edge_is_backed_up_in_the_same_way(office: Office, tmp_path: Path) -> None:
    office.path.unlink()
    async with SqliteStore.open(office.path, "edge"):
        result = await asyncio.to_thread(office.store, "backup", tmp_path / "backup.db")
    assert result.exit_code == 0, result.output
    assert "a whole store of kind edge" in result.output


def test_no_backup_is_written_over_and_a_damaged_one_is_not_left(
    office: Office, tmp_path: Path
) -> None:
    result = office.store("backup", office.config)
    assert (result.exit_code, "exists; name a file" in result.output) == (2, True)
    with office.path.open("r+b") as file:  # a page of the file is not what it was
        file.seek(4096 * 30)
        file.write(b"\xff" * 4096)
    target = tmp_path / "backup.db"
    result = office.store("backup", target)
    assert result.exit_code == 2
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[store]\npostgres = "host=db"\n', "pg_dump"),
        ("[store]\n", "store.path: is missing"),
        ("store = 1\n", "is no table"),
        ("= 1\n", "cannot be read"),
        ('[store]\npath = "another.db"\n', "does not exist"),
    ],
)
def test_what_cannot_be_backed_up_is_said_with_what_to_do(
    office: Office, text: str, problem: str
) -> None:
    office.config.write_text(text)
    result = office.store("backup", "backup.db")
    assert result.exit_code == 2
    assert problem in result.output


# --- move -----------------------------------------------------------------------------------------


@pytest.fixture
def address() -> str:
    return fresh_schema(SCHEMA)


async def test_a_region_moves_to_postgresql_and_goes_on_there(office: Office, address: str) -> None:
    before = office.rows()
    result = await asyncio.to_thread(office.store, "move", "--to", address, "--schema", SCHEMA)
    assert result.exit_code == 0, result.output
    assert f'postgres = "{address}"' in result.output
    assert office.rows() == before
    office.loaded.records = Database(address, SCHEMA, 2)
    verified = await asyncio.to_thread(office.store, "verify")
    assert verified.exit_code == 0, verified.output

    life = lived()
    region, caller = life.world.platforms[REGION].region, life.world.platforms[REGION].cast.region
    claim = life.world.claim_request(REGION, life.pickup_code)
    request = GrantClaimRequest(
        request_id=claim.request_id, claim=claim.claim, pickup_code=claim.pickup_code
    )

    def grant(tx: Transaction) -> bytes:
        granted = attempts.grant_claim(tx, region, caller.platform, request)
        return granted.attempt.payload

    async with PostgresStore.open(address, "platform", schema=SCHEMA) as store:
        granted = await store.transact(grant)
        assert await store.transact(grant) == granted
    again = await asyncio.to_thread(office.store, "verify")
    assert again.exit_code == 0, again.output


def test_a_region_moves_into_an_empty_schema_only(office: Office, address: str) -> None:
    assert office.store("move", "--to", address, "--schema", SCHEMA).exit_code == 0
    again = office.store("move", "--to", address, "--schema", SCHEMA)
    assert again.exit_code == 2
    assert "holds records already" in again.output


def test_what_is_not_equal_is_not_moved(
    office: Office, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rxoutflow_server.storage import moving

    honest = moving._rows_there
    monkeypatch.setattr(
        moving,
        "_rows_there",
        lambda there, table: list(honest(there, table))[:-1],
    )
    result = office.store("move", "--to", address, "--schema", SCHEMA)
    assert result.exit_code == 2
    assert "not the same on both sides" in result.output
    with psycopg.connect(address) as connection:
        rows = connection.execute(f"SELECT COUNT(*) FROM {SCHEMA}.statements")  # noqa: S608 - stands here
        assert rows.fetchone() == (0,)


def test_a_database_that_is_rebuilt_is_dumped_first_and_nobody_uses_it(
    office: Office, address: str
) -> None:
    assert office.store("move", "--to", address, "--schema", SCHEMA).exit_code == 0
    office.loaded.records = Database(address, SCHEMA, 2)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"UPDATE {SCHEMA}.insured_persons SET used_cap_fen = used_cap_fen + 1")  # noqa: S608 - stands here
        assert "pg_dump" in office.store("rebuild").output
        with connection.transaction():
            connection.execute(f"SELECT * FROM {SCHEMA}.insured_persons FOR UPDATE")  # noqa: S608 - stands here
            in_use = office.store("rebuild", "--backed-up")
        assert (in_use.exit_code, "is in use" in in_use.output) == (2, True)
    assert office.store("rebuild", "--backed-up").exit_code == 0
    assert office.store("verify").exit_code == 0
