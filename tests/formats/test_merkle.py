"""Every tree size to 100, every proof in it, and one bit flipped in every hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.merkle import (
    EMPTY_ROOT,
    TreeHead,
    TreeNode,
    build_consistency_proof,
    build_inclusion_proof,
    build_root,
    check_consistency,
    check_inclusion,
    leaf_hash,
    read_appended,
    read_from_leaves,
)

SIZE = 100
LEAVES = [leaf_hash(b"leaf %d" % i) for i in range(SIZE)]
READ = read_from_leaves(LEAVES)
HEADS = [build_root(size, READ) for size in range(SIZE + 1)]


def reference_root(leaves: Sequence[bytes]) -> bytes:
    """The recursion of RFC 6962, 2.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = reference_root(leaves[:k]), reference_root(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def reference_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*reference_path(m, leaves[:k]), reference_root(leaves[k:])]
    return [*reference_path(m - k, leaves[k:]), reference_root(leaves[:k])]


def reference_subproof(m: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2."""
    if m == len(leaves):
        return [] if whole else [reference_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*reference_subproof(m, leaves[:k], whole=whole), reference_root(leaves[k:])]
    return [*reference_subproof(m - k, leaves[k:], whole=False), reference_root(leaves[:k])]


def flipped(proof: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """The proof with one bit flipped in each hash in turn; which bit, its place decides."""
    found = []
    for i, value in enumerate(proof):
        bad = bytearray(value)
        bad[i * 7 % 32] ^= 1 << i % 8
        found.append((*proof[:i], bytes(bad), *proof[i + 1 :]))
    return found


@pytest.mark.parametrize("size", range(SIZE + 1))
def test_roots_are_rfc_6962s(size: int) -> None:
    assert HEADS[size] == TreeHead(size, reference_root(LEAVES[:size]))


@pytest.mark.parametrize("size", range(1, SIZE + 1))
def test_every_inclusion_proof(size: int) -> None:
    head = HEADS[size]
    for index in range(size):
        proof = build_inclusion_proof(index, size, READ)
        assert list(proof) == reference_path(index, LEAVES[:size])
        check_inclusion(proof, index, LEAVES[index], head)
        with pytest.raises(CheckedFalse):
            check_inclusion(proof, index, leaf_hash(b"another"), head)
        with pytest.raises(CheckedFalse):
            check_inclusion(proof, index, LEAVES[index], TreeHead(size, LEAVES[0][::-1]))
        for bad in (*flipped(proof), (*proof, LEAVES[0]), *([proof[:-1]] if proof else [])):
            with pytest.raises(CheckedFalse):
                check_inclusion(bad, index, LEAVES[index], head)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 64, 65, 100])
def test_a_proof_is_of_one_index(size: int) -> None:
    for index in range(size):
        proof = build_inclusion_proof(index, size, READ)
        for other in set(range(size + 2)) - {index}:
            with pytest.raises(CheckedFalse):
                check_inclusion(proof, other, LEAVES[index], HEADS[size])


@pytest.mark.parametrize("new", range(SIZE + 1))
def test_every_consistency_proof(new: int) -> None:
    for old in range(new + 1):
        proof = build_consistency_proof(old, new, READ)
        expected = reference_subproof(old, LEAVES[:new], whole=True) if old > 0 else []
        assert list(proof) == expected
        check_consistency(proof, HEADS[old], HEADS[new])
        wrong = TreeHead(old, hashlib.sha256(b"fork").digest())
        with pytest.raises(CheckedFalse):
            check_consistency(proof, wrong, HEADS[new])
        if old > 0:
            with pytest.raises(CheckedFalse):
                check_consistency(proof, HEADS[old], TreeHead(new, wrong.root))
        for bad in (*flipped(proof), (*proof, LEAVES[0]), *([proof[:-1]] if proof else [])):
            with pytest.raises(CheckedFalse):
                check_consistency(bad, HEADS[old], HEADS[new])


@pytest.mark.parametrize("size", [3, 4])
def test_a_smaller_tree_has_no_larger_beginning(size: int) -> None:
    with pytest.raises(CheckedFalse) as caught:
        check_consistency((), HEADS[5], HEADS[size])
    assert str(caught.value) == f"the tree of size 5 cannot begin a smaller one of {size}"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_hashes_have_32_bytes(length: int) -> None:
    proof = build_inclusion_proof(1, 4, READ)
    with pytest.raises(CheckedFalse, match=f"a hash of the proof has {length} bytes, not 32"):
        check_inclusion((b"x" * length, *proof[1:]), 1, LEAVES[1], HEADS[4])
    with pytest.raises(CheckedFalse, match=f"a hash of the proof has {length} bytes, not 32"):
        check_consistency((b"x" * length,), HEADS[2], HEADS[3])
    with pytest.raises(InputError, match="a root hash has 32 bytes"):
        TreeHead(1, b"x" * length)


def test_messages_say_which_leaf_and_what() -> None:
    proof = build_inclusion_proof(3, 9, READ)
    with pytest.raises(CheckedFalse, match="the inclusion proof of leaf 3 has hashes too few"):
        check_inclusion(proof[:-1], 3, LEAVES[3], HEADS[9])
    with pytest.raises(CheckedFalse, match="the inclusion proof of leaf 3 has hashes too many"):
        check_inclusion((*proof, proof[0]), 3, LEAVES[3], HEADS[9])
    with pytest.raises(CheckedFalse, match="leaf 9 cannot be in a tree of 9 leaves"):
        check_inclusion(proof, 9, LEAVES[3], HEADS[9])
    with pytest.raises(InputError, match="a tree of 9 leaves has no leaf 9"):
        build_inclusion_proof(9, 9, READ)
    with pytest.raises(InputError, match="no tree of 9 leaves begins one of 3"):
        build_consistency_proof(9, 3, READ)


def test_published_vectors() -> None:
    """The empty tree and the empty leaf, as RFC 6962's readers print them."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    empty_leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"").hex() == empty_leaf


@given(st.integers(0, 70), st.integers(0, 70))
@settings(deadline=None, max_examples=60)
def test_appending_reads_as_one_tree(old: int, more: int) -> None:
    more = min(more, SIZE - old)
    read = read_appended(old, read_from_leaves(LEAVES[:old]), LEAVES[old : old + more])
    assert build_root(old + more, read) == HEADS[old + more]


def test_a_huge_tree_needs_few_hashes() -> None:
    asked: list[TreeNode] = []

    def read(nodes: Sequence[TreeNode]) -> list[bytes]:
        asked.extend(nodes)
        return [leaf_hash(repr(node).encode()) for node in nodes]

    assert len(build_inclusion_proof(123_456_789_012, 10**12 + 7, read)) == 40
    assert len(asked) < 100
