"""From the bytes of bundles to claims that can be counted, each with its fate and its standing.

The question is always: is this image what one gets by building this commit for this system? A claim
that is not about that, or not by a builder of the policy in its time, is set aside with the reason.
Nothing is counted here.
"""

import hashlib
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from cryptography.x509 import load_der_x509_certificate

from nix_seed.core.digests import Digest
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.core.words import in_utc, plural
from nix_seed.formats.intoto.bundle import Certificate
from nix_seed.formats.intoto.statement import Agreement, BuildPredicate, Commit
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.image.rules.changes import SpecDifference
from nix_seed.trust.rules import bundle
from nix_seed.trust.rules.policy import (
    Builder,
    LogFindings,
    Policy,
    judge_logs,
    log_trust,
    signer_name,
)
from nix_seed.trust.rules.signer import SignedBy


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
    signer: SignedBy
    predicate: BuildPredicate
    logs: frozenset[str] = frozenset()
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class JudgedClaim:
    """A claim and its standing; *builder* is None for an unknown signer.

    *reason* says in one line why it was not counted, or nothing. *same_image*: it is the builder's
    word on the question, and its answer is this image, even if policy demands more to count it.
    """

    claim: Claim
    builder: Builder | None
    standing: Standing
    discount: Discount | None = None
    reason: str = ""
    same_image: bool = False


def judge_claim(
    claim: Claim,
    policy: Policy,
    builders: Mapping[SignedBy, Builder],
    asked: Agreement,
    now: datetime,
) -> JudgedClaim:
    """Judge *claim* on *asked*, the image as it was found, at the time *now*.

    *builders* are the policy's, by signer. What was built how, and whether it was logged, decides
    only whether an agreement counts: a dissent blocks without these, for its signer said it.
    """
    builder = builders.get(claim.signer)
    if builder is None:
        reason = f"{signer_name(claim.signer)} is no builder of the policy"
        return JudgedClaim(claim, None, Standing.NOT_COUNTED, Discount.UNKNOWN_SIGNER, reason)
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
        reason = f"it names the builder {said.builder!r}, but {builder.id} signed it"
        yield Discount.FORGED_ID, reason
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
    yield from untimely(claim.time, said.finished_on, builder, now)


def untimely(
    time: datetime | None, finished_on: str, builder: Builder, now: datetime
) -> Iterator[tuple[Discount, str]]:
    """Yield why a claim proved to be of *time* is not of the builder's time.

    Only a proved time can help a revoked builder. What the claim itself says of its time, that it
    was *finished_on* then, proves nothing: whoever stole a key writes anything. It is taken at its
    word only where that speaks against it.
    """
    made, since, end = time or now, builder.not_before, builder.revoked_at
    if since is not None:
        counts = f"{builder.id} counts from {in_utc(since)} on, and this"
        said = datetime.fromisoformat(finished_on)
        if made < since:
            yield Discount.NOT_YET, f"{counts} is of {in_utc(made)}"
        elif said < since:
            yield Discount.NOT_YET, f"{counts} says of itself that it is of {in_utc(said)}"
    if end is None or (now < end and time is None):
        return
    revoked = f"{builder.id} was revoked at {in_utc(end)}, and"
    if time is None:
        yield Discount.REVOKED, f"{revoked} no log or timestamp proves that this is older"
    elif time >= end:
        yield Discount.REVOKED, f"{revoked} this is of {in_utc(time)}"


def _unmet(claim: Claim, policy: Policy) -> Iterator[tuple[Discount, str]]:
    """Yield which demands of the policy an agreeing claim does not meet."""
    if words := too_few_logs(claim.logs, policy):
        yield Discount.LOGS, words
    said, demands = claim.predicate, policy.built
    elsewhere = said.paths.substituted + said.paths.unexplained
    if demands.here and elsewhere:
        not_here = f"{elsewhere} of its store paths were not built by its builder"
        yield Discount.SUBSTITUTED, f"{not_here}, as the policy demands"
    if demands.sandbox and said.nix.sandbox != "true":
        yield Discount.UNSANDBOXED, f"it was built with sandbox = {said.nix.sandbox}"
    if demands.no_reused_layers and said.reused_layers:
        yield Discount.REUSED, f"{len(said.reused_layers)} of its layers were taken from elsewhere"


def too_few_logs(logs: Collection[str], policy: Policy) -> str:
    """Return what *logs*, proved to hold a claim, lack of what *policy* demands, or nothing."""
    known = {log.id for log in policy.logs} & set(logs)
    if len(known) >= policy.quorum.logs:
        return ""
    held = plural(len(known), "log")
    return f"it is proved to be in {held} of the policy, which demands {policy.quorum.logs}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A bundle as it was found at *place*, its verdict, and what the logs say of it."""

    name: str
    place: str
    verdict: bundle.Verdict
    logs: LogFindings


def trust_of(policy: Policy, certificates: bundle.BundleCheck | None) -> bundle.Trust:
    """Return whose signatures *policy* lets one look at; *certificates* judges keyless ones."""
    signers = (each.signer for each in policy.builders)
    return bundle.Trust.in_signers(signers, certificates, log_trust(policy))


_ANY_BUILD = bundle.Expected(subject=None)


