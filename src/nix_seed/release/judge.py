"""Was what was verified also promoted? Records are found in stores, judged by the policy alone.

Do the ledgers beside the logs say the same of a release as its record does?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.core.verdict import Check, Fate
from nix_seed.formats.intoto.statement import Commit
from nix_seed.registry.store import ImageStore
from nix_seed.release.ledgers import Ledger
from nix_seed.release.records import FoundRecords, find_proof, judge_records
from nix_seed.release.rules.answer import ImageVerification
from nix_seed.release.rules.ledger_entry import LedgerEntry
from nix_seed.release.rules.record import (
    PromotionResult,
    Record,
    evaluate_promotion,
    records_of,
    stands,
)
from nix_seed.release.rules.tree import Leaf, MemberProof
from nix_seed.trust.attestations import Discovered
from nix_seed.trust.gather import Gather
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.watch_logs import doubt_logs

if TYPE_CHECKING:
    from nix_seed.release.verifiers import Judges


@dataclass(frozen=True, slots=True)
class Ledgered:
    """What the stores hold about a commit: *records*, and what was wrong on the way to them.

    *lies* are those of logs. *unread* are what may be records and could not be read or judged;
    *unchecked* are these, and the logs that could not be asked. *refused* are what was judged, and
    is no record of a promoter's.
    """

    records: tuple[Record, ...]
    lies: tuple[str, ...]
    unchecked: tuple[str, ...]
    unread: tuple[str, ...]
    refused: tuple[str, ...] = ()

    def with_lies(self, result: PromotionResult) -> PromotionResult:
        """Return *result* with what logs lied about: checked, and false, whatever else is so."""
        lies = tuple(Check("logs", Fate.FALSE, words) for words in self.lies)
        absent = result.absent and not lies
        return PromotionResult(result.commit, result.record, (*lies, *result.checks), absent)


def judge_ledger(listed: Discovered, policy: Policy, judges: Judges) -> Ledgered:
    """Judge the records among what is *listed*; logs are held to what they showed."""
    found = judge_records(listed, policy, judges.logs, judges.certificates)
    doubts = doubt_logs(found.findings, judges.watch)
    unread = tuple(_worded(found, Fate.UNCHECKED))
    unasked = (each.words for each in doubts.watched.values() if each.fate is Fate.UNCHECKED)
    records = records_of(found.findings, policy, doubts.distrusted)
    refused = tuple(_worded(found, Fate.FALSE))
    return Ledgered(records, doubts.lies, (*unread, *unasked), unread, refused)


def judge_promotion(
    places: Sequence[ImageStore],
    beside: Gather,
    images: Sequence[ImageVerification],
    policy: Policy,
    judges: Judges,
    *,
    commit: Commit | None,
    index: Digest | None,
    whole: bool,
) -> PromotionResult | None:
    """Judge the promotion of *images*, which are all of an index where *whole*.

    *beside* gathers what is listed in *places* under the subjects it is given.

    Of several commits with these images the first that was promoted is taken; without *commit*
    they are those whose quorum every image has; where none was, what is false of one outweighs that
    nothing is said of another. None where there is no such commit.
    """
    commits = [commit] if commit is not None else _commits(images)
    results = []
    for each in commits:
        results.append(
            _judge(places, beside((each.key,)), images, each, policy, judges, index, whole=whole)
        )
        if results[-1].fate is Fate.VERIFIED:
            return results[-1]
    return next((each for each in results if not each.absent), results[0] if results else None)


def _judge(
    places: Sequence[ImageStore],
    listed: Discovered,
    images: Sequence[ImageVerification],
    commit: Commit,
    policy: Policy,
    judges: Judges,
    index: Digest | None,
    *,
    whole: bool,
) -> PromotionResult:
    ledger = judge_ledger(listed, policy, judges)
    leaves = [
        Leaf(image.system, commit, NarHash.parse(image.nar_hash), image.digest) for image in images
    ]
    # Another commit's record may be listed here as well: its proofs are no answer.
    ours = [each for each in ledger.records if each.predicate.commit == commit]
    standing = [each for each in ours if stands(each, policy)]
    result = evaluate_promotion(
        policy,
        commit,
        ledger.records,
        leaves,
        proofs=None if whole else _proofs(places, standing, leaves),
        index=index,
        pinned=pinned_root(judges, policy, commit, standing),
        refused=ledger.refused,
        unchecked=(*ledger.unchecked, *filter(None, (image.left_open for image in images))),
        unread=ledger.unread,
    )
    if result.record is not None:
        more = ask_ledgers(judges, result.record)
        result = PromotionResult(commit, result.record, (*result.checks, *more))
    result = ledger.with_lies(result)
    if result.fate is Fate.VERIFIED and judges.pins is not None and result.record is not None:
        said = result.record.predicate
        judges.pins.keep(policy.source or said.repository, commit, said.root)
    return result


def _commits(images: Sequence[ImageVerification]) -> list[Commit]:
    met = [{quorum.asked.commit for quorum in image.quorums if quorum.met} for image in images]
    return sorted(set.intersection(*met)) if met else []


def _proofs(
    places: Sequence[ImageStore], records: Sequence[Record], leaves: Sequence[Leaf]
) -> dict[str, MemberProof | Check]:
    """Return each leaf's proof under one of *records*, or why there is none."""
    found: dict[str, MemberProof | Check] = {}
    for record in records:
        for leaf in leaves:
            if not isinstance(found.get(leaf.system), MemberProof):
                found[leaf.system] = find_proof(places, record, leaf.system)
    return found


