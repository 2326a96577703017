"""What was this commit promoted as, and is that so? From a commit's hash to one answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from nix_seed.clients.blobs import ImageStore
from nix_seed.flows.events import OnEvent, ignore
from nix_seed.flows.evidence import gather
from nix_seed.flows.ledgers import ask_ledgers
from nix_seed.flows.promotion import Ledgered, judge_ledger, pinned_root
from nix_seed.flows.records import find_proof
from nix_seed.flows.stores import AnyReference, Stores, holder_of
from nix_seed.flows.verify import Asked, Judges, verify_image
from nix_seed.formats.intoto.commit import Commit
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import InputError
from nix_seed.rules.bundle_verify import Fate
from nix_seed.rules.policy import Policy
from nix_seed.rules.promotion import (
    Check,
    PromotionResult,
    Record,
    evaluate_promotion,
    foreign_system,
    stands,
)
from nix_seed.rules.release import MemberProof
from nix_seed.rules.verification import Verification

__all__ = ["verify_commit"]


def verify_commit(
    stores: Stores,
    reference: AnyReference,
    policy: Policy,
    asked: Asked,
    judges: Judges,
    now: datetime,
    *,
    evidence: Sequence[AnyReference] = (),
    on_event: OnEvent = ignore,
) -> Verification:
    """Verify what ``asked.commit`` was promoted as in the repository *reference*.

    That is the record's index, or the one image of ``asked.system``, for which neither the index
    nor the other images are read. Raises as ``verify_image`` does.
    """
    if asked.commit is None:
        raise InputError("no commit was asked about")
    if not policy.promoters:
        raise InputError(
            "the policy knows no promoters, so nothing is promoted by it",
            hint="add [[promoters]] and quorum.promoters, or verify an image by its reference",
        )
    places = [stores.open(reference), *(stores.open(each) for each in evidence)]
    found = judge_ledger(gather(places, [asked.commit.key]), policy, judges)
    records = [
        each
        for each in found.records
        if each.predicate.commit == asked.commit and stands(each, policy)
    ]
    if not records:
        result = evaluate_promotion(
            policy, asked.commit, found.records, (), unchecked=found.unchecked
        )
        return _answer(reference, policy, found.with_lies(result))
    # Before anything is fetched: what is known to be false stays so, whatever cannot be had.
    so_far = found.with_lies(_judge(found, records, policy, asked.commit, judges))
    if so_far.fate is Fate.FALSE:
        return _answer(reference, policy, so_far)
    promoted: Digest | Check = records[0].predicate.index
    if asked.system is not None:
        record, system = records[0], asked.system
        foreign = foreign_system(record, policy, system)
        proof = foreign or _find_proof(places, records, system)
        promoted = proof if isinstance(proof, Check) else proof.leaf.image_digest
    if isinstance(promoted, Check):
        words = f"{asked.commit} was promoted, and for {asked.system}: {promoted.words}"
        return _answer(reference, policy, _lacks(so_far, words, promoted.fate))
    held = holder_of(stores, (reference, *evidence), promoted)
    if held is None:
        words = f"{asked.commit} was promoted as {promoted}, which is not in {reference}"
        return _answer(reference, policy, _lacks(so_far, words, Fate.UNCHECKED))
    where, rest = held
    return verify_image(
        stores, where.at(promoted), policy, asked, judges, now, evidence=rest, on_event=on_event
    )


def _find_proof(
    places: Sequence[ImageStore], records: Sequence[Record], system: str
) -> MemberProof | Check:
    """Return a proof of *system* under the one root of *records*, whichever of them has it."""
    found = [find_proof(places, record, system) for record in records]
    return next((each for each in found if isinstance(each, MemberProof)), found[0])


def _answer(reference: AnyReference, policy: Policy, result: PromotionResult) -> Verification:
    return Verification(
        str(reference), policy.digest, policy.epoch, (), result.fate, result.words, result
    )


def _judge(
    found: Ledgered, records: Sequence[Record], policy: Policy, commit: Commit, judges: Judges
) -> PromotionResult:
    """Judge all of a promotion but its images: that it is the only one, here and in ledgers."""
    pinned = pinned_root(judges, policy, commit, records)
    alone = evaluate_promotion(
        policy, commit, records, (), proofs={}, pinned=pinned, unread=found.unread
    )
    checks = (*alone.checks, *ask_ledgers(judges, records[0]))
    return PromotionResult(commit, records[0], checks)


def _lacks(so_far: PromotionResult, words: str, fate: Fate) -> PromotionResult:
    check = Check("member", fate, words)
    return PromotionResult(so_far.commit, so_far.record, (check, *so_far.checks))
