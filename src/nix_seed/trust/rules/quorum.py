"""Do enough independent builders say the same, and does none of them say otherwise?

What is counted are builders *of the policy*, each once, whatever it signed and how often. The bar
is the policy's number: who stays silent, or is kept silent, never lowers it. One builder's valid
dissent blocks, and the result says in what it differs: in the image, or in what it rests on.

The digest of trust roots follows from the commit alone (docs/roots.md), so those who got the same
image must state the same one, or none. Where they state several, nobody can tell here which is
right: there is dissent in any case. Named for it is who has fewer independent builders beside it,
or, of equals, all. A single builder can so do what any dissent can, block, and no more.

How many builders are independent of one another.

Two builders that share an attribute named by the policy (one operator, one provider) are one voice.
What counts is the largest set in which no two share any: adding a builder's word can then only
raise the number, which grouping them would not grant (a third that shares something with both of
two independent builders would merge them into one).

The largest set is exact for one attribute and for two. For three it is wherever ``_MOST_STEPS``
steps find it, as they do for 40 builders and more. Beyond, the set found is independent all the
same and may be smaller: the count then errs towards refusing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import combinations
from typing import Final

from nix_seed.core.digests import Digest
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.formats.intoto.statement import Agreement
from nix_seed.image.rules.changes import Difference, compare_agreements
from nix_seed.trust.rules.claims import Claim, JudgedClaim, Standing, judge_claim
from nix_seed.trust.rules.policy import Attribute, Builder, Policy

_MOST_STEPS: Final = 1_000


def independent_builders(
    builders: Sequence[Builder], distinct: Sequence[Attribute]
) -> tuple[Builder, ...]:
    """Return a largest set of *builders* of which no two share a value of any of *distinct*.

    Ties go to those that come first. A value that is absent is shared by all that lack it.
    """
    return _independent(tuple(dict.fromkeys(builders)), tuple(distinct))


@lru_cache(maxsize=256)
def _independent(
    builders: tuple[Builder, ...], distinct: tuple[Attribute, ...]
) -> tuple[Builder, ...]:
    chosen = _Search(builders, distinct).largest((1 << len(builders)) - 1)
    return tuple(builder for number, builder in enumerate(builders) if chosen >> number & 1)


class _Search:
    """Sets of builders are bits. *rivals* has those that share something with each."""

    def __init__(self, builders: Sequence[Builder], distinct: Sequence[Attribute]) -> None:
        by_value: list[dict[str | None, int]] = [{} for _ in distinct]
        for number, builder in enumerate(builders):
            for found, name in zip(by_value, distinct, strict=True):
                value = builder.attribute(name)
                found[value] = found.get(value, 0) | 1 << number
        # Of those that share one value at most one is chosen.
        self._groups = [list(found.values()) for found in by_value]
        self._rivals = [0] * len(builders)
        for number in range(len(builders)):
            for group in (g for groups in self._groups for g in groups if g >> number & 1):
                self._rivals[number] |= group & ~(1 << number)
        self._steps = 0
        self._known: dict[int, int] = {}

    def largest(self, left: int) -> int:
        """Return a largest subset of *left* no two of which are rivals."""
        if left in self._known:
            return self._known[left]
        begun, chosen = left, 0
        while left:
            members = [bit for bit in range(left.bit_length()) if left >> bit & 1]
            number = {bit: (self._rivals[bit] & left).bit_count() for bit in members}
            # Whoever has at most one rival left belongs to some largest set: taking it is safe.
            easy = next((bit for bit in members if number[bit] <= 1), None)
            if easy is None and all(each == len(members) - 1 for each in number.values()):
                easy = members[0]
            if easy is None:
                hardest = max(members, key=lambda bit: number[bit])
                chosen |= self._better(left & ~(1 << hardest), hardest)
                break
            chosen |= 1 << easy
            left &= ~self._rivals[easy] & ~(1 << easy)
        self._known[begun] = chosen
        return chosen

    def _better(self, others: int, one: int) -> int:
        """Return a largest set with *one* or, only where that has more, of the *others* alone."""
        self._steps += 1
        rest = others & ~self._rivals[one]
        most = self._bound(others)
        if len(self._groups) <= 2 or self._steps > _MOST_STEPS:
            # The bound is the number itself, or all that is left to go by.
            return (
                1 << one | self.largest(rest)
                if self._bound(rest) + 1 >= most
                else self.largest(others)
            )
        with_it = 1 << one | self.largest(rest)
        if most <= with_it.bit_count():
            return with_it
        without = self.largest(others)
        return without if without.bit_count() > with_it.bit_count() else with_it

    def _bound(self, left: int) -> int:
        """Return what no independent subset of *left* exceeds, by each two attributes together.

        Builders join values of one attribute to values of the other: no more are independent than
        can be matched, so that by two attributes the bound is the number itself.
        """
        counts = [sum(1 for group in groups if group & left) for groups in self._groups]
        pairs = combinations(self._groups, 2)
        return min((*counts, *(_matched(*pair, left) for pair in pairs)), default=left.bit_count())


def _matched(one: Sequence[int], other: Sequence[int], left: int) -> int:
    """Return how many groups of *one* have, each, another group of *other* in common in *left*."""
    beside = [[n for n, group in enumerate(other) if group & mine & left] for mine in one]
    taken: dict[int, int] = {}

    def place(mine: int, seen: set[int]) -> bool:
        for each in beside[mine]:
            if each not in seen:
                seen.add(each)
                if each not in taken or place(taken[each], seen):
                    taken[each] = mine
                    return True
        return False

    return sum(place(mine, set()) for mine in range(len(one)))


@dataclass(frozen=True, slots=True)
class StatedRoots:
    """A digest of trust roots, and the *builders* of the policy that state it of the image."""

    digest: Digest
    builders: tuple[Builder, ...]


def roots_agreement(
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
    stated = roots_agreement(judged)
    if len(stated) < 2:
        return tuple(judged)
    weight = {
        each.digest: len(independent_builders(each.builders, distinct))
        for each in roots_agreement(judged, Standing.AGREES)
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
    reason = f"it states the trust roots {digest}, and not as {others}"
    return replace(each, standing=Standing.DISSENTS, discount=None, reason=reason)


_ROOTS: Final = "roots_digest"


class Outcome(StrEnum):
    """The three answers; only ``MET`` is a yes."""

    MET = "quorum met"
    DISSENT = "builders disagree"
    SHORT = "too few builders agree"


@dataclass(frozen=True, slots=True)
class Dissent:
    """A builder that says another thing of the same commit and system."""

    builder: Builder
    claim: Claim
    difference: Difference

    @property
    def about_roots(self) -> bool:
        """Whether it got the same image, and says that it rests on other trust roots."""
        return _ROOTS in self.difference.members


@dataclass(frozen=True, slots=True)
class Missing:
    """A builder that could have been heard and was not; *reason* says why, if it is known."""

    builder: Builder
    reason: str


@dataclass(frozen=True, slots=True)
class QuorumResult:
    """The answer on *asked*.

    *agreeing* are all builders that agree, *counted* those of them that are independent of one
    another; *shadowed* agree, but share an attribute with one that is counted. *roots* are all
    digests of trust roots that builders state of the image: of those that agree, one at most.
    """

    asked: Agreement
    outcome: Outcome
    threshold: int
    agreeing: tuple[Builder, ...]
    counted: tuple[Builder, ...]
    dissents: tuple[Dissent, ...]
    missing: tuple[Missing, ...]
    claims: tuple[JudgedClaim, ...]
    roots: tuple[StatedRoots, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the image has the policy's quorum."""
        return self.outcome is Outcome.MET

    @property
    def shadowed(self) -> tuple[Builder, ...]:
        """Return who agrees and yet adds nothing."""
        return tuple(builder for builder in self.agreeing if builder not in self.counted)

    @property
    def reason(self) -> str:
        """The answer in one line."""
        if self.outcome is Outcome.DISSENT:
            return "; ".join(_dissent_words(self.dissents))
        if self.outcome is Outcome.SHORT:
            return f"{len(self.counted)} of the {self.threshold} builders wanted agree"
        names = ", ".join(builder.id for builder in self.counted)
        agree = plural(len(self.counted), "builder agrees", "builders agree")
        wanted = plural(self.threshold, "is wanted", "are wanted")
        return f"{agree} ({names}), {wanted}"


