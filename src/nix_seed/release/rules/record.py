"""Was this commit promoted, once, by those who may, and as just these images? (docs/promote.md)

A promotion record is found among bytes that anyone may have put there. What counts is a record that
enough promoters of the policy signed and the policy's logs hold; two such records with different
roots for one commit are the alarm that the whole ledger exists for, and never a yes.

What a ledger holds for a commit.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Check, Fate
from nix_seed.formats.intoto import statement as intoto
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.release.rules.tree import Leaf, MemberProof, build_release
from nix_seed.trust.rules.bundle import BundleCheck, Expected, Trust, Verdict
from nix_seed.trust.rules.claims import Finding, envelopes_of
from nix_seed.trust.rules.policy import Policy, Promoter, log_trust, signer_name


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One release: *root* is the Merkle root over its systems, *record* its statement's SHA-256.

    *position* says, for people, where the entry lies: ``block 12, transaction 0x…`` or ``index 7``;
    it is empty for one that is yet to be published.
    """

    commit_key: Digest
    root: Digest
    record: Digest
    position: str = ""

    def says(self, other: LedgerEntry) -> bool:
        """Whether both say the same, wherever they lie."""
        mine = (self.commit_key, self.root, self.record)
        return mine == (other.commit_key, other.root, other.record)


EXPECTED = Expected(subject=None, predicate_types=(intoto.PROMOTION_TYPE,))
"""What a bundle over a promotion record must state."""


@dataclass(frozen=True, slots=True)
class RecordSignature:
    """A good signature under a record. *counts* if its promoter's and in enough logs.

    *time* is a moment by which it is proved to have existed, None if none is.
    """

    promoter: Promoter | None
    logs: frozenset[str]
    counts: bool
    reason: str
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record whose statement someone the policy knows has signed; *digest* is the statement's."""

    digest: Digest
    payload: bytes
    predicate: intoto.PromotionPredicate
    signatures: tuple[RecordSignature, ...]

    @property
    def head(self) -> TreeHead:
        """The tree that the record signs."""
        return TreeHead(self.predicate.size, self.predicate.root.raw)

    @property
    def promoters(self) -> tuple[Promoter, ...]:
        """Whose signature counts, each once."""
        found = {
            each.promoter.id: each.promoter
            for each in self.signatures
            if each.counts and each.promoter
        }
        return tuple(found[name] for name in sorted(found))

    @property
    def time(self) -> datetime | None:
        """A moment by which a signature that counts is proved to have existed."""
        return min(
            (each.time for each in self.signatures if each.counts and each.time), default=None
        )


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """The answer: *record* is the one that stands, None where none does.

    *absent*: nothing at all says that the commit was promoted, as before every promotion. Where a
    record lies there that does not stand, or was seen before and is gone, it is false.
    """

    commit: intoto.Commit
    record: Record | None
    checks: tuple[Check, ...]
    absent: bool = False

    @property
    def fate(self) -> Fate:
        """The worst of the checks."""
        fates = {check.fate for check in self.checks}
        return next((each for each in (Fate.FALSE, Fate.UNCHECKED) if each in fates), Fate.VERIFIED)

    @property
    def reason(self) -> str:
        """The first check that failed, or what was found."""
        failed = next(
            (each for each in self.checks if each.fate is self.fate is not Fate.VERIFIED), None
        )
        if failed is not None:
            return failed.reason
        assert self.record is not None
        names = ", ".join(each.id for each in self.record.promoters)
        return f"promoted by {names} under root {self.record.predicate.root}"


def promoter_trust(policy: Policy, certificates: BundleCheck | None) -> Trust:
    """Return whose signatures under records *policy* lets one look at."""
    signers = (each.signer for each in policy.promoters)
    return Trust.in_signers(signers, certificates, log_trust(policy))


