"""Merkle trees against the vectors that certificate transparency is tested with, and mistakes."""

from __future__ import annotations

import pytest

from rxoutflow.log import merkle
from rxoutflow.log.merkle import ProofWrong, verify_consistency, verify_inclusion
from support.merkle import Plain

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
"""Roots over the first 0 to 8 of the leaves, from the tests of Certificate Transparency."""

TREE = Plain(LEAVES)


@pytest.mark.parametrize("size", range(1, 9))
def test_the_root_is_that_of_certificate_transparency(size: int) -> None:
    growth = merkle.Growth(0, {}, [merkle.leaf_hash(each) for each in LEAVES[:size]])
    assert growth.root == ROOTS[size]
    assert merkle.folded(TREE.hashes(merkle.covering(0, size))) == ROOTS[size]


def test_a_tree_without_leaves_has_the_hash_of_nothing() -> None:
    assert merkle.folded([]) == merkle.EMPTY_ROOT == ROOTS[0]


def test_the_inclusion_proof_is_that_of_the_standard() -> None:
    """RFC 6962, 2.1.3: in a tree of seven leaves, for d0 [b, h, l], for d3 [c, g, l], ..."""
    hashes = {each: TREE.root(*span) for each, span in SPANS.items()}
    for index, path in ((0, "bhl"), (3, "cgl"), (4, "fjk"), (6, "ik")):
        expected = [hashes[each] for each in path]
        assert TREE.inclusion(index, 7) == expected


def test_the_consistency_proof_is_that_of_the_standard() -> None:
    """RFC 6962, 2.1.3: to seven leaves from three [c, d, g, l], four [l], six [i, j, k]."""
    hashes = {each: TREE.root(*span) for each, span in SPANS.items()}
    for first, path in ((3, "cdgl"), (4, "l"), (6, "ijk")):
        expected = [hashes[each] for each in path]
        assert TREE.consistency(first, 7) == expected


SPANS = {
    **{"abcdefj"[at]: (at, at + 1) for at in range(7)},
    "g": (0, 2),
    "h": (2, 4),
    "i": (4, 6),
    "k": (0, 4),
    "l": (4, 7),
}
"""The nodes of the standard's tree of seven leaves by their letters."""


def test_a_leaf_is_proven_at_its_own_place_only() -> None:
    path, leaf = TREE.inclusion(3, 7), merkle.leaf_hash(LEAVES[3])
    verify_inclusion(leaf, 3, 7, path, ROOTS[7])
    for index in (0, 1, 2, 4, 5, 6):
        with pytest.raises(ProofWrong):
            verify_inclusion(leaf, index, 7, path, ROOTS[7])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (lambda path: path[:-1], "too short"),
        (lambda path: [*path, path[0]], "too long"),
        (lambda path: [path[1], path[0], *path[2:]], "does not lead to the root"),
        (lambda path: [path[0][:31], *path[1:]], "32 bytes"),
    ],
)
def test_a_changed_path_is_refused_with_what_is_wrong(changed: object, problem: str) -> None:
    path = TREE.inclusion(3, 7)
    with pytest.raises(ProofWrong, match=problem):
        verify_inclusion(merkle.leaf_hash(LEAVES[3]), 3, 7, changed(path), ROOTS[7])  # type: ignore[operator] # a function of the table


@pytest.mark.parametrize(("index", "size"), [(7, 7), (-1, 7), (0, 0)])
def test_a_leaf_that_is_not_in_the_log_is_refused(index: int, size: int) -> None:
    with pytest.raises(ProofWrong, match="has no leaf"):
        verify_inclusion(merkle.leaf_hash(b""), index, size, [], ROOTS[size])


def test_a_node_does_not_pass_for_a_leaf() -> None:
    inside = TREE.root(0, 1) + TREE.root(1, 2)
    with pytest.raises(ProofWrong):
        verify_inclusion(merkle.leaf_hash(inside), 0, 1, [], ROOTS[2])


@pytest.mark.parametrize("first", range(1, 8))
def test_another_history_is_not_consistent(first: int) -> None:
    other = Plain([b"changed", *LEAVES[1:]])
    path = TREE.consistency(first, 8)
    verify_consistency(first, 8, ROOTS[first], ROOTS[8], path)
    with pytest.raises(ProofWrong):
        verify_consistency(first, 8, other.root(0, first), ROOTS[8], path)
    with pytest.raises(ProofWrong):
        verify_consistency(first, 8, ROOTS[first], other.root(0, 8), path)


def test_a_log_that_has_shrunk_is_not_consistent() -> None:
    with pytest.raises(ProofWrong, match="cannot follow"):
        verify_consistency(8, 7, ROOTS[8], ROOTS[7], [])


def test_two_logs_of_one_size_are_the_same_or_a_fork() -> None:
    verify_consistency(7, 7, ROOTS[7], ROOTS[7], [])
    with pytest.raises(ProofWrong, match="two different logs"):
        verify_consistency(7, 7, ROOTS[7], ROOTS[6], [])


def test_every_log_follows_the_empty_one() -> None:
    verify_consistency(0, 5, ROOTS[0], ROOTS[5], [])
    with pytest.raises(ProofWrong):
        verify_consistency(0, 5, ROOTS[1], ROOTS[5], [])


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3)])
def test_no_consistency_proof_is_made_from_nothing_or_backwards(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="no proof leads"):
        merkle.consistency_ranges(first, second)
