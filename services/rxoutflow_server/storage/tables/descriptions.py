"""What the migrations say about each table: columns, keys, references.

Read from their text, so that it cannot say anything else than what is there. By the first column of
a table's primary key its rows are kept together: the shard key, where rows are spread over
machines.
"""

from __future__ import annotations

import re
from functools import cache

from rxoutflow_server.storage.tables.schema import MIGRATIONS, Kind

_TABLE = re.compile(r"\s*CREATE TABLE (\w+)")
_COLUMN = re.compile(r"^\s*(?:ADD COLUMN )?(\w+) (TEXT|INTEGER|BLOB)\b", re.MULTILINE)
_TYPES = {"TEXT": "text", "INTEGER": "bigint", "BLOB": "bytea"}
_KEY_OF_MANY = re.compile(r"(PRIMARY KEY|UNIQUE) \(([\w\s,]+)\)")
_KEY_OF_ONE = re.compile(
    r"(?:^|\()\s*(\w+) (?:TEXT|INTEGER|BLOB)\b[^,\n]*(PRIMARY KEY|UNIQUE)", re.MULTILINE
)
_UNIQUE_INDEX = re.compile(r"\s*CREATE UNIQUE INDEX \w+ ON (\w+)\s*\(([\w\s,]+)\)")
_REFERENCE = re.compile(r"^\s*(\w+) (?:TEXT|INTEGER|BLOB)\b[^,\n]*REFERENCES (\w+)", re.MULTILINE)


@cache
def tables(kind: Kind) -> tuple[str, ...]:
    """The tables of a store, in the order in which they are made."""
    found = (_TABLE.match(each) for each in _statements(kind))
    return tuple(each[1] for each in found if each is not None)


@cache
def column_types(table: str) -> dict[str, str]:
    """The columns of a table and their types in PostgreSQL."""
    found: dict[str, str] = {}
    for statement in _about(table):
        text = statement.replace("ADD COLUMN", "\nADD COLUMN")
        found.update({name: _TYPES[kind] for name, kind in _COLUMN.findall(text)})
    return found


@cache
def unique_keys(table: str) -> tuple[tuple[str, ...], ...]:
    """The columns of the primary key, then those of everything else that is unique."""
    made = "\n".join(each for each in _about(table) if _TABLE.match(each))
    found = [(kind, _names(columns)) for kind, columns in _KEY_OF_MANY.findall(made)]
    found += [(kind, (column,)) for column, kind in _KEY_OF_ONE.findall(made)]
    found += [
        ("UNIQUE", _names(match[2]))
        for match in map(_UNIQUE_INDEX.match, {*_statements("platform"), *_statements("edge")})
        if match is not None and match[1] == table
    ]
    return tuple(columns for _, columns in sorted(found))  # PRIMARY before UNIQUE


@cache
def shard_key(table: str) -> str:
    """The column by which rows of a table are kept together; empty if there is no such table."""
    keys = unique_keys(table)
    return keys[0][0] if keys else ""


@cache
def references(table: str) -> tuple[tuple[str, str], ...]:
    """Columns that refer to another table by its primary key."""
    made = "\n".join(each for each in _about(table) if _TABLE.match(each))
    return tuple(_REFERENCE.findall(made))


def _names(columns: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in columns.split(","))


def _statements(kind: Kind) -> list[str]:
    return [statement for migration in MIGRATIONS[kind].values() for statement in migration]


@cache
def _about(table: str) -> tuple[str, ...]:
    about = re.compile(rf"\s*(?:CREATE|ALTER) TABLE {table}\b")
    both = dict.fromkeys([*_statements("platform"), *_statements("edge")])
    return tuple(each for each in both if about.match(each))
