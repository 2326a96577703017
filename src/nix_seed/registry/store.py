"""What an image layout on disk and a repository of a registry have in common.

Flows move images between any two of these and never ask which they have.

One thing that a store lists beside another is a manifest with one layer. The list is not believed:
the manifest says what it is and what it is beside. Nor is the manifest: what it holds is only
bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, of_store
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import DOCKERS, Descriptor, Index, Manifest, MediaType

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(frozen=True, slots=True)
class Held:
    """The first *size* bytes of a blob, already here; *state* has hashed them."""

    size: int = 0
    state: _Hash = field(default_factory=hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest's or index's exact bytes, and the descriptor they were found to have."""

    descriptor: Descriptor
    body: bytes

    def manifest(self, name: str) -> Manifest:
        """Return the image's manifest that it is; *name* is what errors call it.

        ``InputError`` where it is of another kind, ``CheckedFalse`` where it is malformed.
        """
        self._check(MediaType.MANIFEST, name, "an OCI image")
        with of_store():
            return Manifest.parse(self.body, name)

    def index(self, name: str) -> Index:
        """Return the index that it is; raises as ``manifest`` does."""
        self._check(MediaType.INDEX, name, "an OCI index")
        with of_store():
            return Index.parse(self.body, name)

    def _check(self, wanted: str, name: str, words: str) -> None:
        found = self.descriptor.media_type
        if found == wanted:
            return
        if found in DOCKERS:
            raise InputError(
                f"{name} is of Docker's own format, not {words}",
                hint="`docker push` makes these: push by nix-seed or skopeo, which keep the digest;"
                " or convert it: `skopeo copy --format oci`",
            )
        raise InputError(f"{name} is {found}, not {words}")


BlobSource = Callable[[Held], Iterator[bytes]]
"""Yields the rest of a blob after what is held; each call begins anew."""


NamedDocument = tuple[bytes, str, str | Digest | None]
"""A manifest or index, its media type, and the tag or digest it is stored under."""

IndexEdit = Callable[[tuple[Descriptor, ...]], tuple[Descriptor, ...]]
"""Returns what an index is to name, of what it names."""


