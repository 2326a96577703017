"""Promotion records and what lies beside them: where they are put, and found again.

A record's bundles are listed under its commit's key, under its index, and under each record it
comes after, so that a ledger can be walked from its first entry on. Each system's proof and the
evidence are listed under the record. Nothing found here is believed.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError, of_store
from nix_seed.core.verdict import Check, Fate
from nix_seed.formats.intoto.promotion import PREDICATE_TYPE, PromotionPredicate, first_key
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.manifest import ANNOTATION_SYSTEM, Descriptor
from nix_seed.registry.store import ImageStore
from nix_seed.release.rules.evidence import Evidence
from nix_seed.release.rules.outputs_tree import ReleasedOutputs
from nix_seed.release.rules.record import Record
from nix_seed.release.rules.tree import MemberProof, Release
from nix_seed.trust.attestations import commit_subject, list_bundle, list_document, read_documents

RECORD_TYPE: Final = "application/vnd.nix-seed.promotion.v1"
"""The media type of what has no bytes of its own in a store: a record, or a ledger's beginning."""
MEMBER_TYPE: Final = "application/vnd.nix-seed.promotion.member.v1+json"
OUTPUTS_TYPE: Final = "application/vnd.nix-seed.promotion.outputs.v1+json"
EVIDENCE_TYPE: Final = "application/vnd.nix-seed.promotion.evidence.v1+json"


def find_proof(
    places: Sequence[ImageStore], records: Iterable[Record], system: str
) -> MemberProof | Check:
    """Return a proof of *system* that leads to the root of one of *records*, or why there is none.

    That none is shown is not false: it may be withheld, or not be in this copy.
    """
    why: Check | None = None
    for record in records:
        found = _find(places, record, system)
        if isinstance(found, MemberProof):
            return found
        why = why or found
    return why or Check(f"member {system}", Fate.FALSE, "there is none")


def _find(places: Sequence[ImageStore], record: Record, system: str) -> MemberProof | Check:
    name = f"member {system}"
    why: Check | None = None
    wanted = {ANNOTATION_SYSTEM: system}
    for place in places:
        try:
            for text in read_documents(place, record.digest, MEMBER_TYPE, wanted):
                found = _proof(text, f"{place}", record, system)
                if isinstance(found, MemberProof):
                    return found
                why = found if why is None or why.fate is Fate.FALSE else why
        except CouldNotCheck as error:
            why = Check.failed(name, error)
    return why or Check(name, Fate.UNCHECKED, "none lies beside the record")


def _proof(
    text: bytes | NixSeedError, place: str, record: Record, system: str
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


def find_evidence(places: Sequence[ImageStore], record: Record) -> Evidence:
    """Return the evidence that *record* names. ``CouldNotCheck``: it is nowhere to be found.

    ``CheckedFalse``: it has the digest, and does not fit the record.
    """
    for place in places:
        for text in read_documents(place, record.digest, EVIDENCE_TYPE):
            if isinstance(text, bytes) and Digest.of(text) == record.predicate.evidence:
                return _fitting(text, record)
    raise CouldNotCheck(
        f"the evidence of the record {record.digest}, {record.predicate.evidence}, is nowhere",
        hint="name the repository it was published to: --evidence REF",
    )


def _fitting(text: bytes, record: Record) -> Evidence:
    with of_store():
        evidence = Evidence.parse(text, f"the evidence of {record.digest}")
    release = evidence.release
    if release.head != record.head or release.leaves[0].commit != record.predicate.commit:
        raise CheckedFalse(f"the evidence of {record.digest} is of another release than it signs")
    return evidence


def has_documents(places: Sequence[ImageStore], record: Record, systems: Iterable[str]) -> bool:
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
        commit_subject(predicate.commit),
        Descriptor(media_types.INDEX, predicate.index, index),
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
            list_bundle(store, subject, bundle, PREDICATE_TYPE)


def attach_documents(
    store: ImageStore, record: Digest, release: Release, evidence: Evidence
) -> None:
    """Store each system's proof and the evidence beside *record*."""
    subject = record_subject(record)
    for leaf in release.leaves:
        text = release.proof(leaf.system).dump()
        list_document(store, subject, text, MEMBER_TYPE, {ANNOTATION_SYSTEM: leaf.system})
    list_document(store, subject, evidence.dump(), EVIDENCE_TYPE, {})


def attach_outputs(store: ImageStore, record: Digest, outputs: ReleasedOutputs) -> None:
    """Store the list of a release's outputs beside *record*."""
    list_document(store, record_subject(record), outputs.dump(), OUTPUTS_TYPE, {})


def find_outputs_of(places: Sequence[ImageStore], record: Record) -> ReleasedOutputs:
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
    for place in places:
        try:
            for text in read_documents(place, record.digest, OUTPUTS_TYPE):
                if isinstance(text, NixSeedError):
                    why = text
                    continue
                try:
                    return ReleasedOutputs.read(
                        text, said.commit, said.outputs_root, said.outputs_size
                    )
                except CheckedFalse as error:
                    why = error
        except CouldNotCheck as error:
            why = error
    reason = "it lies beside the record nowhere" if why is None else why.message
    raise CouldNotCheck(f"the list of {said.commit}'s outputs cannot be had: {reason}")
