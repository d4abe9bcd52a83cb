"""The region's log at work: the tree grows over what commands append, its head is signed, receipts.

Commands append leaves to those that wait. A store with one writer calls :meth:`RegionLog.grow_now`
once for each commit, inside its transaction, so that leaves, tree and signed head are on the disk
together with what they are about. A store with many writers calls :meth:`RegionLog.grow_with`
likewise, which waits for its turn; what was appended without that, has the tree grow in a
transaction of its own, by whoever needs a receipt first. Either way a leaf is appended with what
it is about, or not at all.

Receipts of leaves that were placed just now are made from memory, all others from the stored tree.
A receipt never fails an answer: if the key cannot sign at the moment, answers go without, and the
next growth signs for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

import structlog

from rxoutflow.log.checkpoint import Head, sign_head
from rxoutflow.log.merkle import Growth, covering, leaf_hash
from rxoutflow.log.receipts import leaf_data
from rxoutflow.statements import Signer, SignerUnavailable, statement_sha256
from rxoutflow.v1.statement_pb2 import Checkpoint, Receipt, SignedStatement
from rxoutflow_server.application.log import proofs
from rxoutflow_server.application.ports import (
    LogCheckpoint,
    LogLeaf,
    LogRecords,
    Store,
    Transaction,
    WaitingLeaf,
)
from rxoutflow_server.domain.errors import InvariantBroken, Refusal, Unavailable

STEP = 4096
"""Leaves by which the tree grows at a time. Only the first commit of an old store has more."""

RECENT = 4096
"""Leaves whose receipts are made from memory: those of the last commits, whose answers go out."""

log = structlog.get_logger()


class Receipted(Protocol):
    """An answer with a receipt."""

    @property
    def receipt(self) -> Receipt:
        """The receipt."""


R = TypeVar("R", bound=Receipted)


@dataclass(frozen=True, slots=True)
class Grown:
    """What a tree has grown by, under a signed head."""

    growth: Growth
    leaves: Sequence[LogLeaf]
    checkpoint: Checkpoint

    def receipt(self, leaf: LogLeaf) -> Receipt:
        """The receipt of one of the leaves."""
        return proofs.receipt_message(leaf, self.growth.path(leaf.index), self.checkpoint)


class RegionLog:
    """The log of one region, signed with the seal key of its platform.

    Args:
        region_code: whose log it is.
        signer: the seal of the region's platform.
        now: the time.
        with_commits: whether the store calls ``grow_now`` within each of its commits.
    """

    def __init__(
        self,
        region_code: str,
        signer: Signer,
        now: Callable[[], datetime],
        *,
        with_commits: bool = True,
    ) -> None:
        self._region_code = region_code
        self._signer = signer
        self._now = now
        self._with_commits = with_commits
        self._signed_size: int | None = None
        self._recent: dict[bytes, tuple[LogLeaf, Grown]] = {}
        self._growing = asyncio.Lock()

    def grow_now(self, tx: Transaction) -> None:
        """Let the tree grow, on the thread of the one writer, before it commits.

        If that commit fails the store stops for good, and nobody hears of what was remembered.
        """
        size, growth, leaves = _grown(tx.log)
        if size != self._known_size(tx.log):
            self._remember(self._sign(tx.log, size, growth, leaves))

    def grow_with(self, tx: Transaction) -> Callable[[], None]:
        """Let the tree grow in a transaction of one of many writers, which may be undone.

        What is returned is to be called on the event loop once the transaction is committed.
        """
        grown = self._grow(tx)
        return lambda: self._remember(grown)

    async def receipt(self, store: Store, statement: SignedStatement) -> Receipt | None:
        """The receipt of a statement that a command has kept; none if no head is signed over it."""
        sha256 = statement_sha256(statement)
        receipt = self._from_memory(sha256)
        if receipt is None:
            number = proofs.number_in(statement)
            receipt = await store.read(lambda tx: proofs.receipt(tx.log, number, sha256))
        if receipt is None and not self._with_commits:
            receipt = await self._grow_for(store, sha256)
        return receipt

    async def attach(self, store: Store, response: R, statement: SignedStatement) -> R:
        """The answer, with the receipt of the statement that it answers, if there is one now.

        What is answered has taken effect, so trouble with its receipt is never the caller's.
        """
        try:
            receipt = await self.receipt(store, statement)
        except (Refusal, Unavailable, InvariantBroken) as error:
            log.warning(
                "receipt_not_made", region=self._region_code, exception=type(error).__name__
            )
            return response
        if receipt is not None:
            response.receipt.CopyFrom(receipt)
        return response

    def _from_memory(self, sha256: bytes) -> Receipt | None:
        recent = self._recent.get(sha256)
        if recent is None:
            return None
        leaf, grown = recent
        return grown.receipt(leaf)

    async def _grow_for(self, store: Store, sha256: bytes) -> Receipt | None:
        """Have the tree grow over everything that waits, once for all who wait here."""
        async with self._growing:
            receipt = self._from_memory(sha256)
            if receipt is None:
                self._remember(await store.transact(self._grow))
                receipt = self._from_memory(sha256)
        return receipt

    def _grow(self, tx: Transaction) -> Grown | None:
        """Let the tree grow in a transaction of its own, which may be undone and tried again."""
        size, growth, leaves = _grown(tx.log)
        if growth is None:
            newest = tx.log.checkpoint()
            if size == (newest.size if newest is not None else 0):
                return None
        return self._sign(tx.log, size, growth, leaves)

    def _known_size(self, records: LogRecords) -> int:
        """The size of the newest checkpoint; 0 at a start if another key has signed it."""
        if self._signed_size is None:
            newest = records.checkpoint()
            leaf = self._signer.certificate_chain[0]
            ours = newest is not None and newest.certificate_chain[0] == leaf
            self._signed_size = newest.size if newest is not None and ours else 0
        return self._signed_size

    def _sign(
        self, records: LogRecords, size: int, growth: Growth | None, leaves: Sequence[LogLeaf]
    ) -> Grown | None:
        """Sign and store the head; none if the key cannot sign at the moment."""
        root = growth.root if growth is not None else proofs.root(records, size)
        try:
            signed = sign_head(Head(self._region_code, size, root), self._signer)
        except SignerUnavailable:
            log.warning("checkpoint_not_signed", region=self._region_code, size=size)
            return None
        chain = tuple(signed.certificate_chain)
        checkpoint = LogCheckpoint(size, root, self._now(), signed.note, chain)
        records.add_checkpoint(checkpoint)
        self._signed_size = size
        return Grown(growth, leaves, signed) if growth is not None else None

    def _remember(self, grown: Grown | None) -> None:
        """Keep what the receipts of answers are made of that are about to go out."""
        if grown is not None:
            self._recent.update({each.statement_sha256: (each, grown) for each in grown.leaves})
        while len(self._recent) > RECENT:
            self._recent.pop(next(iter(self._recent)))


def _grown(records: LogRecords) -> tuple[int, Growth | None, list[LogLeaf]]:
    """The tree's size after it has grown over all that waits, and the last step of that."""
    records.take_turn()
    size, growth, leaves = records.size(), None, list[LogLeaf]()
    there_is_more = True
    while there_is_more and (waiting := records.waiting(STEP)):
        edge = {level: each for (level, _), each in records.hashes(covering(0, size)).items()}
        growth = Growth(size, edge, [_hash(leaf) for leaf in waiting])
        leaves = [_placed(records, leaf, size + at, growth) for at, leaf in enumerate(waiting)]
        for number, position in {
            each.prescription_number: each.position for each in waiting
        }.items():
            records.placed(number, position)
        size, there_is_more = growth.size, len(waiting) == STEP
    return size, growth, leaves


def _placed(records: LogRecords, leaf: WaitingLeaf, index: int, growth: Growth) -> LogLeaf:
    records.place(leaf, index, b"".join(growth.completed(index)))
    number, sha256 = leaf.prescription_number, leaf.statement_sha256
    return LogLeaf(index, number, sha256, leaf.payload_type, leaf.keep_time)


def _hash(leaf: WaitingLeaf) -> bytes:
    return leaf_hash(leaf_data(leaf.statement_sha256, leaf.payload_type, leaf.keep_time))
