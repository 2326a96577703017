"""The evidence of a promotion: every attestation that counted, and where logs hold it.

Bound by its digest in the signed record. Whoever audits fetches the attestations it names, and
finds each at its index in its log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from nix_seed.core import canonical_json, declared
from nix_seed.core.declared import digest, member, object_of
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.release.rules.tree import Leaf, Release, build_release


@dataclass(frozen=True, slots=True, order=True)
class LoggedAt:
    """Entry *index* of the log that the policy calls *log*, and its leaf hash."""

    log: str
    index: int
    leaf_hash: Digest


@dataclass(frozen=True, slots=True, order=True)
class Vote:
    """A builder's attestation for *system*: the SHA-256 of its signed bytes (the PAE)."""

    system: str
    builder: str
    statement: Digest
    logs: tuple[LoggedAt, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The release and the votes on it, sorted."""

    release: Release
    votes: tuple[Vote, ...]

    @property
    def digest(self) -> Digest:
        """The SHA-256 of the document."""
        return Digest.of(self.dump())

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return canonical_json.dumps(
            {
                "members": [
                    {"leaf": leaf.to_json(), "attestations": self._votes(leaf.system)}
                    for leaf in self.release.leaves
                ]
            }
        )

    def _votes(self, system: str) -> list[dict[str, Any]]:
        return [
            {
                "builder": vote.builder,
                "statement": str(vote.statement),
                "logs": [declared.write(at) for at in vote.logs],
            }
            for vote in sorted(self.votes)
            if vote.system == system
        ]

    @classmethod
    def parse(cls, text: bytes, what: str) -> Self:
        """Read the document; ``InputError`` unless it is spelled just as ``dump`` would."""
        value = object_of(canonical_json.loads(text, what=what), what, "members")
        leaves, votes = [], []
        for position, item in enumerate(member(value, "members", list, what)):
            where = f"{what}, members[{position}]"
            found = object_of(item, where, "leaf", "attestations")
            leaf = Leaf.from_json(found.get("leaf"), f"{where}, leaf")
            leaves.append(leaf)
            for vote in member(found, "attestations", list, where):
                votes.append(_vote(vote, leaf.system, where))
        evidence = cls(_release(leaves, what), tuple(sorted(votes)))
        if evidence.dump() != text:
            raise InputError(f"{what} is not canonical: sorted, each system once")
        return evidence


def _release(leaves: Iterable[Leaf], what: str) -> Release:
    found = tuple(leaves)
    if len({leaf.commit for leaf in found}) != 1:
        raise InputError(f"{what}: its leaves are of no commit, or of several")
    images = {leaf.system: (leaf.nar_hash, leaf.image_digest) for leaf in found}
    return build_release(found[0].commit, images)


def _vote(value: Mapping[str, Any], system: str, where: str) -> Vote:
    inner = f"{where}, attestations"
    found = object_of(value, inner, "builder", "statement", "logs")
    items = member(found, "logs", list, inner)
    logs = tuple(declared.read(LoggedAt, item, f"{inner}, logs") for item in items)
    return Vote(
        system,
        member(found, "builder", str, inner),
        digest(found, "statement", inner),
        logs,
    )