def records_of(
    findings: Iterable[Finding], policy: Policy, distrusted: Container[str] = ()
) -> tuple[Record, ...]:
    """Return the records that verified *findings* state, in the order of their digests.

    Bundles over one payload are signatures of one record, and those of one signer are one: each may
    bring the proof of another log. Logs in *distrusted* prove nothing.
    """
    gathered: dict[bytes, list[Finding]] = {}
    for finding in findings:
        if finding.verdict.verified and finding.verdict.bundle is not None:
            gathered.setdefault(finding.verdict.bundle.envelope.payload, []).append(finding)
    records = []
    for payload, together in gathered.items():
        predicate = _predicate(together[0].verdict)
        if predicate is not None:
            signatures = tuple(_signatures(together, policy, distrusted))
            records.append(Record(Digest.of(payload), payload, predicate, signatures))
    return tuple(sorted(records, key=lambda record: record.digest))


def judge_record(record: Record, policy: Policy) -> tuple[Check, ...]:
    """Judge what a record says of itself: whose, by which policy, and signed by enough."""
    return (_repository(record, policy), _by_policy(record, policy), _promoters(record, policy))


@dataclass(frozen=True, slots=True)
class Ledgered:
    """What the stores hold about a commit: *records*, and what was wrong on the way to them.

    *lies* are those of logs, and of lists that contradict themselves. *unread* are what may be
    records, and could not be read or judged: where one stands, these bar it. *unchecked* are these,
    and the logs that could not be asked: where none stands, one of these might have. *refused* are
    what was judged and is no record of a promoter's: they bar nothing, and are not nothing.
    *possible* are the records as they are where the logs that could not be asked are honest: who
    cuts a reader off from a log must not take another root away by it.
    """

    records: tuple[Record, ...]
    lies: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    possible: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """The images of a promotion, as they were found: one leaf each.

    *proofs* has each system's proof, or why there is none (which is *could not check* where one
    might have been read); None where *leaves* are all systems of an index, whose root is then
    computed. *index* is that index's digest.
    """

    leaves: tuple[Leaf, ...] = ()
    proofs: Mapping[str, MemberProof | Check] | None = None
    index: Digest | None = None


def evaluate_promotion(
    policy: Policy,
    commit: intoto.Commit,
    found: Ledgered,
    shown: Shown,
    pinned: Digest | None = None,
) -> PromotionResult:
    """Judge whether what is *shown* is what *commit* was promoted as, by all that was *found*.

    *pinned* is the root this machine saw before for the commit.
    """
    lies = [Check("logs", Fate.FALSE, reason) for reason in found.lies]
    ours = [record for record in found.records if record.predicate.commit == commit]
    good = [record for record in ours if stands(record, policy)]
    if not good and found.unchecked:
        unchecked = Check("record", Fate.UNCHECKED, found.unchecked[0])
        return PromotionResult(commit, None, (*lies, unchecked))
    if not good:
        absent = not (found.records or found.refused or lies) and pinned is None
        failed = [check for record in ours for check in failed_checks(record, policy)]
        if not ours:
            failed = [Check("record", Fate.FALSE, f"no promotion record of {commit} was found")]
        return PromotionResult(commit, None, (*lies, *failed), absent)
    record = min(good, key=lambda each: each.digest)
    checks = (*lies, *judge_record(record, policy), _unique(good, found, policy, pinned))
    if shown.proofs is None:
        checks = (*checks, _whole(record, shown.leaves))
    else:
        for leaf in shown.leaves:
            proof = shown.proofs[leaf.system]
            if isinstance(proof, Check):
                proof = foreign_system(record, policy, leaf.system) or proof
            checks = (*checks, _member(record, leaf, proof))
    if shown.index is not None:
        checks = (*checks, _index(record, shown.index))
    return PromotionResult(commit, record, checks)


