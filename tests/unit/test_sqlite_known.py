"""What the writer of a SQLite store remembers of statements is never more than what is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.storage.sqlite import SqliteStore

NUMBER, SHA256 = "350200-1", bytes(32)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
FIRST = SignedStatement(payload_type="a type", payload=b"first")
OTHER = SignedStatement(payload_type="a type", payload=b"other")


class Failed(Exception):
    """What a command raises after it has kept something."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore[Transaction]]:
    async with SqliteStore.open(tmp_path / "region.db", "platform") as opened:
        yield opened


def keep(tx: Transaction, statement: SignedStatement = FIRST) -> SignedStatement | None:
    tx.keep(NUMBER, SHA256, statement, NOW)
    return tx.journal.find_statement(NUMBER, SHA256)


def keep_and_fail(tx: Transaction) -> None:
    assert keep(tx) == FIRST
    raise Failed


async def test_a_statement_of_an_undone_command_is_not_known_and_can_be_kept_again(
    store: SqliteStore[Transaction],
) -> None:
    with pytest.raises(Failed):
        await store.transact(keep_and_fail)
    assert await store.transact(lambda tx: tx.journal.find_statement(NUMBER, SHA256)) is None
    assert await store.transact(keep) == FIRST
    assert await store.read(lambda tx: tx.journal.find_statement(NUMBER, SHA256)) == FIRST
    assert len(await store.read(lambda tx: tx.log.waiting(9))) == 1


async def test_the_bytes_that_were_kept_first_stay_known_or_not(tmp_path: Path) -> None:
    path = tmp_path / "region.db"
    async with SqliteStore.open(path, "platform") as store:
        assert await store.transact(keep) == FIRST
        assert await store.transact(lambda tx: keep(tx, OTHER)) == FIRST
    async with SqliteStore.open(path, "platform") as store:
        assert await store.transact(lambda tx: keep(tx, OTHER)) == FIRST
        assert len(await store.read(lambda tx: tx.log.waiting(9))) == 1
