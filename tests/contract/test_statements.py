"""Every SQL statement is one that an engine can run that spreads rows over machines by their keys.

What a command sends names the shard key of every table that it touches; keys and everything unique
begin with it or contain it; numbers, times and random values come from outside; no triggers, no
sequences. The statements are read, and an exchange in memory is watched for others.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlglot
from sqlglot import expressions as exp

from rxoutflow_server.storage import memory, tables
from rxoutflow_server.storage.postgres import appends
from rxoutflow_server.storage.postgres.schema import in_postgres
from rxoutflow_server.storage.tables import distribution
from rxoutflow_server.storage.tables.connection import Connection, Cursor, Value
from rxoutflow_server.storage.tables.descriptions import references, shard_key, unique_keys
from rxoutflow_server.storage.tables.descriptions import tables as tables_of_store
from rxoutflow_server.storage.tables.schema import MIGRATIONS
from rxoutflow_server.storage.tables.transaction import PlatformTables
from support.world import World

ROOT = Path(__file__).parents[2]
ALL_SHARDS = {
    "agreements": "a quota is over all prescriptions of an institution, once in ten minutes",
    "clearing": "a clearing is over all prescriptions of a day, and an operator asks for lists",
    "dispensing": "tasks look for what a crash left undecided; a pharmacy lists its dispenses",
    "edge": "an edge has one file, and is never spread",
    "home": "tasks look for leases that are over; a hospital lists its prescriptions",
    "journal": "the outbox is asked for what is due, a regulator for what was signed",
    "log": "there is one log for the region, and its tree is on the coordinator",
    "recorded": "an operator's tools read everything, one table after the other",
    "payer": "a fund's office lists settlements of a year",
}
"""Modules with statements named ``_SWEEP_…``, which ask all machines, and why they have some."""

OF_THE_REGION = {*distribution.OF_THE_REGION, "peers"}
"""Tables on the coordinator, and the recursion of one statement over regions."""

NO_COLUMNS = {"excluded", "kept", "given"}
STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
FORBIDDEN = re.compile(
    r"\b(NOW\s*\(|CURRENT_(TIME|DATE|TIMESTAMP)|RANDOM\s*\(|GEN_RANDOM_UUID|NEXTVAL|SERIAL|IDENTITY"
    r"|AUTOINCREMENT|TRIGGER|MERGE|CTID|XMIN|PG_ADVISORY|NOTIFY|LISTEN|JULIANDAY|STRFTIME)"
)


def statements() -> dict[str, str]:
    """Every statement of the tables by its name."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(tables.__path__, f"{tables.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, str) and re.match(
                r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", value
            ):
                found[f"{module.name.rpartition('.')[2]}.{name}"] = value
    return found


ALL = statements()
TOOLS = "recorded."
"""The module of an operator's tools: nothing in it is part of a command."""

SWEEPS = {name: sql for name, sql in ALL.items() if "._SWEEP_" in name or name.startswith(TOOLS)}
HOT = {name: sql for name, sql in ALL.items() if name not in SWEEPS}


def parsed(sql: str) -> exp.Expr:
    return sqlglot.parse_one(sql, dialect="sqlite")


def unkeyed(sql: str) -> Iterator[str]:
    """The tables of a statement that it does not ask by their shard keys."""
    tree = parsed(sql)
    for table in tree.find_all(exp.Table):
        if table.name in OF_THE_REGION or table.name in NO_COLUMNS:
            continue
        if not _is_keyed(table):
            yield table.name


def _is_keyed(table: exp.Table) -> bool:
    key = shard_key(table.name)
    assert key, f"{table.name} is no table"
    around = table.find_ancestor(exp.Select, exp.Update, exp.Delete, exp.Insert)
    if isinstance(around, exp.Insert):
        columns = [each.name for each in around.this.expressions]
        return key in columns
    assert around is not None
    where = around.args.get("where")
    if where is None:
        return False
    name = table.alias_or_name
    return any(_asks(each, name, key) for each in where.find_all(exp.EQ, exp.In))


def _asks(condition: exp.Expr, table: str, key: str) -> bool:
    """Whether it is ``key = ?``, or equal to the same key of another table of the statement."""
    column = condition.this
    if not isinstance(column, exp.Column) or column.name != key:
        return False
    if column.table and column.table != table:
        return False
    if isinstance(condition, exp.In):
        return all(isinstance(each, exp.Placeholder) for each in condition.expressions)
    other = condition.expression
    of_another = isinstance(other, exp.Column) and other.name == key and other.table != table
    return isinstance(other, exp.Placeholder) or of_another


@pytest.mark.parametrize("name", HOT)
def test_what_a_command_sends_names_the_shard_key_of_every_table(name: str) -> None:
    assert [*unkeyed(HOT[name])] == []


