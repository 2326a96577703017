"""Of which commits is an image said to be? An image outlives many that change its source alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from nix_seed.formats.intoto.commit import Commit
from nix_seed.ground.digests import Digest
from nix_seed.rules.evidence import Finding, claims_of
from nix_seed.rules.policy import Policy

__all__ = ["MOST_COMMITS", "AttestedCommits", "Released"]

MOST_COMMITS = 32
"""How many commits are asked about where none was named: for each of them a list is read."""

Released = Callable[[], Collection[Commit]]
"""Returns commits of which it is said, unverified, that they were released as what is verified."""

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AttestedCommits:
    """The *commits* to ask about, and how many others are *left* out."""

    commits: tuple[Commit, ...]
    left: int = 0

    @property
    def left_open(self) -> str:
        """What that leaves open, in one line, or nothing."""
        if not self.left:
            return ""
        asked = len(self.commits)
        return (
            f"the image is attested for {asked + self.left} commits, and {asked} of them were "
            "asked about; --commit says which one is meant"
        )

    @classmethod
    def choose(
        cls, image: Digest, findings: Iterable[Finding], policy: Policy, released: Released
    ) -> Self:
        """Choose of the commits that claims on *image* name those that are likeliest to count.

        That is, of many, those that enough builders name; of these the *released* ones, and then
        the newest: one builder may name as many as he likes. What is chosen is judged as ever.
        """
        named: dict[Commit, list[tuple[str, datetime]]] = {}
        builders = {builder.signer: builder.id for builder in policy.builders}
        for claim in claims_of(findings, policy):
            if claim.predicate.image_digest == image:
                said = (builders.get(claim.signer, ""), claim.time or _NEVER)
                named.setdefault(claim.predicate.source.commit, []).append(said)
        if len(named) <= MOST_COMMITS:
            return cls(tuple(named))
        first = released()

        def rank(commit: Commit) -> tuple[int, bool, datetime, Commit]:
            who = {builder for builder, _ in named[commit] if builder}
            newest = max(time for _, time in named[commit])
            return min(len(who), policy.quorum.threshold), commit in first, newest, commit

        ranked = sorted(named, key=rank, reverse=True)
        return cls(tuple(ranked[:MOST_COMMITS]), len(ranked) - MOST_COMMITS)
