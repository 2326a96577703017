"""An image layout as a store of images: what a registry's repository is, on disk.

A blob on its way lies beside the finished ones as ``.<hex>.partial``, locked by who writes it, and
the next try goes on from it. It gets its name only once its digest is proved.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError, of_store
from nix_seed.core.files import explained, open_regular, unnamed
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType, lists_referrers
from nix_seed.registry import store
from nix_seed.registry.layout import REF_NAME, Layout, check_folders
from nix_seed.registry.rules.http import document_type

_CHUNK = 1 << 18
_LARGEST_MANIFEST = 4 << 20


class LayoutStore:
    """The layout in a directory; satisfies ``ImageStore``. Safe for threads and processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __str__(self) -> str:
        return f"oci:{self._layout.directory}"

    def only_image(self) -> Descriptor:
        """Return the one image the layout holds; ``InputError`` for none or several."""
        found = {
            item.digest: item
            for item in self._layout.index().manifests
            if not lists_referrers(item.annotations.get(REF_NAME))
        }
        if len(found) == 1:
            return next(iter(found.values()))
        shown = [tag for tag in self.list_tags() if not lists_referrers(tag)]
        tags = ", ".join(shown) or "no tags"
        raise InputError(
            f"{self} holds {len(found) or 'no'} images; say which",
            hint=f"write {self}:TAG or {self}@sha256:…; it has {tags}",
        )

    def head_manifest(self, name: str | Digest) -> Descriptor | None:
        """Return the descriptor of the manifest with this tag or digest, None if there is none."""
        fetched = self.get_manifest(name)
        return None if fetched is None else fetched.descriptor

    def get_manifest(
        self,
        name: str | Digest,
        *,
        writing: bool = False,  # noqa: ARG002
    ) -> store.Fetched | None:
        """Return the manifest with this tag or digest, verified; None if there is none.

        Annotations that the index keeps for it are on the descriptor.
        """
        listed = self._layout.listing().named.get(name)
        if listed is not None:
            return store.Fetched(listed, self._layout.read_blob(listed))
        if not isinstance(name, Digest):
            return None
        path = self._layout.blob_path(name)
        if not path.exists():
            return None
        with explained(f"reading {path}"):
            size = path.stat().st_size
        if size > _LARGEST_MANIFEST:
            raise CheckedFalse(f"{self}@{name} is larger than 4 MiB, which no manifest may be")
        body = self._layout.read_blob(Descriptor("", name, size))
        with of_store():
            kind = document_type(None, body, f"{self}@{name}")
        return store.Fetched(Descriptor(kind, name, size), body)

    def put_manifest(
        self, body: bytes, media_type: str, name: str | Digest | None = None
    ) -> Descriptor:
        """Store a manifest; under a tag if *name* is one, which then names nothing else."""
        described = self._described(body, media_type, name)
        self._layout.add_document(described, body)
        return replace(described, annotations={})

    def put_manifests(self, documents: Sequence[store.NamedDocument], jobs: int = 1) -> None:  # noqa: ARG002
        """Store many, in one change of the layout's index."""
        self._layout.add_documents([(self._described(*each), each[0]) for each in documents])

    def _described(self, body: bytes, media_type: str, name: str | Digest | None) -> Descriptor:
        digest = Digest.of(body)
        if isinstance(name, Digest) and name != digest:
            raise InputError(f"{self}: this manifest is {digest}, not {name}")
        annotations = {REF_NAME: name} if isinstance(name, str) else {}
        return Descriptor(media_type, digest, len(body), annotations=annotations)

    def edit_indexes(self, edits: Mapping[str, store.IndexEdit], jobs: int = 1) -> frozenset[str]:  # noqa: ARG002
        """Make all the edits in one change of the layout, or none of them."""
        return self._layout.edit_indexes(edits)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there and whole; a damaged one is removed, so that it comes anew."""
        path = self._layout.blob_path(digest)
        if not path.is_file():
            return False
        with explained(f"reading {path}"), open_regular(path) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == digest.hex:
                return True
            path.unlink(missing_ok=True)
        return False

    def open_blob(self, blob: Descriptor, held: store.Held | None = None) -> Iterator[bytes]:
        """Yield the blob after what is *held*; ``CheckedFalse`` at its end for other bytes."""
        held = held or store.Held()
        path = self._layout.blob_path(blob.digest)
        state, size = held.state.copy(), held.size
        with explained(f"reading {path}"), open_regular(path) as file:
            file.seek(held.size)
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                state.update(chunk)
                yield chunk
        if size != blob.size or state.hexdigest() != blob.digest.hex:
            raise CheckedFalse(
                f"{path} does not have the digest or the size it is listed with",
                hint="the layout is damaged: build or pull the image again",
            )

    def gives_ranges(self, blob: Descriptor) -> bool:  # noqa: ARG002
        """Whether a part of a blob can be had without all of it: on a disk, always."""
        return True

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob; the caller must have a proof of its own."""
        path = self._layout.blob_path(blob.digest)
        with explained(f"reading {path}"), open_regular(path) as file:
            data = os.pread(file.fileno(), length, start)
        if len(data) != length:
            raise CheckedFalse(f"{path} is shorter than the {blob.size} bytes it is listed with")
        return data

    def take_blob(self, blob: Descriptor, source: store.BlobSource) -> bool:
        """Store a blob from elsewhere, going on where an earlier try was interrupted.

        False if another process was faster.
        """
        target = self._layout.blob_path(blob.digest)
        with _partial(target) as file:
            if file is None:
                return False
            try:
                _receive(file, blob, source)
            except CheckedFalse:
                _partial_name(target).unlink()
                raise
            file.flush()
            os.fsync(file.fileno())
            os.rename(_partial_name(target), target)
            return True

    def push_stream(self, source: Callable[[], Iterable[bytes]], media_type: str) -> Descriptor:
        """Store a stream of unknown length and return what it proved to be."""
        state, size = hashlib.sha256(), 0
        check_folders(self._layout.directory)
        # Not beside the blobs: whoever writes a document sweeps unfinished files from there.
        with unnamed(self._layout.directory / "blobs", f"writing to {self}") as file:
            for chunk in source():
                file.write(chunk)
                state.update(chunk)
                size += len(chunk)
            found = Descriptor(media_type, Digest(state.hexdigest()), size)
            target = self._layout.blob_path(found.digest)
            target.parent.mkdir(exist_ok=True)
            file.keep(target)
        return found

    def remove_blob(self, digest: Digest) -> int:
        """Remove a blob or document that nothing names any more; return the bytes it had."""
        path = self._layout.blob_path(digest)
        check_folders(self._layout.directory)
        with explained(f"removing {path}"):
            size = path.stat().st_size if path.is_file() else 0
            path.unlink(missing_ok=True)
        return size

    def list_tags(self) -> tuple[str, ...]:
        """Return every tag, sorted."""
        tags = (item.annotations.get(REF_NAME) for item in self._layout.index().manifests)
        return tuple(sorted(tag for tag in tags if tag is not None))

    def tags_with(self, prefixes: Collection[str], jobs: int = 1) -> tuple[str, ...]:  # noqa: ARG002
        """Return the tags that begin with one of *prefixes*, sorted."""
        return tuple(tag for tag in self.list_tags() if tag.startswith(tuple(prefixes)))

    def attach(self, body: bytes) -> Descriptor:
        """Store a manifest that has a ``subject``, and list it among the subject's referrers."""
        entry, subject = store.referrer_entry(body)
        self._layout.add_referrer(entry, body, subject)
        return entry

    def detach(self, subject: Digest, gone: Collection[Digest]) -> None:
        """Take the manifests *gone* off the subject's lists: a copied layout may have two."""
        lists = oci.fallback_tag(subject), oci.own_tag(subject)
        self.edit_indexes(dict.fromkeys(lists, store.without(gone)))

    def check_attachable(self, subject: Digest) -> None:
        """Do nothing: a layout's list can always be written anew."""

    def referrers(
        self, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """Return what points at *subject*, sorted by digest.

        By its fallback tag, and, as other tools write it, from the layout's own index.
        """
        found = {item.digest: item for item in self._untagged(subject)}
        found |= {item.digest: item for item in self._layout.referrers(subject)}
        listed = [found[digest] for digest in sorted(found)]
        if artifact_type is None:
            return tuple(listed)
        # What the manifest itself says, if it is one, decides: lists are often wrong.
        kinds = ((item, self._manifest(item)) for item in listed)
        return tuple(
            item
            for item, own in kinds
            if (own.kind if own else item.artifact_type) == artifact_type
        )

    def _untagged(self, subject: Digest) -> Iterator[Descriptor]:
        for item in self._layout.listing().untagged:
            manifest = self._manifest(item)
            if manifest and manifest.subject and manifest.subject.digest == subject:
                yield replace(item, artifact_type=manifest.artifact_type)

    def _manifest(self, item: Descriptor) -> Manifest | None:
        """Read what is listed; None for what is no manifest, which must hide no other."""
        if item.media_type != MediaType.MANIFEST:
            return None
        try:
            return Manifest.parse(self._layout.read_blob(item), f"{self}@{item.digest}")
        except InputError:
            return None


@contextmanager
def _partial(target: Path) -> Iterator[BinaryIO | None]:
    """Open the blob's unfinished file, alone; None if another writer finished it meanwhile."""
    name = _partial_name(target)
    with explained(f"writing {target}"):
        check_folders(target.parents[2])
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(name) as file:
            if target.exists():
                name.unlink(missing_ok=True)
                yield None
            else:
                yield file


@contextmanager
def _locked(name: Path) -> Iterator[BinaryIO]:
    while True:
        with open_regular(name, os.O_RDWR | os.O_CREAT) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Who held the lock before may have renamed the file: it is no longer the one meant.
            if name.exists() and os.path.samestat(name.lstat(), os.fstat(file.fileno())):
                yield file
                return


def _partial_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _receive(file: BinaryIO, blob: Descriptor, source: store.BlobSource) -> None:
    """Fill *file*, from where it ends; it is emptied when what came proved wrong."""
    for held in (_hold(file, blob.size), store.Held()):
        try:
            for chunk in source(held):
                file.write(chunk)
        except CheckedFalse:
            # What an earlier try left may be what is wrong: once more, from nothing.
            file.seek(0)
            file.truncate()
            if held.size == 0:
                raise
        else:
            return


def _hold(file: BinaryIO, size: int) -> store.Held:
    state = hashlib.sha256()
    file.seek(0)
    there = 0
    while chunk := file.read(_CHUNK):
        state.update(chunk)
        there += len(chunk)
    if there > size:
        file.seek(0)
        file.truncate()
        return store.Held()
    return store.Held(there, state)
