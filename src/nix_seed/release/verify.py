"""Is this image what independent builders got from the commit? One answer, from all evidence.

What was this commit promoted as, and is that so? From a commit's hash to one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, of_store
from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.core.verdict import Check, Fate, Trouble
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.intoto.unverified import Unverified
from nix_seed.image.inspect import InspectedImage, InspectedIndex, inspect
from nix_seed.registry.open import AnyReference, Stores, fetch, holder_of
from nix_seed.registry.store import ImageStore
from nix_seed.release.judge import Ledgered, ask_ledgers, judge_ledger, judge_promotion, pinned_root
from nix_seed.release.records import find_proof
from nix_seed.release.rules.answer import (
    Depth,
    ImageVerification,
    Verification,
    evaluate_image,
    evaluate_images,
    join_promotion,
)
from nix_seed.release.rules.record import (
    PromotionResult,
    Record,
    evaluate_promotion,
    foreign_system,
    stands,
)
from nix_seed.release.rules.tree import MemberProof
from nix_seed.release.verifiers import Judges
from nix_seed.trust.gather import (
    Gather,
    agreement_of,
    attestations,
    detail_dissents,
    gather,
    troubles_of,
)
from nix_seed.trust.rules.claims import AttestedCommits, Released, claims_of, examine, trust_of
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.quorum import evaluate_quorum
from nix_seed.trust.watch_logs import doubt_logs


@dataclass(frozen=True, slots=True)
class Asked:
    """The question: of which *commit* (None: of any that builders name), for which *system*.

    *deep* also recomputes all that the image claims from its layers. *promotion* asks whether the
    commit was promoted as just this; None: if the policy knows promoters.
    """

    commit: Commit | None = None
    system: str | None = None
    deep: bool = False
    promotion: bool | None = None


def verify_image(
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
    """Verify what *reference* names, an image or an index of images, by *policy* at time *now*.

    *evidence* names further repositories whose attestations are taken into account. Raises
    ``InputError`` where *reference* names nothing, ``CouldNotCheck`` where its store is out of
    reach and ``CheckedFalse`` where that store contradicts itself; every other end is an answer.
    """
    store = stores.open(reference)
    root = fetch(store, reference)
    with of_store():
        found = inspect(stores, reference.at(root.descriptor.digest))
        images = _chosen(found, asked)
    places = [store, *(stores.open(each) for each in evidence)]
    # What lies beside a commit is asked for by each of its images, and by its promotion.
    beside = cache(partial(gather, places))
    released = partial(_released, beside, root.descriptor.digest)
    answers = tuple(
        _verify_one(places, beside, image, policy, asked, judges, now, on_event, released)
        for image in images
    )
    complete = isinstance(found, InspectedIndex) and asked.system is None
    there = {image.system for image in images}
    missing = [system for system in policy.systems if complete and system not in there]
    fate, words = evaluate_images(answers, missing)
    promotion = None
    if bool(policy.promoters) if asked.promotion is None else asked.promotion:
        index = root.descriptor.digest if isinstance(found, InspectedIndex) else None
        promotion = judge_promotion(
            places,
            beside,
            answers,
            policy,
            judges,
            commit=asked.commit,
            index=index,
            whole=complete,
        )
        if promotion is None and fate is Fate.VERIFIED:
            fate, words = Fate.FALSE, "its images are of no one commit that could be promoted"
            for left in filter(None, (each.left_open for each in answers)):
                fate, words = Fate.UNCHECKED, left
    awaits = fate is Fate.VERIFIED and promotion is not None and promotion.absent
    fate, words = join_promotion(fate, words, promotion)
    return Verification(
        str(reference), policy.digest, policy.epoch, answers, fate, words, promotion, awaits
    )


def _chosen(found: InspectedImage | InspectedIndex, asked: Asked) -> tuple[InspectedImage, ...]:
    """Return the images asked about; one system has one image."""
    images = found.images if isinstance(found, InspectedIndex) else (found,)
    systems = [image.system for image in images]
    if len(set(systems)) != len(systems):
        raise CheckedFalse(f"{found.reference} has several images for one system")
    if asked.system is None:
        return images
    chosen = tuple(image for image in images if image.system == asked.system)
    if not chosen:
        there = ", ".join(str(system) for system in systems)
        raise CheckedFalse(f"{found.reference} has no image for {asked.system}, but for {there}")
    return chosen


def _verify_one(
    places: Sequence[ImageStore],
    listed: Gather,
    image: InspectedImage,
    policy: Policy,
    asked: Asked,
    judges: Judges,
    now: datetime,
    on_event: OnEvent,
    released: Released,
) -> ImageVerification:
    on_event(Stage("verify", f"verifying {image.reference}"))
    trust = trust_of(policy, judges.certificates)
    beside = listed((image.digest,))
    findings = {
        each.text: examine(each.place, each.text, trust, judges.logs)
        for each in attestations(beside)
    }
    if asked.commit is not None:
        chosen = AttestedCommits((asked.commit,))
    else:
        chosen = AttestedCommits.choose(image.digest, findings.values(), policy, released)
    # What builders say of the commit lies beside their own images, which may be other ones: those
    # are the dissents.
    elsewhere = listed(tuple(commit.key for commit in chosen.commits))
    for each in attestations(elsewhere):
        if each.text not in findings:
            findings[each.text] = examine(each.place, each.text, trust, judges.logs)
    doubts = doubt_logs(findings.values(), judges.watch)
    claims = claims_of(findings.values(), policy, doubts.distrusted)
    quorums = tuple(
        evaluate_quorum(policy, agreement_of(image, commit), claims, now)
        for commit in chosen.commits
    )
    troubles = (
        *troubles_of(beside),
        *troubles_of(elsewhere),
        *(Trouble(Fate.FALSE, words) for words in doubts.split.values()),
        *(trouble for log, trouble in doubts.watched.items() if log not in doubts.split),
    )
    depth = _depth(places[0], image, on_event) if asked.deep else None
    if isinstance(depth, Trouble):
        troubles, depth = (*troubles, depth), None
    # A log that is out of reach proves nothing; where others prove enough, that bars nobody.
    idle = set(doubts.watched.values()) if any(quorum.met for quorum in quorums) else set()
    barring = [each for each in troubles if each not in idle]
    if chosen.left and not any(quorum.met for quorum in quorums):
        barring.append(Trouble(Fate.UNCHECKED, chosen.left_open))
    fate, words = evaluate_image(quorums, findings.values(), barring, depth, doubts.lies)
    return ImageVerification(
        reference=image.reference,
        digest=image.digest,
        system=image.system or "",
        nar_hash=image.nar_hash or "",
        findings=tuple(findings.values()),
        troubles=troubles,
        quorums=quorums,
        dissents=detail_dissents(places, image, quorums),
        depth=depth,
        fate=fate,
        words=words,
        left_open=chosen.left_open,
    )


def _released(beside: Gather, root: Digest) -> frozenset[Commit]:
    """Return the commits of what is listed as a record of *root*, an index; nothing is verified."""
    records = (Unverified.read(each.text) for each in beside((root,)).attestations)
    return frozenset(each.promotion.commit for each in records if each and each.promotion)


def _depth(store: ImageStore, image: InspectedImage, on_event: OnEvent) -> Depth | Trouble:
    """Read every layer; what cannot be read leaves the image unchecked, not disproved."""
    # Only here, for what unpacks layers takes a while to import.
    from nix_seed.image.read.check import deep_check

    on_event(Stage("deep", f"reading every layer of {image.reference}", len(image.layers)))
    try:
        fetched = store.get_manifest(image.digest)
        if fetched is None:
            raise CouldNotCheck(f"{image.reference} was there a moment ago, and is gone")
        found = deep_check(store, fetched, image.reference)
    except CouldNotCheck as error:
        return Trouble(Fate.UNCHECKED, error.message)
    except (CheckedFalse, InputError) as error:
        return Depth(len(image.layers), 0, 0, (error.message,))
    return Depth(found.layers, found.paths, found.size, found.problems)


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
