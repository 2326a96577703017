"""The answer of ``verify``: what was found, what each of it is worth, and one verdict.

Three verdicts, never confused: *verified*, *checked and false*, *could not check*. The last is
never a yes: something that could not be read or judged may have been a dissent.

What reading a ledger can find: its kind, how bad it is, and the evidence.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from nix_seed.core.digests import Digest
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate, Severity, Trouble
from nix_seed.formats.intoto.statement import Commit
from nix_seed.release.rules.record import PromotionResult
from nix_seed.trust.rules.claims import DissentDetail, Finding
from nix_seed.trust.rules.quorum import Outcome, QuorumResult


@dataclass(frozen=True, slots=True)
class Depth:
    """What was recomputed from the layers: how many, of how many bytes, and what was wrong."""

    layers: int
    paths: int
    size: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageVerification:
    """One image's answer. *quorums* has one result for each commit that was asked about.

    *left_open* says what that leaves open: commits that it is attested for, and not asked about.
    """

    reference: str
    digest: Digest
    system: str
    nar_hash: str
    findings: tuple[Finding, ...]
    troubles: tuple[Trouble, ...]
    quorums: tuple[QuorumResult, ...]
    dissents: tuple[DissentDetail, ...]
    depth: Depth | None
    fate: Fate
    reason: str
    left_open: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """The whole answer, over all images of an index or the one image that was named.

    *promotion* is None where the policy knows no promoters, or only the quorum was asked about.
    *awaits_promotion*: all of it verified, but that nothing says yet that the commit was promoted;
    it is false all the same. ``if result:`` is true for *verified* alone.
    """

    reference: str
    policy: Digest
    epoch: int
    images: tuple[ImageVerification, ...]
    fate: Fate
    reason: str
    promotion: PromotionResult | None = None
    awaits_promotion: bool = False

    def __bool__(self) -> bool:
        return self.fate is Fate.VERIFIED

    @property
    def exit_code(self) -> int:
        """0 verified, 1 checked and false, 3 could not check."""
        return self.fate.exit_code


def evaluate_image(
    quorums: Sequence[QuorumResult],
    findings: Iterable[Finding],
    troubles: Iterable[Trouble],
    depth: Depth | None,
    lies: Sequence[str] = (),
) -> tuple[Fate, str]:
    """Return the verdict on one image, and why, in one line; *lies* are those of its logs."""
    if depth is not None and depth.problems:
        return Fate.FALSE, f"the image is not what it claims to be: {depth.problems[0]}"
    met = next((each for each in quorums if each.met), None)
    dissent = next((each for each in quorums if each.outcome is Outcome.DISSENT), None)
    false = [dissent.reason] if met is None and dissent is not None else []
    false += lies
    if false:
        return Fate.FALSE, false[0]
    unchecked = [each.verdict.reason for each in findings if each.verdict.fate is Fate.UNCHECKED]
    unchecked += [each.reason for each in troubles if each.fate is Fate.UNCHECKED]
    if unchecked:
        return Fate.UNCHECKED, f"not everything could be checked: {unchecked[0]}"
    if met is not None:
        return Fate.VERIFIED, met.reason
    if not quorums:
        return Fate.FALSE, "no builder of the policy says of any commit that this is its image"
    return Fate.FALSE, quorums[0].reason


def join_promotion(fate: Fate, reason: str, promotion: PromotionResult | None) -> tuple[Fate, str]:
    """Return the verdict on images and promotion together: the worse of the two."""
    if promotion is None or fate is Fate.FALSE or promotion.fate is Fate.VERIFIED:
        joined = promotion is not None and fate is Fate.VERIFIED
        return fate, f"{reason}; {promotion.reason}" if joined and promotion else reason
    if fate is Fate.VERIFIED or promotion.fate is Fate.FALSE:
        return promotion.fate, promotion.reason
    return fate, reason


def evaluate_images(
    images: Sequence[ImageVerification], missing: Sequence[str]
) -> tuple[Fate, str]:
    """Return the verdict on all *images* together; *missing* are systems that have none."""
    worst = [fate for fate in (Fate.FALSE, Fate.UNCHECKED) if any(i.fate is fate for i in images)]
    if missing:
        return Fate.FALSE, f"there is no image for {', '.join(missing)}"
    if not images:
        return Fate.FALSE, "there is no image"
    if not worst:
        return Fate.VERIFIED, images[0].reason if len(images) == 1 else "every image has its quorum"
    first = next(each for each in images if each.fate is worst[0])
    return worst[0], first.reason if len(images) == 1 else f"{first.system}: {first.reason}"


_STARTS = {
    Fate.VERIFIED: "verified",
    Fate.FALSE: "not verified",
    Fate.UNCHECKED: "could not be verified",
}
_MOST = 3  # commits that the line names


def headline(found: Verification, source: str | None) -> str:
    """Return ``verified for commit C of SOURCE``, or that it is not; *source* is the policy's."""
    return " ".join((_STARTS[found.fate], about(found, source))).rstrip()


