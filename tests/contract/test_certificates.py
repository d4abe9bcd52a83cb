"""Certificates are kept once, and whoever keeps or reads bytes with them does not see it.

On every engine: in the same transaction and in later ones, beside others who keep the same
certificates, after what was undone, after a restart, and from rows of before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from rxoutflow.statements import statement_sha256
from rxoutflow.v1.statement_pb2 import Signature, SignedStatement
from rxoutflow_server.application.edge_ports import EdgeStore
from rxoutflow_server.application.ports import Store, StoredOutcome, Transaction
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.memory import MemoryStore
from rxoutflow_server.storage.postgres import Options, PostgresStore
from rxoutflow_server.storage.sqlite.connection import open_reader
from rxoutflow_server.storage.sqlite.store import SqliteStore
from rxoutflow_server.storage.tables.certificates import CertificateTables
from support.backends import Backend
from support.postgres import deadlocks, fresh_schema
from support.records import NOW, NUMBER, certificate, digest, outcome, statement

SCHEMA = "certificates"
PHYSICIAN, PHARMACIST, HOSPITAL = (certificate(each) for each in ("physician", "pharmacist", "H"))
REQUEST = (NUMBER, "caller", "id")


def signed(content: str, *chains: bytes) -> SignedStatement:
    """A statement, each certificate of which is named by its signature as they are."""
    made = statement(content)
    del made.signatures[:]
    for each in chains:
        protected = b"\x12\x20" + sha256(each).digest()
        made.signatures.append(
            Signature(protected=protected, value=b"value" * 14, certificate_chain=[each])
        )
    return made


SHEET = signed("a prescription", PHYSICIAN, PHARMACIST, HOSPITAL)
CLAIM = signed("a claim", PHARMACIST)


def keep(kept: SignedStatement, tx: Transaction) -> None:
    tx.keep(NUMBER, statement_sha256(kept), kept, NOW)


def find(kept: SignedStatement, tx: Transaction) -> SignedStatement | None:
    return tx.journal.find_statement(NUMBER, statement_sha256(kept))


def keep_answer(response: bytes, tx: Transaction) -> None:
    tx.journal.keep_outcome(*REQUEST, outcome(response))


def find_answer(tx: Transaction) -> StoredOutcome | None:
    return tx.journal.outcome(*REQUEST)


class Undone(Exception):
    """What a command raises that has kept something."""


def undone(kept: SignedStatement, tx: Transaction) -> None:
    keep(kept, tx)
    assert find(kept, tx) == kept
    raise Undone


# --- on every engine ------------------------------------------------------------------------------


async def test_a_statement_is_read_byte_for_byte_in_its_transaction_and_later(store: Store) -> None:
    def keep_and_find(tx: Transaction) -> list[SignedStatement | None]:
        keep(SHEET, tx)
        return [find(SHEET, tx), *(each for _, each in tx.journal.statements(NUMBER))]

    whole = SHEET.SerializeToString()
    here = await store.transact(keep_and_find)
    later = [await each(partial(find, SHEET)) for each in (store.transact, store.read)]
    listed = await store.read(lambda tx: tx.journal.statements_of(NUMBER, SHEET.payload_type))
    kept = await store.read(
        lambda tx: tx.journal.statements_kept(SHEET.payload_type, NOW, NOW.replace(year=2027))
    )
    for each in (*here, *later, *listed, *kept):
        assert each is not None
        assert each.SerializeToString() == whole


async def test_an_answer_is_read_byte_for_byte(store: Store) -> None:
    answer = b"\x0a\x00" + SHEET.SerializeToString() + CLAIM.SerializeToString()
    await store.transact(partial(keep_answer, answer))
    for ask in (store.transact, store.read):
        assert await ask(find_answer) == outcome(answer)


async def test_two_commands_at_once_keep_the_same_certificates(store: Store) -> None:
    other = signed("another", HOSPITAL, PHARMACIST, PHYSICIAN)
    await asyncio.gather(*(store.transact(partial(keep, each)) for each in (SHEET, other, CLAIM)))
    for each in (SHEET, other, CLAIM):
        assert await store.read(partial(find, each)) == each


async def test_a_row_of_before_is_read_as_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was taken out of what an earlier release has kept."""
    with monkeypatch.context() as earlier:
        earlier.setattr(CertificateTables, "take_out", lambda tables, whole: whole)
        await store.transact(partial(keep, SHEET))
        await store.transact(partial(keep_answer, SHEET.SerializeToString()))
    await store.transact(partial(keep, CLAIM))
    for each in (SHEET, CLAIM):
        assert await store.read(partial(find, each)) == each
    assert await store.read(find_answer) == outcome(SHEET.SerializeToString())


