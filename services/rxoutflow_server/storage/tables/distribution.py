"""How a platform's tables are spread over the machines of an engine that distributes rows by a key.

The statements are those of Citus, an extension of PostgreSQL. Each table goes by its shard key,
and those of one key go together, so that what a command does to one prescription, or to one insured
person, happens on one machine. What there is one of in a region stays on the coordinator.
"""

from __future__ import annotations

from collections.abc import Iterator

from rxoutflow_server.storage.tables.descriptions import references, shard_key, tables

OF_THE_REGION = {
    "certificates": "a row for each signer; a process asks for it once, and adds it once",
    "clearings": "a few rows a month; which one was accepted is unique for a peer and a period",
    "log_checkpoints": "there is one log, and its heads are in order",
    "log_leaves": "there is one log: a leaf's number is its key",
    "log_seen": "a row for each other region",
    "log_signers": "a row for each certificate of the platform",
    "log_turn": "one row: whose turn it is to let the log grow",
    "task_turns": "a row for each task: whose turn it is to do it",
}
"""Tables that stay on the coordinator, and why."""

_HEAD = """\
-- How the tables of a platform are spread over machines by Citus. Generated; do not edit.
-- Run once on the coordinator, when the first start has made the tables and while no service runs:
--   psql -v ON_ERROR_STOP=1 -c 'SET search_path TO rxoutflow' -f docs/distribution.sql
-- and set store.distributed = true. Of a later release, run the statements that are new.
"""


def script() -> str:
    """The whole script, one statement to a line."""
    return "\n".join([_HEAD, *_lines(), ""])


def spread() -> tuple[str, ...]:
    """The tables that are spread."""
    return tuple(each for each in tables("platform") if each not in OF_THE_REGION)


def _lines() -> Iterator[str]:
    referring = [(each, *found) for each in spread() for found in references(each)]
    yield "-- References go first: a table cannot be spread while another one refers to it."
    for table, column, _ in referring:
        yield f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_fkey;"
    first: dict[str, str] = {}
    for table in sorted(spread(), key=lambda each: shard_key(each)):
        key = shard_key(table)
        if key not in first:
            yield f"\n-- by {key}"
        together = f"'{first[key]}'" if key in first else "'none'"
        first.setdefault(key, table)
        yield f"SELECT create_distributed_table('{table}', '{key}', colocate_with => {together});"
    yield "\n-- The references again; each is within one key."
    for table, column, other in referring:
        yield f"ALTER TABLE {table} ADD FOREIGN KEY ({column}) REFERENCES {other};"
    yield "\n-- What there is one of stays where it is:"
    for table, reason in sorted(OF_THE_REGION.items()):
        yield f"-- {table}: {reason}"
