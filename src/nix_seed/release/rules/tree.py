"""A release: which image each system of a commit has, as one Merkle tree (docs/promote.md).

The tree is RFC 6962's, over the systems in sorted order, each once. A leaf is canonical JSON that
says of itself what it is, so that no leaf means anything else elsewhere; the size is signed with
the root, so that no tree passes for another with a leaf more or less. The tags that a release may
be given are here, too: none that says something else than which release it is.

The evidence of a promotion: every attestation that counted, and where logs hold it.

Bound by its digest in the signed record. Whoever audits fetches the attestations it names, and
finds each at its index in its log.

The outputs of a release, of all its systems, as one Merkle tree (docs/outputs.md).

The tree is RFC 6962's, over leaves sorted by system and path, each once. All of them lie beside the
record as one document; the record signs the root and the size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Final, Self

from nix_seed.core.declared import Declared, HexHash, at, read, write
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, InputError, of_store
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Commit, is_commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import lists_referrers
from nix_seed.formats.oci.reference import check_tag
from nix_seed.formats.tlog import merkle
from nix_seed.trust.rules.policy import LoggedAt

DOMAIN: Final = "nix-seed/release/v1"


class TreeLeaf(Declared):
    """A leaf of a tree: canonical JSON that says of which *domain* it is."""

    __slots__ = ()
    domain: ClassVar[str]

    @property
    def hash(self) -> bytes:
        """The 32 bytes of RFC 6962's leaf hash."""
        return merkle.leaf_hash(self.dump())

    def to_json(self) -> dict[str, Any]:
        """Return the object that is hashed."""
        return {"domain": self.domain, **write(self)}


@dataclass(frozen=True, slots=True, order=True)
class Leaf(TreeLeaf):
    """One system's image of a commit."""

    domain: ClassVar = DOMAIN

    system: str
    commit: Commit
    nar_hash: NarHash
    image_digest: Digest

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read a leaf; ``InputError`` unless *value* is just what it would be written as."""
        leaf = read(cls, value, where)
        if leaf.to_json() != value:
            raise InputError(f"{where}: it is no leaf of {DOMAIN}, or not spelled as one")
        return leaf


@dataclass(frozen=True, slots=True)
class Release:
    """All *leaves* of a commit's release, sorted by system; *head* is the tree over them."""

    leaves: tuple[Leaf, ...]
    head: merkle.TreeHead

    @property
    def root(self) -> Digest:
        """The root, as a digest."""
        return Digest(self.head.root.hex())

    def proof(self, system: str) -> MemberProof:
        """Return what shows, without the others, that *system* belongs to the release."""
        for index, leaf in enumerate(self.leaves):
            if leaf.system == system:
                read = merkle.read_from_leaves([each.hash for each in self.leaves])
                proof = merkle.build_inclusion_proof(index, self.head.size, read)
                return MemberProof(leaf, index, self.head.size, proof)
        raise InputError(f"the release has no {system}")


@dataclass(frozen=True, slots=True)
class MemberProof(Declared):
    """A leaf, its *index* in a tree of *size* leaves, and the hashes that lead to the root."""

    otherwise: ClassVar = "is not spelled as it would be written: canonical JSON"

    leaf: Leaf
    index: int
    size: int
    hashes: tuple[HexHash, ...] = field(metadata=at("proof", sizes=(0, 64)))

    def check(self, head: merkle.TreeHead) -> None:
        """Raise ``CheckedFalse`` unless the leaf is at its index under *head*."""
        if self.size != head.size:
            raise CheckedFalse(
                f"the proof of {self.leaf.system} is of a tree of {self.size} leaves, and the "
                f"promotion is of {head.size}"
            )
        merkle.check_inclusion(self.hashes, self.index, self.leaf.hash, head)


def build_release(commit: Commit, images: Mapping[str, tuple[NarHash, Digest]]) -> Release:
    """Return the release of *commit*: *images* gives narHash and image digest by system."""
    if not images:
        raise InputError(f"a release of {commit} without a system is none")
    leaves = tuple(Leaf(system, commit, *images[system]) for system in sorted(images))
    hashes = merkle.read_from_leaves([leaf.hash for leaf in leaves])
    return Release(leaves, merkle.build_root(len(leaves), hashes))


_OF_SYSTEM: Final = re.compile(r"([0-9a-f]+)-[0-9a-z_]+-[0-9a-z]+\Z")


def check_release_tag(tag: str, commit: Commit, where: str) -> None:
    """Raise ``InputError`` unless *tag* may name the release of *commit*.

    What is listed beside a digest would be lost where a release took its tag. That of another
    commit, or of one system's image, would name what it does not say.
    """
    check_tag(tag, where)
    if lists_referrers(tag):
        raise _refused(tag, "it names what is listed beside a digest")
    if is_commit(tag) and tag != str(commit):
        raise _refused(tag, f"it names the release of another commit than {commit}")
    found = _OF_SYSTEM.match(tag)
    if found is not None and is_commit(found[1]):
        raise _refused(tag, "it names one system's image")


def _refused(tag: str, why: str) -> InputError:
    return InputError(
        f"a release cannot be given the tag {tag}: {why}",
        hint="name another tag, such as latest or v1.2; the commit's own is given always",
    )