class ImageStore(Protocol):
    """Holds manifests, blobs and tags; ``str`` of it is its name for people."""

    def head_manifest(self, name: str | Digest) -> Descriptor | None:
        """Return what the store says *name* is, unverified; None if there is no such manifest."""
        ...

    def get_manifest(self, name: str | Digest, *, writing: bool = False) -> Fetched | None:
        """Return the manifest with this tag or digest, verified; None if there is none.

        Who is *writing* next takes a refusal for "not there yet".
        """
        ...

    def put_manifest(
        self, body: bytes, media_type: str, name: str | Digest | None = None
    ) -> Descriptor:
        """Store a manifest whose blobs are there already, under a tag if *name* is one."""
        ...

    def put_manifests(self, documents: Sequence[NamedDocument], jobs: int = 1) -> None:
        """Store many as ``put_manifest`` does, *jobs* at once; none of them may name another."""
        ...

    def edit_indexes(self, edits: Mapping[str, IndexEdit], jobs: int = 1) -> frozenset[str]:
        """Make each edit of the index at its tag, an empty one where none is.

        Return the tags where that changed something. A layout is locked meanwhile. In a registry
        another writer may overwrite what was just written: whoever must be sure asks once more.
        Raises ``CheckedFalse`` for what is no index.
        """
        ...

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there, whole."""
        ...

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        """Yield the blob after what is *held*; right if, and only if, the iterator ends."""
        ...

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob; the caller must have a proof of its own."""
        ...

    def gives_ranges(self, blob: Descriptor) -> bool:
        """Whether a part of a blob can be had without all of it."""
        ...

    def take_blob(self, blob: Descriptor, source: BlobSource) -> bool:
        """Store a blob from elsewhere; nothing shows unless all of it is as *blob* says.

        False where no bytes had to be moved for that.
        """
        ...

    def push_stream(self, source: Callable[[], Iterable[bytes]], media_type: str) -> Descriptor:
        """Store a stream of unknown length, which each call of *source* begins anew."""
        ...

    def list_tags(self) -> tuple[str, ...]:
        """Return every tag, sorted."""
        ...

    def tags_with(self, prefixes: Collection[str], jobs: int = 1) -> tuple[str, ...]:
        """Return the tags that begin with one of *prefixes*, each of which ends in a dot."""
        ...

    def attach(self, body: bytes) -> Descriptor:
        """Store a manifest that has a ``subject``, and list it among the subject's referrers."""
        ...

    def detach(self, subject: Digest, gone: Collection[Digest]) -> None:
        """Take the manifests *gone* off the subject's list; what others add meanwhile stays."""
        ...

    def check_attachable(self, subject: Digest) -> None:
        """Raise ``CouldNotCheck`` where one more could not be listed; ask before signing."""
        ...

    def referrers(
        self, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """Return what points at *subject*, sorted by digest; with a type, what is of that type."""
        ...


def index_members(fetched: Fetched | None, where: str) -> tuple[Descriptor, ...]:
    """Return what a list at a tag names, nothing where none is; ``CheckedFalse`` for no list."""
    if fetched is None:
        return ()
    if fetched.descriptor.media_type != MediaType.INDEX:
        raise CheckedFalse(
            f"{where} is a {fetched.descriptor.media_type}, not a list of outputs",
            hint="somebody pushed something else under this name: remove the tag",
        )
    try:
        return Index.parse(fetched.body, where).manifests
    except InputError as error:
        raise CheckedFalse(
            error.message, hint="remove the tag, or push the output again"
        ) from error


def without(unwanted: Collection[Digest]) -> IndexEdit:
    """Return the edit that takes the entries *unwanted* off a list."""
    return lambda present: tuple(item for item in present if item.digest not in unwanted)


def referrer_entry(body: bytes) -> tuple[Descriptor, Digest]:
    """Return how the manifest *body* is listed as a referrer, and the digest of its subject."""
    manifest = Manifest.parse(body, "the referrer to be stored")
    if manifest.subject is None:
        raise InputError("the manifest to be attached names no subject")
    said = {"annotations": manifest.annotations, "artifact_type": manifest.kind}
    return Descriptor.of(MediaType.MANIFEST, body, **said), manifest.subject.digest


_BUNDLES = "application/vnd.dev.sigstore.bundle"


@dataclass(frozen=True, slots=True)
class Referrer:
    """The one layer of a referrer, unverified, with the type it says it is of, and its *place*."""

    place: str
    artifact_type: str
    text: bytes


def is_bundle(artifact_type: str) -> bool:
    """Whether it is the type of a Sigstore bundle, of any version."""
    return artifact_type.startswith(_BUNDLES)


def read_referrer(
    store: ImageStore, item: Descriptor, subject: Digest, wanted: Callable[[str], bool]
) -> Referrer | None:
    """Read what is listed as *item* beside *subject*; None unless its own type is *wanted*.

    ``CouldNotCheck`` where it is not there, ``CheckedFalse`` where it is no manifest, points
    elsewhere, or does not have one layer of a readable size.
    """
    place = f"{store}@{item.digest}"
    manifest = read_manifest(store, item, subject)
    if not wanted(manifest.kind):
        return None
    check_subject(manifest, subject, place)
    if len(manifest.layers) != 1:
        raise CheckedFalse(f"{place} has {len(manifest.layers)} layers, and must have one")
    return Referrer(place, manifest.kind, read_blob(store, manifest.layers[0], place))


def read_manifest(store: ImageStore, item: Descriptor, subject: Digest) -> Manifest:
    """Return the manifest that is listed as *item* beside *subject*, whatever it points at."""
    place = f"{store}@{item.digest}"
    fetched = store.get_manifest(item.digest)
    if fetched is None:
        raise CouldNotCheck(f"{place} is listed as a referrer of {subject}, but is not there")
    return fetched.manifest(place)


def check_subject(manifest: Manifest, subject: Digest, place: str) -> None:
    """Raise ``CheckedFalse`` unless *manifest*, which is at *place*, points at *subject*."""
    if manifest.subject is None or manifest.subject.digest != subject:
        named = "nothing" if manifest.subject is None else str(manifest.subject.digest)
        raise CheckedFalse(f"{place} is listed as a referrer of {subject}, but points at {named}")


def put_bytes(store: ImageStore, media_type: str, data: bytes) -> Descriptor:
    """Have *data* in *store* as a blob, sent only where it is not there; return its descriptor."""
    blob = Descriptor.of(media_type, data)
    if not store.has_blob(blob.digest):
        store.take_blob(blob, lambda held: iter((data[held.size :],)))
    return blob


def read_blob(store: ImageStore, blob: Descriptor, place: str) -> bytes:
    """Return the bytes of *blob*, which is at *place*, if they are no more than a bundle may be."""
    # Most who use a registry come to no bundle, and what reads one takes a while to load.
    from nix_seed.formats.intoto.bundle import LARGEST_BUNDLE

    if blob.size > LARGEST_BUNDLE:
        raise CheckedFalse(f"{place} has {blob.size} bytes; {LARGEST_BUNDLE} are the most read")
    return b"".join(store.open_blob(blob))
