"""The region's verifiable log: leaves, the tree over them, its signed heads, and others' heads.

Leaves wait under their prescription, so that commands do not meet, until they get their places one
after the other. Each leaf's row holds the hashes of all full subtrees that end with it, its own
first, so a subtree is found by one key. Nothing that has a place is ever changed. Which leaf a
statement is, is found by its prescription.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256 as digest_of
from typing import Any

from rxoutflow.log.merkle import HASH_BYTES, Subtree
from rxoutflow.v1.statement_pb2 import Checkpoint
from rxoutflow_server.application.ports import LogCheckpoint, LogLeaf, SeenCheckpoint, WaitingLeaf
from rxoutflow_server.domain.errors import InvariantBroken
from rxoutflow_server.storage.tables.connection import Connection, Row
from rxoutflow_server.storage.tables.values import instant, micros

_APPEND = """
INSERT INTO log_waiting (prescription_number, position, statement_sha256, payload_type, keep_time)
VALUES (?, (SELECT COALESCE(MAX(position), 0) + 1 FROM log_waiting WHERE prescription_number = ?),
        ?, ?, ?)
"""
_TURN = "SELECT code FROM log_turn WHERE code = ?"
_SWEEP_WAITING = """
SELECT prescription_number, position, statement_sha256, payload_type, keep_time
FROM log_waiting WHERE prescription_number > ? ORDER BY prescription_number, position LIMIT ?
"""
_PLACE = """
INSERT INTO log_leaves (prescription_number, leaf_index, statement_sha256, payload_type, keep_time,
                        hashes)
VALUES (?, ?, ?, ?, ?, ?)
"""
_WAIT_NO_MORE = "DELETE FROM log_waiting WHERE prescription_number = ? AND position <= ?"
_SWEEP_SIZE = "SELECT COALESCE(MAX(leaf_index) + 1, 0) FROM log_leaves"
_LEAF = """
SELECT leaf_index, prescription_number, statement_sha256, payload_type, keep_time
FROM log_leaves WHERE prescription_number = ? AND statement_sha256 = ?
"""
_SWEEP_LEAVES = """
SELECT leaf_index, prescription_number, statement_sha256, payload_type, keep_time
FROM log_leaves WHERE leaf_index >= ? ORDER BY leaf_index LIMIT ?
"""
_SWEEP_UNLOGGED = """
SELECT prescription_number, sha256 FROM statements AS kept
WHERE prescription_number > ?
  AND NOT EXISTS (SELECT 1 FROM log_leaves WHERE prescription_number = kept.prescription_number
                                             AND statement_sha256 = kept.sha256)
  AND NOT EXISTS (SELECT 1 FROM log_waiting WHERE prescription_number = kept.prescription_number
                                              AND statement_sha256 = kept.sha256)
