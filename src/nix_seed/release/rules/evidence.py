"""The evidence of a promotion: every attestation that counted, and where logs hold it.

Bound by its digest in the signed record. Whoever audits fetches the attestations it names, and
finds each at its index in its log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from nix_seed.core.declared import Declared
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.release.rules.tree import Leaf, Release, build_release
from nix_seed.trust.rules.policy_logs import LoggedAt


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
