"""Was each release what its quorum stood for? Evaluated once more, from the evidence it names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse
from nix_seed.core.verdict import Severity
from nix_seed.formats.intoto.build import Agreement
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.release.rules.evidence import Evidence
from nix_seed.release.rules.finding import AuditFinding, Kind
from nix_seed.release.rules.tree import Leaf, MemberProof
from nix_seed.trust.rules.claims import Finding, claims_of
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_logs import LoggedAt
from nix_seed.trust.rules.quorum import Outcome, QuorumResult, evaluate_quorum

Held = Callable[[LoggedAt], bool | None]
"""Whether the leaf is at its index in its log; None where that cannot be told."""


@dataclass(frozen=True, slots=True)
class FoundRelease:
    """What lies beside a record: *evidence*, the *attestations* of its commit, by the SHA-256 of
    what was signed, as its policy judges them, and what each system's image really is.
    """

    evidence: Evidence
    attestations: Mapping[Digest, Sequence[Finding]]
    images: Mapping[str, Agreement]


def judge_proofs(
    record: LedgerRecord, leaves: Sequence[Leaf], proofs: Sequence[MemberProof]
) -> Iterator[AuditFinding]:
    """Yield each leaf without a proof that leads to the root of *record*."""
    head = TreeHead(record.size, record.root.raw)
    good = set()
    for proof in proofs:
        try:
            proof.check(head)
        except CheckedFalse:
            continue
        good.add(proof.leaf)
    for leaf in leaves:
        if leaf not in good:
            reason = (
                f"no proof that {leaf.system} belongs to the release of {record.commit} lies "
                "beside its record"
            )
            yield record.finding(Kind.GAP, Severity.ALARM, reason, leaf.system)


def judge_evidence(record: LedgerRecord, found: FoundRelease, held: Held) -> Iterator[AuditFinding]:
    """Yield what of the evidence is not so: attestations that are absent, or not where it says."""
    for vote in found.evidence.votes:
        named = f"attestation {vote.statement}"
        whose = f"the attestation of {vote.builder} for {vote.system} of {record.commit}"
        findings = found.attestations.get(vote.statement, ())
        if not findings:
            reason = f"{whose}, which the record rests on, is nowhere"
            yield record.finding(Kind.GAP, Severity.ALARM, reason, vote.system, (named,))
            continue
        proved = {entry for each in findings for entry in each.logs.entries}
        for at in vote.logs:
            where = (named, f"entry {at.index} of {at.log}", f"leaf {at.leaf_hash}")
            if at not in proved:
                reason = f"{whose} is not proved to be entry {at.index} of {at.log}"
                yield record.finding(Kind.QUORUM, Severity.ALARM, reason, vote.system, where)
            elif held(at) is False:
                reason = f"{whose} is not entry {at.index} of {at.log}, as that log is now"
                shown = (*record.shown[:1], *where)
                yield AuditFinding(Kind.LOG, Severity.ALARM, at.log, reason, shown)


def judge_quorums(
    record: LedgerRecord, found: FoundRelease, policy: Policy, now: datetime, *, present: bool
) -> tuple[tuple[str, ...], tuple[AuditFinding, ...]]:
    """Evaluate each member's quorum by *policy*; return who counted for it, and what is wrong.

    By the policy that the record names, only what its evidence lists counts, and less than a quorum
    is an alarm. By the *present* one it is a warning: it would not be released like this today.
    """
    strict = policy.logged
    listed = {vote.statement for vote in found.evidence.votes}
    voted = [e for digest, each in found.attestations.items() if digest in listed for e in each]
    every = [each for findings in found.attestations.values() for each in findings]
    names: dict[str, None] = {}
    findings: list[AuditFinding] = []
    for leaf in found.evidence.release.leaves:
        asked = found.images.get(leaf.system)
        if asked is None:
            continue
        result = evaluate_quorum(strict, asked, claims_of(voted, strict), now)
        names |= dict.fromkeys(builder.id for builder in result.counted)
        if not result.met:
            findings.append(_unmet(record, leaf, policy, result, present=present))
        else:
            whole = evaluate_quorum(strict, asked, claims_of(every, strict), now)
            if whole.outcome is Outcome.DISSENT and not present:
                findings.append(_dissent(record, leaf, whole, found))
    missing = sorted(set(policy.systems) - {e.system for e in found.evidence.release.leaves})
    if missing and not present:
        reason = f"the release of {record.commit} lacks {', '.join(missing)}, which its policy asks"
        findings.append(record.finding(Kind.QUORUM, Severity.ALARM, reason))
    return tuple(sorted(names)), tuple(findings)


def _unmet(
    record: LedgerRecord, leaf: Leaf, policy: Policy, result: QuorumResult, *, present: bool
) -> AuditFinding:
    why = "; ".join(f"{each.builder.id}: {each.reason}" for each in result.missing)
    reason = f"{leaf.system} of {record.commit}: {result.reason}"
    reason += f", by the policy {'in force now' if present else 'it was promoted under'}"
    if why:
        reason += f" ({why})"
    severity = Severity.WARNING if present else Severity.ALARM
    more = (f"image {leaf.image_digest}", f"policy {policy.digest}")
    return record.finding(Kind.QUORUM, severity, reason, leaf.system, more)


def _dissent(
    record: LedgerRecord, leaf: Leaf, result: QuorumResult, found: FoundRelease
) -> AuditFinding:
    """Tell of a dissent; it is an alarm if a log held it when the release was made."""
    names = {each.claim.name for each in result.dissents}
    first: dict[str, int] = {}
    for at in record.positions:
        first[at.log] = min(at.index, first.get(at.log, at.index))
    earlier = any(
        at.index < first.get(at.log, 0)
        for findings in found.attestations.values()
        for each in findings
        if each.name in names
        for at in each.logs.entries
    )
    reason = f"{leaf.system} of {record.commit}: {result.reason}"
    reason += ", and had said so before it was promoted" if earlier else ", and said so since"
    severity = Severity.ALARM if earlier else Severity.WARNING
    more = tuple(
        f"roots {said.roots_digest}" if each.about_roots else f"image {said.image_digest}"
        for each in result.dissents
        if (said := each.claim.predicate)
    )
    return record.finding(Kind.QUORUM, severity, reason, leaf.system, more)
