"""Attestations beside an image: put there as cosign 3 does, and found wherever they may lie.

Nothing here is believed. What is found is only bytes, with the place they came from, and what
cannot be read is told as well, so that nothing is dropped in silence.

The image's facts and dissenters' images are gathered with them. What the store says wrongly becomes
*checked and false*, what it does not say becomes *could not check*: a store's mistakes are never
the user's input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.core.errors import (
    CheckedFalse,
    CouldNotCheck,
    InputError,
    NixSeedError,
    caught,
    of_store,
)
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Trouble
from nix_seed.formats.intoto import bundle as intoto
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.formats.intoto.statement import PROMOTION_TYPE, Agreement, Commit, LayerDigests
from nix_seed.formats.oci.manifest import EMPTY, TITLE, About, Descriptor, Manifest, MediaType
from nix_seed.image.inspect import InspectedImage
from nix_seed.image.rules.changes import compare_specs
from nix_seed.registry.store import ImageStore, is_bundle, put_bytes, read_blob, read_referrer
from nix_seed.trust.rules.claims import DissentDetail
from nix_seed.trust.rules.quorum import Dissent, QuorumResult

if TYPE_CHECKING:
    from nix_seed.image.rules.spec import Spec


CONTENT: Final = "dev.sigstore.bundle.content"
COMMIT_TYPE: Final = "application/vnd.nix-seed.commit.v1"
PREDICATE: Final = "dev.sigstore.bundle.predicateType"
_DOCUMENTS = "application/vnd.nix-seed."
_MOST_LAYERS = 256
NO_ANNOTATIONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Attestation:
    """The bytes of a bundle, unverified, and *place*, where they were found, for people."""

    place: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Document:
    """Another document beside an image, by its media *type*; unverified but for its digest."""

    type: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Discovered:
    """All that lies beside an image; *troubles* are the things listed that could not be read.

    *lies* say of each store whose own list contradicts itself how: what else it held is unknown.
    """

    attestations: tuple[Attestation, ...] = ()
    troubles: tuple[NixSeedError, ...] = ()
    lies: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()


def attach_bundle(
    store: ImageStore, subject: Descriptor, bundle: bytes, predicate_type: str
) -> Descriptor:
    """Store *bundle* as a referrer of *subject*, by API and fallback tag; return its manifest.

    The manifest is a function of the arguments: attaching again changes nothing.
    """
    if store.head_manifest(subject.digest) is None:
        raise InputError(
            f"{store} has no image {subject.digest} to attach an attestation to",
            hint="push the image first",
        )
    return list_bundle(store, subject, bundle, predicate_type)


def list_bundle(
    store: ImageStore, subject: Descriptor, bundle: bytes, predicate_type: str
) -> Descriptor:
    """Store *bundle* as a referrer of *subject*, which may be anything with a digest."""
    said = {CONTENT: "dsse-envelope", PREDICATE: predicate_type} | _about(bundle).annotations()
    return _attach(store, subject, put_bytes(store, intoto.BUNDLE_V03, bundle), said)


def _about(bundle: bytes) -> About:
    """Return which commit *bundle* is about, by its own word."""
    said = Unverified.read(bundle)
    if said is not None and said.build is not None:
        source = said.build.source
        return About(source.uri, str(source.commit), said.build.finished_on)
    if said is not None and said.promotion is not None:
        return About(said.promotion.repository, str(said.promotion.commit))
    return About()


def _attach(
    store: ImageStore, subject: Descriptor, layer: Descriptor, annotations: Mapping[str, str]
) -> Descriptor:
    manifest = Manifest(
        config=put_bytes(store, MediaType.EMPTY, EMPTY),
        layers=(layer,),
        annotations=annotations,
        artifact_type=layer.media_type,
        subject=Descriptor(subject.media_type, subject.digest, subject.size),
    )
    return store.attach(manifest.dump())


def discover(
    store: ImageStore, subject: Digest, documents: Collection[str] = (), *, cosign: bool = True
) -> Discovered:
    """Find every attestation of *subject*: the API's, the fallback tag's, and with *cosign* its.

    And *documents*, by their types. Raises only where the list of referrers itself cannot be had:
    each thing it names is read by itself, so that a bad one hides no other. What the list calls a
    document of ours is not read where none is wanted: a list that lies of that could as well leave
    it out.
    """
    found: dict[bytes, Attestation] = {}
    others: dict[Document, None] = {}
    troubles: list[NixSeedError] = []
    for item in store.referrers(subject):
        ours = (item.artifact_type or "").startswith(_DOCUMENTS)
        if item.media_type != MediaType.MANIFEST or (ours and not documents):
            continue
        with _noted(troubles, f"{store}@{item.digest}"):
            # Its manifest, not the list, says what it is.
            each = read_referrer(
                store, item, subject, lambda kind: is_bundle(kind) or kind in documents
            )
            if each is not None and is_bundle(each.artifact_type):
                found.setdefault(each.text, Attestation(each.place, each.text))
            elif each is not None:
                others[Document(each.artifact_type, each.text)] = None
    tag = intoto.attestation_tag(subject)
    with _noted(troubles, f"{store}:{tag}"):
        for layer in _cosign_layers(store, tag) if cosign else ():
            place = f"{store}:{tag}, layer {layer.digest}"
            with _noted(troubles, place):
                text = read_blob(store, layer, place)
                bundle = intoto.bundle_of_layer(text, layer.annotations, place).dump()
                found.setdefault(bundle, Attestation(place, bundle))
    return Discovered(tuple(found.values()), tuple(troubles), (), tuple(others))


def list_document(
    store: ImageStore,
    subject: Descriptor,
    text: bytes,
    artifact_type: str,
    annotations: Mapping[str, str] = NO_ANNOTATIONS,
    *,
    title: str | None = None,
) -> Descriptor:
    """Store *text*, a document of *artifact_type*, as a referrer of *subject*.

    *title* is the name of the file for those who fetch it with other tools. The manifest is a
    function of the arguments: doing it again changes nothing.
    """
    layer = put_bytes(store, artifact_type, text)
    if title is not None:
        layer = replace(layer, annotations={TITLE: title})
    return _attach(store, subject, layer, annotations)


def read_documents(
    stores: Iterable[ImageStore],
    subject: Digest,
    artifact_type: str,
    annotations: Mapping[str, str] = NO_ANNOTATIONS,
) -> Iterator[tuple[str, bytes | NixSeedError]]:
    """Yield the documents of *artifact_type* beside *subject* that have all of *annotations*.

    With the store of each; unverified but for their digests. What is listed and is not such a
    document is passed over; for what cannot be read, be it a store, the error is yielded: it hides
    no other. Raises ``CheckedFalse`` for a store whose list contradicts itself.
    """
    for store in stores:
        try:
            listed = store.referrers(subject, artifact_type)
        except CouldNotCheck as error:
            yield f"{store}", error
            continue
        for item in listed:
            troubles: list[NixSeedError] = []
            with _noted(troubles, f"{store}@{item.digest}"):
                layer = _of_document(store, item, subject, annotations)
                if layer is not None:
                    yield f"{store}", read_blob(store, layer, f"{store}@{item.digest}")
            yield from ((f"{store}", each) for each in troubles)


def _of_document(
    store: ImageStore, item: Descriptor, subject: Digest, annotations: Mapping[str, str]
) -> Descriptor | None:
    fetched = store.get_manifest(item.digest)
    if fetched is None or fetched.descriptor.media_type != MediaType.MANIFEST:
        return None
    try:
        manifest = Manifest.parse(fetched.body, f"{store}@{item.digest}")
    except InputError:
        return None
    ours = (
        len(manifest.layers) == 1
        and manifest.subject is not None
        and manifest.subject.digest == subject
        and annotations.items() <= manifest.annotations.items()
    )
    return manifest.layers[0] if ours else None


def commit_subject(commit: Commit) -> Descriptor:
    """Return the descriptor of a commit: of the text whose SHA-256 is its key.

    Attestations are its referrers too, so that one finds what others built from the same commit.
    """
    size = len(f"nix-seed/commit/v1\0{commit.algorithm}{commit.hex}")
    return Descriptor(COMMIT_TYPE, commit.key, size)


@contextmanager
def _noted(troubles: list[NixSeedError], place: str) -> Iterator[None]:
    """Keep what went wrong inside: one thing must not hide another, whatever a library raises."""
    try:
        yield
    except Exception as error:
        troubles.append(caught(error, place))


def _cosign_layers(store: ImageStore, tag: str) -> tuple[Descriptor, ...]:
    """Return the envelopes at cosign 2's *tag*, none where there is no such tag."""
    fetched = store.get_manifest(tag)
    if fetched is None:
        return ()
    layers = fetched.manifest(f"{store}:{tag}").layers
    if len(layers) > _MOST_LAYERS:
        raise CheckedFalse(f"{store}:{tag} has {len(layers)} layers; {_MOST_LAYERS} are the most")
    return tuple(layer for layer in layers if layer.media_type == intoto.ENVELOPE_LAYER)


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


def discover_all(work: Sequence[Lookup]) -> list[Discovered]:
    """Return what each list of *work* has, in its order. Never raises."""
    return in_parallel(_discover, work, 1 if len(work) < _MANY else _AT_ONCE)


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
    said = dissent.claim.predicate
    detail = partial(DissentDetail, dissent.builder.id, said.image_digest)
    if isinstance(ours, str):
        return detail(None, ours)
    # A dissenter's spec that is far larger than ours is there to exhaust whoever reads it.
    theirs = _spec(stores, said.image_digest, max(_LEAST, _IN_PROPORTION * len(ours.dump())))
    if isinstance(theirs, str):
        return detail(None, theirs)
    if theirs.nar_hash != said.nar_hash:
        return detail(None, f"its image has narHash {theirs.nar_hash}, and it said {said.nar_hash}")
    return detail(compare_specs(ours, theirs))


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
