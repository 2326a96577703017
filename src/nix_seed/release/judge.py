"""Was what was verified also promoted? Records are found in stores, judged by the policy alone.

The ledgers beside the logs must say the same of a release as its record does.
"""

from collections.abc import Sequence
from dataclasses import replace

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.core.verdict import Check, Fate
from nix_seed.formats.intoto.statement import Commit
from nix_seed.release.ledgers import Ledger
from nix_seed.release.records import find_proof
from nix_seed.release.rules.answer import ImageVerification
from nix_seed.release.rules.ledger_entry import LedgerEntry
from nix_seed.release.rules.record import (
    EXPECTED,
    Ledgered,
    PromotionResult,
    Record,
    Shown,
    evaluate_promotion,
    records_of,
    stands,
)
from nix_seed.release.rules.tree import Leaf
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import Discovered
from nix_seed.trust.gather import Listings, promotions, troubles_of
from nix_seed.trust.rules.claims import examine
from nix_seed.trust.watch_logs import doubt_logs


def judge_ledger(listed: Discovered, by: Verifiers) -> Ledgered:
    """Judge the records among what is *listed*; logs are held to what they showed."""
    trust = by.promoters
    findings = tuple(examine(e.place, e.text, trust, EXPECTED) for e in promotions(listed))
    doubts = doubt_logs(findings, by.watch)
    troubles = troubles_of(listed)
    ends = [(each.verdict.fate, each.verdict.reason) for each in findings]
    ends += [(each.fate, each.reason) for each in troubles]
    unread = tuple(reason for fate, reason in ends if fate is Fate.UNCHECKED)
    unasked = (each.reason for each in doubts.watched.values() if each.fate is Fate.UNCHECKED)
    return Ledgered(
        records_of(findings, by.policy, doubts.distrusted),
        lies=(*doubts.lies, *listed.lies),
        unchecked=(*unread, *unasked),
        unread=unread,
        refused=tuple(reason for fate, reason in ends if fate is Fate.FALSE),
    )


def judge_promotion(
    by: Verifiers,
    beside: Listings,
    images: Sequence[ImageVerification],
    commit: Commit | None,
    index: Digest | None,
    *,
    whole: bool,
) -> PromotionResult | None:
    """Judge the promotion of *images*, which are all of an index where *whole*.

    Of several commits with these images the first that was promoted is taken; without *commit*
    they are those whose quorum every image has; where none was, what is false of one outweighs that
    nothing is said of another. None where there is no such commit.
    """
    met = [{quorum.asked.commit for quorum in image.quorums if quorum.met} for image in images]
    common = sorted(set.intersection(*met)) if met else []
    results = []
    for each in [commit] if commit is not None else common:
        results.append(_judge(by, beside, images, each, index, whole=whole))
        if results[-1].fate is Fate.VERIFIED:
            return results[-1]
    return next((each for each in results if not each.absent), results[0] if results else None)


def _judge(
    by: Verifiers,
    beside: Listings,
    images: Sequence[ImageVerification],
    commit: Commit,
    index: Digest | None,
    *,
    whole: bool,
) -> PromotionResult:
    found = judge_ledger(beside.of(commit.key), by)
    left_open = filter(None, (image.left_open for image in images))
    found = replace(found, unchecked=(*found.unchecked, *left_open))
    leaves = tuple(
        Leaf(image.system, commit, NarHash.parse(image.nar_hash), image.digest) for image in images
    )
    # Another commit's record may be listed here as well: its proofs are no answer.
    ours = [each for each in found.records if each.predicate.commit == commit]
    standing = [each for each in ours if stands(each, by.policy)]
    proofs = None
    if not whole:
        proofs = {e.system: find_proof(beside.stores, standing, e.system) for e in leaves}
    pinned = pinned_root(by, commit, standing)
    result = evaluate_promotion(by.policy, commit, found, Shown(leaves, proofs, index), pinned)
    if result.record is not None:
        result = replace(result, checks=(*result.checks, *ask_ledgers(by, result.record)))
    if result.fate is Fate.VERIFIED and by.pins is not None and result.record is not None:
        said = result.record.predicate
        by.pins.keep(by.policy.source or said.repository, commit, said.root)
    return result


def pinned_root(by: Verifiers, commit: Commit, records: Sequence[Record]) -> Digest | None:
    """Return the root that this machine saw before, if any, for what *records* promote.

    Where there are none, one may have been taken away: that it was there is known of the policy's
    repository.
    """
    repository = by.policy.source or next((each.predicate.repository for each in records), None)
    return None if by.pins is None or not repository else by.pins.seen(repository, commit)


def ask_ledgers(by: Verifiers, record: Record) -> tuple[Check, ...]:
    """Ask each ledger for the commit of *record*, a check each. Never raises.

    One that may not be asked is *could not check*: the policy demands its word.
    """
    asked = (_ask(ledger, record) for ledger in by.ledgers)
    return (*asked, *(_unasked(name, record) for name in by.unasked))


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
    reason = (
        f"whether the ledger {name} holds {record.predicate.commit}: offline it is not asked, "
        "which --no-ledgers does without"
    )
    return Check(f"ledger {name}", Fate.UNCHECKED, reason)


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
            reason = f"the ledger {ledger.name} has the root {entry.root}, not {said.root}"
            return Check(name, Fate.FALSE, reason)
    return Check(name, Fate.VERIFIED, f"the same root, at {held[0].position}")
