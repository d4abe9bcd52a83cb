"""Rows that are only added: gathered during a transaction, and sent together before it ends.

An ``INSERT … VALUES`` without a conflict clause has nothing to say but that it went well, so it
need not be sent at once. Rows for one table leave as one statement, sorted by their keys: before
the commit, or before a statement that could see one of them. Which statements those are is read
from their text, so the tables know nothing of it. Numbers that count within a key, and those of
notices, are given when the rows leave, so the counters' rows are locked for a moment only.

There are two ways to send many rows. One PostgreSQL takes arrays (``unnest``): one prepared
statement, however many rows. An engine that distributes rows by their keys has to see each key, so
it gets them as ``VALUES``, and what counts within a key as statements of their own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Protocol, TypeAlias

from rxoutflow_server.storage.tables.connection import Value
from rxoutflow_server.storage.tables.descriptions import column_types, shard_key

Row: TypeAlias = Sequence[Value]

MAX_VALUES = 2_000
"""Most parameters of one statement of VALUES; the protocol allows 65,535."""

_INSERT = re.compile(
    r"\s*INSERT INTO (?P<table>\w+)\s*\((?P<columns>[\w\s,]+)\)\s*VALUES\s*\((?P<values>.*)\)\s*",
    re.DOTALL,
)
_VALUE = re.compile(
    r"\s*(?:(?P<given>\?)|(?P<literal>'[^'?]*'|\d+)"
    r"|\(SELECT COALESCE\(MAX\(\w+\), 0\) \+ 1 FROM \w+ WHERE (?P<counted>\w+) = \?\)"
    r"|\(SELECT sequence FROM (?P<counter>\w+) WHERE (?P<by>\w+) = \?\))\s*(?:,|$)"
)
_COUNTER = re.compile(
    r"\s*INSERT INTO (?P<table>\w+) \((?P<key>\w+), (?P<number>\w+)\) VALUES \(\?, 1\)"
    r"\s+ON CONFLICT \((?P=key)\) DO UPDATE SET (?P=number) = (?P=table)\.(?P=number) \+ 1\s*"
)
_TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE) (?!SET\b|peers\b)([a-z_]+)")
_NUMBERS_OF_TYPES = {"text": 25, "bigint": 20, "bytea": 17}
_ARRAY = struct.Struct("!iiIii")
_INTEGER = struct.Struct("!iq")
_LENGTH = struct.Struct("!i")


@dataclass(frozen=True, slots=True)
class Array:
    """A column of many rows, as one parameter."""

    type: str
    values: Sequence[Value]

    def encoded(self) -> bytes:
        """PostgreSQL's binary form of an array of one dimension."""
        kind, missing = _NUMBERS_OF_TYPES[self.type], None in self.values
        parts = [_ARRAY.pack(1, missing, kind, len(self.values), 1)]
        for value in self.values:
            if value is None:
                parts.append(_LENGTH.pack(-1))
            elif isinstance(value, int):
                parts.append(_INTEGER.pack(8, value))
            else:
                raw = value.encode() if isinstance(value, str) else value
                parts.append(_LENGTH.pack(len(raw)) + raw)
        return b"".join(parts)


Parameters: TypeAlias = Sequence[Value | Array]
Send: TypeAlias = Callable[[str, Parameters], object]


@dataclass(frozen=True, slots=True)
class Append:
    """A statement that adds a row, taken apart."""

    sql: str
    table: str
    columns: tuple[str, ...]
    values: tuple[str, ...]
    """For each column: ``?``, a literal, ``count`` or the name of a table of counters."""
    given: tuple[str, ...]
    """The column of each parameter; for what counts within a key, that of the key."""

    @property
    def key(self) -> str:
        """The column by which rows of the table are kept together."""
        return shard_key(self.table)

    @property
    def tables(self) -> frozenset[str]:
        """The tables that belong together in it: where it adds rows, and by which it counts."""
        counters = {each for each in self.values if each.isidentifier()} - {"count", "leaf"}
        leaves = {"log_waiting"} if self.keeps_leaves else set[str]()
        return frozenset({self.table, *counters, *leaves})

    @property
    def is_counter(self) -> bool:
        """Whether it counts a counter up, rather than adding a row of its own."""
        return self.values == ("?", "1")

    @property
    def keeps_leaves(self) -> bool:
        """Whether it fills two tables at once, from arrays."""
        return self.values[-1] == "leaf"

    @property
    def is_plain(self) -> bool:
        """Whether every row holds all of itself."""
        return len(self.given) == self.values.count("?") and not self.is_counter

    def key_of(self, row: Row) -> Value:
        """The key of a row."""
        return row[self.given.index(self.key)]


