"""Audits a ledger: replays it and its logs, and says all that is not as it must be.

The logs are read from their first entries on, and the ledger from its first key, or from where the
last clean audit ended. That is kept in one file a repository, in the directory of the state. What
is judged lies in ``rules``; here it is only brought together.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from nix_seed.audit.gather import Gathering
from nix_seed.audit.judge import BundleJudge, Releases
from nix_seed.audit.logs import LogReach, LogSet
from nix_seed.audit.read import LedgerCopy, Tags, open_copy, read_tags
from nix_seed.audit.rules import conflicts
from nix_seed.audit.rules.policies import find_expired, find_policy_faults, find_revoked
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.audit.rules.report import AuditReport, CopyStatus, accept, sort_findings
from nix_seed.audit.rules.state import FORMAT, AuditState
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError, NixSeedError, caught
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import explained, locked, read_if_there, write_atomically
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.formats.intoto.statement import Commit
from nix_seed.logs.log import CheckpointState
from nix_seed.registry.open import AnyReference, Stores
from nix_seed.release.load import LoadedPolicy, verifiers_of
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.release.rules.signed_entries import Explained, find_unshown, find_withheld
from nix_seed.trust.rules.policy import PolicyBook

_LARGEST: Final = 1 << 30  # bytes: some millions of releases


class AuditFiles:
    """The files in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, repository: str) -> AuditState | None:
        """Return what was kept; None before the first clean audit, or of another format."""
        path = self._path(repository)
        text = read_if_there(path, _LARGEST)
        if text is None:
            return None
        try:
            return AuditState.parse(text, str(path))
        except InputError as error:
            raise CouldNotCheck(
                f"what the last audit kept is damaged: {error.message}",
                hint=f"if nobody but you writes there, remove {path}: the next audit reads "
                "everything from the first entry on",
            ) from error

    def save(self, state: AuditState) -> None:
        """Keep *state* in place of what was kept."""
        write_atomically(self._path(state.repository), state.dump())

    @contextmanager
    def alone(self, repository: str) -> Iterator[None]:
        """Hold the repository's lock; ``CouldNotCheck`` where another audit does."""
        path = self._path(repository).with_suffix(".lock")
        with explained(f"locking {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as held:
                try:
                    held.enter_context(locked(path, wait=False))
                except BlockingIOError as error:
                    raise CouldNotCheck(
                        f"another audit of {repository} is at work on {self._directory}",
                        hint="wait for it, or give this one a state of its own: --state DIR",
                    ) from error
                yield

    def _path(self, repository: str) -> Path:
        return self._directory / f"{hashlib.sha256(repository.encode()).hexdigest()}.json"


MOST_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class AuditQuestion:
    """What is audited: *copies* of one ledger, by a policy and those *earlier* than it.

    *also* are other repositories that the same promoters release, whose records explain entries of
    the same logs. *places* says where logs are, by name, in place of the policy. *ask*: whatever is
    behind an address may be asked. *since* takes releases up to that commit or record as they are;
    *whole* does not go on from what was kept. Findings *accepted*, by id, are notices.
    """

    copies: tuple[AnyReference, ...]
    policy: LoadedPolicy
    earlier: tuple[LoadedPolicy, ...] = ()
    also: tuple[AnyReference, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    ask: bool = True
    since: str | None = None
    whole: bool = False
    most: int = MOST_ENTRIES
    accepted: frozenset[str] = frozenset()


def audit(
    stores: Stores, question: AuditQuestion, state: Path | None, now: datetime
) -> AuditReport:
    """Audit what *question* asks, going on from what the directory *state* keeps of the last one.

    That is written anew only after a run that found nothing false and could check everything.
    Raises ``InputError`` for a policy without promoters, log or source, ``CouldNotCheck`` where
    another audit holds the state or it is damaged; every other end is a report.
    """
    repository = _repository(question)
    if state is None:
        return _Audit(stores, question, None, None, now).run()
    files = AuditFiles(state / "audit")
    with files.alone(repository):
        kept = files.load(repository)
        work = _Audit(stores, question, kept, state, now)
        report = work.run()
        # What was accepted is not settled: the next audit is to come upon it again.
        if report.clean and question.since is None:
            files.save(work.state())
    return report


def _repository(question: AuditQuestion) -> str:
    policy = question.policy.policy
    repository = policy.repository()
    if not policy.promoters or not policy.logs:
        lacking = "promoters" if not policy.promoters else "logs"
        raise InputError(
            f"the policy has no {lacking}, so there is no ledger by it",
            hint=f"add [[{lacking}]]; docs/reference/policy.md lists every key",
        )
    if not question.copies:
        raise InputError("no copy of the ledger was named", hint="name one: --from host/name")
    return repository


class _Audit:
    """One audit under way."""

    def __init__(
        self,
        stores: Stores,
        question: AuditQuestion,
        kept: AuditState | None,
        state: Path | None,
        now: datetime,
    ) -> None:
        self._stores = stores
        self._question = question
        self._repository = repository = _repository(question)
        self._state = state
        self._now = now
        loaded = (question.policy, *question.earlier)
        self._book = PolicyBook.of(question.policy.policy, [e.policy for e in question.earlier])
        self._judges = verifiers_of(question.policy, state=state, ask=question.ask)
        judges = {each.policy.digest: verifiers_of(each, ask=False) for each in loaded}
        self._bench = BundleJudge(self._book, judges)
        seen = None if state is None else CheckpointState(state / "checkpoints")
        reach = LogReach(question.places, question.ask, seen, question.most)
        self._logs = LogSet(self._bench, loaded, reach)
        self._findings: list[AuditFinding] = []
        self._copies = self._open(question.copies)
        self._also = self._open(question.also)
        self._closed = len(question.copies + question.also) - len(self._copies + self._also)
        self._kept = kept
        # From another policy, or other copies, one cannot go on: all is to be judged by these.
        usable = kept is not None and kept.basis == self._basis and not question.whole
        self._from = kept if usable else None
        known = self._from.subjects if self._from else frozenset()
        self._ledger = Gathering(self._copies, self._bench, repository, known)
        self._records: tuple[LedgerRecord, ...] = ()

    def run(self) -> AuditReport:
        """Read, judge, report."""
        old = self._from.records if self._from else ()
        tell(Stage("ledger", "reading the ledger"))
        heads = set(conflicts.heads_of(old))
        with self._net("the ledger"):
            self._ledger.begin(each for each in old if each.digest in heads)
        if not old:
            self._name_empty()
        marks = self._from.logs if self._from else ()
        commits = {record.commit for record in self._ledger.records}
        commits |= {commit for copy in self._copies for commit in copy.commits}
        # Those audited before as well: an index does not tell by itself of what came since.
        commits |= {record.commit for record in (self._from.records if self._from else ())}
        self._logs.replay(marks, sorted(commits))
        with self._net("what the logs hold"):
            # Votes on commits that were audited before: their lists were not read again so far.
            self._ledger.read_again(self._doubted())
            if any(True for _ in self._withheld()) or self._doubted():
                # Something in a promoter's name is unexplained: look everywhere before crying wolf.
                about = "looking for what the logs hold in every list there is"
                tell(Stage("search", about))
                self._ledger.search(self._also)
        new = self._merge(old)
        self._releases(new)
        self._judge(old, new)
        return self._report(len(self._records) - len(new))

    def state(self) -> AuditState:
        """Return what the next audit goes on from."""
        subjects = {each for copy in self._copies for each in (*copy.read, *copy.subjects)}
        if self._from is not None:
            subjects |= self._from.subjects
        records = tuple(replace(each, copies=frozenset()) for each in self._records)
        latest = conflicts.newest_latest(self._records, self._tags.named, self._latest)
        marks, read = self._logs.marks, frozenset(subjects)
        return AuditState(self._basis, self._repository, records, marks, read, latest)

    @property
    def _latest(self) -> Mapping[str, Digest]:
        """What ``latest`` was seen to name, by copy: of any audit, whatever it was judged by."""
        return self._kept.latest if self._kept else {}

    @property
    def _basis(self) -> Digest:
        """The hash of all that an audit's answer depends on, but for what it reads."""
        parts = [str(FORMAT), self._repository]
        parts += [str(policy.digest) for policy in self._book.all]
        parts += sorted(str(copy) for copy in self._question.copies)
        return Digest(hashlib.sha256("\0".join(parts).encode()).hexdigest())

    def _open(self, references: Iterable[AnyReference]) -> tuple[LedgerCopy, ...]:
        found = []
        for reference in references:
            with self._net(str(reference)):
                try:
                    found.append(open_copy(self._stores, reference))
                except InputError as error:
                    raise CouldNotCheck(error.message, hint=error.hint) from error
        return tuple(found)

    @contextmanager
    def _net(self, subject: str) -> Iterator[None]:
        """Keep what goes wrong inside as a finding: nothing foreign may hide all the rest."""
        try:
            yield
        except Exception as error:  # a library's own, too: no watch may end by it
            self._trouble(subject, caught(error, subject))

    def _keep(self, label: str, findings: Callable[[], Iterable[AuditFinding]]) -> None:
        """Keep the *findings* of one question; those that came before an error stay."""
        with self._net(label):
            for each in findings():
                self._findings.append(each)

    def _trouble(self, subject: str, error: NixSeedError) -> None:
        found = AuditFinding(Kind.UNREAD, Severity.of(error), subject, error.message)
        self._findings.append(found)

    def _withheld(self) -> Iterator[AuditFinding]:
        found = self._ledger.envelopes
        before = {record.digest for record in (self._from.records if self._from else ())}
        explained = Explained(found.signed, found.payloads | before)
        return self._weighed(find_withheld(self._logs.entries, explained))

    def _unshown(self) -> Iterator[AuditFinding]:
        shown = self._ledger.explained_votes()
        return self._weighed(find_unshown(self._logs.votes, shown, self._logs.commits))

    def _weighed(self, findings: Iterator[AuditFinding]) -> Iterator[AuditFinding]:
        """Make no alarm of what nobody shows while there is a list that could not be read."""
        partly = self._closed > 0 or self._ledger.unread
        for each in findings:
            if partly and (each.kind, each.severity) == (Kind.WITHHELD, Severity.ALARM):
                reason = f"{each.reason}, or it lies in what could not be read"
                yield replace(each, severity=Severity.UNCHECKED, reason=reason)
            else:
                yield each

    def _name_empty(self) -> None:
        """Keep that nothing lies in a copy: its name may be wrong, for all that is known."""
        for copy in self._copies:
            if not copy.tags and not self._ledger.found_in(copy.name):
                self._closed += 1
                reason = f"nothing lies in {copy.name}: see whether it is the ledger's repository"
                self._trouble(copy.name, CouldNotCheck(reason))

    def _doubted(self) -> tuple[Commit, ...]:
        """Return the commits of which an index holds votes that nothing shows so far."""
        commits = self._logs.commits
        shown = self._ledger.explained_votes() if commits else None
        at = {(e.log, e.index) for e in self._logs.votes if shown and not shown.explains(e)}
        return tuple(sorted({commits[each] for each in at if each in commits}))

    def _merge(self, old: Sequence[LedgerRecord]) -> tuple[LedgerRecord, ...]:
        """Join what was found with what was audited before; return what is new, or stands now."""
        before = {record.digest: record for record in old}
        new = {}
        for record in self._ledger.records:
            known = before.get(record.digest)
            if known is None or (record.stands and not known.stands):
                new[record.digest] = record
        self._records = conflicts.in_order([*(before | new).values()])
        return tuple(each for each in self._records if each.digest in new)

    def _releases(self, new: Sequence[LedgerRecord]) -> None:
        """Audit each new release by itself; keep who counted for it."""
        waiting = self._waiting()
        releases = Releases(self._stores, self._copies, self._bench, self._now, waiting)
        taken = self._taken()
        done: dict[Digest, LedgerRecord] = {}
        tell(Stage("releases", "evaluating quorums", len(new)))
        for record in new:
            if not record.stands or record.digest in taken:
                continue
            with self._net(f"the release {record.commit}"):
                done[record.digest], findings = releases.audit(
                    record,
                    self._ledger.documents.get(record.digest, ()),
                    self._ledger.attestations(record.commit.key),
                    self._logs.holds,
                )
                self._findings += findings
        self._findings += releases.unread
        self._records = tuple(done.get(each.digest, each) for each in self._records)

    def _waiting(self) -> frozenset[Digest]:
        """Return the records whose index may not be there yet: the newest, which no tag names.

        A record is published before its index is, and where the policy names a ledger on a chain,
        the index waits until the builders have entered the release there.
        """
        heads = set(conflicts.heads_of(self._records))
        last = (each for each in self._records if each.digest in heads)
        return frozenset(each.digest for each in self._tags.without(last))

    @cached_property
    def _tags(self) -> Tags:
        return read_tags(self._copies, self._book.all)

    def _taken(self) -> frozenset[Digest]:
        """Return the records up to the one that ``since`` names, which are taken as they are."""
        since = self._question.since
        if since is None:
            return frozenset()
        named = [e for e in self._records if since in (str(e.commit), str(e.digest), e.digest.hex)]
        if not named:
            raise InputError(
                f"no record of the ledger is {since}, or of that commit",
                hint="--since takes a promoted commit, or a record's digest",
            )
        return conflicts.before(self._records, [each.digest for each in named])

    def _judge(self, old: Sequence[LedgerRecord], new: Sequence[LedgerRecord]) -> None:
        tags, names = self._tags.named, [copy.name for copy in self._copies]
        records, book, now = self._records, self._book, self._now
        self._keep("the ledger", self._ledger.findings)
        self._keep("entries of the logs", self._withheld)
        self._keep("votes in the logs", self._unshown)
        self._keep("where records lie in logs", lambda: self._logs.find_misplaced(new))
        self._keep("roots", lambda: conflicts.find_conflicts(records))
        self._keep("the order of records", lambda: conflicts.find_disorder(records))
        self._keep("policies", lambda: find_policy_faults(records, book))
        self._keep("policies' ends", lambda: find_expired(records, book, now))
        self._keep("revoked promoters", lambda: find_revoked(records, book, now))
        self._keep("tags", self._tags.findings)
        unread = self._tags.unread
        self._keep("moved tags", lambda: conflicts.find_moved_tags(records, tags, unread))
        self._keep("tags of images", lambda: conflicts.find_moved_images(records, tags))
        self._keep("latest", lambda: conflicts.find_rolled_back(records, tags, self._latest))
        if len(names) > 1:
            self._keep("copies", lambda: conflicts.find_differing_copies(names, records, tags))
        self._keep("what was seen before", lambda: self._compare(old))
        self._keep("other ledgers", self._ledgers)
        self._logs.check_brought(self._bench.brought)
        self._findings += self._logs.findings

    def _compare(self, old: Sequence[LedgerRecord]) -> Iterator[AuditFinding]:
        """Hold the ledger to what was seen of it before, by audits and by ``verify``."""
        kept = self._kept.records if self._kept else ()
        seen = {record.commit: record.root for record in kept if record.stands}
        yield from conflicts.find_changed_roots(self._records, seen)
        pins = {each.commit: pin for each in self._records if (pin := self._pinned(each))}
        yield from conflicts.find_changed_roots(self._records, pins)
        found = {record.digest for record in self._ledger.records}
        heads = set(conflicts.heads_of(old))
        for record in kept:
            asked = record.digest in heads if self._from else True
            if record.stands and asked and record.digest not in found and self._copies:
                reason = f"the record of {record.commit}, audited before, is in no copy any more"
                yield record.finding(Kind.VANISHED, Severity.ALARM, reason)

    def _pinned(self, record: LedgerRecord) -> Digest | None:
        if self._judges.pins is None or not record.stands:
            return None
        with self._net(str(record.commit)):
            return self._judges.pins.seen(self._repository, record.commit)
        return None

    def _ledgers(self) -> Iterator[AuditFinding]:
        """Compare with every other ledger that the policy names."""
        for ledger in self._judges.ledgers:
            tell(Stage("ledger", f"replaying the ledger {ledger.name}"))
            with self._net(f"the ledger {ledger.name}"):
                entries = tuple(ledger.entries())
                yield from conflicts.find_ledger_conflicts(ledger.name, entries, self._records)
        if self._book.present.ledgers and not self._question.ask:
            reason = "the policy's ledgers on chains were not read: --offline"
            yield AuditFinding(Kind.LEDGER, Severity.UNCHECKED, "ledgers", reason)

    def _report(self, before: int) -> AuditReport:
        findings, accepted = accept(sort_findings(self._findings), self._question.accepted)
        return AuditReport(
            repository=self._repository,
            policies=tuple(policy.digest for policy in self._book.all),
            epoch=self._book.present.epoch,
            records=self._records,
            before=before,
            copies=tuple(
                CopyStatus(
                    copy.name,
                    sum(1 for each in self._ledger.records if copy.name in each.copies),
                    len(copy.read),
                )
                for copy in self._copies
            ),
            logs=self._logs.statuses,
            findings=findings,
            accepted=accepted,
        )
