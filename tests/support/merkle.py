"""Merkle trees written as the standard writes them (RFC 6962, 2.1): slow, and easy to believe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from rxoutflow.log import merkle
from rxoutflow.log.merkle import Subtree


class Plain:
    """A tree over leaves, with nothing stored but the leaves."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = list(leaves)

    def root(self, begin: int, end: int) -> bytes:
        """MTH over some of the leaves."""
        count = end - begin
        if count == 0:
            return sha256().digest()
        if count == 1:
            return sha256(b"\x00" + self.leaves[begin]).digest()
        middle = begin + _power_below(count)
        return sha256(b"\x01" + self.root(begin, middle) + self.root(middle, end)).digest()

    def path(self, index: int, begin: int, end: int) -> list[bytes]:
        """PATH(m, D[n])."""
        if end - begin == 1:
            return []
        middle = begin + _power_below(end - begin)
        if index < middle:
            return [*self.path(index, begin, middle), self.root(middle, end)]
        return [*self.path(index, middle, end), self.root(begin, middle)]

    def proof(self, first: int, begin: int, end: int, *, known: bool = True) -> list[bytes]:
        """SUBPROOF(m, D[n], b)."""
        if first == end:
            return [] if known else [self.root(begin, end)]
        middle = begin + _power_below(end - begin)
        if first <= middle:
            return [*self.proof(first, begin, middle, known=known), self.root(middle, end)]
        return [*self.proof(first, middle, end, known=False), self.root(begin, middle)]

    def hashes(self, subtrees: Iterable[Subtree]) -> list[bytes]:
        """The hashes of full subtrees."""
        return [
            self.root(position << level, (position + 1) << level) for level, position in subtrees
        ]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """What the library makes of these hashes as the proof of a leaf."""
        ranges = merkle.inclusion_ranges(index, size)
        return merkle.path_of(ranges, self._known(ranges))

    def consistency(self, first: int, second: int) -> list[bytes]:
        """What the library makes of these hashes as the proof from a size to another."""
        ranges = merkle.consistency_ranges(first, second)
        return merkle.path_of(ranges, self._known(ranges))

    def _known(self, ranges: list[merkle.Range]) -> dict[Subtree, bytes]:
        subtrees = merkle.subtrees_of(ranges)
        return dict(zip(subtrees, self.hashes(subtrees), strict=True))


def _power_below(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power
