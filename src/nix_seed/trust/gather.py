"""Gather what there is about an image: its facts, the attestations beside it, dissenters' images.

Nothing here is believed. What the store says wrongly becomes *checked and false*, what it does not
say becomes *could not check*: a store's mistakes are never the user's input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.core.errors import CheckedFalse, NixSeedError, caught, of_store
from nix_seed.core.verdict import Trouble
from nix_seed.formats.intoto.build import Agreement, LayerDigests
from nix_seed.formats.intoto.promotion import PREDICATE_TYPE as PROMOTION_TYPE
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.intoto.unverified import Unverified
from nix_seed.image.inspect import InspectedImage
from nix_seed.registry.store import ImageStore
from nix_seed.trust.attestations import Attestation, Discovered, discover
from nix_seed.trust.rules.claims import DissentDetail
from nix_seed.trust.rules.quorum import Dissent, QuorumResult

if TYPE_CHECKING:
    from nix_seed.image.rules.spec import Spec

_MANY = 4  # lists, from which on threads are worth their while
_AT_ONCE = 8
_IN_PROPORTION = 4
_LEAST = 1 << 20


def agreement_of(image: InspectedImage, commit: Commit) -> Agreement:
    """Return what builders of *commit* must have said for *image* to be theirs.

    ``CheckedFalse`` for an image that states no system and narHash, which none of ours lacks.
    """
    if image.system is None or image.nar_hash is None:
        raise CheckedFalse(f"{image.reference} is no image of nix-seed: it states no narHash")
    with of_store():
        return Agreement(
            commit,
            image.system,
            NarHash.parse(image.nar_hash),
            tuple(
                LayerDigests(layer.descriptor.digest, DiffID.parse(layer.diff_id or ""))
                for layer in image.layers
            ),
            image.digest,
        )


@dataclass(frozen=True, slots=True)
class Listings:
    """What lies beside digests in *stores*: asked for by several, and read once."""

    stores: tuple[ImageStore, ...]
    _read: dict[tuple[Digest, ...], Discovered] = field(default_factory=dict, compare=False)

    def of(self, *subjects: Digest) -> Discovered:
        """Return all that is listed under *subjects*."""
        if subjects not in self._read:
            self._read[subjects] = gather(self.stores, subjects)
        return self._read[subjects]


def gather(stores: Sequence[ImageStore], subjects: Iterable[Digest]) -> Discovered:
    """Find every attestation of *subjects* in all *stores*, each once; ask for several at once.

    Never raises: a store that does not answer, or answers nonsense, hides nothing that others show.
    """
    found: dict[bytes, Attestation] = {}
    troubles: list[NixSeedError] = []
    lies: list[str] = []
    for here in discover_all([Lookup(store, each) for each in subjects for store in stores]):
        for attestation in here.attestations:
            found.setdefault(attestation.text, attestation)
        troubles += here.troubles
        lies += here.lies
    return Discovered(tuple(found.values()), tuple(troubles), tuple(lies))


class Lookup(NamedTuple):
    """A list to be read: what of it, ``discover`` says."""

    store: ImageStore
    subject: Digest
    documents: Collection[str] = ()
    cosign: bool = True


def discover_all(work: Sequence[Lookup]) -> Iterator[Discovered]:
    """Yield what each list of *work* has, in its order. Never raises."""
    if len(work) < _MANY:
        yield from map(_discover, work)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(_discover, work)


def _discover(each: Lookup) -> Discovered:
    try:
        return discover(each.store, each.subject, each.documents, cosign=each.cosign)
    except Exception as error:
        found = caught(error, f"what {each.store} lists under {each.subject}")
    if isinstance(found, CheckedFalse):
        return Discovered(lies=(found.message,))
    return Discovered(troubles=(found,))


def attestations(discovered: Discovered) -> Iterator[Attestation]:
    """Yield what was found, but for promotion records, which say nothing of how it was built."""
    return (e for e in discovered.attestations if not _says_promotion(e.text))


def promotions(discovered: Discovered) -> Iterator[Attestation]:
    """Yield what says of itself that it is a promotion record."""
    return (e for e in discovered.attestations if _says_promotion(e.text))


def _says_promotion(text: bytes) -> bool:
    said = Unverified.read(text)
    return said is not None and said.predicate_type == PROMOTION_TYPE


def troubles_of(discovered: Discovered) -> tuple[Trouble, ...]:
    """Return the troubles of a search as parts of the answer."""
    return tuple(map(Trouble.of, discovered.troubles))


def detail_dissents(
    stores: Sequence[ImageStore], image: InspectedImage, quorums: Iterable[QuorumResult]
) -> tuple[DissentDetail, ...]:
    """Compare the specs of *image* and of each dissenter's other image, where these are at hand."""
    dissents = {
        (each.builder.id, each.claim.predicate.image_digest): each
        for quorum in quorums
        for each in quorum.dissents
        if not each.about_roots
    }
    if not dissents:
        return ()
    ours = _spec(stores, image.digest)
    return tuple(_detail(stores, ours, each) for each in dissents.values())


def _detail(stores: Sequence[ImageStore], ours: Spec | str, dissent: Dissent) -> DissentDetail:
    from nix_seed.image.rules.difference import compare_specs

    who, said = dissent.builder.id, dissent.claim.predicate
    if isinstance(ours, str):
        return DissentDetail(who, said.image_digest, None, ours)
    # A dissenter's spec that is far larger than ours is there to exhaust whoever reads it.
    theirs = _spec(stores, said.image_digest, max(_LEAST, _IN_PROPORTION * len(ours.dump())))
    if isinstance(theirs, str):
        return DissentDetail(who, said.image_digest, None, theirs)
    if theirs.nar_hash != said.nar_hash:
        reason = f"its image has narHash {theirs.nar_hash}, and it said {said.nar_hash}"
        return DissentDetail(who, said.image_digest, None, reason)
    return DissentDetail(who, said.image_digest, compare_specs(ours, theirs))


def _spec(stores: Sequence[ImageStore], digest: Digest, largest: int | None = None) -> Spec | str:
    """Return the spec of the image *digest*, or why there is none to compare."""
    # Only here: agreement, the usual answer, needs no layer and none of what reads them.
    from nix_seed.image.read.spec import LARGEST_SPEC, read_seed

    for store in stores:
        try:
            fetched = store.get_manifest(digest)
            if fetched is not None:
                return read_seed(str(digest), fetched, store, largest or LARGEST_SPEC).spec
        except NixSeedError as error:
            return error.message
        except Exception as error:
            return f"{digest} cannot be read: unexpected {type(error).__name__}: {error}"
    return f"the image {digest} is not at hand, so its store paths cannot be compared"