@dataclass(frozen=True, slots=True, order=True)
class Vote:
    """A builder's attestation for *system*: the SHA-256 of its signed bytes (the PAE)."""

    system: str
    builder: str
    statement: Digest
    logs: tuple[LoggedAt, ...]


@dataclass(frozen=True, slots=True)
class _Attested:
    builder: str
    statement: Digest
    logs: tuple[LoggedAt, ...]


@dataclass(frozen=True, slots=True)
class _Member:
    leaf: Leaf
    attestations: tuple[_Attested, ...]


@dataclass(frozen=True, slots=True)
class _Members(Declared):
    members: tuple[_Member, ...]


@dataclass(frozen=True, slots=True)
class Evidence(Declared):
    """The release and the votes on it, sorted."""

    otherwise: ClassVar = "is not canonical: sorted, each system once"

    release: Release
    votes: tuple[Vote, ...]

    @property
    def digest(self) -> Digest:
        """The SHA-256 of the document."""
        return Digest.of(self.dump())

    def to_json(self) -> dict[str, Any]:
        """Return the object as docs/formats-promotion.md lists it."""
        said: dict[str, list[_Attested]] = {}
        for vote in sorted(self.votes):
            attested = _Attested(vote.builder, vote.statement, vote.logs)
            said.setdefault(vote.system, []).append(attested)
        leaves = self.release.leaves
        members = (_Member(leaf, tuple(said.get(leaf.system, ()))) for leaf in leaves)
        return _Members(tuple(members)).to_json()

    @classmethod
    def read(cls, text: bytes, commit: Commit, head: merkle.TreeHead) -> Self:
        """Read the document of *commit*'s record; ``CheckedFalse`` for another than it signs."""
        where = f"the evidence of {commit}"
        with of_store():
            found = cls.parse(text, where)
        if (found.release.head, found.release.leaves[0].commit) != (head, commit):
            raise CheckedFalse(f"{where} is of another release than its record signs")
        return found

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read the document, of whatever order."""
        members = _Members.from_json(value, where).members
        leaves = [member.leaf for member in members]
        if len({leaf.commit for leaf in leaves}) != 1:
            raise InputError(f"{where}: its leaves are of no commit, or of several")
        images = {leaf.system: (leaf.nar_hash, leaf.image_digest) for leaf in leaves}
        votes = (
            Vote(member.leaf.system, each.builder, each.statement, each.logs)
            for member in members
            for each in member.attestations
        )
        return cls(build_release(leaves[0].commit, images), tuple(sorted(votes)))


OUTPUT_DOMAIN: Final = "nix-seed/output/v1"
MOST_RELEASED: Final = 10_000


@dataclass(frozen=True, slots=True, order=True)
class OutputLeaf(TreeLeaf):
    """One output that a quorum stands for; *names* are the flake outputs that it is."""

    domain: ClassVar = OUTPUT_DOMAIN

    system: str
    path: StorePath
    commit: Commit
    nar_hash: NarHash
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleasedOutputs(Declared):
    """All outputs of a release, sorted."""

    otherwise: ClassVar = "is not spelled as it would be written: canonical JSON"

    leaves: tuple[OutputLeaf, ...] = field(metadata=at("outputs", sizes=(1, MOST_RELEASED)))

    def __post_init__(self) -> None:
        if not 1 <= len(self.leaves) <= MOST_RELEASED:
            raise InputError(f"a release has 1 to {MOST_RELEASED} outputs, not {len(self.leaves)}")
        places = [(leaf.system, leaf.path) for leaf in self.leaves]
        if places != sorted(set(places)):
            raise InputError("its outputs must be sorted by system and path, each once")

    @property
    def head(self) -> merkle.TreeHead:
        """The root over the leaves, and how many these are."""
        return merkle.build_root(
            len(self.leaves), merkle.read_from_leaves([leaf.hash for leaf in self.leaves])
        )

    @property
    def root(self) -> Digest:
        """The root, as a digest."""
        return Digest(self.head.root.hex())

    @classmethod
    def read(cls, text: bytes, commit: Commit, root: Digest, size: int) -> Self:
        """Read the document of *commit*'s record; ``CheckedFalse`` for another than it signs."""
        with of_store():
            found = cls.parse(text, "the record's list of outputs")
        if found.head != merkle.TreeHead(size, root.raw):
            raise CheckedFalse(f"a list of outputs has the root {found.root}, not {root}")
        if any(leaf.commit != commit for leaf in found.leaves):
            raise CheckedFalse("the record's list of outputs is of another commit")
        return found

    def named(self, name: str, system: str) -> OutputLeaf:
        """Return the output called *name*; ``CheckedFalse`` where no quorum stands for one."""
        for leaf in self.leaves:
            if leaf.system == system and name in (*leaf.names, str(leaf.path)):
                return leaf
        here = (leaf.names for leaf in self.leaves if leaf.system == system)
        known = sorted({each for names in here for each in names})
        raise CheckedFalse(
            f"no output {name} was promoted for {system}",
            hint=f"promoted are: {', '.join(known[:20])}" if known else "none was for this system",
        )