def _signatures(
    findings: Sequence[Finding], policy: Policy, distrusted: Container[str]
) -> Iterator[RecordSignature]:
    promoters = {promoter.signer: promoter for promoter in policy.promoters}
    wanted = max(policy.quorum.logs, 1)
    known = {log.id for log in policy.logs}
    for signed in envelopes_of(findings, policy, distrusted):
        logs, promoter = signed.logs & known, promoters.get(signed.signer)
        if promoter is None:
            reason = f"{signer_name(signed.signer)} is no promoter of the policy"
        elif len(logs) < wanted:
            reason = (
                f"{promoter.id}'s signature is proved to be in {len(logs)} of the {wanted} logs"
            )
        else:
            reason = f"{promoter.id} signed it, in {', '.join(sorted(logs))}"
        counts = promoter is not None and len(logs) >= wanted
        yield RecordSignature(promoter, logs, counts, reason, signed.time)


def _predicate(verdict: Verdict) -> intoto.PromotionPredicate | None:
    assert verdict.statement is not None
    assert verdict.bundle is not None
    try:
        predicate = intoto.check_promotion(verdict.statement, "the promotion record")
    except InputError:
        # Signed by a promoter, and yet no record: nothing that anyone could count.
        return None
    # In other spellings one record would have several digests, and a ledger several of it.
    canonical = intoto.promotion_statement(predicate).dump() == verdict.bundle.envelope.payload
    return predicate if canonical else None


def failed_checks(record: Record, policy: Policy) -> tuple[Check, ...]:
    """Return why *record* does not stand by *policy*; none where it does."""
    checks = judge_record(record, policy)
    return tuple(check for check in checks if check.fate is not Fate.VERIFIED)


def stands(record: Record, policy: Policy) -> bool:
    """Whether *record* is one by *policy*: of its repository, and signed by enough."""
    return not failed_checks(record, policy)


def could_stand(record: Record, policy: Policy) -> bool:
    """Whether all that *record* lacks, if anything, is promoters' signatures."""
    checks = (_repository(record, policy), _by_policy(record, policy))
    return all(check.fate is Fate.VERIFIED for check in checks)


def may_stand(record: Record, policy: Policy) -> bool:
    """Whether *record* stands if every log holds what is signed: else logs make no difference."""
    signers = {each.promoter.id for each in record.signatures if each.promoter}
    return could_stand(record, policy) and len(signers) >= max(policy.quorum.promoters, 1)


def _repository(record: Record, policy: Policy) -> Check:
    said = record.predicate.repository
    if policy.source is not None and said != policy.source:
        reason = f"the record is of the repository {said}, not of {policy.source}"
        return Check("repository", Fate.FALSE, reason)
    return Check("repository", Fate.VERIFIED, said)


def _by_policy(record: Record, policy: Policy) -> Check:
    """Judge by which policy it was made, and whether of as many systems as a release by it has.

    Who asks for one system sees no other: a release that lacks some shows in nothing else.
    """
    said = record.predicate
    if said.policy == policy.digest:
        by, found, wanted = "this policy", "this one", len(policy.systems)
        right = said.epoch == policy.epoch
        reason = f"it says epoch {said.epoch} of this policy, whose epoch is {policy.epoch}"
    else:
        by, found = "that policy", "an accepted earlier one"
        wanted = policy.accepts.get(said.policy, 0)
        right = said.policy in policy.accepts and said.epoch < policy.epoch
        reason = (
            f"it was promoted under the policy {said.policy}, epoch {said.epoch}, which this one, "
            f"epoch {policy.epoch}, does not accept"
        )
    if not right:
        return Check("policy", Fate.FALSE, reason)
    if said.size != wanted:
        reason = f"the record is of {said.size} systems, and a release by {by} has {wanted}"
        return Check("policy", Fate.FALSE, reason)
    return Check("policy", Fate.VERIFIED, f"{found}, epoch {said.epoch}")


def _promoters(record: Record, policy: Policy) -> Check:
    have, wanted = len(record.promoters), max(policy.quorum.promoters, 1)
    names = ", ".join(each.id for each in record.promoters) or "none"
    if have >= wanted:
        return Check("promoters", Fate.VERIFIED, f"{names} signed, {wanted} must")
    why = "; ".join(each.reason for each in record.signatures if not each.counts)
    reason = f"{have} of the {wanted} promoters that must sign the record did"
    return Check("promoters", Fate.FALSE, f"{reason}: {why}" if why else reason)


