"""The tree over a release, against RFC 6962 written again, and against everything it is not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings, strategies as st

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.tlog.merkle import (
    TreeHead,
    build_inclusion_proof,
    build_root,
    leaf_hash,
    node_hash,
    read_from_leaves,
)
from nix_seed.release.rules.tree import DOMAIN, Leaf, MemberProof, Release, build_release
from release.rfc6962 import PUBLISHED_LEAVES, PUBLISHED_ROOTS, mth, path

COMMIT = Commit("c0ffee" + "0" * 34)
Images = dict[str, tuple[NarHash, Digest]]

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
nar_hashes = st.binary(min_size=32, max_size=32).map(lambda raw: NarHash(raw.hex()))
systems = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
images = st.dictionaries(systems, st.tuples(nar_hashes, digests), min_size=1, max_size=40)
commits = st.sampled_from([40, 64]).flatmap(
    lambda size: st.text("0123456789abcdef", min_size=size, max_size=size).map(Commit)
)


def release_of(size: int) -> Release:
    names = [f"system-{number:03}" for number in range(size)]
    return build_release(
        COMMIT,
        {name: (NarHash.of(name.encode()), Digest.of(b"image " + name.encode())) for name in names},
    )


@pytest.mark.parametrize("size", range(1, 9))
def test_published_roots(size: int) -> None:
    data = PUBLISHED_LEAVES[:size]
    assert mth(data).hex() == PUBLISHED_ROOTS[size - 1]
    read = read_from_leaves([leaf_hash(each) for each in data])
    assert build_root(size, read).root.hex() == PUBLISHED_ROOTS[size - 1]


@pytest.mark.parametrize("size", range(1, 70))
def test_every_root_and_proof_is_rfc_6962_s(size: int) -> None:
    release = release_of(size)
    data = [leaf.dump() for leaf in release.leaves]
    assert release.head == TreeHead(size, mth(data))
    for index, leaf in enumerate(release.leaves):
        proof = release.proof(leaf.system)
        assert list(proof.hashes) == path(index, data)
        assert (proof.index, proof.size, proof.leaf) == (index, size, leaf)
        proof.check(release.head)


@given(commit=commits, found=images)
@settings(max_examples=60, deadline=None)
def test_any_release_proves_each_of_its_systems(commit: Commit, found: Images) -> None:
    release = build_release(commit, found)
    assert [leaf.system for leaf in release.leaves] == sorted(found)
    assert release.root.raw == mth([leaf.dump() for leaf in release.leaves])
    for system in found:
        proof = release.proof(system)
        proof.check(release.head)
        assert MemberProof.parse(proof.dump(), "x") == proof
        assert Leaf.from_json(proof.leaf.to_json(), "x") == proof.leaf


@given(data=st.data(), found=images)
@settings(max_examples=150, deadline=None)
def test_no_proof_shows_anything_else(data: st.DataObject, found: Images) -> None:
    """Another leaf, index, size, hash, or number of hashes: each alone is refused."""
    release = build_release(COMMIT, found)
    system = data.draw(st.sampled_from(sorted(found)))
    good = release.proof(system)
    others = [leaf for leaf in release.leaves if leaf.system != system]
    wrong = [
        replace(good, leaf=replace(good.leaf, image_digest=Digest.of(b"another"))),
        replace(good, leaf=replace(good.leaf, nar_hash=NarHash.of(b"another"))),
        replace(good, leaf=replace(good.leaf, commit=Commit("0" * 40))),
        replace(good, leaf=replace(good.leaf, system=system + "x")),
        replace(good, size=good.size + 1),
        replace(good, size=good.size - 1),
        replace(good, hashes=(*good.hashes, leaf_hash(b""))),
        replace(good, hashes=good.hashes[:-1]) if good.hashes else replace(good, index=1),
        *(replace(good, leaf=leaf) for leaf in others),
        *(replace(good, index=index) for index in range(good.size) if index != good.index),
    ]
    for position, each in enumerate(good.hashes):
        bit = data.draw(st.integers(0, 255))
        turned = bytearray(each)
        turned[bit // 8] ^= 1 << (bit % 8)
        hashes = (*good.hashes[:position], bytes(turned), *good.hashes[position + 1 :])
        wrong.append(replace(good, hashes=hashes))
    for proof in wrong:
        with pytest.raises(CheckedFalse):
            proof.check(release.head)


@given(found=images, more=st.tuples(systems, nar_hashes, digests))
@settings(max_examples=60, deadline=None)
def test_no_two_releases_share_a_root(found: Images, more: tuple[str, NarHash, Digest]) -> None:
    """A system more, a system less, another image: another root."""
    system, nar_hash, image = more
    assume(found.get(system) != (nar_hash, image))
    root = build_release(COMMIT, found).root
    assert build_release(COMMIT, {**found, system: (nar_hash, image)}).root != root
    assert build_release(Commit("0" * 40), found).root != root


@pytest.mark.parametrize("size", range(2, 34))
def test_no_node_is_a_leaf(size: int) -> None:
    """Second preimage: what any inner node hashes is no leaf, and no leaf hashes to it."""
    data = [leaf.dump() for leaf in release_of(size).leaves]
    level = [leaf_hash(each) for each in data]
    while len(level) > 1:
        for left, right in pairwise(level):
            assert leaf_hash(left + right) != node_hash(left, right)
            with pytest.raises(InputError):
                Leaf.from_json((left + right).hex(), "x")
        pairs = [node_hash(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = [*pairs, *([level[-1]] if len(level) % 2 else [])]


@pytest.mark.parametrize("size", range(1, 34))
def test_a_leaf_given_twice_changes_the_root(size: int) -> None:
    """CVE-2012-2459: nothing pads a tree, so no leaf can be doubled unseen."""
    hashes = [leaf.hash for leaf in release_of(size).leaves]
    root = release_of(size).head.root
    for number in range(1, size + 1):
        doubled = [*hashes, *hashes[-number:]]
        assert build_root(len(doubled), read_from_leaves(doubled)).root != root


@pytest.mark.parametrize("size", range(2, 10))
def test_a_smaller_tree_over_nodes_is_refused_by_its_size(size: int) -> None:
    """The honest root, offered as that of fewer leaves: proofs of the subtrees, and no leaf."""
    release = release_of(size)
    hashes = [leaf.hash for leaf in release.leaves]
    for fewer in range(1, size):
        proof = build_inclusion_proof(0, fewer, read_from_leaves(hashes[:fewer]))
        offered = MemberProof(release.leaves[0], 0, fewer, proof)
        with pytest.raises(CheckedFalse, match=f"is of a tree of {fewer} leaves"):
            offered.check(release.head)


def test_a_release_of_nothing_is_none() -> None:
    with pytest.raises(InputError, match="without a system is none"):
        build_release(COMMIT, {})


def test_the_order_of_systems_is_theirs_and_not_the_callers() -> None:
    release = release_of(5)
    found = {leaf.system: (leaf.nar_hash, leaf.image_digest) for leaf in release.leaves}
    assert build_release(COMMIT, dict(reversed(found.items()))) == release


def test_a_release_has_no_proof_of_another_system() -> None:
    with pytest.raises(InputError, match="the release has no riscv64-linux"):
        release_of(3).proof("riscv64-linux")


LEAF = release_of(1).leaves[0].to_json()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (LEAF | {"domain": "nix-seed/release/v2"}, "it is no leaf of nix-seed/release/v1"),
        (LEAF | {"more": 1}, "it is no leaf of nix-seed/release/v1"),
        ({k: v for k, v in LEAF.items() if k != "domain"}, "it is no leaf of"),
        ({k: v for k, v in LEAF.items() if k != "system"}, "system must be a string"),
        (LEAF | {"System": "x"}, "must be spelled 'system'"),
        (LEAF | {"imageDigest": LEAF["imageDigest"].upper()}, "is not a digest of the form"),
        (LEAF | {"narHash": LEAF["imageDigest"]}, "it is no leaf of|narHash must be spelled"),
        (LEAF | {"commit": {"sha1": "C0" * 20}}, "commit"),
        ([], "an object is wanted"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_leaf(value: object, reason: str) -> None:
    assert LEAF["domain"] == DOMAIN
    with pytest.raises(InputError, match=reason):
        Leaf.from_json(value, "x")
