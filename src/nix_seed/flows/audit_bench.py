"""Judges what audits find: bundles by the policy they name, into records and attestations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from nix_seed.flows.attach import Attestation
from nix_seed.flows.verify import Judges
from nix_seed.formats.intoto.promotion import PromotionPredicate, check_statement
from nix_seed.formats.intoto.unverified import Unverified
from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.ground.digests import Digest
from nix_seed.rules.audit import AuditFinding, Kind, Severity
from nix_seed.rules.audit_policies import PolicyBook
from nix_seed.rules.audit_record import LedgerRecord
from nix_seed.rules.bundle_verify import Fate, Trust
from nix_seed.rules.evidence import Finding, examine, trust_of
from nix_seed.rules.policy import Policy, Signer, signer_name
from nix_seed.rules.promotion import EXPECTED, judge_record, promoter_trust, records_of
from nix_seed.rules.release_evidence import LoggedAt

__all__ = ["Bench", "Envelopes", "Sorted", "sort_bundle"]


@dataclass(frozen=True, slots=True)
class Sorted:
    """A bundle by what it says it is. *predicate* is None for all but a promotion record.

    Of a record *payload* is the digest.
    """

    signed: Digest
    payload: Digest
    predicate: PromotionPredicate | None


@dataclass(slots=True)
class Envelopes:
    """Every envelope found: the SHA-256 of what was signed, and of the payload."""

    signed: set[Digest] = field(default_factory=set)
    payloads: set[Digest] = field(default_factory=set)

    def add(self, found: Sorted) -> None:
        """Remember that *found* was."""
        self.signed.add(found.signed)
        self.payloads.add(found.payload)


def sort_bundle(text: bytes) -> Sorted | None:
    """Return what a bundle says it is, unverified; None for what is no envelope at all."""
    said = Unverified.read(text)
    if said is None:
        return None
    return Sorted(Digest.of(said.envelope.pae), said.payload, said.promotion)


class Bench:
    """Judges by the policies of *book*; *judges* has what judges logs and certificates for each."""

    def __init__(self, book: PolicyBook, judges: Mapping[Digest, Judges]) -> None:
        self.book = book
        self._judges = judges
        self._promoters = {
            digest: _union(promoter_trust(p, each.certificates) for p in book.all)
            for digest, each in judges.items()
        }
        self._builds: dict[tuple[bytes, Digest], Finding] = {}
        self._names = {p.signer: p.id for policy in book.all[::-1] for p in policy.promoters}
        self._logs = _log_names(book)
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
            judges = self._judges[policy.digest]
            trust = trust_of(policy, judges.certificates)
            judged = examine(found.place, found.text, trust, judges.logs)
            self._builds[key] = self._noted(judged, policy)
        return self._builds[key]

    def promotion(self, found: Attestation, predicate: PromotionPredicate) -> Finding:
        """Judge a bundle over a record: whose promoter's of any policy, and in which logs."""
        policy = self.book.of_record(predicate.policy)
        trust = self._promoters[policy.digest]
        logs = self._judges[policy.digest].logs
        return self._noted(examine(found.place, found.text, trust, logs, EXPECTED), policy)

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
        lacking = {c.name: c.words for c in judge_record(record, policy) if c.fate != "verified"}
        said = record.predicate
        times = [time for each in good for _, time in each.logs.times]
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
            positions=tuple(sorted(set(self._positions(good, policy)))),
            copies=copies,
            time=min(times, default=None),
        )

    def outsiders(self, findings: Iterable[Finding]) -> Iterator[AuditFinding]:
        """Yield what is wrong with signatures under one record: whose, by which policy."""
        for each in findings:
            verdict = each.verdict
            if verdict.fate is Fate.UNCHECKED:
                yield AuditFinding(
                    Kind.UNREAD, Severity.UNCHECKED, each.place, verdict.words, (each.place,)
                )
            elif verdict.fate is Fate.FALSE:
                words = f"{verdict.words}: it is no record, whatever it says"
                yield AuditFinding(
                    Kind.PROMOTER, Severity.WARNING, each.place, words, (each.place,)
                )
            else:
                yield from self._outside(each)

    def _outside(self, finding: Finding) -> Iterator[AuditFinding]:
        digest = _named_policy(finding)
        policy = self.book.of_record(digest)
        signer = finding.verdict.signer
        if signer not in {promoter.signer for promoter in policy.promoters}:
            name = self._name(signer)
            words = (
                f"{name} signed a record under the policy {digest}, by which {name} is no promoter"
            )
            shown = (finding.place, f"policy {digest}")
            yield AuditFinding(Kind.PROMOTER, Severity.ALARM, name, words, shown)

    def _name(self, signer: Signer | None) -> str:
        if signer is None:
            return "someone"
        return self._names.get(signer, signer_name(signer))

    def _positions(self, findings: Iterable[Finding], policy: Policy) -> Iterator[LoggedAt]:
        for finding in findings:
            for log, index, leaf in finding.logs.entries:
                yield LoggedAt(self.log_name(policy, log), index, Digest(leaf.hex()))


def _named_policy(finding: Finding) -> Digest:
    statement = finding.verdict.statement
    assert statement is not None
    return check_statement(statement, "the promotion record").policy


def _union(trusts: Iterable[Trust]) -> Trust:
    found = tuple(trusts)
    return Trust(
        keys=tuple(dict.fromkeys(key for each in found for key in each.keys)),
        identities=tuple(dict.fromkeys(each for trust in found for each in trust.identities)),
        certificates=found[0].certificates,
    )


def _log_names(book: PolicyBook) -> dict[tuple[Digest, str], str]:
    """Return one name for each log, whatever policies call it: what tells logs apart is the key."""
    names: dict[bytes, str] = {}
    found = {}
    for policy in book.all:
        for log in policy.logs:
            name = names.get(log.key.der)
            if name is None:
                name = log.id if log.id not in names.values() else f"{log.id} of {log.origin}"
                names[log.key.der] = name
            found[policy.digest, log.id] = name
    return found