def _conflict(records: Sequence[Record]) -> str | None:
    """Return in what *records* of one commit contradict one another, None where they do not."""
    commit = records[0].predicate.commit
    roots = {(record.predicate.root, record.predicate.index) for record in records}
    if len(roots) > 1:
        shown = ", ".join(sorted({str(root) for root, _ in roots}))
        return f"{commit} was promoted more than once, as different things: {shown}"
    outputs = {each.predicate.outputs_root for each in records} - {None}
    if len(outputs) > 1:
        shown = ", ".join(sorted(map(str, outputs)))
        return f"{commit} was promoted with several lists of outputs: {shown}"
    return None


def _unique(
    records: Sequence[Record], found: Ledgered, policy: Policy, pinned: Digest | None
) -> Check:
    """Judge whether *records*, all of a commit that stand, are all that it was promoted as."""
    commit, root = records[0].predicate.commit, records[0].predicate.root
    if (conflict := _conflict(records)) is not None:
        return Check("unique", Fate.FALSE, conflict)
    if pinned is not None and pinned != root:
        reason = f"this machine saw {commit} promoted under the root {pinned}, and now {root}"
        return Check("unique", Fate.FALSE, reason)
    possible = [e for e in found.possible if e.predicate.commit == commit and stands(e, policy)]
    unread = found.unread or (found.unchecked if _conflict([*records, *possible]) else ())
    if unread:
        reason = f"whether {commit} was promoted as something else, too: {unread[0]}"
        return Check("unique", Fate.UNCHECKED, reason)
    return Check("unique", Fate.VERIFIED, f"one root for this commit among {len(records)} found")


def _whole(record: Record, leaves: Sequence[Leaf]) -> Check:
    images = {leaf.system: (leaf.nar_hash, leaf.image_digest) for leaf in leaves}
    found = build_release(record.predicate.commit, images)
    if found.head != record.head or len(images) != len(leaves):
        reason = (
            f"the root over {', '.join(images)} is {found.root}, and promoted was "
            f"{record.predicate.root} over {record.predicate.size}"
        )
        return Check("members", Fate.FALSE, reason)
    return Check("members", Fate.VERIFIED, f"the root over {', '.join(images)} is the promoted one")


def foreign_system(record: Record, policy: Policy, system: str) -> Check | None:
    """Return what is false where a release by *policy* has no *system*; a proof tells no more."""
    if record.predicate.policy != policy.digest or system in policy.systems:
        return None
    reason = f"a release by this policy has no {system}, but {', '.join(policy.systems)}"
    return Check(f"member {system}", Fate.FALSE, reason)


def _member(record: Record, leaf: Leaf, proof: MemberProof | Check) -> Check:
    name = f"member {leaf.system}"
    if isinstance(proof, Check):
        reason = f"no proof that {leaf.system} belongs to the release: {proof.reason}"
        return Check(name, proof.fate, reason)
    if proof.leaf != leaf:
        reason = f"promoted for {leaf.system} is {proof.leaf.image_digest}, not {leaf.image_digest}"
        return Check(name, Fate.FALSE, reason)
    try:
        proof.check(record.head)
    except CheckedFalse as error:
        return Check(name, Fate.FALSE, error.message)
    reason = f"leaf {proof.index} of {proof.size}, {len(proof.hashes)} hashes lead to the root"
    return Check(name, Fate.VERIFIED, reason)


def _index(record: Record, index: Digest) -> Check:
    if index != record.predicate.index:
        reason = f"the index is {index}, and {record.predicate.index} was promoted"
        return Check("index", Fate.FALSE, reason)
    return Check("index", Fate.VERIFIED, f"{index} is the promoted index")
