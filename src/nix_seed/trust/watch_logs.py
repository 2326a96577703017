"""Holds the logs that evidence comes from to what they showed before.

Every checkpoint an attestation brings, and the newest one the log gives, must be of one history:
that of the largest seen by earlier verifications, which is kept on disk. An inclusion proof alone
says nothing of that: a log can prove one thing to one reader, and the contrary to another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate, Trouble
from nix_seed.formats.tlog.merkle import Proof
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.log import CheckpointState, Historian
from nix_seed.logs.open import open_history
from nix_seed.logs.rules.entry import TrustedLog, check_history
from nix_seed.registry.errors import Patience
from nix_seed.trust.rules.claims import Finding, find_split_views
from nix_seed.trust.rules.policy import Policy

# Someone waits for the answer; a log that is down for longer leaves it open, and is asked again.
_PATIENCE = Patience(attempts=3, connect=10.0, stall=20.0, settle=20.0)


@dataclass(frozen=True, slots=True)
class LogDoubts:
    """The logs that prove nothing, by id.

    *split* by their own signatures, with the words for it; *watched* by what they showed before, or
    because that could not be asked.
    """

    split: Mapping[str, str]
    watched: Mapping[str, Trouble]

    @property
    def distrusted(self) -> frozenset[str]:
        """The ids of all of them."""
        return frozenset((*self.split, *self.watched))

    @property
    def lying(self) -> frozenset[str]:
        """The ids of those that were checked and lied."""
        false = (log for log, each in self.watched.items() if each.fate is Fate.FALSE)
        return frozenset((*self.split, *false))

    @property
    def unasked(self) -> tuple[str, ...]:
        """Why the others could not be asked: what they hold may be so all the same."""
        return tuple(e.reason for log, e in self.watched.items() if log not in self.lying)

    @property
    def lies(self) -> tuple[str, ...]:
        """What was checked of them, and is false."""
        false = (each.reason for each in self.watched.values() if each.fate is Fate.FALSE)
        return (*self.split.values(), *false)


def doubt_logs(findings: Collection[Finding], watch: LogWatch | None) -> LogDoubts:
    """Hold the logs that *findings* bring entries of to what they sign, and to what they showed."""
    return LogDoubts(find_split_views(findings), {} if watch is None else watch.judge(findings))


class LogWatch:
    """The logs that are watched, by id, and what was seen of each in *state*.

    A log whose place is None is not asked: only what needs no proof is compared then. *historian*
    opens the others.
    """

    def __init__(
        self,
        state: CheckpointState,
        logs: Iterable[tuple[TrustedLog, str | None]],
        historian: Callable[[TrustedLog, str], Historian] | None = None,
    ) -> None:
        self._state = state
        self._historian = historian or partial(open_history, patience=_PATIENCE)
        self._logs = {log.id: (log, place) for log, place in logs}
        self._newest: dict[str, tuple[Historian, SignedCheckpoint]] = {}
        self._troubles: dict[str, Trouble] = {}
        self._known: set[tuple[str, int, bytes]] = set()

    def judge(self, findings: Iterable[Finding]) -> Mapping[str, Trouble]:
        """Return each log that lied (FALSE), or whose history could not be checked (UNCHECKED).

        Only logs that *findings* bring checkpoints of are judged. What proves consistent is
        remembered. Never raises.
        """
        brought: dict[str, dict[tuple[int, bytes], SignedCheckpoint]] = {}
        for finding in findings:
            for log, signed in finding.logs.checkpoints:
                brought.setdefault(log, {})[signed.head.size, signed.head.root] = signed
        for log, each in brought.items():
            if log in self._logs and log not in self._troubles:
                self._judge_one(*self._logs[log], [each[key] for key in sorted(each)])
        return {log: self._troubles[log] for log in brought if log in self._troubles}

    def refresh(self) -> None:
        """Ask each log anew: what was just appended is beyond the checkpoint it gave before."""
        self._newest.clear()

    def _judge_one(
        self, log: TrustedLog, place: str | None, brought: list[SignedCheckpoint]
    ) -> None:
        try:
            self._seen(log)
            if place is None:
                # Compare what needs no proof: two trees of one size.
                seen = self._seen(log) or brought[-1]
                for signed in brought:
                    if signed.head.size == seen.head.size:
                        self._state.advance(log, signed, _no_proof, newest=False)
            else:
                self._ask(log, place, brought)
        except CheckedFalse as error:
            self._troubles[log.id] = Trouble.of(error)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            why = error.message if isinstance(error, NixSeedError) else said
            reason = f"whether the log {log.id} kept what it showed: {why}"
            self._troubles[log.id] = Trouble(Fate.UNCHECKED, reason)

    def _seen(self, log: TrustedLog) -> SignedCheckpoint | None:
        try:
            return self._state.seen(log)
        except CheckedFalse as error:
            # The file of this machine is wrong, which is no lie of the log's.
            raise CouldNotCheck(
                f"the checkpoint seen before is damaged: {error.message}"
            ) from error

    def _ask(self, log: TrustedLog, place: str, brought: list[SignedCheckpoint]) -> None:
        historian, newest = self._newest_of(log, place)
        largest = brought[-1]
        if largest.head.size > newest.head.size:
            # Someone may have logged more since it was asked.
            del self._newest[log.id]
            historian, newest = self._newest_of(log, place)
        if largest.head.size > newest.head.size:
            # It gave this with an entry, and does not know of it any more.
            check_history(log.id, largest.checkpoint, newest.checkpoint, (), newest=True)
        for signed in brought:
            key = (log.id, signed.head.size, signed.head.root)
            if key in self._known:
                continue
            self._state.advance(log, signed, historian.consistency, newest=False)
            self._known.add(key)

    def _newest_of(self, log: TrustedLog, place: str) -> tuple[Historian, SignedCheckpoint]:
        """Ask the log, unless it was asked, and hold its answer to what was seen."""
        if log.id not in self._newest:
            historian = self._historian(log, place)
            newest, _ = self._state.ask(log, historian)
            self._newest[log.id] = historian, newest
        return self._newest[log.id]


def _no_proof(old: int, new: int) -> Proof:
    raise CouldNotCheck(f"there is nobody to ask for a consistency proof from {old} to {new}")


def watch_logs(policy: Policy, beside: Path, state: Path, *, ask: bool) -> LogWatch:
    """Watch the logs of *policy*, whose file lies in *beside*; remember in the directory *state*.

    *ask*: logs whose ``url`` the policy gives are asked for their newest checkpoint and proofs.
    """
    return LogWatch(
        CheckpointState(state / "checkpoints"),
        [(log, log.place(beside) if ask else None) for log in policy.logs],
    )