def test_the_statements_are_found_and_a_statement_without_its_key_would_be_noticed() -> None:
    assert len(HOT) > 60
    assert [*unkeyed("SELECT 1 FROM attempts WHERE attempt_id = ?")] == ["attempts"]
    assert [*unkeyed("UPDATE outbox SET tries = 0 WHERE event_id = ?")] == ["outbox"]
    assert [*unkeyed("INSERT INTO steps (action) VALUES (?)")] == ["steps"]
    nested = """SELECT 1 FROM steps WHERE prescription_number = ?
                AND EXISTS (SELECT 1 FROM outcomes WHERE request_id = ?)"""
    assert [*unkeyed(nested)] == ["outcomes"]


def test_what_asks_all_machines_is_named_so_and_has_a_reason() -> None:
    assert {name.partition(".")[0] for name in SWEEPS} == set(ALL_SHARDS)


@pytest.mark.parametrize("name", ALL)
def test_times_numbers_and_random_values_come_from_outside(name: str) -> None:
    assert not FORBIDDEN.search(ALL[name].upper())


@pytest.mark.parametrize("kind", MIGRATIONS)
def test_the_tables_need_no_sequence_no_trigger_and_no_clock(kind: str) -> None:
    for migration in MIGRATIONS[kind].values():  # type: ignore[index] # a key of it
        for statement in migration:
            assert not FORBIDDEN.search(statement.upper())
            assert statement.count(";") == 0  # one change to a step


@pytest.mark.parametrize("table", distribution.spread())
def test_whatever_is_unique_is_so_within_a_shard_key(table: str) -> None:
    key = shard_key(table)
    assert key
    assert [columns for columns in unique_keys(table) if key not in columns] == []
    made = next(
        in_postgres(each)
        for migration in MIGRATIONS["platform"].values()
        for each in migration
        if re.match(rf"\s*CREATE TABLE {table}\b", each)
    )
    assert re.search(rf'\b{key} TEXT COLLATE "C" NOT NULL', made)  # text in byte order, never null


@pytest.mark.parametrize("table", distribution.spread())
def test_a_shard_key_never_changes(table: str) -> None:
    for sql in ALL.values():
        for update in parsed(sql).find_all(exp.Update):
            if update.this.name == table:
                changed = {each.this.name for each in update.expressions}
                assert shard_key(table) not in changed


def test_references_stay_within_one_key_and_every_table_has_its_place() -> None:
    everything = set(tables_of_store("platform"))
    assert set(distribution.OF_THE_REGION) < everything
    for table in everything:
        for column, other in references(table):
            if table in distribution.spread():
                assert (column, column) == (shard_key(table), shard_key(other))
            else:
                assert other in distribution.OF_THE_REGION


def test_the_script_that_spreads_the_tables_is_the_one_of_these_tables() -> None:
    assert (ROOT / "docs/distribution.sql").read_text("utf-8") == distribution.script()


# --- what is sent for many rows -------------------------------------------------------------------

APPENDS = {name: append for name, sql in ALL.items() if (append := appends.append_of(sql))}


def test_the_statements_of_which_rows_are_gathered_are_found() -> None:
    expected = {"journal._KEEP_OUTCOME", "journal._ADD_STEP", "journal._ADD_EVENT", "log._APPEND"}
    assert expected | {"journal._NEXT_NOTICE", "journal._ADD_NOTICE", "log._PLACE"} <= set(APPENDS)


@pytest.mark.parametrize("name", APPENDS)
def test_a_gathered_row_has_its_key_and_both_ways_of_sending_many_hold_every_value(
    name: str,
) -> None:
    append = APPENDS[name]
    sent: list[tuple[str, appends.Parameters]] = []
    rows = [tuple(f"{place}/{row}" for place in range(len(append.given))) for row in range(3)]
    for writer in (appends.Arrays(), appends.Values()):
        sent.clear()
        if writer.takes(append):
            writer.write(append, rows, lambda sql, values: sent.append((sql, values)))
            ((sql, values),) = sent
            assert sql.count("?") == len(values)
            flat = [
                value
                for each in values
                for value in (each.values if isinstance(each, appends.Array) else (each,))
            ]
            assert sorted(map(str, flat)) == sorted(value for row in rows for value in row)
    if append.table in distribution.spread():
        assert append.key_of(rows[0]) in rows[0]


# --- what an exchange really sends ----------------------------------------------------------------


class Recorder:
    """A connection that notes what is sent on it."""

    sent: set[str]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        Recorder.sent.add(sql)
        return self._connection.execute(sql, parameters)


async def test_what_an_exchange_sends_is_known_or_names_its_keys_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Recorder.sent = set()
    monkeypatch.setitem(memory._TABLES, "platform", lambda each: PlatformTables(Recorder(each)))
    world = World.create("350200", "350500")
    _, code = await world.issue("350200", "350500")
    await world.dispense("350500", code)
    await world.settle()

    made = Recorder.sent - set(ALL.values())
    assert {sql: [*unkeyed(sql)] for sql in made} == {sql: [] for sql in made}
    assert not [sql for sql in made if FORBIDDEN.search(sql.upper())]
    assert len(Recorder.sent) > 50
