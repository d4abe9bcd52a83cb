"""Receipts: that a region's log keeps a statement, since when, verified without asking anybody.

A receipt is good evidence only together with the statement that it is about: the leaf is computed
here from the statement's own bytes. Keep both. A receipt says that the platform *keeps* the
statement, not that the statement is right; that is for :class:`rxoutflow.statements.Verifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from rxoutflow.log.checkpoint import CheckpointWrong, Head, verify_checkpoint
from rxoutflow.log.merkle import ProofWrong, leaf_hash, verify_inclusion
from rxoutflow.statements import Verifier, statement_sha256
from rxoutflow.v1.statement_pb2 import Receipt, SignedStatement

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class ReceiptWrong(ValueError):
    """A receipt does not show that the log keeps this statement."""


@dataclass(frozen=True, slots=True)
class LoggedAt:
    """Where a receipt puts a statement: in which log, at which place, since when."""

    head: Head
    leaf_index: int
    keep_time: datetime


def leaf_data(sha256: bytes, payload_type: str, keep_time: datetime) -> bytes:
    """What the leaf of a statement is the hash of; see the contract's Receipt.

    Raises:
        TypeError: the time has no zone.
    """
    micros = (keep_time - _EPOCH) // _MICROSECOND
    return f"rxoutflow-leaf-v1 {micros} {payload_type} {sha256.hex()}\n".encode()


def verify_receipt(
    receipt: Receipt,
    statement: SignedStatement,
    verifier: Verifier,
    now: datetime,
    *,
    region_code: str | None = None,
) -> LoggedAt:
    """Where the log keeps a statement, if the receipt proves it.

    Args:
        receipt: as it was received.
        statement: the statement that it is about, sealed, byte for byte.
        verifier: whom to trust.
        now: the time, aware.
        region_code: the region whose log it must be; any that is trusted if ``None``.

    Raises:
        ReceiptWrong: saying what does not fit.
    """
    if receipt.statement_sha256 != statement_sha256(statement):
        raise ReceiptWrong("the receipt is about another statement")
    try:
        head = verify_checkpoint(receipt.checkpoint, verifier, now, region_code=region_code)
    except CheckpointWrong as error:
        raise ReceiptWrong(str(error)) from None
    path = receipt.inclusion_path
    keep_time = verify_leaf(statement, receipt.leaf_index, receipt.keep_time, path, head)
    return LoggedAt(head, receipt.leaf_index, keep_time)


def verify_leaf(
    statement: SignedStatement, index: int, keep_time: Timestamp, path: Sequence[bytes], head: Head
) -> datetime:
    """When the log under this head began to keep a statement, if the path proves it.

    Raises:
        ReceiptWrong: it does not.
    """
    time = _exact(keep_time)
    leaf = leaf_hash(leaf_data(statement_sha256(statement), statement.payload_type, time))
    try:
        verify_inclusion(leaf, index, head.size, path, head.root)
    except ProofWrong as error:
        raise ReceiptWrong(f"the log does not keep it: {error}") from None
    return time


def _exact(time: Timestamp) -> datetime:
    """The time, which has whole microseconds: a leaf holds no more."""
    if time.nanos % 1000:
        raise ReceiptWrong("keep_time: must have whole microseconds")
    try:
        return time.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise ReceiptWrong("keep_time: is no time") from None