def about(found: Verification, source: str | None) -> str:
    """Return ``for commit C of SOURCE``, as far as that is known."""
    commits = list(answered(found))
    if not commits:
        return f"for any commit of {source}" if source else ""
    shown = ", ".join(each.hex[:12] for each in commits[:_MOST])
    more = f" and {len(commits) - _MOST} more" if commits[_MOST:] else ""
    reason = f"for commit{'s' if commits[1:] else ''} {shown}{more}"
    return f"{reason} of {source}" if source else reason


def other_commits(found: Verification) -> Iterator[str]:
    """Yield, of each commit that the answer is not about, what builders say of it: a line each.

    A seed is the same for many commits: that they agree on one hides no dissent on another.
    """
    mine = set(answered(found))
    for image in found.images:
        for quorum in image.quorums:
            if quorum.asked.commit not in mine and not quorum.met:
                system = f"{image.system}, " if len(found.images) > 1 else ""
                yield f"not for {system}commit {quorum.asked.commit.hex[:12]}: {quorum.reason}"


def answered(found: Verification) -> tuple[Commit, ...]:
    """Return the commits that the answer is about.

    That is the promoted one; else those of which every image has its quorum; else all asked about.
    """
    if found.promotion is not None:
        return (found.promotion.commit,)
    asked = dict.fromkeys(each.asked.commit for image in found.images for each in image.quorums)
    if found.fate is not Fate.VERIFIED:
        return tuple(asked)
    met = [{each.asked.commit for each in image.quorums if each.met} for image in found.images]
    return tuple(each for each in asked if all(each in commits for commits in met))


class Kind(StrEnum):
    """What a finding is about, what weighs most first."""

    CONFLICT = "conflict"
    EQUIVOCATION = "equivocation"
    CONTRADICTION = "contradiction"
    GAP = "gap"
    SKIPPED = "skipped"
    HEADS = "heads"
    VANISHED = "vanished"
    WITHHELD = "withheld"
    LOG = "log"
    LEDGER = "ledger"
    QUORUM = "quorum"
    REVOKED = "revoked"
    POLICY = "policy"
    PROMOTER = "promoter"
    PENDING = "pending"
    COPIES = "copies"
    TAG = "tag"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something found: *subject* names what it is about, *evidence* is what anyone can look up."""

    kind: Kind
    severity: Severity
    subject: str
    reason: str
    evidence: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Twelve hex digits by which the same finding is known again.

        Of an alarm the words count as well: to accept one is to accept what it says, and no other
        lie about the same thing. What could not be checked differs with every network error.
        """
        parts = (self.kind.value, self.severity.value, self.subject, *self.evidence)
        if self.severity is Severity.ALARM:
            parts = (*parts, self.reason)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
