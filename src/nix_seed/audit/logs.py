"""Replays the logs of a repository's policies: every entry, or those after where it left off.

All of these logs together are then asked where an entry is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.audit.judge import BundleJudge
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.audit.rules.report import LogStatus
from nix_seed.audit.rules.state import LogMark
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError, caught
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.tlog import merkle
from nix_seed.formats.tlog.entry import LogEntry
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.log import CheckpointState, TileReader, check_tiles, replay
from nix_seed.logs.open import open_history
from nix_seed.registry.errors import Patience
from nix_seed.release.load import LoadedPolicy
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.release.rules.signed_entries import PromoterEntry, Sieve
from nix_seed.trust.rules.policy import LoggedAt, PolicyBook, PolicyLog

if TYPE_CHECKING:
    from nix_seed.logs.rekor import RekorV1

_PATIENCE = Patience(attempts=3, connect=10.0, stall=20.0, settle=20.0)


class _Look:
    """Is given each entry of a log; keeps those in a promoter's name, and in a builder's.

    And what was wrong with entries that could not be read: *unread*.
    """

    def __init__(self, log: str, book: PolicyBook) -> None:
        self.entries = Sieve(log, book.all)
        # Votes are the builders' in force: what a builder signs who is trusted no more counts not.
        self.votes = Sieve(log, [book.present], builders=True)
        self.unread: list[NixSeedError] = []

    def at(self, index: int, body: bytes, leaf: bytes) -> None:
        """Look at entry *index*."""
        for sieve in (self.entries, self.votes):
            try:
                sieve.look(index, body, leaf)
            except Exception as error:  # of a library's own: it must not hide the other entries
                self.unread.append(caught(error, f"entry {index} of the log {sieve.log}"))


@dataclass(frozen=True, slots=True)
class Replay:
    """The *log*, replayed: its tree at *head*, of which what is after *since* was looked at.

    *hashes* is None for a log that gives no list of its entries: nothing can be told of any index
    of it then, and *commits* are what its own index gave an entry for.
    """

    log: RekorV1 | TileReader
    head: merkle.TreeHead
    look: _Look
    since: int = 0
    hashes: merkle.HashReader | None = None
    commits: Mapping[int, Commit] = field(default_factory=dict)

    def holds(self, at: LoggedAt) -> bool | None:
        """Whether the leaf is at its index in the tree; None where that cannot be told."""
        if self.hashes is None or at.index >= self.head.size:
            return None
        proof = merkle.build_inclusion_proof(at.index, self.head.size, self.hashes)
        try:
            merkle.check_inclusion(proof, at.index, at.leaf_hash.raw, self.head)
        except CheckedFalse:
            return False
        return True

    def check_brought(self, signed: SignedCheckpoint) -> None:
        """``CheckedFalse`` unless the tree of *signed*, brought with an entry, began this one."""
        size, name = signed.head.size, self.log.trusted.id
        if size > self.head.size:
            # It may have grown while the audit went on. It cannot have shrunk.
            now = self.log.checkpoint().head.size
            if now < size:
                raise CheckedFalse(
                    f"the log {name} rolled back: it showed a tree of {size} entries, "
                    f"and has {now} now"
                )
        elif self.hashes is None:
            merkle.check_consistency(
                self.log.consistency(size, self.head.size), signed.head, self.head
            )
        elif merkle.build_root(size, self.hashes) != signed.head:
            raise CheckedFalse(
                f"the log {name} shows a split view: it signed another tree of {size} "
                "entries than the one it has"
            )


def _replay_tiles(
    log: TileReader, head: merkle.TreeHead, start: merkle.TreeHead, most: int, look: _Look
) -> Replay:
    """Read the log from the tree *start* on, recompute its root and, if that is empty, all tiles.

    ``CheckedFalse`` where it lies, ``CouldNotCheck`` where it has more than *most* new entries.
    """
    name, new = log.trusted.id, head.size - start.size
    if new < 0:
        raise CheckedFalse(
            f"the log {name} rolled back: {start.size} entries were audited before, and now "
            f"it has {head.size}"
        )
    if new > most:
        raise CouldNotCheck(
            f"the log {name} has {new} entries to read, and {most} are the most: raise "
            "--most-entries"
        )
    hashes = replay(log, start, head, look.at)
    if start == merkle.EMPTY:
        check_tiles(log, head.size, hashes)
    return Replay(log, head, look, start.size, hashes)


def _replay_index(
    log: RekorV1, head: merkle.TreeHead, commits: Iterable[Commit], look: _Look
) -> Replay:
    """Ask Rekor v1, which gives no list of its entries, for all of *commits*."""
    seen: set[bytes] = set()
    about: dict[int, Commit] = {}
    for commit in commits:
        for value in log.lookup(commit.key.raw):
            entry = LogEntry.from_json(value, f"an entry of {log.trusted.id}")
            leaf = merkle.leaf_hash(entry.body)
            if leaf not in seen:
                seen.add(leaf)
                about[entry.index] = commit
                look.at(entry.index, entry.body, leaf)
    return Replay(log, head, look, commits=about)


@dataclass(frozen=True, slots=True)
class LogReach:
    """How logs are read: *places* by name, before the policy's; *ask* those behind an address.

    *seen* keeps the checkpoints they show, *most* is how many entries of one are read at once.
    """

    places: Mapping[str, str]
    ask: bool
    seen: CheckpointState | None
    most: int


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    log: PolicyLog
    beside: Path


class LogSet:
    """The logs of the policies *loaded*, the one in force first.

    ``InputError`` where a place is given for a log that none of them has.
    """

    def __init__(self, bench: BundleJudge, loaded: Sequence[LoadedPolicy], reach: LogReach) -> None:
        self._bench = bench
        self._reach = reach
        self._logs = tuple(_named(bench, loaded))
        names = [each.name for each in self._logs]
        for name in reach.places:
            if name not in names:
                raise InputError(
                    f"no policy has a log {name}, and so none is read at {reach.places[name]}",
                    hint=f"--log ID=PLACE: there is {', '.join(names)}",
                )
        self._replays: dict[str, Replay] = {}
        self._statuses: dict[str, LogStatus] = {}
        self.findings: list[AuditFinding] = []

    @property
    def statuses(self) -> tuple[LogStatus, ...]:
        """What was done about each log."""
        return tuple(self._statuses[each.name] for each in self._logs)

    @property
    def entries(self) -> tuple[PromoterEntry, ...]:
        """All entries in a promoter's name, of all logs that were read."""
        return tuple(e for each in self._replays.values() for e in each.look.entries.found)

    @property
    def votes(self) -> tuple[PromoterEntry, ...]:
        """All entries in the name of a builder in force, of all logs that were read."""
        return tuple(e for each in self._replays.values() for e in each.look.votes.found)

    @property
    def commits(self) -> Mapping[tuple[str, int], Commit]:
        """The commit that an index gave an entry for, by log and index."""
        return {
            (name, index): commit
            for name, each in self._replays.items()
            for index, commit in each.commits.items()
        }

    @property
    def marks(self) -> tuple[LogMark, ...]:
        """How far each log was replayed."""
        return tuple(
            LogMark(Digest.of(each.log.key.der), replay.head.size, replay.head.root)
            for each in self._logs
            if (replay := self._replays.get(each.name)) and replay.hashes is not None
        )

    def replay(self, marks: Iterable[LogMark], commits: Sequence[Commit]) -> None:
        """Replay each log from its mark on; of one that gives no list, ask for *commits*."""
        since = {mark.key: mark.head for mark in marks}
        for named in self._logs:
            tell(Stage("log", f"replaying the log {named.name}"))
            self._statuses[named.name] = LogStatus(
                named.name, named.log.kind, 0, 0, None, "not read"
            )
            with self._told(named.name):
                self._one(named, since.get(Digest.of(named.log.key.der), merkle.EMPTY), commits)

    def holds(self, at: LoggedAt) -> bool | None:
        """Whether the leaf is at its index in its log; None where that cannot be told."""
        replay = self._replays.get(at.log)
        return None if replay is None else replay.holds(at)

    def find_misplaced(self, records: Iterable[LedgerRecord]) -> Iterator[AuditFinding]:
        """Yield the records that are not where they say, in the logs as these are now."""
        for record in records:
            for at in record.positions:
                if self.holds(at) is False:
                    reason = (
                        f"the record of {record.commit} is not entry {at.index} of the log "
                        f"{at.log}, which had proved that it is"
                    )
                    yield AuditFinding(Kind.LOG, Severity.ALARM, at.log, reason, record.shown)

    def check_brought(self, brought: Iterable[tuple[str, SignedCheckpoint]]) -> None:
        """Hold each log to every tree that it signed, and that came with an entry."""
        for name, signed in brought:
            replay = self._replays.get(name)
            if replay is not None:
                with self._told(name, str(signed.checkpoint)):
                    replay.check_brought(signed)

    def _one(self, named: _Named, since: merkle.TreeHead, commits: Sequence[Commit]) -> None:
        trusted, seen = replace(named.log, id=named.name), self._reach.seen
        look = _Look(named.name, self._bench.book)
        log = open_history(trusted, self._place(named), patience=_PATIENCE)
        signed = log.checkpoint() if seen is None else seen.ask(trusted, log)[0]
        if isinstance(log, TileReader):
            found = _replay_tiles(log, signed.head, since, self._reach.most, look)
            read: int | None = found.head.size - found.since
            reason = "every entry was read, and the tree recomputed"
        else:
            found = _replay_index(log, signed.head, commits, look)
            read = None
            reason = (
                f"it gives no list of its entries: its index was asked for {len(commits)} commits, "
                "and what that leaves out nobody can tell"
            )
        self._replays[named.name] = found
        for error in look.unread:
            severity = Severity.of(error)
            self.findings.append(AuditFinding(Kind.LOG, severity, named.name, error.message))
        self._statuses[named.name] = LogStatus(
            named.name, named.log.kind, found.head.size, found.since, read, reason
        )
        if read is None:
            about = f"the log {named.name} cannot be replayed: {reason}"
            self._find(named.name, Severity.NOTICE, about)

    def _place(self, named: _Named) -> str:
        given = self._reach.places.get(named.name, named.log.url)
        if given is None:
            raise CouldNotCheck(
                f"where the log {named.name} is, the policy does not say: nothing shows that it "
                f"holds no other releases (--log {named.name}=PLACE)"
            )
        if "://" in given:
            if not self._reach.ask:
                raise CouldNotCheck(f"the log {named.name} was not read: --offline")
            return given
        return given if named.name in self._reach.places else str(named.beside / given)

    @contextmanager
    def _told(self, name: str, *evidence: str) -> Iterator[None]:
        """Keep what goes wrong inside as a finding: a log may lie, or be down."""
        try:
            yield
        except CheckedFalse as error:
            shown = (*evidence, error.detail) if error.detail else evidence
            self._find(name, Severity.ALARM, error.message, *shown)
        except Exception as error:  # of a library's own, too: the other logs are still to be read
            self._find(name, Severity.UNCHECKED, caught(error, f"the log {name}").message)

    def _find(self, name: str, severity: Severity, reason: str, *evidence: str) -> None:
        self.findings.append(AuditFinding(Kind.LOG, severity, name, reason, evidence))
        if severity is not Severity.NOTICE:
            self._statuses[name] = LogStatus(
                name, self._statuses[name].kind, 0, 0, None, f"{severity.value}: {reason}"
            )


def _named(bench: BundleJudge, loaded: Sequence[LoadedPolicy]) -> Iterator[_Named]:
    seen: set[str] = set()
    for each in loaded:
        for log in each.policy.logs:
            name = bench.log_name(each.policy, log.id)
            if name not in seen:
                seen.add(name)
                yield _Named(name, log, each.directory)
