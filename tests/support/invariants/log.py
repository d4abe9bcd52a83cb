"""I9 log: one leaf for each statement, signed heads that agree, receipts that stay true.

Roots are computed here from the stored leaves alone, with hashing written as the standard writes it
(RFC 6962, 2.1), so neither the stored tree nor its code is believed. A head that is the root over a
beginning of the leaves is consistent with every other such head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from rxoutflow.log.checkpoint import read_head
from rxoutflow.log.receipts import leaf_data
from rxoutflow.v1.statement_pb2 import Receipt
from support.invariants.answers import Answer
from support.invariants.records import RegionRecords
from support.invariants.violation import hold


def check_log(records: RegionRecords) -> None:
    """I9, of a region: leaves and statements are the same, and every head is over those leaves."""
    places = [leaf.index for leaf in records.leaves]
    hold("I9", places == list(range(len(places))), f"leaves of {records.code} are not in a row")
    logged = [(leaf.prescription_number, leaf.statement_sha256) for leaf in records.leaves]
    hold(
        "I9", len(set(logged)) == len(logged), f"a statement is in the log of {records.code} twice"
    )
    missing = len(records.statements.keys() - set(logged))
    hold("I9", not missing, f"{missing} statements are not in the log of {records.code}")
    gone = len(set(logged) - records.statements.keys())
    hold("I9", not gone, f"{gone} leaves of {records.code} are of no statement that is kept")
    roots = _roots(records)
    for checkpoint in records.checkpoints:
        fits = checkpoint.size < len(roots) and roots[checkpoint.size] == checkpoint.root
        hold("I9", fits, f"the head of {records.code} at {checkpoint.size} is not over its leaves")
        head = read_head(checkpoint.note)
        stated = (head.region_code, head.size, head.root)
        kept = (records.code, checkpoint.size, checkpoint.root)
        hold("I9", stated == kept, f"{records.code} signed another head than it stored")


def check_grown(before: RegionRecords, after: RegionRecords) -> None:
    """I9, of two moments: a log is only ever added to."""
    same = after.leaves[: len(before.leaves)] == before.leaves
    hold("I9", same, f"leaves of {before.code} changed or went")
    lost = len(set(before.checkpoints) - set(after.checkpoints))
    hold("I9", not lost, f"{lost} signed heads of {before.code} are gone")


def check_receipts(answers: Iterable[Answer], records: RegionRecords) -> None:
    """I9: every receipt that a client got is true of the log as it is now."""
    roots = _roots(records)
    for answer in answers:
        receipt = getattr(answer.response, "receipt", None)
        if not isinstance(receipt, Receipt) or not receipt.statement_sha256:
            continue
        head = read_head(receipt.checkpoint.note)
        if head.region_code != records.code:
            continue
        what = f"the receipt of {answer.method} {answer.request_id}"
        index, size = receipt.leaf_index, head.size
        known = index < size < len(roots) and roots[size] == head.root
        hold("I9", known, f"{what} is under a head that the log of {records.code} never had")
        leaf = records.leaves[index].statement_sha256
        hold("I9", leaf == receipt.statement_sha256, f"{what} is about another leaf")


def _roots(records: RegionRecords) -> list[bytes]:
    """The root over the first leaves, for every number of them."""
    return roots_of(
        [
            leaf_data(leaf.statement_sha256, leaf.payload_type, leaf.keep_time)
            for leaf in records.leaves
        ]
    )


def roots_of(leaves: Sequence[bytes]) -> list[bytes]:
    """The roots over the first 0, 1, 2 … leaves. Full subtrees are kept, the largest first."""
    roots, subtrees = [sha256().digest()], list[tuple[int, bytes]]()
    for leaf in leaves:
        size, node = 1, sha256(b"\x00" + leaf).digest()
        while subtrees and subtrees[-1][0] == size:
            _, left = subtrees.pop()
            size, node = 2 * size, sha256(b"\x01" + left + node).digest()
        subtrees.append((size, node))
        roots.append(_folded(subtrees))
    return roots


def _folded(subtrees: Sequence[tuple[int, bytes]]) -> bytes:
    root = subtrees[-1][1]
    for _, left in reversed(subtrees[:-1]):
        root = sha256(b"\x01" + left + root).digest()
    return root
