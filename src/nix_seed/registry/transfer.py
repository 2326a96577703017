"""Moves an image, or an index with all its images, from one store to another.

Only what lacks is moved, several blobs at once. The order keeps promises: blobs, then the manifests
that name them, then the indexes that name those, and tags last; whoever follows a tag finds
everything, whenever the work is interrupted.

Pulls an image, or one system's image of an index, into a layout on disk; all of it verified.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.events import Stage, listener, listening, tell
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import DOCKERS, Descriptor, MediaType
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.registry.layout import Image, Layout, open_image
from nix_seed.registry.open import JOBS, AnyReference, Stores, choose_system, fetch
from nix_seed.registry.store import Fetched, Held, ImageStore

_MOST_IMAGES = 200

How = Literal["moved", "linked", "present"]


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """*done* of a blob's bytes have passed."""

    blob: Descriptor
    done: int


@dataclass(frozen=True, slots=True)
class BlobDone:
    """The target has the blob: its bytes were moved, it was linked, or it was there already."""

    blob: Descriptor
    how: How


@dataclass(frozen=True, slots=True)
class TagMoved:
    """The target's *tag* names *digest* now."""

    tag: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Transferred:
    """What was moved: the root, the tags it got, and each blob with how it came there."""

    root: Descriptor
    images: tuple[Descriptor, ...]
    tags: tuple[str, ...]
    blobs: tuple[tuple[Descriptor, How], ...]

    def size(self, how: How) -> int:
        """Return the bytes of the blobs that came there in this way."""
        return sum(blob.size for blob, way in self.blobs if way == how)


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything below a root: manifests, each before what names it, and the blobs they name."""

    documents: tuple[Fetched, ...]
    blobs: tuple[Descriptor, ...]


def collect(store: ImageStore, root: Fetched) -> Collected:
    """Read every manifest below *root*, verified; ``CheckedFalse`` for one that is missing."""
    documents: dict[Digest, Fetched] = {}
    blobs: dict[Digest, Descriptor] = {}
    _walk(store, root, documents, blobs, depth=0)
    return Collected(tuple(documents.values()), tuple(blobs.values()))


def transfer(
    source: ImageStore,
    root: Fetched,
    target: ImageStore,
    tags: Sequence[str] = (),
    *,
    jobs: int = JOBS,
) -> Transferred:
    """Make *target* hold *root* and all below it, under each of *tags*, the last step.

    Memory is bounded by some 1 MiB a job. Events come from several threads, one at a time.
    """
    found = collect(source, root)
    blobs = _Blobs(source, target).move(found.blobs, jobs)
    for document in found.documents:
        if document is not root or not tags:
            target.put_manifest(document.body, _type(document), document.descriptor.digest)
    for tag in tags:
        target.put_manifest(root.body, _type(root), tag)
        tell(TagMoved(tag, root.descriptor.digest))
    images = tuple(each.descriptor for each in found.documents if _type(each) == MediaType.MANIFEST)
    return Transferred(root.descriptor, images, tuple(tags), blobs)


def _type(document: Fetched) -> str:
    return document.descriptor.media_type


def _walk(
    store: ImageStore,
    here: Fetched,
    documents: dict[Digest, Fetched],
    blobs: dict[Digest, Descriptor],
    depth: int,
) -> None:
    label = f"{store}@{here.descriptor.digest}"
    if here.descriptor.digest in documents:
        return
    if len(documents) >= _MOST_IMAGES or depth > 4:
        raise CheckedFalse(f"{label}: an index of more images than {_MOST_IMAGES}, or too deep")
    kind = DOCKERS.get(_type(here), _type(here))
    if kind == MediaType.MANIFEST:
        manifest = here.manifest(label)
        blobs |= {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
    elif kind == MediaType.INDEX:
        for child in here.index(label).manifests:
            found = store.get_manifest(child.digest)
            if found is None:
                raise CheckedFalse(
                    f"{label} names the image {child.digest}, which {store} does not have",
                    hint="the index is incomplete: publish it again",
                )
            if found.descriptor.size != child.size:
                raise CheckedFalse(f"{label} gives {child.digest} another size than it has")
            _walk(store, found, documents, blobs, depth + 1)
    else:
        raise InputError(f"{label} is {_type(here)}, neither an image nor an index")
    documents[here.descriptor.digest] = here


class _Stopped(CouldNotCheck):
    """Another blob failed first."""


class _Blobs:
    """Moves blobs in threads; the first failure stops the others within a chunk."""

    def __init__(self, source: ImageStore, target: ImageStore) -> None:
        self._source = source
        self._target = target
        self._listener = listener()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def move(self, blobs: Sequence[Descriptor], jobs: int) -> tuple[tuple[Descriptor, How], ...]:
        # The largest first: a long transfer begun last would be waited for alone.
        order = sorted(blobs, key=lambda blob: (-blob.size, blob.digest))
        with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="blob") as pool:
            futures = {blob.digest: pool.submit(self._one, blob) for blob in order}
            try:
                wait(futures.values(), return_when=FIRST_EXCEPTION)
            finally:
                if not all(future.done() for future in futures.values()):
                    self._stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
        errors = [future.exception() for future in list(futures.values()) if not future.cancelled()]
        for error in sorted(
            (error for error in errors if error is not None), key=lambda e: isinstance(e, _Stopped)
        ):
            raise error
        return tuple((blob, futures[blob.digest].result()) for blob in blobs)

    def _one(self, blob: Descriptor) -> How:
        how: How = "present"
        with listening(self._tell):
            if not self._target.has_blob(blob.digest):
                moved = self._target.take_blob(blob, self._watched(blob))
                how = "moved" if moved else "linked"
            tell(BlobDone(blob, how))
        return how

    def _watched(self, blob: Descriptor) -> Callable[[Held], Iterator[bytes]]:
        def chunks(held: Held) -> Iterator[bytes]:
            done = held.size
            for chunk in self._source.open_blob(blob, held):
                if self._stop.is_set():
                    raise _Stopped(f"blob {blob.digest} was left because another failed")
                yield chunk
                done += len(chunk)
                tell(BlobProgress(blob, done))

        return chunks

    def _tell(self, event: object) -> None:
        with self._lock:
            self._listener(event)


def pull(
    stores: Stores, source: AnyReference, target: LayoutReference, *, system: str | None = None
) -> Transferred:
    """Make the layout *target* hold what *source* names, under the target's tag or the source's.

    Of an index, *system* (``x86_64-linux``) takes that one image; without it all are taken.
    """
    origin = stores.open(source)
    root = fetch(origin, source)
    if system is not None:
        root = choose_system(origin, root, system)
    if target.digest not in (None, root.descriptor.digest):
        raise InputError(f"{source} is {root.descriptor.digest}, not the {target.digest} wanted")
    tag = target.tag or source.tag or root.descriptor.digest.hex[:12]
    tell(Stage("pull", f"pulling {source} to {target}"))
    here = stores.open(target, create=True)
    return transfer(origin, root, here, [tag], jobs=stores.jobs)


def open_here(stores: Stores, reference: AnyReference, kept: Path, system: str) -> Image:
    """Open the image that *reference* names, of an index *system*'s, with all of it on this disk.

    What is in a registry is pulled into the layout *kept* first, verified; a digest that lies there
    already is opened without asking anyone.
    """
    if isinstance(reference, Reference) and reference.digest is not None and kept.is_dir():
        held = Layout.open(kept).index().manifests
        image = next((each for each in held if each.digest == reference.digest), None)
        if image is not None and image.media_type != MediaType.INDEX:
            return open_image(LayoutReference(str(kept), digest=image.digest))
    store = stores.open(reference)
    digest = choose_system(store, fetch(store, reference), system).descriptor.digest
    if isinstance(reference, LayoutReference):
        return open_image(reference.at(digest))
    target = LayoutReference(str(kept), tag=digest.hex[:40])
    pull(stores, reference.at(digest), target)
    return open_image(target)