def pinned_root(
    judges: Judges, policy: Policy, commit: Commit, records: Sequence[Record]
) -> Digest | None:
    """Return the root that this machine saw before, if any, for what *records* promote.

    Where there are none, one may have been taken away: that it was there is known of the policy's
    repository.
    """
    repository = policy.source or next((each.predicate.repository for each in records), None)
    return None if judges.pins is None or not repository else judges.pins.seen(repository, commit)


def _worded(found: FoundRecords, fate: Fate) -> Iterator[str]:
    for finding in found.findings:
        if finding.verdict.fate is fate:
            yield finding.verdict.words
    yield from (each.words for each in found.troubles if each.fate is fate)


def ask_ledgers(judges: Judges, record: Record) -> tuple[Check, ...]:
    """Ask each ledger for the commit of *record*, a check each. Never raises.

    One that may not be asked is *could not check*: the policy demands its word.
    """
    asked = (_ask(ledger, record) for ledger in judges.ledgers)
    return (*asked, *(_unasked(name, record) for name in judges.unasked))


def entries_of(ledger: Ledger, commit_key: Digest) -> tuple[LedgerEntry, ...]:
    """Return what *ledger* holds for a commit.

    ``CheckedFalse`` where it lies; whatever else goes wrong in its client is ``CouldNotCheck``.
    """
    try:
        return ledger.by_commit(commit_key)
    except (CheckedFalse, CouldNotCheck):
        raise
    except NixSeedError as error:
        raise CouldNotCheck(error.message, hint=error.hint, detail=error.detail) from error
    except Exception as error:
        raise CouldNotCheck(
            f"the ledger {ledger.name} could not be asked: {type(error).__name__}: {error}"
        ) from error


def _unasked(name: str, record: Record) -> Check:
    words = (
        f"whether the ledger {name} holds {record.predicate.commit}: offline it is not asked, "
        "which --no-ledgers does without"
    )
    return Check(f"ledger {name}", Fate.UNCHECKED, words)


def _ask(ledger: Ledger, record: Record) -> Check:
    said, name = record.predicate, f"ledger {ledger.name}"
    try:
        held = entries_of(ledger, said.commit.key)
    except (CheckedFalse, CouldNotCheck) as error:
        return Check.failed(name, error)
    if not held:
        return Check(name, Fate.FALSE, f"{said.commit} is not in the ledger {ledger.name}")
    for entry in held:
        if entry.root != said.root:
            words = f"the ledger {ledger.name} has the root {entry.root}, not {said.root}"
            return Check(name, Fate.FALSE, words)
    return Check(name, Fate.VERIFIED, f"the same root, at {held[0].position}")
