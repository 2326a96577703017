"""What one builder's verified word is worth for one question, before any counting.

The question is always: is this image what one gets by building this commit for this system? A claim
that is not about that, or not by a builder of the policy in its time, is set aside with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nix_seed.formats.intoto.predicate import Agreement, BuildPredicate
from nix_seed.rules.policy import Builder, Policy, Signer, signer_name

__all__ = ["Claim", "Discount", "JudgedClaim", "Standing", "judge_claim"]


class Standing(StrEnum):
    """How a claim stands to the question."""

    AGREES = "agrees"
    DISSENTS = "dissents"
    NOT_COUNTED = "not counted"


class Discount(StrEnum):
    """Why a claim was not counted, by the first reason that applies."""

    UNKNOWN_SIGNER = "unknown signer"
    FORGED_ID = "forged builder id"
    OTHER_COMMIT = "another commit"
    OTHER_SYSTEM = "another system"
    OTHER_SOURCE = "another source"
    DIRTY = "dirty tree"
    SYSTEM_NOT_GRANTED = "system not granted"
    NOT_YET = "before the builder's time"
    REVOKED = "revoked"
    LOGS = "too few logs"
    SUBSTITUTED = "substituted"
    UNSANDBOXED = "no sandbox"
    REUSED = "reused layers"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim whose signature was verified.

    *name* is how reports call it. *logs* are the policy's logs that were proved to hold it, under
    enough witnesses. *time* is a moment by which it is proved to have existed, None if none is.
    """

    name: str
    signer: Signer
    predicate: BuildPredicate
    logs: frozenset[str] = frozenset()
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class JudgedClaim:
    """A claim and its standing; *builder* is None for an unknown signer.

    *words* say, in one line, why it was not counted, or nothing. *same_image*: it is the builder's
    word on the question, and its answer is this image, even if policy demands more to count it.
    """

    claim: Claim
    builder: Builder | None
    standing: Standing
    discount: Discount | None = None
    words: str = ""
    same_image: bool = False


def judge_claim(
    claim: Claim,
    policy: Policy,
    builders: Mapping[Signer, Builder],
    asked: Agreement,
    now: datetime,
) -> JudgedClaim:
    """Judge *claim* on *asked*, the image as it was found, at the time *now*.

    *builders* are the policy's, by signer. What was built how, and whether it was logged, decides
    only whether an agreement counts: a dissent blocks without these, for its signer said it.
    """
    builder = builders.get(claim.signer)
    if builder is None:
        words = f"{signer_name(claim.signer)} is no builder of the policy"
        return JudgedClaim(claim, None, Standing.NOT_COUNTED, Discount.UNKNOWN_SIGNER, words)
    reasons = _foreign(claim, policy, builder, asked, now)
    if found := next(reasons, None):
        return JudgedClaim(claim, builder, Standing.NOT_COUNTED, *found)
    if claim.predicate.agreement != asked:
        return JudgedClaim(claim, builder, Standing.DISSENTS)
    if found := next(_unmet(claim, policy), None):
        return JudgedClaim(claim, builder, Standing.NOT_COUNTED, *found, same_image=True)
    return JudgedClaim(claim, builder, Standing.AGREES, same_image=True)


def _foreign(
    claim: Claim, policy: Policy, builder: Builder, asked: Agreement, now: datetime
) -> Iterator[tuple[Discount, str]]:
    """Yield why the claim is not this builder's word on this question."""
    said = claim.predicate
    if said.builder != builder.id:
        words = f"it names the builder {said.builder!r}, but {builder.id} signed it"
        yield Discount.FORGED_ID, words
    if said.source.commit != asked.commit:
        yield Discount.OTHER_COMMIT, f"it is about the commit {said.source.commit}"
    if said.system != asked.system:
        yield Discount.OTHER_SYSTEM, f"it is about {said.system}"
    if policy.source is not None and said.source.uri != policy.source:
        yield Discount.OTHER_SOURCE, f"it is about {said.source.uri}, not {policy.source}"
    if said.source.dirty:
        yield Discount.DIRTY, "it was built from a tree with changes that no commit holds"
    if said.system not in builder.systems:
        yield Discount.SYSTEM_NOT_GRANTED, f"{builder.id} does not build for {said.system}"
    yield from _untimely(claim, builder, now)


def _untimely(claim: Claim, builder: Builder, now: datetime) -> Iterator[tuple[Discount, str]]:
    """Yield why the claim is not of the builder's time. Only proved times can help a revoked one.

    What the claim itself says of its time proves nothing: whoever stole a key writes what he likes.
    """
    made = claim.time or now
    if builder.not_before is not None and made < builder.not_before:
        yield (
            Discount.NOT_YET,
            f"{builder.id} counts from {builder.not_before:%Y-%m-%d %H:%M} UTC on, "
            f"and this is of {made:%Y-%m-%d %H:%M} UTC",
        )
    if builder.revoked_at is None or (now < builder.revoked_at and claim.time is None):
        return
    if claim.time is None:
        yield (
            Discount.REVOKED,
            f"{builder.id} was revoked at {builder.revoked_at:%Y-%m-%d %H:%M} UTC, and no log or "
            "timestamp proves that this is older",
        )
    elif claim.time >= builder.revoked_at:
        yield (
            Discount.REVOKED,
            f"{builder.id} was revoked at {builder.revoked_at:%Y-%m-%d %H:%M} UTC, and this is of "
            f"{claim.time:%Y-%m-%d %H:%M} UTC",
        )


def _unmet(claim: Claim, policy: Policy) -> Iterator[tuple[Discount, str]]:
    """Yield which demands of the policy an agreeing claim does not meet."""
    known = claim.logs & {log.id for log in policy.logs}
    if len(known) < policy.quorum.logs:
        yield (
            Discount.LOGS,
            f"it is proved to be in {len(known)} of the policy's logs, and {policy.quorum.logs} "
            "are demanded",
        )
    said, demands = claim.predicate, policy.built
    elsewhere = said.paths.substituted + said.paths.unexplained
    if demands.here and elsewhere:
        yield (
            Discount.SUBSTITUTED,
            f"{elsewhere} of its store paths were not built by its builder, as the policy demands",
        )
    if demands.sandbox and said.nix.sandbox != "true":
        yield Discount.UNSANDBOXED, f"it was built with sandbox = {said.nix.sandbox}"
    if demands.no_reused_layers and said.reused_layers:
        yield Discount.REUSED, f"{len(said.reused_layers)} of its layers were taken from elsewhere"
