"""What PostgreSQL's store remembers of statements: only what is committed, and as it was kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeAlias

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from rxoutflow.statements import statement_sha256
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.ports import Transaction
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.storage.known import Key, Remembered
from rxoutflow_server.storage.postgres import PostgresStore
from support.postgres import fresh_schema
from support.records import NOW, NUMBER, statement

Platform: TypeAlias = PostgresStore[Transaction]
SCHEMA = "known"
KEPT = statement()
SHA256 = statement_sha256(KEPT)


@pytest.fixture
def address() -> str:
    return fresh_schema(SCHEMA)


@pytest.fixture
async def store(address: str) -> AsyncIterator[Platform]:
    async with PostgresStore.open(address, "platform", schema=SCHEMA) as opened:
        yield opened


def _keep(tx: Transaction, kept: SignedStatement = KEPT) -> None:
    tx.keep(NUMBER, statement_sha256(kept), kept, NOW)


def _find(tx: Transaction) -> SignedStatement | None:
    return tx.journal.find_statement(NUMBER, SHA256)


def _refused_after_keeping(tx: Transaction) -> None:
    _keep(tx)
    assert _find(tx) == KEPT
    raise Refusal(Reason.FIELD_INVALID, "after it was kept")


async def test_a_statement_of_a_command_that_was_undone_is_not_known(store: Platform) -> None:
    with pytest.raises(Refusal):
        await store.transact(_refused_after_keeping)

    assert await store.transact(_find) is None
    assert await store.read(_find) is None


async def test_a_statement_that_was_committed_is_known_without_asking_again(
    store: Platform, address: str
) -> None:
    await store.transact(_keep)
    with psycopg.connect(address, autocommit=True) as other:  # nobody does this; it shows who asks
        other.execute(SQL("TRUNCATE {}").format(Identifier(SCHEMA, "statements")))

    assert await store.read(_find) == KEPT
    assert await store.transact(_find) == KEPT


async def test_a_statement_that_is_known_is_not_sent_again(store: Platform, address: str) -> None:
    await store.transact(_keep)
    with psycopg.connect(address, autocommit=True) as other:  # as above
        other.execute(SQL("TRUNCATE {}").format(Identifier(SCHEMA, "statements")))

    await store.transact(_keep)

    with psycopg.connect(address) as other:
        rows = other.execute(SQL("SELECT 1 FROM {}").format(Identifier(SCHEMA, "statements")))
        assert rows.fetchall() == []


async def test_another_process_finds_what_was_committed(store: Platform, address: str) -> None:
    async with PostgresStore.open(address, "platform", schema=SCHEMA) as other:
        assert await other.read(_find) is None
        await store.transact(_keep)
        assert await other.read(_find) == KEPT


async def test_the_bytes_that_were_kept_first_are_those_that_stay(
    store: Platform, address: str
) -> None:
    """The chain of certificates is not part of the digest by which a statement is known."""
    again = SignedStatement.FromString(KEPT.SerializeToString())
    again.signatures.add()
    first = SignedStatement.FromString(again.SerializeToString())
    again.signatures[-1].certificate_chain.append(b"another way to the same anchor")
    sha256 = statement_sha256(first)
    assert statement_sha256(again) == sha256
    async with PostgresStore.open(address, "platform", schema=SCHEMA) as other:
        await other.transact(lambda tx: _keep(tx, first))

    await store.transact(lambda tx: _keep(tx, again))

    assert await store.read(lambda tx: tx.journal.find_statement(NUMBER, sha256)) == first


def test_no_more_is_remembered_than_there_is_room_for_and_the_oldest_goes_first() -> None:
    known = Remembered[Key](most=2)

    known.add({(NUMBER, bytes([each])): b"content" for each in range(3)})

    assert [known.get((NUMBER, bytes([each]))) for each in range(3)] == [
        None,
        b"content",
        b"content",
    ]
