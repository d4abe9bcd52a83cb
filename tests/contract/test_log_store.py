"""The verifiable log as every store keeps it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from rxoutflow_server.application.exchange.evidence import keep
from rxoutflow_server.application.ports import (
    LogCheckpoint,
    SeenCheckpoint,
    Store,
    Transaction,
    WaitingLeaf,
)
from rxoutflow_server.domain.errors import InvariantBroken
from support.records import NOW, NUMBER, digest, statement

OTHER = "350500"
HASH = bytes(range(32))
HEAD = LogCheckpoint(3, HASH, NOW, "a signed note", (b"leaf", b"issuer"))


def placed(tx: Transaction) -> None:
    """Give every leaf that waits its place, with hashes that are easy to tell apart."""
    for index, leaf in enumerate(tx.log.waiting(99), tx.log.size()):
        levels = ((index + 1) & -(index + 1)).bit_length()
        hashes = [bytes([index, level]) * 16 for level in range(levels)]
        tx.log.place(leaf, index, b"".join(hashes))
        tx.log.placed(leaf.prescription_number, leaf.position)


async def test_a_statement_that_is_kept_waits_for_its_place_once(
    store: Store,
) -> None:
    for word in ("one", "two", "one"):
        await store.transact(lambda tx, each=word: keep(tx, NUMBER, statement(each), NOW))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    waiting = await store.read(lambda tx: tx.log.waiting(99))
    assert [leaf.position for leaf in waiting] == [1, 2]
    assert isinstance(waiting[0], WaitingLeaf)
    assert waiting[0].keep_time == NOW
    assert await store.read(lambda tx: tx.log.unlogged(99)) == []


async def test_places_are_given_in_order_and_found_by_statement(
    store: Store,
) -> None:
    for at in range(5):
        await store.transact(lambda tx, each=str(at): keep(tx, NUMBER, statement(each), NOW))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    await store.transact(placed)
    leaves = await store.read(lambda tx: tx.log.leaves(0, 99))
    assert [leaf.index for leaf in leaves] == [0, 1, 2, 3, 4]
    assert await store.read(lambda tx: (tx.log.size(), tx.log.waiting(9))) == (5, [])
    for leaf in leaves:
        found = await store.read(
            lambda tx, each=leaf: tx.log.leaf(NUMBER, each.statement_sha256)  # type: ignore[misc] # mypy cannot infer a lambda with a default
        )
        assert found == leaf
    assert await store.read(lambda tx: tx.log.leaf(NUMBER, digest("never"))) is None
    assert await store.read(lambda tx: tx.log.leaves(3, 1)) == [leaves[3]]


async def test_a_subtree_is_found_with_the_leaf_that_ends_it(
    store: Store,
) -> None:
    for at in range(8):
        await store.transact(lambda tx, each=str(at): keep(tx, NUMBER, statement(each), NOW))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    await store.transact(placed)
    wanted = [(0, 4), (1, 1), (2, 0), (3, 0)]
    ends = [4, 3, 3, 7]
    found = await store.read(lambda tx: tx.log.hashes(wanted))
    assert found == {
        (level, at): bytes([end, level]) * 16 for (level, at), end in zip(wanted, ends, strict=True)
    }
    assert await store.read(lambda tx: tx.log.hashes([])) == {}
    with pytest.raises(InvariantBroken, match="no row for leaf 8"):
        await store.read(lambda tx: tx.log.hashes([(0, 8)]))


async def test_a_place_is_given_once(store: Store) -> None:
    await store.transact(lambda tx: keep(tx, NUMBER, statement("one"), NOW))
    await store.transact(placed)
    leaf = WaitingLeaf(NUMBER, 1, digest("another"), "kind", NOW)
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.log.place(leaf, 0, HASH))


async def test_checkpoints_come_back_by_size_and_the_newest_is_known(
    store: Store,
) -> None:
    assert await store.read(lambda tx: tx.log.checkpoint()) is None
    later = replace(HEAD, size=9, note="another", time=NOW + timedelta(seconds=1))
    renewed = replace(later, certificate_chain=(b"new",), time=NOW + timedelta(days=1))
    for head in (HEAD, later, renewed):
        await store.transact(lambda tx, each=head: tx.log.add_checkpoint(each))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    assert await store.read(lambda tx: tx.log.checkpoint()) == renewed
    assert await store.read(lambda tx: tx.log.checkpoints(0, 99)) == [HEAD, later, renewed]
    assert await store.read(lambda tx: tx.log.checkpoints(3, 1)) == [later]


async def test_the_newest_head_of_another_log_is_kept_and_all_that_contradict(
    store: Store,
) -> None:
    later = replace(HEAD, size=9)
    for head in (HEAD, later):
        seen = SeenCheckpoint(OTHER, head)
        assert await store.transact(lambda tx, each=seen: tx.log.see(each))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    forked = SeenCheckpoint(OTHER, replace(HEAD, size=5), contradicts=True)
    assert await store.transact(lambda tx: tx.log.see(forked))
    assert not await store.transact(lambda tx: tx.log.see(forked))
    assert await store.read(lambda tx: tx.log.seen(OTHER)) == later
    assert await store.read(lambda tx: tx.log.seen("350200")) is None
    assert await store.read(lambda tx: tx.log.all_seen()) == [
        SeenCheckpoint(OTHER, later),
        forked,
    ]


async def test_a_statement_beside_the_log_is_found(store: Store) -> None:
    await store.transact(
        lambda tx: tx.journal.keep_statement(NUMBER, digest("x"), statement("x"), NOW)
    )
    assert await store.read(lambda tx: tx.log.unlogged(99)) == [(NUMBER, digest("x"))]
