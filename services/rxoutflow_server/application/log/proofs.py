"""Proofs from the stored tree: that a statement is in the log, that the log was only added to.

All proofs lead to stored checkpoints, because only these were signed. They are functions of one
snapshot of the records and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from google.protobuf.message import DecodeError

from rxoutflow.log import merkle
from rxoutflow.statements.payloads import RULES
from rxoutflow.v1.statement_pb2 import Checkpoint, Receipt, SignedStatement
from rxoutflow_server.application.messages import timestamp
from rxoutflow_server.application.ports import LogCheckpoint, LogLeaf, LogRecords

_KINDS = {rule.payload_type: rule.message for rule in RULES}


def checkpoint_message(checkpoint: LogCheckpoint) -> Checkpoint:
    """A checkpoint as the contract has it."""
    return Checkpoint(note=checkpoint.note, certificate_chain=checkpoint.certificate_chain)


def receipt_message(leaf: LogLeaf, path: Iterable[bytes], checkpoint: Checkpoint) -> Receipt:
    """A receipt as the contract has it."""
    return Receipt(
        statement_sha256=leaf.statement_sha256,
        leaf_index=leaf.index,
        inclusion_path=path,
        checkpoint=checkpoint,
        keep_time=timestamp(leaf.keep_time),
    )


def receipt(log: LogRecords, number: str, sha256: bytes) -> Receipt | None:
    """The receipt of a statement under the newest checkpoint; none if it is not under it yet."""
    leaf, checkpoint = log.leaf(number, sha256), log.checkpoint()
    if leaf is None or checkpoint is None or leaf.index >= checkpoint.size:
        return None
    path = inclusion_path(log, leaf.index, checkpoint.size)
    return receipt_message(leaf, path, checkpoint_message(checkpoint))


def inclusion_path(log: LogRecords, index: int, size: int) -> list[bytes]:
    """The path of a leaf in the tree of a size that the log has reached.

    Raises:
        ValueError: there is no such leaf.
    """
    return _path(log, merkle.inclusion_ranges(index, size))


def consistency_path(log: LogRecords, first: int, second: int) -> list[bytes]:
    """The proof that the tree of one size is the beginning of that of another.

    Raises:
        ValueError: the first size is 0, or larger than the second.
    """
    return _path(log, merkle.consistency_ranges(first, second))


def root(log: LogRecords, size: int) -> bytes:
    """The root of the tree at a size that the log has reached."""
    covering = merkle.covering(0, size)
    hashes = log.hashes(covering)
    return merkle.folded([hashes[each] for each in covering])


def number_in(statement: SignedStatement) -> str:
    """The prescription that a statement says to be about; empty if it says nothing of the kind."""
    kind = _KINDS.get(statement.payload_type)
    if kind is None or "prescription_number" not in kind.DESCRIPTOR.fields_by_name:
        return ""
    try:
        return str(attrgetter("prescription_number")(kind.FromString(statement.payload)))
    except DecodeError:
        return ""


def _path(log: LogRecords, ranges: list[merkle.Range]) -> list[bytes]:
    return merkle.path_of(ranges, log.hashes(merkle.subtrees_of(ranges)))
