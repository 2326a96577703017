"""What was this commit promoted as, and is that so? From a commit's hash to one answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from nix_seed.flows.events import OnEvent, ignore
from nix_seed.flows.evidence import gather
from nix_seed.flows.ledgers import ask_ledgers
from nix_seed.flows.promotion import judge_ledger
from nix_seed.flows.records import find_proof
from nix_seed.flows.stores import AnyReference, Stores, holder_of
from nix_seed.flows.verify import Asked, Judges, verify_image
from nix_seed.formats.intoto.commit import Commit
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import InputError
from nix_seed.rules.bundle_verify import Fate
from nix_seed.rules.policy import Policy
from nix_seed.rules.promotion import Check, PromotionResult, evaluate_promotion, stands
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
    checks = ask_ledgers(judges.ledgers, records[0])
    if any(check.fate is Fate.FALSE for check in checks):
        return _answer(reference, policy, PromotionResult(asked.commit, records[0], checks))
    promoted: Digest | str = records[0].predicate.index
    if asked.system is not None:
        proof = find_proof(places, records[0], asked.system)
        promoted = proof if isinstance(proof, str) else proof.leaf.image_digest
    if isinstance(promoted, str):
        words = f"{asked.commit} was promoted, and for {asked.system}: {promoted}"
        return _unproved(reference, policy, asked.commit, words)
    held = holder_of(stores, (reference, *evidence), promoted)
    if held is None:
        words = f"{asked.commit} was promoted as {promoted}, which is not in {reference}"
        return _unproved(reference, policy, asked.commit, words, Fate.UNCHECKED)
    where, rest = held
    return verify_image(
        stores, where.at(promoted), policy, asked, judges, now, evidence=rest, on_event=on_event
    )


def _answer(reference: AnyReference, policy: Policy, result: PromotionResult) -> Verification:
    return Verification(
        str(reference), policy.digest, policy.epoch, (), result.fate, result.words, result
    )


def _unproved(
    reference: AnyReference, policy: Policy, commit: Commit, words: str, fate: Fate = Fate.FALSE
) -> Verification:
    return _answer(
        reference, policy, PromotionResult(commit, None, (Check("member", fate, words),))
    )