@lru_cache(maxsize=1024)
def append_of(sql: str) -> Append | None:
    """A statement taken apart; nothing if it is not one that only adds a row."""
    counter = _COUNTER.fullmatch(sql)
    if counter is not None:
        key, number = counter["key"], counter["number"]
        return Append(sql, counter["table"], (key, number), ("?", "1"), (key,))
    match = _INSERT.fullmatch(sql)
    if match is None:
        return None
    table, columns = match["table"], tuple(each.strip() for each in match["columns"].split(","))
    values, given, at = list[str](), list[str](), 0
    while at < len(match["values"]):
        value = _VALUE.match(match["values"], at)
        if value is None or len(values) == len(columns):
            return None
        values.append(value["given"] or value["literal"] or value["counter"] or "count")
        if not value["literal"]:
            given.append(value["counted"] or value["by"] or columns[len(values) - 1])
        at = value.end()
    return Append(sql, table, columns, tuple(values), tuple(given))


KEEP_WITH_LEAF = Append(
    """
    WITH given (number, sha256, type, statement, time, place) AS (
        SELECT * FROM unnest(?::text[], ?::bytea[], ?::text[], ?::bytea[], ?::bigint[])
            WITH ORDINALITY),
    kept AS (
        INSERT INTO statements (prescription_number, sha256, payload_type, statement, keep_time)
        SELECT number, sha256, type, statement, time FROM given ORDER BY number, sha256
        ON CONFLICT (prescription_number, sha256) DO NOTHING
        RETURNING prescription_number, sha256, payload_type, keep_time),
    leaves AS (
        SELECT kept.*, row_number() OVER (PARTITION BY prescription_number ORDER BY first) AS turn
        FROM kept JOIN (SELECT number, sha256, MIN(place) AS first FROM given
                        GROUP BY number, sha256) AS firsts
            ON number = prescription_number AND firsts.sha256 = kept.sha256)
    INSERT INTO log_waiting (prescription_number, position, statement_sha256, payload_type,
                             keep_time)
    SELECT prescription_number,
           turn + COALESCE((SELECT MAX(position) FROM log_waiting AS waiting
                            WHERE waiting.prescription_number = leaves.prescription_number), 0),
           sha256, payload_type, keep_time
    FROM leaves
    RETURNING prescription_number, statement_sha256
    """,
    "statements",
    ("prescription_number", "sha256", "payload_type", "statement", "keep_time"),
    ("?", "?", "?", "?", "leaf"),
    ("prescription_number", "sha256", "payload_type", "statement", "keep_time"),
)
"""Statements are kept, and those that were not kept before become leaves of the log."""


class BatchWriter(Protocol):
    """How many rows for one table are sent."""

    def takes(self, append: Append) -> bool:
        """Whether rows of this kind are to be gathered at all; others are sent at once."""

    def write(self, append: Append, rows: Sequence[Row], send: Send) -> None:
        """Send rows, which are sorted by their keys."""


class Arrays:
    """For one PostgreSQL: a parameter to a column, each an array."""

    def takes(self, append: Append) -> bool:
        """Everything."""
        return True

    def write(self, append: Append, rows: Sequence[Row], send: Send) -> None:
        """One statement, however many rows."""
        if len(rows) == 1 and not append.keeps_leaves:
            send(append.sql, rows[0])
            return
        types = column_types(append.table)
        columns = zip(append.given, zip(*rows, strict=True), strict=True)
        sql = append.sql if append.keeps_leaves else _with_arrays(append)
        send(sql, [Array(types[name], values) for name, values in columns])


