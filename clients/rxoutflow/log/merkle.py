"""Merkle trees as of RFC 6962, section 2.1, with SHA-256: hashes, proofs, and their verification.

A tree of ``size`` leaves is made of *subtrees*, each named by its level and its position in that
level: subtree ``(level, position)`` is over the ``2**level`` leaves from ``position << level`` on.
Only these full subtrees never change when the tree grows, so only they are worth storing. Every
proof is a list of hashes over ranges of leaves; :func:`covering` says which subtrees make a range.

Pure functions of hashes: nothing here knows what a leaf is about, or who signs a root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TypeAlias

HASH_BYTES = 32
EMPTY_ROOT = sha256().digest()
"""The root of a tree without leaves."""

Subtree: TypeAlias = tuple[int, int]
"""Level and position of a full subtree."""

Range: TypeAlias = tuple[int, int]
"""Leaves from the first index up to, not including, the second."""


class ProofWrong(ValueError):
    """A proof does not lead from what it should to what it should."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf. Its prefix tells it from any node, so neither passes for the other."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


def covering(begin: int, end: int) -> list[Subtree]:
    """The full subtrees that make up a range of leaves, from left to right.

    ``begin`` must be 0 or the end of a full subtree that is larger than the range, as it is in all
    ranges that this module gives.
    """
    subtrees = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        subtrees.append((level, begin >> level))
        begin += 1 << level
    return subtrees


def folded(hashes: Sequence[bytes]) -> bytes:
    """The hash over subtrees that stand side by side, from left to right; of none: EMPTY_ROOT."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The ranges whose hashes prove that a leaf is in a tree, from the leaf's sibling upwards.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = begin + _left_size(end - begin)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    return path[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The ranges whose hashes prove that a tree is the beginning of another, lowest first.

    Raises:
        ValueError: the first tree is empty, or larger than the second.
    """
    if not 1 <= first <= second:
        raise ValueError(f"no proof leads from a tree of {first} leaves to one of {second}")
    begin, end, path = 0, second, []
    while end > first:
        middle = begin + _left_size(end - begin)
        if first <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    if begin:  # what is left is a tree that the verifier does not know as a whole
        path.append((begin, end))
    return path[::-1]


def subtrees_of(ranges: Iterable[Range]) -> list[Subtree]:
    """Every subtree that a proof is made of, in order."""
    return [subtree for begin, end in ranges for subtree in covering(begin, end)]


def path_of(ranges: Iterable[Range], hashes: Mapping[Subtree, bytes]) -> list[bytes]:
    """A proof, from the hashes of its subtrees."""
    return [folded([hashes[each] for each in covering(*span)]) for span in ranges]


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Check that a leaf hash is in the tree of this size and root (RFC 9162, section 2.1.3.2).

    Raises:
        ProofWrong: it is not, or not at this index.
    """
    if not 0 <= index < size:
        raise ProofWrong(f"a log of {size} leaves has no leaf {index}")
    _require_hashes(path)
    position, last, computed = index, size - 1, leaf
    for sibling in path:
        if not last:
            raise ProofWrong("the inclusion path is too long")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofWrong("the inclusion path is too short")
    if computed != root:
        raise ProofWrong("the inclusion path does not lead to the root of the checkpoint")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that one tree is the beginning of another (RFC 9162, section 2.1.4.2).

    An empty tree is the beginning of every tree.

    Raises:
        ProofWrong: it is not.
    """
    if not 0 <= first <= second:
        raise ProofWrong(f"a log of {second} leaves cannot follow one of {first}")
    _require_hashes(path)
    if first in (0, second):
        expected = EMPTY_ROOT if first == 0 else second_root
        if path or first_root != expected:
            raise ProofWrong(f"two different logs have {first} leaves")
        return
    old, new = _both_roots(first, second, first_root, list(path))
    if old != first_root:
        raise ProofWrong("the consistency proof does not contain the earlier log")
    if new != second_root:
        raise ProofWrong("the consistency proof does not lead to the later log")


def _both_roots(
    first: int, second: int, first_root: bytes, path: list[bytes]
) -> tuple[bytes, bytes]:
    """The two roots that a consistency path computes."""
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    if first & (first - 1) == 0:  # the earlier tree is a full subtree: its root is known
        path.insert(0, first_root)
    if not path:
        raise ProofWrong("the consistency proof is too short")
    old = new = path[0]
    for sibling in path[1:]:
        if not last:
            raise ProofWrong("the consistency proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofWrong("the consistency proof is too short")
    return old, new


class Growth:
    """A tree that has just grown: its root, the new subtrees, and paths of the new leaves.

    Computed once for all new leaves, from them and the left edge of what was there before, so that
    a batch costs two hashes a leaf whatever the size of the tree.

    Args:
        size: how many leaves there were.
        edge: the hashes of ``covering(0, size)`` by level.
        leaves: the hashes of the new leaves, at least one.
    """

    def __init__(self, size: int, edge: Mapping[int, bytes], leaves: Sequence[bytes]) -> None:
        self.first = size
        self.size = size + len(leaves)
        self._edge = edge
        self._levels = _levels(size, edge, list(leaves))

    @property
    def root(self) -> bytes:
        """The root of the grown tree."""
        return self._levels[-1][1][0]

    def completed(self, index: int) -> list[bytes]:
        """The hashes of the full subtrees that end with a new leaf, from the leaf upwards."""
        end, hashes = index + 1, []
        for level in range((end & -end).bit_length()):
            first, row = self._levels[level]
            hashes.append(row[(index >> level) - first])
        return hashes

    def path(self, index: int) -> list[bytes]:
        """The inclusion path of a new leaf in the grown tree."""
        path, position = [], index
        for level, (first, row) in enumerate(self._levels[:-1]):
            sibling = (position ^ 1) - first
            if sibling < 0:
                path.append(self._edge[level])
            elif sibling < len(row):
                path.append(row[sibling])
            position >>= 1
        return path


def _levels(
    size: int, edge: Mapping[int, bytes], leaves: list[bytes]
) -> list[tuple[int, list[bytes]]]:
    """From the leaves to the root: the first position that is new or changed, and the hashes."""
    levels = [(size, leaves)]
    first, row = levels[0]
    while first + len(row) > 1:
        if first & 1:
            first, row = first - 1, [edge[len(levels) - 1], *row]
        whole = len(row) & ~1
        above = [node_hash(row[at], row[at + 1]) for at in range(0, whole, 2)]
        first, row = first >> 1, above + row[whole:]
        levels.append((first, row))
    return levels


def _left_size(size: int) -> int:
    """The largest power of two below a size."""
    return 1 << (size - 1).bit_length() - 1


def _require_hashes(path: Sequence[bytes]) -> None:
    if any(len(each) != HASH_BYTES for each in path):
        raise ProofWrong("a hash of the proof is not of 32 bytes")
