"""Audits one release: its index and images, its proofs, its evidence, its quorums."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from nix_seed.flows.attach import Attestation
from nix_seed.flows.audit_bench import Bench, sort_bundle
from nix_seed.flows.audit_read import Copy, Document
from nix_seed.flows.evidence import agreement_of
from nix_seed.flows.inspect import InspectedImage, inspect
from nix_seed.flows.records import EVIDENCE_TYPE, MEMBER_TYPE
from nix_seed.flows.stores import Stores
from nix_seed.formats.intoto.predicate import Agreement
from nix_seed.formats.oci.descriptor import Index
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.rules.audit import AuditFinding, Kind, Severity
from nix_seed.rules.audit_quorum import (
    Found,
    Held,
    judge_evidence,
    judge_proofs,
    judge_quorums,
)
from nix_seed.rules.audit_record import LedgerRecord
from nix_seed.rules.evidence import Finding
from nix_seed.rules.policy import Policy
from nix_seed.rules.release import Leaf, MemberProof
from nix_seed.rules.release_evidence import Evidence, LoggedAt

__all__ = ["Releases"]


class Releases:
    """Audits releases one after another; images and indexes of several are read once.

    The index of a record that is *waiting* may not be there yet.
    """

    def __init__(
        self,
        stores: Stores,
        copies: Sequence[Copy],
        bench: Bench,
        now: datetime,
        waiting: Collection[Digest] = (),
    ) -> None:
        self._stores = stores
        self._copies = copies
        self._bench = bench
        self._now = now
        self._waiting = waiting
        self._images: dict[Digest, InspectedImage | NixSeedError] = {}
        self._indexes: dict[Digest, tuple[Digest, ...] | NixSeedError | None] = {}

    def audit(
        self,
        record: LedgerRecord,
        documents: Iterable[Document],
        attestations: Iterable[Attestation],
        held: Held,
    ) -> tuple[LedgerRecord, tuple[AuditFinding, ...]]:
        """Return *record* with who counted for it, and all that is wrong with the release."""
        evidence, proofs = _documents(record, documents)
        findings = list(self._index(record, evidence))
        if isinstance(evidence, AuditFinding):
            return record, (*findings, evidence)
        leaves = evidence.release.leaves
        findings += judge_proofs(record, leaves, proofs)
        images: dict[str, Agreement] = {}
        for leaf in leaves:
            found = self._agreement(record, leaf)
            if isinstance(found, AuditFinding):
                findings.append(found)
            else:
                images[leaf.system] = found
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
        held: Held,
    ) -> tuple[tuple[str, ...], tuple[AuditFinding, ...]]:
        book = self._bench.book
        then = book.of_record(record.policy)
        found = Found(evidence, self._judged(attestations, then), images)

        def renamed(at: LoggedAt) -> bool | None:
            if all(log.id != at.log for log in then.logs):
                return None
            return held(replace(at, log=self._bench.log_name(then, at.log)))

        findings = list(judge_evidence(record, found, renamed))
        builders: tuple[str, ...] = ()
        if book.knows(record.policy):
            moment = record.time or self._now
            builders, more = judge_quorums(record, found, then, moment, present=False)
            findings += more
        if then is not book.present or not book.knows(record.policy):
            now = Found(evidence, self._judged(attestations, book.present), images)
            _, more = judge_quorums(record, now, book.present, self._now, present=True)
            findings += more
        return builders, tuple(findings)

    def _judged(
        self, attestations: Sequence[Attestation], policy: Policy
    ) -> dict[Digest, list[Finding]]:
        found: dict[Digest, list[Finding]] = {}
        for each in attestations:
            known = sort_bundle(each.text)
            if known is not None and known.predicate is None:
                judged = self._bench.build(each, policy)
                if judged.verdict.verified:
                    found.setdefault(known.signed, []).append(judged)
        return found

    def _index(
        self, record: LedgerRecord, evidence: Evidence | AuditFinding
    ) -> Iterator[AuditFinding]:
        """Yield what is wrong with the promoted index: it must hold just the release's images."""
        if record.index not in self._indexes:
            self._indexes[record.index] = self._read_index(record.index)
        found = self._indexes[record.index]
        subject = str(record.commit)
        if found is None and record.digest in self._waiting:
            words = f"{record.commit} is promoted, and its index is not published yet"
            yield AuditFinding(Kind.PENDING, Severity.NOTICE, subject, words, record.shown)
        elif found is None:
            words = f"the promoted index {record.index} is in none of the copies"
            yield AuditFinding(Kind.GAP, Severity.ALARM, subject, words, record.shown)
        elif isinstance(found, NixSeedError):
            severity = _severity(found)
            yield AuditFinding(Kind.GAP, severity, subject, found.message, record.shown)
        elif isinstance(evidence, Evidence):
            wanted = sorted(leaf.image_digest for leaf in evidence.release.leaves)
            if sorted(found) != wanted:
                words = f"the promoted index of {record.commit} holds other images than its root"
                yield AuditFinding(Kind.GAP, Severity.ALARM, subject, words, record.shown)

    def _read_index(self, digest: Digest) -> tuple[Digest, ...] | NixSeedError | None:
        """Return the images of the index; None where no copy has it."""
        try:
            for copy in self._copies:
                fetched = copy.store.get_manifest(digest)
                if fetched is not None:
                    index = Index.parse(fetched.body, f"{copy.name}@{digest}")
                    return tuple(each.digest for each in index.manifests)
        except NixSeedError as error:
            return error
        return None

    def _agreement(self, record: LedgerRecord, leaf: Leaf) -> Agreement | AuditFinding:
        """Return what builders of *leaf* must have said: what its image really is."""
        found = self._image(leaf.image_digest)
        try:
            if isinstance(found, NixSeedError):
                raise found
            agreement = agreement_of(found, record.commit)
            if (agreement.system, agreement.nar_hash) != (leaf.system, leaf.nar_hash):
                raise CheckedFalse(
                    f"the image {leaf.image_digest} is for {agreement.system} with narHash "
                    f"{agreement.nar_hash}, and its leaf says {leaf.system} and {leaf.nar_hash}"
                )
        except NixSeedError as error:
            words = f"{leaf.system} of {record.commit}: {error.message}"
            subject = f"{record.commit} {leaf.system}"
            return AuditFinding(Kind.GAP, _severity(error), subject, words, record.shown)
        return agreement

    def _image(self, digest: Digest) -> InspectedImage | NixSeedError:
        if digest not in self._images:
            self._images[digest] = self._read_image(digest)
        return self._images[digest]

    def _read_image(self, digest: Digest) -> InspectedImage | NixSeedError:
        try:
            for copy in self._copies:
                if copy.store.head_manifest(digest) is not None:
                    found = inspect(self._stores, copy.reference.at(digest))
                    if isinstance(found, InspectedImage):
                        return found
                    return CheckedFalse(f"{digest} is an index, and not one system's image")
        except NixSeedError as error:
            return error
        return CheckedFalse(f"the image {digest} is in none of the copies")


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
            evidence = _evidence(record, each.text)
    if evidence is None:
        words = f"the evidence of {record.commit}, {record.evidence}, is nowhere"
        subject = str(record.commit)
        evidence = AuditFinding(Kind.GAP, Severity.ALARM, subject, words, record.shown)
    return evidence, tuple(proofs)


def _evidence(record: LedgerRecord, text: bytes) -> Evidence | AuditFinding:
    words = f"the evidence of {record.commit} is of another release than its record signs"
    try:
        evidence = Evidence.parse(text, f"the evidence of {record.commit}")
        head = TreeHead(record.size, record.root.raw)
        release = evidence.release
        if release.head == head and release.leaves[0].commit == record.commit:
            return evidence
    except InputError as error:
        words = error.message
    return AuditFinding(Kind.QUORUM, Severity.ALARM, str(record.commit), words, record.shown)


def _severity(error: NixSeedError) -> Severity:
    return Severity.UNCHECKED if isinstance(error, CouldNotCheck) else Severity.ALARM