class Values:
    """For an engine that distributes rows: as many parameters as there are values."""

    def takes(self, append: Append) -> bool:
        """Rows that hold all of themselves."""
        return append.is_plain

    def write(self, append: Append, rows: Sequence[Row], send: Send) -> None:
        """A statement for as many rows as fit."""
        at_once = max(1, MAX_VALUES // len(append.given))
        for begin in range(0, len(rows), at_once):
            part = rows[begin : begin + at_once]
            send(_with_values(append, len(part)), [value for row in part for value in row])


class Gathered:
    """The rows that wait to be sent."""

    def __init__(self, writer: BatchWriter) -> None:
        self._writer = writer
        self._rows: dict[str, tuple[Append, list[Row]]] = {}
        self._keys: dict[str, set[Value]] = {}

    def takes(self, append: Append) -> bool:
        """Whether rows of this kind are to be gathered."""
        return self._writer.takes(append)

    def add(self, append: Append, row: Row) -> None:
        """Keep a row for later."""
        self._rows.setdefault(append.sql, (append, []))[1].append(row)
        for table in append.tables:
            self._keys.setdefault(table, set()).add(append.key_of(row))

    def seen_by(self, tables: Sequence[tuple[str, bool]], parameters: Parameters) -> set[str]:
        """Of the tables of a statement, each by its key or not, those with a row it could see."""
        seen = set[str]()
        for table, by_key in tables:
            keys = self._keys.get(table)
            if keys is not None and not (by_key and keys.isdisjoint(parameters)):
                seen.add(table)
        return seen

    def send(self, send: Send, tables: Collection[str] | None = None) -> None:
        """Send what is gathered for some tables, or everything.

        Nothing is sent earlier than it must be: the counters of notices are rows that everybody
        wants, and whoever has them must not wait for anything else.
        """
        wanted = set(self._keys if tables is None else tables)
        for append, _ in self._rows.values():  # what belongs to one of them goes with it
            if not append.tables.isdisjoint(wanted):
                wanted |= append.tables
        chosen = [each for each in self._rows.values() if not each[0].tables.isdisjoint(wanted)]
        for append, rows in sorted(chosen, key=lambda each: each[0].table):
            del self._rows[append.sql]
            for table in append.tables:
                self._keys.pop(table, None)
            rows.sort(key=lambda row, of=append: str(of.key_of(row)))  # type: ignore[misc] # mypy cannot infer a lambda with a default
            self._writer.write(append, rows, send)

    def forget(self) -> None:
        """Nothing waits any more."""
        self._rows = {}
        self._keys = {}

    def __bool__(self) -> bool:
        return bool(self._rows)


@cache
def _with_arrays(append: Append) -> str:
    types = column_types(append.table)
    if append.is_counter:
        return _counting(append)
    names = [f"given_{at}" for at in range(len(append.given))]
    arrays = ", ".join(f"?::{types[column]}[]" for column in append.given)
    key = names[append.given.index(append.key)]
    values = ", ".join(_selected(append, names, key))
    return (
        f"INSERT INTO {append.table} ({', '.join(append.columns)}) SELECT {values}"  # noqa: S608 - names of our own tables
        f" FROM unnest({arrays}) WITH ORDINALITY AS given ({', '.join(names)}, place)"
        " ORDER BY place"
    )


def _counting(append: Append) -> str:
    """Counters counted up by as much as rows name them."""
    table, (key, number) = append.table, append.columns
    return (
        f"INSERT INTO {table} ({key}, {number})"  # noqa: S608 - names of our own tables
        f" SELECT given, COUNT(*) FROM unnest(?::text[]) AS given GROUP BY given ORDER BY given"
        f" ON CONFLICT ({key}) DO UPDATE SET {number} = {table}.{number} + excluded.{number}"
    )


def _selected(append: Append, names: Sequence[str], key: str) -> Iterator[str]:
    remaining = iter(names)
    for column, value in zip(append.columns, append.values, strict=True):
        if value[0] in "'0123456789":
            yield value
            continue
        name = next(remaining)
        turn = f"row_number() OVER (PARTITION BY {key} ORDER BY place)"
        if value == "?":
            yield name
        elif value == "count":
            highest = f"SELECT MAX(kept.{column}) FROM {append.table} AS kept"  # noqa: S608 - names of our own tables
            yield f"COALESCE(({highest} WHERE kept.{append.key} = {name}), 0) + {turn}"
        else:
            counter = f"SELECT counter.sequence FROM {value} AS counter"  # noqa: S608 - names of our own tables
            rows = f"COUNT(*) OVER (PARTITION BY {key})"
            yield f"({counter} WHERE counter.{append.key} = {name}) - {rows} + {turn}"


@lru_cache(maxsize=1024)
def _with_values(append: Append, rows: int) -> str:
    row = f"({', '.join(append.values)})"
    columns = ", ".join(append.columns)
    return f"INSERT INTO {append.table} ({columns}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - names of our own tables


@cache
def tables_of(sql: str) -> tuple[tuple[str, bool], ...]:
    """The tables of a statement, and of each whether it is asked by its key alone."""
    named = _TABLE.findall(sql)
    return tuple((table, _is_by_key(sql, table, named.count(table))) for table in sorted({*named}))


def _is_by_key(sql: str, table: str, times: int) -> bool:
    if sql.lstrip().startswith("INSERT"):
        return times == 1 and shard_key(table) in sql
    key = shard_key(table)
    return key != "" and len(re.findall(rf"\b{key} = \?", sql)) >= times