ORDER BY prescription_number, sha256 LIMIT ?
"""
_ADD_SIGNER = """
INSERT INTO log_signers (certificate_sha256, certificate_chain) VALUES (?, ?)
ON CONFLICT (certificate_sha256) DO NOTHING
"""
_ADD_CHECKPOINT = """
INSERT INTO log_checkpoints (size, root, time, note, certificate_sha256) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (size, time) DO NOTHING
"""
_SWEEP_CHECKPOINT = """
SELECT size, root, time, note, certificate_chain
FROM log_checkpoints JOIN log_signers USING (certificate_sha256)
WHERE size > ? ORDER BY size DESC, time DESC LIMIT 1
"""
_SWEEP_CHECKPOINTS = """
SELECT size, root, time, note, certificate_chain
FROM log_checkpoints JOIN log_signers USING (certificate_sha256)
WHERE size > ? ORDER BY size, time LIMIT ?
"""
_SEEN = """
SELECT size, root, time, note, certificate_chain
FROM log_seen WHERE region_code = ? AND contradicts = 0 ORDER BY size DESC LIMIT 1
"""
_SEE = """
INSERT INTO log_seen (region_code, contradicts, size, root, time, note, certificate_chain)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (region_code, contradicts, size, root) DO NOTHING
"""
_FORGET_EARLIER = """
DELETE FROM log_seen WHERE region_code = ? AND contradicts = 0 AND size < ?
"""
_SWEEP_SEEN = """
SELECT region_code, contradicts, size, root, time, note, certificate_chain
FROM log_seen WHERE region_code > ? ORDER BY region_code, contradicts, size, root
"""


class LogTables:
    """The port ``LogRecords`` in SQL."""

    def __init__(self, connection: Connection, lock: str = "") -> None:
        self._connection = connection
        self._lock = lock

    def append(self, number: str, sha256: bytes, payload_type: str, keep_time: datetime) -> None:
        """Append the leaf of a statement; it waits for a place."""
        self._connection.execute(_APPEND, (number, number, sha256, payload_type, micros(keep_time)))

    def take_turn(self) -> None:
        """Wait until no other transaction lets the tree grow; one writer has no others."""
        if self._lock:
            self._connection.execute(_TURN + self._lock, ("tree",))

    def waiting(self, limit: int) -> Sequence[WaitingLeaf]:
        """Leaves that wait for a place, in the order of their places to come."""
        rows = self._connection.execute(_SWEEP_WAITING, ("", limit)).fetchall()
        return [_waiting(row) for row in rows]

    def place(self, leaf: WaitingLeaf, index: int, hashes: bytes) -> None:
        """Give a leaf its place, with the hashes of the subtrees that end with it."""
        number, time = leaf.prescription_number, micros(leaf.keep_time)
        self._connection.execute(
            _PLACE, (number, index, leaf.statement_sha256, leaf.payload_type, time, hashes)
        )

    def placed(self, number: str, position: int) -> None:
        """The leaves of a prescription wait no more, up to a position."""
        self._connection.execute(_WAIT_NO_MORE, (number, position))

    def size(self) -> int:
        """How many leaves have a place: the size of the tree."""
        ((size,),) = self._connection.execute(_SWEEP_SIZE).fetchall()
        return int(size)

    def leaf(self, number: str, sha256: bytes) -> LogLeaf | None:
        """The leaf of a statement; none before it has a place."""
        row = self._connection.execute(_LEAF, (number, sha256)).fetchone()
        return None if row is None else _leaf(row)

    def leaves(self, begin: int, limit: int) -> Sequence[LogLeaf]:
        """Leaves from an index on, in order."""
        rows = self._connection.execute(_SWEEP_LEAVES, (begin, limit)).fetchall()
        return [_leaf(row) for row in rows]

    def hashes(self, subtrees: Sequence[Subtree]) -> dict[Subtree, bytes]:
        """The hashes of full subtrees of the tree, each by level and position.

        Raises:
            InvariantBroken: the tree has not grown over one of them.
        """
        ends = sorted({_end(subtree) for subtree in subtrees})
        rows = self._connection.execute(_rows_of_tree(len(ends)), ends).fetchall() if ends else []
        nodes: dict[int, bytes] = dict(rows)
        try:
            return {subtree: _hash(nodes[_end(subtree)], subtree[0]) for subtree in subtrees}
        except KeyError as error:
            raise InvariantBroken(f"the log's tree has no row for leaf {error}") from None

    def unlogged(self, limit: int) -> Sequence[tuple[str, bytes]]:
        """Statements that are kept without a leaf, by number and digest."""
        rows = self._connection.execute(_SWEEP_UNLOGGED, ("", limit)).fetchall()
        return [(number, sha256) for number, sha256 in rows]

    def add_checkpoint(self, checkpoint: LogCheckpoint) -> None:
        """Store a signed head."""
        signer = digest_of(checkpoint.certificate_chain[0]).digest()
        self._connection.execute(_ADD_SIGNER, (signer, _packed(checkpoint.certificate_chain)))
        size, root, note = checkpoint.size, checkpoint.root, checkpoint.note
        self._connection.execute(
            _ADD_CHECKPOINT, (size, root, micros(checkpoint.time), note, signer)
        )

    def checkpoint(self) -> LogCheckpoint | None:
        """The newest checkpoint."""
        row = self._connection.execute(_SWEEP_CHECKPOINT, (0,)).fetchone()
        return None if row is None else _checkpoint(row)

    def checkpoints(self, after: int, limit: int) -> Sequence[LogCheckpoint]:
        """Checkpoints of sizes above ``after``, smallest first."""
        rows = self._connection.execute(_SWEEP_CHECKPOINTS, (after, limit)).fetchall()
        return [_checkpoint(row) for row in rows]

    def seen(self, region_code: str) -> LogCheckpoint | None:
        """The newest checkpoint of another region's log that was found consistent."""
        row = self._connection.execute(_SEEN, (region_code,)).fetchone()
        return None if row is None else _checkpoint(row)

    def see(self, seen: SeenCheckpoint) -> bool:
        """Keep a checkpoint of another region; false if this one was kept before."""
        checkpoint = seen.checkpoint
        added = self._connection.execute(
            _SEE,
            (
                seen.region_code,
                int(seen.contradicts),
                checkpoint.size,
                checkpoint.root,
                micros(checkpoint.time),
                checkpoint.note,
                _packed(checkpoint.certificate_chain),
            ),
        )
        if not seen.contradicts:
            self._connection.execute(_FORGET_EARLIER, (seen.region_code, checkpoint.size))
        return added.rowcount == 1

    def all_seen(self) -> Sequence[SeenCheckpoint]:
        """The newest checkpoint of every other region, and all that contradict."""
        rows = self._connection.execute(_SWEEP_SEEN, ("",)).fetchall()
        return [
            SeenCheckpoint(region, _checkpoint(rest), bool(contradicts))
            for region, contradicts, *rest in rows
        ]


def _rows_of_tree(count: int) -> str:
    marks = ", ".join("?" * count)
    return f"SELECT leaf_index, hashes FROM log_leaves WHERE leaf_index IN ({marks})"  # noqa: S608 - only marks


def _end(subtree: Subtree) -> int:
    """The last leaf of a full subtree, with which its hash is stored."""
    level, position = subtree
    return ((position + 1) << level) - 1


def _hash(hashes: bytes, level: int) -> bytes:
    return hashes[level * HASH_BYTES : (level + 1) * HASH_BYTES]


def _leaf(row: Row) -> LogLeaf:
    index, number, sha256, payload_type, keep_time = row
    return LogLeaf(index, number, sha256, payload_type, instant(keep_time))


def _waiting(row: Row) -> WaitingLeaf:
    number, position, sha256, payload_type, keep_time = row
    return WaitingLeaf(number, position, sha256, payload_type, instant(keep_time))


def _checkpoint(row: Sequence[Any]) -> LogCheckpoint:
    size, root, time, note, chain = row
    unpacked = tuple(Checkpoint.FromString(chain).certificate_chain)
    return LogCheckpoint(size, root, instant(time), note, unpacked)


def _packed(chain: Sequence[bytes]) -> bytes:
    """A certificate chain as one value: it is only ever read as a whole."""
    return Checkpoint(certificate_chain=chain).SerializeToString()
