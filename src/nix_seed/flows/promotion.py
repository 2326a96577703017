"""Was what was verified also promoted? Records are found in stores, judged by the policy alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nix_seed.clients.blobs import ImageStore
from nix_seed.flows.attach import Discovered
from nix_seed.flows.evidence import Gather
from nix_seed.flows.ledgers import ask_ledgers
from nix_seed.flows.log_watch import doubt_logs
from nix_seed.flows.records import FoundRecords, find_proof, judge_records
from nix_seed.formats.intoto.commit import Commit
from nix_seed.ground.digests import Digest, NarHash
from nix_seed.rules.bundle_verify import Fate
from nix_seed.rules.policy import Policy
from nix_seed.rules.promotion import (
    Check,
    PromotionResult,
    Record,
    evaluate_promotion,
    records_of,
    stands,
)
from nix_seed.rules.release import Leaf, MemberProof
from nix_seed.rules.verification import ImageVerification

if TYPE_CHECKING:
    from nix_seed.flows.verify import Judges

__all__ = ["Ledgered", "judge_ledger", "judge_promotion", "pinned_root"]


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
