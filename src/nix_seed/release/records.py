"""Promotion records and what lies beside them: where they are put, and found again.

A record's bundles are listed under its commit's key, under its index, and under each record it
comes after, so that a ledger can be walked from its first entry on. Each system's proof and the
evidence are listed under the record. Nothing found here is believed.

Was what was verified also promoted? Records are found in stores, judged by the policy alone.

The ledgers beside the logs must say the same of a release as its record does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.core.verdict import Check, Fate
from nix_seed.formats.intoto.statement import PROMOTION_TYPE, Commit, PromotionPredicate, first_key
from nix_seed.formats.oci.manifest import ANNOTATION_SYSTEM, Descriptor, MediaType
from nix_seed.registry.store import ImageStore
from nix_seed.release.rules import record as rules
from nix_seed.release.rules.answer import ImageVerification
from nix_seed.release.rules.tree import Evidence, Leaf, MemberProof, Release, ReleasedOutputs
from nix_seed.release.verifiers import Ledger, Verifiers
from nix_seed.trust import attestations
from nix_seed.trust.rules.claims import examine
from nix_seed.trust.watch_logs import doubt_logs

RECORD_TYPE: Final = "application/vnd.nix-seed.promotion.v1"
"""The media type of what has no bytes of its own in a store: a record, or a ledger's beginning."""
MEMBER_TYPE: Final = "application/vnd.nix-seed.promotion.member.v1+json"
OUTPUTS_TYPE: Final = "application/vnd.nix-seed.promotion.outputs.v1+json"
EVIDENCE_TYPE: Final = "application/vnd.nix-seed.promotion.evidence.v1+json"


def find_proof(
    places: Sequence[ImageStore], records: Iterable[rules.Record], system: str
) -> MemberProof | Check:
    """Return a proof of *system* that leads to the root of one of *records*, or why there is none.

    That none is shown is not false: it may be withheld, or not be in this copy.
    """
    name, wanted = f"member {system}", {ANNOTATION_SYSTEM: system}
    first: Check | None = None
    for record in records:
        why: Check | None = None
        listed = attestations.read_documents(places, record.digest, MEMBER_TYPE, wanted)
        for place, text in listed:
            found = _proof(text, place, record, system)
            if isinstance(found, MemberProof):
                return found
            if why is None or why.fate is Fate.FALSE:
                why = found
        first = first or why or Check(name, Fate.UNCHECKED, "none lies beside the record")
    return first or Check(name, Fate.FALSE, "there is none")


def _proof(
    text: bytes | NixSeedError, place: str, record: rules.Record, system: str
) -> MemberProof | Check:
    name = f"member {system}"
    if isinstance(text, NixSeedError):
        return Check.failed(name, text)
    try:
        proof = MemberProof.parse(text, f"the proof of {system} in {place}")
        proof.check(record.head)
    except (InputError, CheckedFalse) as error:
        return Check(name, Fate.FALSE, error.message)
    if proof.leaf.system == system and proof.leaf.commit == record.predicate.commit:
        return proof
    reason = f"what {place} calls the proof of {system} is that of {proof.leaf.system}"
    return Check(name, Fate.FALSE, reason)


def find_evidence(places: Sequence[ImageStore], record: rules.Record) -> Evidence:
    """Return the evidence that *record* names. ``CouldNotCheck``: it is nowhere to be found.

    ``CheckedFalse``: it has the digest, and does not fit the record.
    """
    why: CouldNotCheck | None = None
    for _, text in attestations.read_documents(places, record.digest, EVIDENCE_TYPE):
        if isinstance(text, CouldNotCheck):
            why = text
        elif isinstance(text, bytes) and Digest.of(text) == record.predicate.evidence:
            return Evidence.read(text, record.predicate.commit, record.head)
    raise why or CouldNotCheck(
        f"the evidence of the record {record.digest}, {record.predicate.evidence}, is nowhere",
        hint="name the repository it was published to: --evidence REF",
    )


def has_documents(
    places: Sequence[ImageStore], record: rules.Record, systems: Iterable[str]
) -> bool:
    """Whether the evidence and a proof of each of *systems* lie beside *record*."""
    try:
        find_evidence(places, record)
    except (CheckedFalse, CouldNotCheck):
        return False
    return all(isinstance(find_proof(places, [record], system), MemberProof) for system in systems)


def record_subjects(predicate: PromotionPredicate, index: int) -> tuple[Descriptor, ...]:
    """Return what a record is listed under: its commit, its index, and what it comes after.

    *index* is the size of the index in bytes.
    """
    before = predicate.previous or (first_key(predicate.repository),)
    return (
        attestations.commit_subject(predicate.commit),
        Descriptor(MediaType.INDEX, predicate.index, index),
        *(record_subject(digest) for digest in before),
    )


def record_subject(record: Digest) -> Descriptor:
    """Return the descriptor under which successors and documents of *record* are listed."""
    return Descriptor(RECORD_TYPE, record, 0)


def attach_record(
    store: ImageStore, predicate: PromotionPredicate, index: int, bundles: Sequence[bytes]
) -> None:
    """List the *bundles* over one record everywhere it is looked for."""
    for subject in record_subjects(predicate, index):
        for bundle in bundles:
            attestations.list_bundle(store, subject, bundle, PROMOTION_TYPE)


