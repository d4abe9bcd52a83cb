"""The audit of a store: is the log what it was when it was signed, and are the records the log's?

Everything is computed anew, from the leaves and from the bytes of the statements: the tree, its
root at every signed size, and the digests. So an edited row, a deleted one, one that was put in
beside the log, and a backup of yesterday each show. What this cannot show is a store that was
replaced as a whole together with its keys: that is what peers and supervision keep checkpoints for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from google.protobuf.message import DecodeError

from rxoutflow.log.checkpoint import CheckpointWrong, verify_checkpoint
from rxoutflow.log.merkle import Growth, covering, leaf_hash
from rxoutflow.log.receipts import leaf_data
from rxoutflow.statements import Verifier, statement_sha256
from rxoutflow_server.application.log import proofs
from rxoutflow_server.application.ports import LogCheckpoint, LogLeaf, Transaction
from rxoutflow_server.domain.errors import InvariantBroken

PAGE = 4096
MOST_PROBLEMS = 100
"""So many problems are told; where there are more, nobody reads them one by one."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit has found: how much was checked, and what is wrong."""

    leaves: int
    checkpoints: int
    problems: tuple[str, ...]


def audit(tx: Transaction, region_code: str, verifier: Verifier, now: datetime) -> Audit:
    """Check the log against the records, its tree, and its checkpoints, on one snapshot."""
    found = _problems(tx, region_code, verifier, now)
    problems = tuple(islice(found, MOST_PROBLEMS))
    return Audit(tx.log.size(), sum(1 for _ in _checkpoints(tx)), problems)


def _problems(
    tx: Transaction, region_code: str, verifier: Verifier, now: datetime
) -> Iterator[str]:
    yield from _tree(tx)
    for number, sha256 in tx.log.unlogged(MOST_PROBLEMS):
        yield f"statement {sha256.hex()} of {number} is kept, but was never in the log"
    for checkpoint in _checkpoints(tx):
        yield from _checkpoint(tx, checkpoint, region_code, verifier, now)


def _tree(tx: Transaction) -> Iterator[str]:
    """Let the tree grow anew from the leaves, and compare it with the stored one."""
    size = 0
    hashes: dict[tuple[int, int], bytes] = {}
    while leaves := tx.log.leaves(size, PAGE):
        if leaves[0].index != size or leaves[-1].index != size + len(leaves) - 1:
            yield f"leaves are missing at or after leaf {size}"
            return
        edge = {level: hashes[level, at] for level, at in covering(0, size)}
        growth = Growth(size, edge, [_hash(leaf) for leaf in leaves])
        for leaf in leaves:
            yield from _leaf(tx, leaf, growth)
        size = growth.size
        hashes = {each: _computed(growth, hashes, each) for each in covering(0, size)}


def _computed(
    growth: Growth, before: dict[tuple[int, int], bytes], subtree: tuple[int, int]
) -> bytes:
    """The hash of a full subtree of a grown tree's edge: a new one, or one that was there."""
    level, position = subtree
    end = ((position + 1) << level) - 1
    return before[subtree] if end < growth.first else growth.completed(end)[level]


def _leaf(tx: Transaction, leaf: LogLeaf, growth: Growth) -> Iterator[str]:
    completed = growth.completed(leaf.index)
    subtrees = [(level, leaf.index >> level) for level in range(len(completed))]
    try:
        stored = tx.log.hashes(subtrees)
    except InvariantBroken:
        stored = {}
    if [stored.get(each) for each in subtrees] != completed:
        yield f"leaf {leaf.index} is not what it was when it was placed"
    number, sha256 = leaf.prescription_number, leaf.statement_sha256
    try:
        statement = tx.journal.find_statement(number, sha256)
    except DecodeError:
        yield f"leaf {leaf.index}: what is kept as a statement of {number} is none any more"
        return
    except InvariantBroken as error:
        yield f"leaf {leaf.index}: the statement of {number} cannot be read: {error}"
        return
    if statement is None:
        yield f"leaf {leaf.index}: statement {sha256.hex()} of {number} is not kept any more"
    elif statement_sha256(statement) != sha256 or statement.payload_type != leaf.payload_type:
        yield f"leaf {leaf.index}: the statement of {number} is not what it was when it was kept"


def _checkpoint(
    tx: Transaction,
    checkpoint: LogCheckpoint,
    region_code: str,
    verifier: Verifier,
    now: datetime,
) -> Iterator[str]:
    name, message = f"checkpoint {checkpoint.size}", proofs.checkpoint_message(checkpoint)
    try:
        head = verify_checkpoint(message, verifier, now, region_code=region_code)
    except CheckpointWrong as error:
        yield f"{name}: {error}"
        return
    if (head.size, head.root) != (checkpoint.size, checkpoint.root):
        yield f"{name}: the row says something else than what was signed"
    if head.size > tx.log.size():
        yield f"{name}: the log has only {tx.log.size()} leaves: it was cut off, or rolled back"
    elif _root(tx, head.size) != head.root:
        yield f"{name}: the log at this size is another one than was signed"


def _root(tx: Transaction, size: int) -> bytes:
    """The root at a size; nothing if leaves are missing, which has been told."""
    try:
        return proofs.root(tx.log, size)
    except InvariantBroken:
        return b""


def _checkpoints(tx: Transaction) -> Iterator[LogCheckpoint]:
    """All checkpoints; of those of one size, the ones that fit on a page with the first."""
    after = 0
    while page := tx.log.checkpoints(after, PAGE):
        yield from page
        after = page[-1].size


def _hash(leaf: LogLeaf) -> bytes:
    return leaf_hash(leaf_data(leaf.statement_sha256, leaf.payload_type, leaf.keep_time))
