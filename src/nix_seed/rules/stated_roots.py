"""Do those who got the same image also say that it rests on the same trust roots?

They must: the roots' digest follows from the commit alone (docs/roots.md). A claim that states
none says nothing about them. Where claims state several, nobody can tell here which is right, so
there is dissent in any case; who is named for it is whoever has fewer independent builders beside
him, or, of equals, all. A single builder can so do what any dissent can, block, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nix_seed.ground.digests import Digest
from nix_seed.rules.claims import JudgedClaim, Standing
from nix_seed.rules.distinct import independent_builders
from nix_seed.rules.policy import Attribute, Builder

__all__ = ["StatedRoots", "dissent_on_roots", "stated_roots"]


@dataclass(frozen=True, slots=True)
class StatedRoots:
    """A digest of trust roots, and the *builders* of the policy that state it of the image."""

    digest: Digest
    builders: tuple[Builder, ...]


def stated_roots(
    judged: Iterable[JudgedClaim], standing: Standing | None = None
) -> tuple[StatedRoots, ...]:
    """Return what claims on the same image state, of one *standing* or (None) of any."""
    found: dict[Digest, dict[Builder, None]] = {}
    for each in judged:
        digest = each.claim.predicate.roots_digest
        if each.same_image and each.builder and digest and standing in (None, each.standing):
            found.setdefault(digest, {})[each.builder] = None
    return tuple(
        StatedRoots(digest, tuple(sorted(found[digest], key=lambda builder: builder.id)))
        for digest in sorted(found)
    )


def dissent_on_roots(
    judged: Sequence[JudgedClaim], distinct: Sequence[Attribute]
) -> tuple[JudgedClaim, ...]:
    """Return *judged* with those dissenting that state other roots than the rest.

    As with images, whether a claim was logged decides only whether its agreement counts.
    """
    stated = stated_roots(judged)
    if len(stated) < 2:
        return tuple(judged)
    weight = {
        each.digest: len(independent_builders(each.builders, distinct))
        for each in stated_roots(judged, Standing.AGREES)
    }
    most = max(weight.values(), default=0)
    first = [digest for digest, number in weight.items() if number == most]
    held = first[0] if len(first) == 1 else None
    return tuple(_settled(each, stated, held) for each in judged)


def _settled(each: JudgedClaim, stated: Sequence[StatedRoots], held: Digest | None) -> JudgedClaim:
    digest = each.claim.predicate.roots_digest
    if not each.same_image or each.builder is None or digest in (None, held):
        return each
    others = "; ".join(
        f"{', '.join(builder.id for builder in other.builders)}: {other.digest}"
        for other in stated
        if other.digest != digest
    )
    words = f"it states the trust roots {digest}, and not as {others}"
    return replace(each, standing=Standing.DISSENTS, discount=None, words=words)
