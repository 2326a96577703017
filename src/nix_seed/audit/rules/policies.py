"""Was each release what its policy asks for, and were those in office who signed it?

Every record names a policy of the repository. Its quorum is evaluated once more, from the evidence
that the record names.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.core.words import in_utc, shortened
from nix_seed.formats.intoto.statement import Agreement
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.release.rules.tree import Evidence, Leaf, MemberProof
from nix_seed.trust.rules.claims import Finding, claims_of
from nix_seed.trust.rules.policy import LoggedAt, Policy, PolicyBook, signer_name
from nix_seed.trust.rules.quorum import Outcome, QuorumResult, evaluate_quorum

_SHOWN = 5


def find_policy_faults(records: Iterable[LedgerRecord], book: PolicyBook) -> Iterator[AuditFinding]:
    """Yield the policies by which records were made that are foreign, unknown or not accepted."""
    by: dict[Digest, list[LedgerRecord]] = {}
    for record in records:
        if record.promoters:
            by.setdefault(record.policy, []).append(record)
    for digest, made in by.items():
        names = _commits(made)
        shown = (f"policy {digest}", f"epoch {made[0].epoch}", *(each.shown[0] for each in made))
        accepted = digest in (book.present.digest, *book.present.accepts)
        if not book.knows(digest) and not accepted:
            severity = Severity.ALARM
            reason = f"{names} promoted under a policy that this one does not know: {digest}"
        elif not book.knows(digest):
            severity = Severity.UNCHECKED
            reason = (
                f"{names} promoted under an earlier policy, {digest}, by which nothing could be "
                "judged: name its file with --policy-history"
            )
        elif not accepted:
            severity = Severity.WARNING
            reason = f"{names} promoted under the policy {digest}, which this one accepts no more"
        else:
            continue
        yield AuditFinding(Kind.POLICY, severity, str(digest), reason, shown)


def find_expired(
    records: Iterable[LedgerRecord], book: PolicyBook, now: datetime
) -> Iterator[AuditFinding]:
    """Yield records that were made when their policy had expired, and that the one in force has."""
    for record in records:
        policy = book.of_record(record.policy)
        if record.stands and record.time is not None and record.time > policy.expires:
            reason = (
                f"{record.commit} was promoted at {in_utc(record.time)} under a policy "
                f"that had expired at {in_utc(policy.expires)}"
            )
            yield record.finding(Kind.POLICY, Severity.ALARM, reason)
    if book.present.expires <= now:
        reason = (
            f"the policy in force expired at {in_utc(book.present.expires)}: nobody can "
            "verify anything by it"
        )
        shown = (f"policy {book.present.digest}",)
        yield AuditFinding(Kind.POLICY, Severity.UNCHECKED, "the policy", reason, shown)


def find_revoked(
    records: Iterable[LedgerRecord], book: PolicyBook, now: datetime
) -> Iterator[AuditFinding]:
    """Yield builders and promoters on whose word releases rest, and who are trusted no more."""
    standing = [record for record in records if record.stands]
    earlier = [policy for policy in book.all if policy is not book.present]
    signers = {each.signer for each in book.present.promoters}
    gone = {p.id: p for policy in earlier for p in policy.promoters if p.signer not in signers}
    for promoter in gone.values():
        rest = [
            record
            for record in standing
            if promoter.id in record.promoters
            and promoter in book.of_record(record.policy).promoters
        ]
        if rest:
            why = f"the promoter {promoter.id} ({signer_name(promoter.signer)}) is one no more"
            yield _revoked(promoter.id, why, "signed", rest)
    builders = {each.signer: each for each in book.present.builders}
    for policy in book.all:
        for builder in policy.builders:
            current = builders.get(builder.signer)
            why = f"the builder {builder.id} is one no more"
            if current is not None:
                if current.revoked_at is None or current.revoked_at > now:
                    continue
                if policy is not book.present:
                    continue  # told of once, by its name in the policy in force
                at = f"{in_utc(current.revoked_at)}"
                why = f"the builder {builder.id} was revoked at {at}"
            rest = [
                record
                for record in standing
                for named in book.of_record(record.policy).builders
                if named.signer == builder.signer and named.id in record.builders
            ]
            if rest:
                yield _revoked(builder.id, why, "vouched for", rest)


def _revoked(name: str, why: str, did: str, records: list[LedgerRecord]) -> AuditFinding:
    reason = f"{why}, and {did} what was released as {_commits(records)}"
    evidence = tuple(each.shown[0] for each in records)
    return AuditFinding(Kind.REVOKED, Severity.WARNING, name, reason, evidence)


def _commits(records: list[LedgerRecord]) -> str:
    return shortened([str(each.commit) for each in records], _SHOWN)


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