def attach_documents(
    store: ImageStore, record: Digest, release: Release, evidence: Evidence
) -> None:
    """Store each system's proof and the evidence beside *record*."""
    subject = record_subject(record)
    for leaf in release.leaves:
        text = release.proof(leaf.system).dump()
        attestations.list_document(
            store, subject, text, MEMBER_TYPE, {ANNOTATION_SYSTEM: leaf.system}
        )
    attestations.list_document(store, subject, evidence.dump(), EVIDENCE_TYPE, {})


def attach_outputs(store: ImageStore, record: Digest, outputs: ReleasedOutputs) -> None:
    """Store the list of a release's outputs beside *record*."""
    attestations.list_document(store, record_subject(record), outputs.dump(), OUTPUTS_TYPE, {})


def find_outputs_of(places: Sequence[ImageStore], record: rules.Record) -> ReleasedOutputs:
    """Return the outputs that *record* promotes.

    ``CheckedFalse`` where it promotes none, ``CouldNotCheck`` where their list is nowhere.
    """
    said = record.predicate
    if said.outputs_root is None:
        raise CheckedFalse(
            f"{said.commit} was promoted without its outputs",
            hint="whoever promotes adds them: nix-seed promote --outputs",
        )
    why: NixSeedError | None = None
    for _, text in attestations.read_documents(places, record.digest, OUTPUTS_TYPE):
        if isinstance(text, NixSeedError):
            why = text
            continue
        try:
            return ReleasedOutputs.read(text, said.commit, said.outputs_root, said.outputs_size)
        except CheckedFalse as error:
            why = error
    reason = "it lies beside the record nowhere" if why is None else why.message
    raise CouldNotCheck(f"the list of {said.commit}'s outputs cannot be had: {reason}")


def judge_ledger(listed: attestations.Discovered, by: Verifiers) -> rules.Ledgered:
    """Judge the records among what is *listed*; logs are held to what they showed."""
    trust = by.promoters
    findings = tuple(
        examine(e.place, e.text, trust, rules.EXPECTED) for e in attestations.promotions(listed)
    )
    doubts = doubt_logs(findings, by.watch)
    troubles = attestations.troubles_of(listed)
    ends = [(each.verdict.fate, each.verdict.reason) for each in findings]
    ends += [(each.fate, each.reason) for each in troubles]
    unread = tuple(reason for fate, reason in ends if fate is Fate.UNCHECKED)
    unasked = doubts.unasked
    return rules.Ledgered(
        rules.records_of(findings, by.policy, doubts.distrusted),
        lies=(*doubts.lies, *listed.lies),
        unchecked=(*unread, *unasked),
        unread=unread,
        refused=tuple(reason for fate, reason in ends if fate is Fate.FALSE),
        possible=rules.records_of(findings, by.policy, doubts.lying) if unasked else (),
    )


def judge_promotion(
    by: Verifiers,
    beside: attestations.Listings,
    images: Sequence[ImageVerification],
    commit: Commit | None,
    index: Digest | None,
    *,
    whole: bool,
) -> rules.PromotionResult | None:
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
    beside: attestations.Listings,
    images: Sequence[ImageVerification],
    commit: Commit,
    index: Digest | None,
    *,
    whole: bool,
) -> rules.PromotionResult:
    found = judge_ledger(beside.of(commit.key), by)
    left_open = filter(None, (image.left_open for image in images))
    found = replace(found, unchecked=(*found.unchecked, *left_open))
    leaves = tuple(
        Leaf(image.system, commit, NarHash.parse(image.nar_hash), image.digest) for image in images
    )
    # Another commit's record may be listed here as well: its proofs are no answer.
    ours = [each for each in found.records if each.predicate.commit == commit]
    standing = [each for each in ours if rules.stands(each, by.policy)]
    proofs = None
    if not whole:
        proofs = {e.system: find_proof(beside.stores, standing, e.system) for e in leaves}
    pinned = pinned_root(by, commit, standing)
    result = rules.evaluate_promotion(
        by.policy, commit, found, rules.Shown(leaves, proofs, index), pinned
    )
    if result.record is not None:
        result = replace(result, checks=(*result.checks, *ask_ledgers(by, result.record)))
    if result.fate is Fate.VERIFIED and by.pins is not None and result.record is not None:
        said = result.record.predicate
        by.pins.keep(by.policy.source or said.repository, commit, said.root)
    return result


def pinned_root(by: Verifiers, commit: Commit, records: Sequence[rules.Record]) -> Digest | None:
    """Return the root that this machine saw before, if any, for what *records* promote.

    Where there are none, one may have been taken away: that it was there is known of the policy's
    repository.
    """
    repository = by.policy.source or next((each.predicate.repository for each in records), None)
    return None if by.pins is None or not repository else by.pins.seen(repository, commit)


def ask_ledgers(by: Verifiers, record: rules.Record) -> tuple[Check, ...]:
    """Ask each ledger for the commit of *record*, a check each. Never raises.

    One that may not be asked is *could not check*: the policy demands its word.
    """
    asked = [_ask(ledger, record) for ledger in by.ledgers]
    for name in by.unasked:
        reason = (
            f"whether the ledger {name} holds {record.predicate.commit}: offline it is not read, "
            "which --no-ledgers does without"
        )
        asked.append(Check(f"ledger {name}", Fate.UNCHECKED, reason))
    return tuple(asked)


def entries_of(ledger: Ledger, commit_key: Digest) -> tuple[rules.LedgerEntry, ...]:
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


def _ask(ledger: Ledger, record: rules.Record) -> Check:
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
