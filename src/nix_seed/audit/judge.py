"""Judges what an audit finds: bundles by the policy that they name, and a release as a whole.

A release is its index and images, its proofs, its evidence and its quorums.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar, cast

from nix_seed.audit.read import LedgerCopy
from nix_seed.audit.rules import policies
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError, NixSeedError, caught, foreign_error
from nix_seed.core.verdict import Fate, Severity
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.formats.intoto.statement import Agreement, PromotionPredicate, check_promotion
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.registry.open import Stores
from nix_seed.release.records import EVIDENCE_TYPE, MEMBER_TYPE
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.release.rules.record import EXPECTED, failed_checks, promoter_trust, records_of
from nix_seed.release.rules.tree import Evidence, Leaf, MemberProof
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import Attestation, Document, agreement_of
from nix_seed.trust.rules.bundle import Trust
from nix_seed.trust.rules.claims import Finding, examine
from nix_seed.trust.rules.policy import LoggedAt, Policy, PolicyBook, log_trust, signer_name
from nix_seed.trust.rules.signer import SignedBy

_Found = TypeVar("_Found")


class BundleJudge:
    """Judges by the policies of *book*; *judges* has what judges logs and certificates for each."""

    def __init__(self, book: PolicyBook, judges: Mapping[Digest, Verifiers]) -> None:
        self.book = book
        self._judges = judges
        self._promoters = {
            digest: _union(promoter_trust(p, each.certificates) for p in book.all)
            for digest, each in judges.items()
        }
        self._builds: dict[tuple[bytes, Digest], Finding] = {}
        self._names = {p.signer: p.id for policy in book.all[::-1] for p in policy.promoters}
        # One name for each log, whatever policies call it: what tells logs apart is the key.
        names: dict[bytes, str] = {}
        found = {}
        for policy in book.all:
            for log in policy.logs:
                name = names.get(log.key.der)
                if name is None:
                    name = log.id if log.id not in names.values() else f"{log.id} of {log.origin}"
                    names[log.key.der] = name
                found[policy.digest, log.id] = name
        self._logs = found
        self._brought: dict[tuple[str, int, bytes], SignedCheckpoint] = {}

    @property
    def brought(self) -> tuple[tuple[str, SignedCheckpoint], ...]:
        """Every checkpoint that came with what was judged, by the name of its log."""
        return tuple((name, signed) for (name, _, _), signed in self._brought.items())

    def log_name(self, policy: Policy, log: str) -> str:
        """Return how the log that *policy* calls *log* is called throughout an audit."""
        return self._logs[policy.digest, log]

    def build(self, found: Attestation, policy: Policy) -> Finding:
        """Judge an attestation by *policy*."""
        key = found.text, policy.digest
        if key not in self._builds:
            trust = self._judges[policy.digest].builders
            judged = examine(found.place, found.text, trust)
            self._builds[key] = self._noted(judged, policy)
        return self._builds[key]

    def promotion(self, found: Attestation, predicate: PromotionPredicate) -> Finding:
        """Judge a bundle over a record: whose promoter's of any policy, and in which logs."""
        policy = self.book.of_record(predicate.policy)
        trust = replace(self._promoters[policy.digest], logs=log_trust(policy))
        return self._noted(examine(found.place, found.text, trust, EXPECTED), policy)

    def _noted(self, finding: Finding, policy: Policy) -> Finding:
        for log, signed in finding.logs.checkpoints:
            key = self.log_name(policy, log), signed.head.size, signed.head.root
            self._brought.setdefault(key, signed)
        return finding

    def record(self, findings: Iterable[Finding], copies: frozenset[str]) -> LedgerRecord | None:
        """Return the record that verified *findings*, all over one payload, state."""
        good = [each for each in findings if each.verdict.verified]
        if not good:
            return None
        digest = _named_policy(good[0])
        policy = self.book.of_record(digest)
        found = records_of(good, policy)
        if not found:
            return None
        (record,) = found
        lacking = {each.name: each.reason for each in failed_checks(record, policy)}
        said = record.predicate
        times = [time for each in good for _, time in each.logs.times]
        entries = {at for each in good for at in each.logs.entries}
        positions = {replace(at, log=self.log_name(policy, at.log)) for at in entries}
        return LedgerRecord(
            digest=record.digest,
            commit=said.commit,
            root=said.root,
            size=said.size,
            index=said.index,
            policy=said.policy,
            epoch=said.epoch,
            evidence=said.evidence,
            previous=said.previous,
            signers=tuple(sorted({self._name(each.verdict.signer) for each in good})),
            promoters=tuple(each.id for each in record.promoters),
            enough="promoters" not in lacking,
            stands=not lacking,
            why=next(iter(lacking.values()), ""),
            positions=tuple(sorted(positions)),
            copies=copies,
            time=min(times, default=None),
            outputs=said.outputs_root,
        )

    def outsiders(self, findings: Iterable[Finding]) -> Iterator[AuditFinding]:
        """Yield what is wrong with signatures under one record: whose, by which policy."""
        for each in findings:
            verdict = each.verdict
            if verdict.fate is Fate.UNCHECKED:
                yield AuditFinding(
                    Kind.UNREAD, Severity.UNCHECKED, each.place, verdict.reason, (each.place,)
                )
            elif verdict.fate is Fate.FALSE:
                reason = f"{verdict.reason}: it is no record, whatever it says"
                yield AuditFinding(
                    Kind.PROMOTER, Severity.WARNING, each.place, reason, (each.place,)
                )
            else:
                yield from self._outside(each)

    def _outside(self, finding: Finding) -> Iterator[AuditFinding]:
        digest = _named_policy(finding)
        policy = self.book.of_record(digest)
        signer = finding.verdict.signer
        if signer not in {promoter.signer for promoter in policy.promoters}:
            name = self._name(signer)
            reason = (
                f"{name} signed a record under the policy {digest}, by which {name} is no promoter"
            )
            shown = (finding.place, f"policy {digest}")
            yield AuditFinding(Kind.PROMOTER, Severity.ALARM, name, reason, shown)

    def _name(self, signer: SignedBy | None) -> str:
        if signer is None:
            return "someone"
        return self._names.get(signer, signer_name(signer))


