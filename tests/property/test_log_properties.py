"""Trees of every size: proofs are those of the standard, verify, and nothing else does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxoutflow.log import merkle
from rxoutflow.log.merkle import ProofWrong, verify_consistency, verify_inclusion
from support.merkle import Plain

sizes = st.integers(1, 130)
trees = sizes.map(lambda size: Plain([b"leaf %d" % index for index in range(size)]))


@given(trees, st.data())
def test_every_leaf_has_the_standards_path_and_it_verifies(
    tree: Plain, data: st.DataObject
) -> None:
    size = len(tree.leaves)
    index = data.draw(st.integers(0, size - 1))
    path = tree.inclusion(index, size)
    assert path == tree.path(index, 0, size)
    verify_inclusion(merkle.leaf_hash(tree.leaves[index]), index, size, path, tree.root(0, size))


@given(trees, st.data())
def test_every_size_is_consistent_with_every_later_one(tree: Plain, data: st.DataObject) -> None:
    second = len(tree.leaves)
    first = data.draw(st.integers(1, second))
    path = tree.consistency(first, second)
    assert path == tree.proof(first, 0, second)
    verify_consistency(first, second, tree.root(0, first), tree.root(0, second), path)


@given(sizes, st.sets(st.integers(1, 129), max_size=8))
def test_a_tree_grows_to_the_same_whatever_the_commits(size: int, cuts: set[int]) -> None:
    """The paths of the new leaves, the subtrees that are stored, and the root after each commit."""
    tree = Plain([b"leaf %d" % index for index in range(size)])
    stored: dict[merkle.Subtree, bytes] = {}
    for begin, end in pairwise([0, *sorted(cut for cut in cuts if cut < size), size]):
        edge = {each[0]: stored[each] for each in merkle.covering(0, begin)}
        new = [merkle.leaf_hash(each) for each in tree.leaves[begin:end]]
        growth = merkle.Growth(begin, edge, new)
        assert (growth.first, growth.size, growth.root) == (begin, end, tree.root(0, end))
        for index in range(begin, end):
            assert growth.path(index) == tree.path(index, 0, end)
            for level, each in enumerate(growth.completed(index)):
                stored[level, index >> level] = each
    full = {(level, at) for level in range(8) for at in range(size >> level)}
    assert stored.keys() == full
    assert stored == dict(zip(full, tree.hashes(full), strict=True))


@given(trees, st.data())
def test_no_bit_of_an_inclusion_proof_can_be_changed(tree: Plain, data: st.DataObject) -> None:
    size = len(tree.leaves)
    index = data.draw(st.integers(0, size - 1))
    path, root = tree.inclusion(index, size), tree.root(0, size)
    hashes = [merkle.leaf_hash(tree.leaves[index]), root, *path]
    at, bit = data.draw(st.integers(0, len(hashes) - 1)), data.draw(st.integers(0, 255))
    hashes[at] = (int.from_bytes(hashes[at], "big") ^ (1 << bit)).to_bytes(32, "big")
    leaf, changed_root, *changed = hashes
    with pytest.raises(ProofWrong):
        verify_inclusion(leaf, index, size, changed, changed_root)


@given(trees, st.data())
def test_no_bit_of_a_consistency_proof_can_be_changed(tree: Plain, data: st.DataObject) -> None:
    second = len(tree.leaves)
    first = data.draw(st.integers(1, second))
    hashes = [tree.root(0, first), tree.root(0, second), *tree.consistency(first, second)]
    at, bit = data.draw(st.integers(0, len(hashes) - 1)), data.draw(st.integers(0, 255))
    hashes[at] = (int.from_bytes(hashes[at], "big") ^ (1 << bit)).to_bytes(32, "big")
    with pytest.raises(ProofWrong):
        verify_consistency(first, second, hashes[0], hashes[1], hashes[2:])


@given(trees, st.data())
def test_a_changed_leaf_never_goes_unnoticed(tree: Plain, data: st.DataObject) -> None:
    """Whoever saw a checkpoint notices, in whatever way the log is rewritten before it."""
    second = len(tree.leaves)
    first = data.draw(st.integers(1, second))
    changed = data.draw(st.integers(0, first - 1))
    other = Plain([*tree.leaves[:changed], b"changed", *tree.leaves[changed + 1 :]])
    path = other.consistency(first, second)
    with pytest.raises(ProofWrong):
        verify_consistency(first, second, tree.root(0, first), other.root(0, second), path)