async def test_an_edge_keeps_certificates_once_too(edge: EdgeStore) -> None:
    key, whole = (NUMBER, digest("sheet")), SHEET.SerializeToString()
    await edge.transact(lambda tx: tx.journal.keep_statement(*key, SHEET, NOW))
    for ask in (edge.transact, edge.read):
        found = await ask(lambda tx: tx.journal.statement(*key))
        assert found.SerializeToString() == whole


async def test_after_a_restart_everything_is_read_and_kept_as_before(
    lasting_backend: Backend,
) -> None:
    for kept in (SHEET, CLAIM, signed("a third", HOSPITAL)):
        store = lasting_backend.platform()
        await store.transact(partial(keep, kept))
        await store.close()
    store = lasting_backend.platform()
    found = dict(await store.read(lambda tx: tx.journal.statements(NUMBER)))
    await store.close()
    assert [found[statement_sha256(each)] for each in (SHEET, CLAIM)] == [SHEET, CLAIM]
    assert len(found) == 3


async def test_a_certificate_of_a_command_that_was_undone_is_kept_by_the_next(
    lasting_backend: Backend,
) -> None:
    store = lasting_backend.platform()
    with pytest.raises(Undone):
        await store.transact(partial(undone, SHEET))
    await store.transact(partial(keep, CLAIM))
    await store.transact(partial(keep_answer, SHEET.SerializeToString()))
    await store.close()
    store = lasting_backend.platform()
    assert await store.read(partial(find, CLAIM)) == CLAIM
    assert await store.read(find_answer) == outcome(SHEET.SerializeToString())
    await store.close()


# --- several processes on one database ------------------------------------------------------------


@pytest.fixture
def address() -> str:
    return fresh_schema(SCHEMA)


@pytest.fixture(params=[False, True], ids=["one", "distributed"])
async def stores(request: pytest.FixtureRequest, address: str) -> AsyncIterator[list[Store]]:
    """Three stores, as three processes have them."""
    options = Options(workers=2, distributed=request.param)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                PostgresStore.open(address, "platform", schema=SCHEMA, options=options)
            )
            for _ in range(3)
        ]


async def test_processes_keep_the_same_new_certificates_in_opposite_orders_without_a_deadlock(
    stores: list[Store], address: str
) -> None:
    *both, fresh = stores
    before, kept = deadlocks(address), list[SignedStatement]()
    for turn in range(10):
        new = [certificate(turn, each) for each in range(60)]
        one, other = signed(f"{turn}", *new), signed(f"{turn} too", *reversed(new))
        await asyncio.gather(
            both[0].transact(partial(_keep_all, [signed(f"first of {turn}", new[0]), one])),
            both[1].transact(partial(_keep_all, [signed(f"last of {turn}", new[-1]), other])),
        )
        kept += [one, other]
    for each in kept:
        assert await fresh.read(partial(find, each)) == each
    assert deadlocks(address) == before


def _keep_all(kept: list[SignedStatement], tx: Transaction) -> None:
    for each in kept:
        keep(each, tx)
        assert find(each, tx) == each


# --- what is in the tables ------------------------------------------------------------------------


async def test_a_statement_is_smaller_by_its_certificates_and_each_has_one_row(
    tmp_path: Path,
) -> None:
    path = tmp_path / "platform.db"
    async with SqliteStore.open(path, "platform") as store:
        await store.transact(partial(keep, SHEET))
        await store.transact(partial(keep, CLAIM))
        await store.transact(partial(keep_answer, SHEET.SerializeToString()))
    with closing(open_reader(path)) as connection:
        sizes = dict(connection.execute("SELECT sha256, length(statement) FROM statements"))
        ((answer,),) = connection.execute("SELECT length(response) FROM outcomes")
        rows = dict(connection.execute("SELECT sha256, certificate FROM certificates"))
    assert sizes[statement_sha256(SHEET)] == answer < SHEET.ByteSize() - 3 * 490
    assert sizes[statement_sha256(CLAIM)] < CLAIM.ByteSize() - 490
    assert rows == {sha256(each).digest(): each for each in (PHYSICIAN, PHARMACIST, HOSPITAL)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("DELETE FROM certificates", "is not kept any more"),
        ("UPDATE certificates SET certificate = x'3082'", "was changed"),
    ],
)
async def test_without_its_certificate_nothing_is_made_up(how: str, said: str) -> None:
    async with MemoryStore.open("platform") as store:
        await store.transact(partial(keep, CLAIM))
        await store.transact(partial(keep_answer, CLAIM.SerializeToString()))
        store.connection.execute(how)
        for ask in (partial(find, CLAIM), find_answer):
            with pytest.raises(InvariantBroken, match=said):
                await store.read(ask)
        assert await store.read(partial(find, SHEET)) is None