def _named_policy(finding: Finding) -> Digest:
    statement = finding.verdict.statement
    assert statement is not None
    return check_promotion(statement, "the promotion record").policy


def _union(trusts: Iterable[Trust]) -> Trust:
    found = tuple(trusts)
    return Trust(
        keys=tuple(dict.fromkeys(key for each in found for key in each.keys)),
        identities=tuple(dict.fromkeys(each for trust in found for each in trust.identities)),
        certificates=found[0].certificates,
    )


class Releases:
    """Audits releases one after another; images and indexes of several are read once.

    The index of a record that is *waiting* may not be there yet.
    """

    def __init__(
        self,
        stores: Stores,
        copies: Sequence[LedgerCopy],
        bench: BundleJudge,
        now: datetime,
        waiting: Collection[Digest] = (),
    ) -> None:
        self._stores = stores
        self._copies = copies
        self._bench = bench
        self._now = now
        self._waiting = waiting
        self.unread: dict[AuditFinding, None] = {}
        self._read: dict[object, object] = {}

    def audit(
        self,
        record: LedgerRecord,
        documents: Iterable[Document],
        attestations: Iterable[Attestation],
        held: policies.Held,
    ) -> tuple[LedgerRecord, tuple[AuditFinding, ...]]:
        """Return *record* with who counted for it, and all that is wrong with the release."""
        evidence, proofs = _documents(record, documents)
        findings = list(self._index(record, evidence))
        if isinstance(evidence, AuditFinding):
            return record, (*findings, evidence)
        leaves = evidence.release.leaves
        findings += policies.judge_proofs(record, leaves, proofs)
        images: dict[str, Agreement] = {}
        for leaf in leaves:
            try:
                images[leaf.system] = self._agreement(record, leaf)
            except NixSeedError as error:
                reason = f"{leaf.system} of {record.commit}: {error.message}"
                severity = Severity.of(foreign_error(error))
                findings.append(record.finding(Kind.GAP, severity, reason, leaf.system))
        each = tuple(attestations)
        builders, more = self._quorums(record, evidence, images, each, held)
        of = tuple(sorted((leaf.system, leaf.image_digest) for leaf in leaves))
        return replace(record, builders=builders, images=of), (*findings, *more)

    def _quorums(
        self,
        record: LedgerRecord,
        evidence: Evidence,
        images: Mapping[str, Agreement],
        attestations: Sequence[Attestation],
        held: policies.Held,
    ) -> tuple[tuple[str, ...], tuple[AuditFinding, ...]]:
        book = self._bench.book
        then = book.of_record(record.policy)
        found = policies.FoundRelease(evidence, self._judged(attestations, then), images)

        def renamed(at: LoggedAt) -> bool | None:
            if all(log.id != at.log for log in then.logs):
                return None
            return held(replace(at, log=self._bench.log_name(then, at.log)))

        findings = list(policies.judge_evidence(record, found, renamed))
        builders: tuple[str, ...] = ()
        if book.knows(record.policy):
            moment = record.time or self._now
            builders, more = policies.judge_quorums(record, found, then, moment, present=False)
            findings += more
        if then is not book.present or not book.knows(record.policy):
            now = policies.FoundRelease(evidence, self._judged(attestations, book.present), images)
            _, more = policies.judge_quorums(record, now, book.present, self._now, present=True)
            findings += more
        return builders, tuple(findings)

    def _judged(
        self, attestations: Sequence[Attestation], policy: Policy
    ) -> dict[Digest, list[Finding]]:
        found: dict[Digest, list[Finding]] = {}
        for each in attestations:
            known = Unverified.read(each.text)
            if known is not None and known.promotion is None:
                judged = self._bench.build(each, policy)
                if judged.verdict.verified:
                    found.setdefault(known.signed, []).append(judged)
        return found

    def _index(
        self, record: LedgerRecord, evidence: Evidence | AuditFinding
    ) -> Iterator[AuditFinding]:
        """Yield what is wrong with the promoted index: it must hold just the release's images."""
        try:
            found = self._once(record.index, self._read_index)
        except NixSeedError as error:
            severity = Severity.of(foreign_error(error))
            yield record.finding(Kind.GAP, severity, error.message)
            return
        if found is None and record.digest in self._waiting:
            reason = f"{record.commit} is promoted, and its index is not published yet"
            yield record.finding(Kind.PENDING, Severity.NOTICE, reason)
        elif found is None:
            reason = f"the promoted index {record.index} is in none of the copies"
            yield record.finding(Kind.GAP, Severity.ALARM, reason)
        elif isinstance(evidence, Evidence) and sorted(found) != sorted(
            leaf.image_digest for leaf in evidence.release.leaves
        ):
            reason = f"the promoted index of {record.commit} holds other images than its root"
            yield record.finding(Kind.GAP, Severity.ALARM, reason)

    def _agreement(self, record: LedgerRecord, leaf: Leaf) -> Agreement:
        """Return what builders of *leaf* must have said: what its image really is."""
        image = self._once(leaf.image_digest, self._read_image)
        if image is None:
            raise CheckedFalse(f"the image {leaf.image_digest} is in none of the copies")
        agreement = agreement_of(image, record.commit)
        if (agreement.system, agreement.nar_hash) != (leaf.system, leaf.nar_hash):
            raise CheckedFalse(
                f"the image {leaf.image_digest} is for {agreement.system} with narHash "
                f"{agreement.nar_hash}, and its leaf says {leaf.system} and {leaf.nar_hash}"
            )
        return agreement

    def _once(
        self, digest: Digest, read: Callable[[LedgerCopy, Digest], _Found | None]
    ) -> _Found | None:
        """Return what the first copy has by *digest*, read once; raise what it ended by."""
        key = read, digest
        if key not in self._read:
            try:
                self._read[key] = self._first(digest, read)
            except NixSeedError as error:
                self._read[key] = error
        found = self._read[key]
        if isinstance(found, NixSeedError):
            raise found
        return cast("_Found | None", found)

    def _first(
        self, digest: Digest, read: Callable[[LedgerCopy, Digest], _Found | None]
    ) -> _Found | None:
        """Return what the first copy holds that has it; a copy that lies ends the search.

        One that cannot be read is told of, and does not hide what another holds.
        """
        trouble = None
        for copy in self._copies:
            try:
                found = read(copy, digest)
            except Exception as error:  # of a library's own, too
                trouble = caught(error, f"{digest} in {copy.name}")
                if isinstance(trouble, CheckedFalse):
                    raise trouble from error
                unread = AuditFinding(Kind.UNREAD, Severity.UNCHECKED, copy.name, trouble.message)
                self.unread[unread] = None
                continue
            if found is not None:
                return found
        if trouble is not None:
            raise trouble
        return None

    def _read_index(self, copy: LedgerCopy, digest: Digest) -> tuple[Digest, ...] | None:
        """Return the images of the index."""
        fetched = copy.store.get_manifest(digest)
        if fetched is None:
            return None
        index = fetched.index(f"{copy.name}@{digest}")
        return tuple(each.digest for each in index.manifests)

    def _read_image(self, copy: LedgerCopy, digest: Digest) -> InspectedImage | None:
        if copy.store.head_manifest(digest) is None:
            return None
        found = inspect(self._stores, copy.reference.at(digest))
        if isinstance(found, InspectedImage):
            return found
        raise CheckedFalse(f"{digest} is an index, and not one system's image")


def _documents(
    record: LedgerRecord, documents: Iterable[Document]
) -> tuple[Evidence | AuditFinding, tuple[MemberProof, ...]]:
    """Return the evidence that *record* names, or what is wrong with it; and the proofs."""
    evidence: Evidence | AuditFinding | None = None
    proofs = []
    for each in documents:
        if each.type == MEMBER_TYPE:
            try:
                proofs.append(MemberProof.parse(each.text, "a proof"))
            except InputError:
                continue  # told of as missing, unless another is good
        elif each.type == EVIDENCE_TYPE and Digest.of(each.text) == record.evidence:
            try:
                head = TreeHead(record.size, record.root.raw)
                evidence = Evidence.read(each.text, record.commit, head)
            except CheckedFalse as error:
                evidence = record.finding(Kind.QUORUM, Severity.ALARM, error.message)
    if evidence is None:
        reason = f"the evidence of {record.commit}, {record.evidence}, is nowhere"
        evidence = record.finding(Kind.GAP, Severity.ALARM, reason)
    return evidence, tuple(proofs)
