"""Gathers a ledger from its copies: every record that can be reached, and what lies beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from nix_seed.audit.judge import BundleJudge
from nix_seed.audit.read import LedgerCopy, read_copies
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError, caught
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.formats.intoto.statement import Commit, PromotionPredicate, first_key
from nix_seed.release.records import EVIDENCE_TYPE
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.release.rules.signed_entries import Explained
from nix_seed.release.rules.tree import Evidence
from nix_seed.trust.attestations import Attestation, Discovered, Document
from nix_seed.trust.rules.claims import Finding


@dataclass(slots=True)
class _Seen:
    """The bundles over one record's statement, where they were found, and how they were judged."""

    predicate: PromotionPredicate
    bundles: dict[bytes, Finding] = field(default_factory=dict)
    copies: set[str] = field(default_factory=set)
    listed: dict[str, set[Digest]] = field(default_factory=dict)
    record: LedgerRecord | None = None


class Gathering:
    """The ledger of *repository* in *copies*; *known* are subjects that hold nothing new.

    Whatever promoters did not sign is not followed, only told of.
    """

    def __init__(
        self,
        copies: Sequence[LedgerCopy],
        bench: BundleJudge,
        repository: str,
        known: frozenset[Digest],
    ) -> None:
        self._copies = copies
        self._bench = bench
        self._repository = repository
        self._known = set(known)
        self._seen: dict[Digest, _Seen] = {}
        self._attestations: dict[Digest, dict[bytes, Attestation]] = {}
        self._troubles: dict[tuple[str, str], NixSeedError] = {}
        self.documents: dict[Digest, dict[Document, None]] = {}
        self.envelopes = Explained()
        self._shown = Explained()  # records alone

    def begin(self, heads: Iterable[LedgerRecord]) -> None:
        """Read the ledger from its first key, or from *heads* on, and all that has a new list."""
        keys = [commit.key for copy in self._copies for commit in copy.commits]
        begin = [e for e in (first_key(self._repository), *keys) if e not in self._known]
        for head in heads:
            begin += [head.digest, head.commit.key]
        self._follow(begin)
        explained = set(self._known)
        for record in self.records:
            explained.add(record.index)
            for document in self.documents.get(record.digest, ()):
                if document.type == EVIDENCE_TYPE:
                    explained |= _images(document.text)
        self._follow(each for each in self._listed() if each not in explained)

    def read_again(self, commits: Iterable[Commit]) -> None:
        """Read the lists of *commits*, audited before or not."""
        self._follow(commit.key for commit in commits)

    def search(self, also: Sequence[LedgerCopy] = ()) -> None:
        """Read every list there is, of copies and *also* of other repositories."""
        self._follow(self._listed())
        for listed in read_copies(also, [each for copy in also for each in copy.subjects]):
            for digest in self._take(*listed):
                self._judge(digest)

    @property
    def records(self) -> tuple[LedgerRecord, ...]:
        """Every record of this repository that a promoter signed."""
        return tuple(each.record for each in self._seen.values() if each.record is not None)

    @property
    def unread(self) -> bool:
        """Whether something in a copy could not be read."""
        return any(isinstance(each, CouldNotCheck) for each in self._troubles.values())

    def found_in(self, copy: str) -> bool:
        """Return whether the copy lists any record of this repository."""
        return any(copy in each.copies for each in self._seen.values())

    def attestations(self, commit_key: Digest) -> tuple[Attestation, ...]:
        """Return what was listed beside a commit."""
        return tuple(self._attestations.get(commit_key, {}).values())

    def explained_votes(self) -> Explained:
        """Return what explains builders' entries: only what verifies, for else it counts for none.

        A good signature is not enough, as it is for who promotes (``check_unshown``): a builder's
        word that nobody can count is told of. Records do: a promoter may be a builder, by one key.
        """
        shown = Explained(self._shown.signed, self._shown.payloads)
        for each in (one for listed in self._attestations.values() for one in listed.values()):
            known = Unverified.read(each.text)
            verdict = self._bench.build(each, self._bench.book.present).verdict
            if known is not None and verdict.verified and verdict.signer is not None:
                shown.votes |= {(verdict.signer, known.signed), (verdict.signer, known.payload)}
        return shown

    def findings(self) -> Iterator[AuditFinding]:
        """Yield what was wrong on the way: what could not be read, and who signed what."""
        for (copy, _), error in self._troubles.items():
            unread = isinstance(error, CouldNotCheck)
            severity = Severity.UNCHECKED if unread else Severity.WARNING
            yield AuditFinding(Kind.UNREAD, severity, copy, error.message, (error.message,))
        for seen in self._seen.values():
            yield from self._bench.outsiders(seen.bundles.values())
            if seen.record is not None:
                yield from self._unlisted(seen.record, seen.listed)
            elif any(each.verdict.verified for each in seen.bundles.values()):
                about = f"{seen.predicate.commit}"
                reason = f"a promoter signed a record of {about} that is spelled as none is"
                yield AuditFinding(Kind.PROMOTER, Severity.WARNING, about, reason)

    def _unlisted(
        self, record: LedgerRecord, listed: Mapping[str, set[Digest]]
    ) -> Iterator[AuditFinding]:
        """Yield where a copy lists *record*, and not where it is looked for: by its commit."""
        key = record.commit.key
        for copy in self._copies:
            if key in copy.read and copy.name in listed and key not in listed[copy.name]:
                reason = f"{copy.name} does not list the record of {record.commit} by its commit"
                subject = f"{copy.name} {record.commit}"
                yield AuditFinding(Kind.GAP, Severity.WARNING, subject, reason, record.shown)

    def _follow(self, subjects: Iterable[Digest]) -> None:
        """Read the lists of *subjects*, then of the records found there, and so on."""
        ahead = list(subjects)
        while ahead:
            touched: dict[Digest, None] = {}
            for listed in read_copies(self._copies, ahead):
                touched |= dict.fromkeys(self._take(*listed))
            ahead = []
            for digest in touched:
                record = self._judge(digest)
                if record is not None:
                    ahead += [digest, record.commit.key, *record.previous]
            ahead = [each for each in dict.fromkeys(ahead) if self._unread(each)]

    def _judge(self, digest: Digest) -> LedgerRecord | None:
        seen = self._seen[digest]
        seen.record = self._bench.record(seen.bundles.values(), frozenset(seen.copies))
        if seen.record is not None and digest not in self._known:
            # New, even of a commit that was audited before: what lies beside that counts anew.
            self._known.discard(seen.record.commit.key)
        return seen.record

    def _unread(self, subject: Digest) -> bool:
        return subject not in self._known and any(subject not in c.read for c in self._copies)

    def _take(self, copy: LedgerCopy, subject: Digest, found: Discovered) -> Iterator[Digest]:
        """Keep what was read; yield the records of this repository that are new or seen anew."""
        for error in (*found.troubles, *map(CheckedFalse, found.lies)):
            self._troubles.setdefault((copy.name, error.message), error)
        kept = self.documents.setdefault(subject, {})
        kept |= dict.fromkeys(found.documents)
        for bundle in found.attestations:
            try:
                yield from self._take_bundle(bundle, copy.name, subject)
            except Exception as error:  # of a library's own: it must not hide the others
                trouble = caught(error, f"judging {bundle.place}")
                self._troubles.setdefault((bundle.place, trouble.message), trouble)

    def _take_bundle(self, bundle: Attestation, copy: str, subject: Digest) -> Iterator[Digest]:
        found = Unverified.read(bundle.text)
        if found is None:
            return
        said = found.promotion
        if said is None:
            self.envelopes.add(found)
            self._attestations.setdefault(subject, {})[bundle.text] = bundle
            return
        ours = said.repository == self._repository
        # A record explains an entry only if it counts as one: with its signature.
        if not ours or self._keep(found.payload, said, bundle, copy, subject):
            self.envelopes.add(found)
            self._shown.add(found)
        if ours:
            yield found.payload

    def _keep(
        self,
        digest: Digest,
        predicate: PromotionPredicate,
        bundle: Attestation,
        copy: str,
        subject: Digest,
    ) -> bool:
        """Keep a bundle over a record; return whether a promoter signed it."""
        seen = self._seen.setdefault(digest, _Seen(predicate))
        seen.copies.add(copy)
        seen.listed.setdefault(copy, set()).add(subject)
        if bundle.text not in seen.bundles:
            seen.bundles[bundle.text] = self._bench.promotion(bundle, predicate)
        return seen.bundles[bundle.text].verdict.verified

    def _listed(self) -> list[Digest]:
        return list(dict.fromkeys(each for copy in self._copies for each in copy.subjects))


def _images(text: bytes) -> set[Digest]:
    try:
        return {leaf.image_digest for leaf in Evidence.parse(text, "evidence").release.leaves}
    except InputError:
        return set()