def evaluate_quorum(
    policy: Policy, asked: Agreement, claims: Iterable[Claim], now: datetime
) -> QuorumResult:
    """Count *claims* on *asked*: the image as it was found, said to be of its commit and system."""
    signers = {builder.signer: builder for builder in policy.builders}
    judged = dissent_on_roots(
        [judge_claim(claim, policy, signers, asked, now) for claim in claims],
        policy.quorum.distinct,
    )
    dissents = tuple(
        # Who got the same image differs in what it says that it rests on.
        Dissent(
            builder, each.claim, replace(found, members=(_ROOTS,)) if each.same_image else found
        )
        for builder in policy.builders
        for each in judged
        if each.standing is Standing.DISSENTS and each.builder == builder
        for found in (compare_agreements(asked, each.claim.predicate.agreement),)
    )
    against = {dissent.builder.id for dissent in dissents}
    said = {each.builder.id for each in judged if each.standing is Standing.AGREES and each.builder}
    # Who says both cannot be believed in either.
    agreeing = tuple(each for each in policy.builders if each.id in said - against)
    counted = independent_builders(agreeing, policy.quorum.distinct)
    outcome = Outcome.MET if len(counted) >= policy.quorum.threshold else Outcome.SHORT
    return QuorumResult(
        asked=asked,
        outcome=Outcome.DISSENT if dissents else outcome,
        threshold=policy.quorum.threshold,
        agreeing=agreeing,
        counted=counted,
        dissents=dissents,
        missing=tuple(_missing(policy, asked.system, judged, said | against)),
        claims=judged,
        roots=tuple(
            each
            for standing in (Standing.AGREES, Standing.DISSENTS)
            for each in roots_agreement(judged, standing)
        ),
    )


def _missing(
    policy: Policy, system: str, judged: Sequence[JudgedClaim], heard: set[str]
) -> Iterable[Missing]:
    for builder in policy.builders:
        if builder.id in heard or system not in builder.systems:
            continue
        reason = [each.reason for each in judged if each.builder == builder]
        yield Missing(builder, "; ".join(dict.fromkeys(reason)) or "nothing of it was found")


def _dissent_words(dissents: Sequence[Dissent]) -> Iterator[str]:
    for about_roots, reason in (
        (False, "built something else from this commit"),
        (True, "got this image from other trust roots"),
    ):
        names = [each.builder.id for each in dissents if each.about_roots is about_roots]
        if names:
            yield f"{', '.join(dict.fromkeys(names))} {reason}"