def examine(
    place: str, text: bytes, trust: bundle.Trust, expected: bundle.Expected = _ANY_BUILD
) -> Finding:
    """Judge one bundle's bytes. Never raises: what goes wrong inside is *could not check*.

    Which image it is about is left to the quorum, which must see dissents as well.
    """
    name = f"bundle {hashlib.sha256(text).hexdigest()[:12]}"
    verdict = bundle.evaluate_bundle(text, trust, expected, name)
    if not verdict.verified or verdict.bundle is None or verdict.signer is None:
        return Finding(name, place, verdict, LogFindings())
    try:
        logs = judge_logs(verdict.bundle, verdict.signer, name, trust.logs)
    except Exception as error:
        reason = f"{name}: an unexpected {type(error).__name__} in judging its logs: {error}"
        return Finding(
            name,
            place,
            bundle.Verdict(Fate.UNCHECKED, bundle.Ground.INTERNAL, reason),
            LogFindings(),
        )
    return Finding(name, place, verdict, logs)


def find_split_views(findings: Iterable[Finding]) -> Mapping[str, str]:
    """Return each log that showed two trees of one size, and how, by its own signatures.

    That is all that can be told without the log: between different sizes it takes a proof.
    """
    seen: dict[tuple[str, int], SignedCheckpoint] = {}
    found: dict[str, str] = {}
    for finding in findings:
        for log, checkpoint in finding.logs.checkpoints:
            before = seen.setdefault((log, checkpoint.head.size), checkpoint)
            if before.head.root != checkpoint.head.root:
                found[log] = (
                    f"the log {log} shows a split view: it signed two roots for size "
                    f"{checkpoint.head.size}"
                )
    return found


def claims_of(
    findings: Iterable[Finding], policy: Policy, distrusted: Container[str] = ()
) -> tuple[Claim, ...]:
    """Return the claims of verified findings, in their order; *distrusted* logs prove nothing.

    Bundles over one envelope are one claim: each may bring the proof of another log.
    """
    return tuple(
        Claim(each.findings[0].name, each.signer, predicate, each.logs, each.time)
        for each in envelopes_of(findings, policy, distrusted)
        if (predicate := each.findings[0].verdict.predicate) is not None
    )


@dataclass(frozen=True, slots=True)
class SignedEnvelope:
    """What *signer* signed, whatever it states: *findings* are its bundles, all verified.

    *logs* are the policy's logs that hold it, *time* a moment by which it is proved to have
    existed, None if none is.
    """

    signer: SignedBy
    findings: tuple[Finding, ...]
    logs: frozenset[str]
    time: datetime | None


def envelopes_of(
    findings: Iterable[Finding], policy: Policy, distrusted: Container[str] = ()
) -> Iterator[SignedEnvelope]:
    """Yield what verified *findings* are over, in their order; *distrusted* logs prove nothing."""
    gathered: dict[tuple[SignedBy, bytes], list[Finding]] = {}
    for finding in findings:
        verdict = finding.verdict
        if verdict.statement is None or verdict.signer is None or verdict.bundle is None:
            continue
        gathered.setdefault((verdict.signer, verdict.bundle.envelope.pae), []).append(finding)
    for (signer, _), together in gathered.items():
        logs = {log for each in together for log in each.logs.logs if log not in distrusted}
        times = [time for each in together for time in each.logs.times if time[0] in logs]
        time = _time(together[0], times, policy)
        yield SignedEnvelope(signer, tuple(together), frozenset(logs), time)


def _time(
    finding: Finding, times: Sequence[tuple[str, datetime]], policy: Policy
) -> datetime | None:
    """Return a moment by which the claim is proved to have existed.

    By a certificate, judged by then, it is the certificate's end. By logs it is the moment by which
    as many logs as the policy demands held it: fewer than these may lie together.
    """
    material = finding.verdict.bundle and finding.verdict.bundle.material
    if isinstance(material, Certificate):
        return load_der_x509_certificate(material.der).not_valid_after_utc
    earliest: dict[str, datetime] = {}
    for log, time in times:
        earliest[log] = min(time, earliest.get(log, time))
    wanted = max(policy.quorum.logs, 1)
    return sorted(earliest.values())[wanted - 1] if len(earliest) >= wanted else None


MOST_COMMITS = 32
"""How many commits are asked about where none was named: for each of them a list is read."""

_NEVER = datetime.min.replace(tzinfo=UTC)


NamedCommits = Mapping[Commit, Sequence[tuple[str, datetime]]]
"""Commits, and of each who named it (nothing for a stranger), and when."""


def name_commits(image: Digest, findings: Iterable[Finding], policy: Policy) -> NamedCommits:
    """Return the commits that claims on *image* name."""
    named: dict[Commit, list[tuple[str, datetime]]] = {}
    builders = {builder.signer: builder.id for builder in policy.builders}
    for claim in claims_of(findings, policy):
        if claim.predicate.image_digest == image:
            said = (builders.get(claim.signer, ""), claim.time or _NEVER)
            named.setdefault(claim.predicate.source.commit, []).append(said)
    return named


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
    def choose(cls, named: NamedCommits, policy: Policy, released: Collection[Commit] = ()) -> Self:
        """Choose of the *named* commits those that are likeliest to count.

        That is, of many, those that enough builders name; of these the *released* ones, and then
        the newest: one builder may name as many as he likes. What is chosen is judged as ever.
        """
        if len(named) <= MOST_COMMITS:
            return cls(tuple(named))

        def rank(commit: Commit) -> tuple[int, bool, datetime, Commit]:
            who = {builder for builder, _ in named[commit] if builder}
            newest = max(time for _, time in named[commit])
            return min(len(who), policy.quorum.threshold), commit in released, newest, commit

        ranked = sorted(named, key=rank, reverse=True)
        return cls(tuple(ranked[:MOST_COMMITS]), len(ranked) - MOST_COMMITS)


@dataclass(frozen=True, slots=True)
class DissentDetail:
    """In which store paths a dissenter's image differs.

    *difference* is None where its image is not at hand or is not what the dissenter said; *reason*
    then say so.
    """

    builder: str
    image: Digest
    difference: SpecDifference | None
    reason: str = ""
