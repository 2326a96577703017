"""Has a log kept what it once showed? Decided from two tree heads and the proof between them.

Three lies have three names: a log *rolls back* when its newest tree is smaller than one seen
before, it *forks* when two of its trees do not begin alike, and it *equivocates*, the plainest
fork, when two of one size have different roots (a split view).
"""

from dataclasses import dataclass
from enum import StrEnum

from nix_seed.core.errors import CheckedFalse
from nix_seed.formats.tlog.merkle import Proof, check_consistency
from nix_seed.formats.tlog.note import Checkpoint


class History(StrEnum):
    """How a checkpoint stands to the largest seen before."""

    SAME = "same"
    GREW = "grew"
    OLDER = "older"
    ROLLED_BACK = "rolled back"
    FORKED = "forked"
    SPLIT_VIEW = "split view"


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """The *history* of a log between two checkpoints, and the *reason* in words."""

    history: History
    reason: str

    @property
    def honest(self) -> bool:
        """Whether the log only appended."""
        return self.history in {History.SAME, History.GREW, History.OLDER}


def evaluate_history(
    seen: Checkpoint, now: Checkpoint, proof: Proof, *, newest: bool
) -> HistoryResult:
    """Judge the checkpoint *now* by *seen*; *proof* is the consistency proof between their sizes.

    *newest*: the log gave *now* as its newest, so it may not be smaller. Otherwise it came with an
    entry made long ago, and may; it must still be a beginning of *seen*. Both are of one log, and
    their signatures have been verified.
    """
    older, newer = sorted((seen.head, now.head), key=lambda head: head.size)
    sizes = f"{seen.head.size} leaves were seen before, and now {now.head.size}"
    if newest and now.head.size < seen.head.size:
        # No proof is needed, and none may be had: who takes leaves back takes their tiles, too.
        return HistoryResult(History.ROLLED_BACK, sizes)
    if older.size == newer.size and older.root != newer.root:
        reason = f"it signed two roots for size {now.head.size}: {seen.head}, and {now.head}"
        return HistoryResult(History.SPLIT_VIEW, reason)
    try:
        check_consistency(proof, older, newer)
    except CheckedFalse as error:
        return HistoryResult(History.FORKED, f"{sizes}, but {error.message}")
    if now.head.size < seen.head.size:
        return HistoryResult(History.OLDER, sizes)
    history = History.SAME if older.size == newer.size else History.GREW
    return HistoryResult(history, sizes)


def check_history(
    log: str, seen: Checkpoint, now: Checkpoint, proof: Proof, *, newest: bool
) -> HistoryResult:
    """Judge as ``evaluate_history`` does; ``CheckedFalse`` unless the log called *log* is honest.

    The error's detail holds both checkpoints' texts.
    """
    result = evaluate_history(seen, now, proof, newest=newest)
    if not result.honest:
        words = {
            History.ROLLED_BACK: "rolled back",
            History.FORKED: "forked",
            History.SPLIT_VIEW: "shows a split view",
        }
        raise CheckedFalse(
            f"the log {log} {words[result.history]}: {result.reason}",
            hint="keep both checkpoints, and do not trust the log until its operator explains",
            detail=f"seen before:\n{seen}now:\n{now}",
        )
    return result
