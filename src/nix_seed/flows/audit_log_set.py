"""All logs of a repository's policies together: replayed, and asked where an entry is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nix_seed.clients.logs.state import CheckpointState
from nix_seed.flows.audit_bench import Bench
from nix_seed.flows.audit_logs import Replay, replay_index, replay_log
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.trust import LoadedPolicy
from nix_seed.formats.intoto.commit import Commit
from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.rules.audit import AuditFinding, Kind, LogStatus, Severity
from nix_seed.rules.audit_entries import PromoterEntry, Sieve
from nix_seed.rules.audit_record import LedgerRecord
from nix_seed.rules.audit_state import LogMark
from nix_seed.rules.log_verify import TrustedLog
from nix_seed.rules.policy import Log
from nix_seed.rules.release_evidence import LoggedAt

__all__ = ["LogSet", "Reach"]


@dataclass(frozen=True, slots=True)
class Reach:
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
    log: Log
    beside: Path

    @property
    def trusted(self) -> TrustedLog:
        return TrustedLog(self.name, self.log.kind, self.log.origin, self.log.key)


class LogSet:
    """The logs of the policies *loaded*, the one in force first.

    ``InputError`` where a place is given for a log that none of them has.
    """

    def __init__(self, bench: Bench, loaded: Sequence[LoadedPolicy], reach: Reach) -> None:
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
        return tuple(entry for each in self._replays.values() for entry in each.entries)

    @property
    def votes(self) -> tuple[PromoterEntry, ...]:
        """All entries in the name of a builder in force, of all logs that were read."""
        return tuple(entry for each in self._replays.values() for entry in each.votes)

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
            LogMark(Digest.of(each.log.key.der), self._replays[each.name].head)
            for each in self._logs
            if each.name in self._replays and self._replays[each.name].reader is not None
        )

    def replay(
        self,
        marks: Iterable[LogMark],
        commits: Sequence[Commit],
        on_event: OnEvent = ignore,
    ) -> None:
        """Replay each log from its mark on; of one that gives no list, ask for *commits*."""
        since = {mark.key: mark.head for mark in marks}
        for named in self._logs:
            on_event(Stage("log", f"replaying the log {named.name}"))
            self._statuses[named.name] = LogStatus(
                named.name, named.log.kind, 0, 0, None, "not read"
            )
            with self._told(named.name):
                self._one(named, since.get(Digest.of(named.log.key.der)), commits)

    def holds(self, at: LoggedAt) -> bool | None:
        """Whether the leaf is at its index in its log; None where that cannot be told."""
        replay = self._replays.get(at.log)
        return None if replay is None else replay.holds(at)

    def find_misplaced(self, records: Iterable[LedgerRecord]) -> Iterator[AuditFinding]:
        """Yield the records that are not where they say, in the logs as these are now."""
        for record in records:
            for at in record.positions:
                if self.holds(at) is False:
                    words = (
                        f"the record of {record.commit} is not entry {at.index} of the log "
                        f"{at.log}, which had proved that it is"
                    )
                    yield AuditFinding(Kind.LOG, Severity.ALARM, at.log, words, record.shown)

    def check_brought(self, brought: Iterable[tuple[str, SignedCheckpoint]]) -> None:
        """Hold each log to every tree that it signed, and that came with an entry."""
        for name, signed in brought:
            replay = self._replays.get(name)
            if replay is not None:
                with self._told(name, str(signed.checkpoint)):
                    replay.check_brought(signed)

    def _one(self, named: _Named, since: TreeHead | None, commits: Sequence[Commit]) -> None:
        book = self._bench.book
        # Votes are the builders' in force: what a builder signs who is trusted no more counts not.
        votes = Sieve(named.name, [book.present], builders=True)
        place, sieves = self._place(named), (Sieve(named.name, book.all), votes)
        found = replay_log(named.trusted, place, since, sieves, self._reach.seen, self._reach.most)
        if isinstance(found, Replay):
            self._replays[named.name] = found
            read = found.head.size - found.since
            self._status(named, found, read, "every entry was read, and the tree recomputed")
            return
        replay = replay_index(found, commits, sieves, self._reach.seen)
        self._replays[named.name] = replay
        words = (
            f"it gives no list of its entries: its index was asked for {len(commits)} commits, and "
            "what that leaves out nobody can tell"
        )
        self._status(named, replay, None, words)
        about = f"the log {named.name} cannot be replayed: {words}"
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
                raise CouldNotCheck(f"the log {named.name} was not asked: --offline")
            return given
        return given if named.name in self._reach.places else str(named.beside / given)

    def _status(self, named: _Named, replay: Replay, read: int | None, words: str) -> None:
        self._statuses[named.name] = LogStatus(
            named.name, named.log.kind, replay.head.size, replay.since, read, words
        )

    @contextmanager
    def _told(self, name: str, *evidence: str) -> Iterator[None]:
        """Keep what goes wrong inside as a finding: a log may lie, or be down."""
        try:
            yield
        except CheckedFalse as error:
            shown = (*evidence, error.detail) if error.detail else evidence
            self._find(name, Severity.ALARM, error.message, *shown)
        except NixSeedError as error:
            self._find(name, Severity.UNCHECKED, error.message)

    def _find(self, name: str, severity: Severity, words: str, *evidence: str) -> None:
        self.findings.append(AuditFinding(Kind.LOG, severity, name, words, evidence))
        if severity is not Severity.NOTICE:
            self._statuses[name] = LogStatus(
                name, self._statuses[name].kind, 0, 0, None, f"{severity.value}: {words}"
            )


def _named(bench: Bench, loaded: Sequence[LoadedPolicy]) -> Iterator[_Named]:
    seen: set[str] = set()
    for each in loaded:
        for log in each.policy.logs:
            name = bench.log_name(each.policy, log.id)
            if name not in seen:
                seen.add(name)
                yield _Named(name, log, each.directory)
