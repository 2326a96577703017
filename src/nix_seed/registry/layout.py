"""An OCI image layout on disk (image-spec, image-layout.md): several images, named by tags.

Blobs come first and ``index.json`` last, by rename, so that a reader sees an image whole or not at
all. A lock on the directory keeps writers apart. Whatever is read is checked against its digest.

One image of an OCI image layout on disk, ready to be used (image-layout.md, config.md).

Manifest and config are verified against their digests when the image is opened; layers when they
are read.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final, Self

from nix_seed.core import canonical_json
from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, of_store
from nix_seed.core.files import explained, open_regular, place, read_regular, write_atomically
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.store import Fetched, IndexEdit, index_members

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation that gives an image of a layout its tag."""

LAYOUT_FILE: Final = canonical_json.dumps({"imageLayoutVersion": "1.0.0"})
"""What the file ``oci-layout`` holds."""

_LARGEST_DOCUMENT: Final = 16 << 20
_CHUNK: Final = 1 << 20
_TICK: Final = 100_000_000  # nanoseconds
_WRITERS: Final = 16


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """An image ready to be stored: its documents, and where its layers' blobs lie.

    ``annotations`` go on the descriptor that names the image, not into it.
    """

    manifest: oci.Manifest
    config: bytes
    blobs: Mapping[Digest, Path]
    platform: oci.Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def descriptor(self, name: str | None = None) -> oci.Descriptor:
        """Describe the manifest, for an index, under the tag *name*."""
        named = {} if name is None else {REF_NAME: name}
        return oci.Descriptor.of(
            oci.MediaType.MANIFEST,
            self.manifest.dump(),
            annotations=dict(self.annotations) | named,
            platform=self.platform,
        )

    def layers(self) -> Iterator[tuple[oci.Descriptor, Path]]:
        """Yield each distinct layer with its blob's path, lowest first."""
        seen: set[Digest] = set()
        for layer in self.manifest.layers:
            if layer.digest not in seen:
                seen.add(layer.digest)
                yield layer, self.blobs[layer.digest]


@dataclass(frozen=True, slots=True)
class Listing:
    """``index.json``, read: what each tag or digest names first, and what has no tag."""

    index: oci.Index
    named: Mapping[str | Digest, oci.Descriptor]
    untagged: tuple[oci.Descriptor, ...]

    @classmethod
    def of(cls, index: oci.Index) -> Self:
        """Sort what *index* names."""
        named: dict[str | Digest, oci.Descriptor] = {}
        for item in index.manifests:
            named.setdefault(item.digest, item)
            if REF_NAME in item.annotations:
                named.setdefault(item.annotations[REF_NAME], item)
        untagged = tuple(item for item in index.manifests if REF_NAME not in item.annotations)
        return cls(index, named, untagged)


class Layout:
    """The layout in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._read_before: tuple[tuple[int, int, int], Listing] | None = None

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a layout that is there; ``InputError`` if it is none."""
        layout = cls(directory)
        layout._check_version()
        return layout

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Open the layout in *directory*, or make one if that is absent or empty.

        ``InputError`` for a file, or a directory that holds something else.
        """
        if directory.exists() and not directory.is_dir():
            raise InputError(f"{directory} is a file; an image layout is a directory")
        layout = cls(directory)
        with explained(f"making the image layout {directory}"):
            directory.mkdir(parents=True, exist_ok=True)
        with layout._locked():
            if not (directory / "oci-layout").exists():
                if any(not _ours(path) for path in directory.iterdir()):
                    raise InputError(
                        f"{directory} is not empty and not an OCI image layout",
                        hint="name another directory, or empty this one",
                    )
                write_atomically(directory / "oci-layout", LAYOUT_FILE)
            layout._check_version()
        return layout

    @classmethod
    def is_to_be_made(cls, directory: Path) -> bool:
        """Whether there is nothing in *directory* yet, so that ``create`` would make a layout."""
        if not directory.exists():
            return True
        with explained(f"reading {directory}"):
            return directory.is_dir() and all(_ours(path) for path in directory.iterdir())

    def blob_path(self, digest: Digest) -> Path:
        """Where the layout keeps the blob *digest*."""
        return self.directory / "blobs" / "sha256" / digest.hex

    def index(self) -> oci.Index:
        """Read ``index.json``: empty, if no image was added yet."""
        return self.listing().index

    def listing(self) -> Listing:
        """Read ``index.json``, if it is another file than the last time.

        A ledger has a tag in it for each of its thousands of lists.
        """
        path = self.directory / "index.json"
        if not path.exists():
            return Listing.of(oci.Index(()))
        with explained(f"reading {path}"):
            found = path.stat()
        file = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._read_before
        if known is None or known[0] != file:
            index = oci.Index.parse(read_regular(path, _LARGEST_DOCUMENT), str(path))
            known = (file, Listing.of(index))
            # A file may change twice within a tick of the clock: only one that is older is known.
            settled = time.time_ns() - found.st_mtime_ns > _TICK
            self._read_before = known if settled else None
        return known[1]

    def add(self, image: ImageFiles, name: str | None = None) -> oci.Descriptor:
        """Store *image*, under the tag *name* if given, which then names no other image.

        Blobs are linked where possible. Nothing shows until all is there.
        """
        described = image.descriptor(name)
        with self._locked():
            self._sweep()
            for layer, source in image.layers():
                self._place(layer, source)
            self._put(image.manifest.config, image.config)
            self._put(described, image.manifest.dump())
            self._list(described)
        return described

    def add_document(self, described: oci.Descriptor, text: bytes) -> None:
        """Store a manifest or index whose blobs are all there; list it if it has a tag.

        Its tag then names no other.
        """
        self.add_documents(((described, text),))

    def add_documents(self, documents: Collection[tuple[oci.Descriptor, bytes]]) -> None:
        """Store many as ``add_document`` does, in one change of ``index.json``."""
        with self._locked():
            self._sweep()
            self._put_all(documents)

    def edit_indexes(self, edits: Mapping[str, IndexEdit]) -> frozenset[str]:
        """Make each edit of the index at its tag; return the tags where it changed something."""
        changed = {}
        with self._locked():
            self._sweep()
            named = self.listing().named
            for tag, edit in edits.items():
                found = named.get(tag)
                fetched = None if found is None else Fetched(found, self.read_blob(found))
                before = index_members(fetched, f"oci:{self.directory}:{tag}")
                after = edit(before)
                if after != before:
                    changed[tag] = _index_at(tag, after)
            self._put_all(changed.values())
        return frozenset(changed)

    def add_referrer(self, described: oci.Descriptor, text: bytes, subject: Digest) -> None:
        """Store a manifest that points at *subject*; list it at the subject's fallback tag."""
        with self._locked():
            self._sweep()
            self._put(described, text)
            others = (item for item in self.referrers(subject) if item.digest != described.digest)
            merged = sorted((*others, described), key=lambda item: item.digest)
            self._put_all([_index_at(oci.fallback_tag(subject), merged)])

    def referrers(self, subject: Digest) -> tuple[oci.Descriptor, ...]:
        """Return what the subject's fallback tag lists, unjudged."""
        tag = oci.fallback_tag(subject)
        found = self.listing().named.get(tag)
        if found is None:
            return ()
        with of_store():
            return oci.Index.parse(self.read_blob(found), f"{self.directory}:{tag}").manifests

    def read_blob(self, descriptor: oci.Descriptor) -> bytes:
        """Return a document's bytes, checked; ``CheckedFalse`` if they are not its digest's."""
        path = self.blob_path(descriptor.digest)
        if descriptor.size > _LARGEST_DOCUMENT:
            raise CheckedFalse(f"{path} is said to have {descriptor.size} bytes: no document has")
        text = read_regular(path, _LARGEST_DOCUMENT)
        if len(text) != descriptor.size or Digest.of(text) != descriptor.digest:
            raise CheckedFalse(
                f"{path} does not have the digest or the size it is listed with",
                hint="the layout is damaged: write the image anew",
            )
        return text

    def _check_version(self) -> None:
        path = self.directory / "oci-layout"
        if not path.is_file():
            made = "name a directory that `nix-seed build -o DIR` made"
            if self.directory.is_file():
                archive = f"an archive becomes one: mkdir DIR && tar -xf {self.directory} -C DIR"
                raise InputError(
                    f"{self.directory} is a file; an image layout is a directory",
                    hint=f"{made}; {archive}",
                )
            if not os.path.lexists(self.directory):
                raise InputError(f"there is no image layout {self.directory}", hint=made)
            raise InputError(
                f"{self.directory} is not an OCI image layout: it has no file oci-layout", hint=made
            )
        value = canonical_json.loads(read_regular(path, _LARGEST_DOCUMENT), label=str(path))
        version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
        if version != "1.0.0":
            raise InputError(f"{path}: imageLayoutVersion is {version!r}, and only 1.0.0 is known")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        check_folders(self.directory)
        # The directory itself, for a file in it could be replaced while another waits for its lock.
        with explained(f"writing to the image layout {self.directory}"):
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def _sweep(self) -> None:
        """Remove what a writer that was killed left behind; we hold the lock, so none is alive."""
        for directory in (self.directory, self.directory / "blobs" / "sha256"):
            for path in directory.glob(".*.tmp"):
                with suppress(FileNotFoundError):
                    path.unlink()

    def _place(self, descriptor: oci.Descriptor, source: Path) -> None:
        target = self.blob_path(descriptor.digest)
        if target.exists():
            if target.samefile(source) or is_blob(target, descriptor):
                return
            target.unlink()
        place(source, target)

    def _put(self, descriptor: oci.Descriptor, text: bytes) -> None:
        if Digest.of(text) != descriptor.digest or len(text) != descriptor.size:
            raise InputError(f"the document for {descriptor.digest} has another digest or size")
        write_atomically(self.blob_path(descriptor.digest), text)

    def _put_all(self, documents: Collection[tuple[oci.Descriptor, bytes]]) -> None:
        # What takes time is the disk's answer to each ``fsync``.
        in_parallel(lambda pair: self._put(*pair), documents, _WRITERS)
        tagged = [described for described, _ in documents if REF_NAME in described.annotations]
        if tagged:
            self._list(*tagged)

    def _list(self, *described: oci.Descriptor) -> None:
        self._read_before = None
        index = self.index()
        names = {each.annotations.get(REF_NAME) for each in described} - {None}
        untagged = [each for each in described if REF_NAME not in each.annotations]
        others = tuple(
            found
            for found in index.manifests
            if found.annotations.get(REF_NAME) not in names and found not in untagged
        )
        listed = sorted(
            (*others, *described),
            key=lambda each: (each.annotations.get(REF_NAME) or str(each.digest), each.digest),
        )
        text = replace(index, manifests=tuple(listed)).dump()
        write_atomically(self.directory / "index.json", text)


def check_folders(directory: Path) -> None:
    """Raise ``CouldNotCheck`` where a layout's own folder is a link: it may lead anywhere."""
    for folder in (directory / "blobs", directory / "blobs" / "sha256"):
        if folder.is_symlink():
            raise CouldNotCheck(
                f"{folder} is a link, and nothing is written to where it leads",
                hint="someone put it there: look at it, and remove it",
            )


def _index_at(tag: str, members: Iterable[oci.Descriptor]) -> tuple[oci.Descriptor, bytes]:
    """Return the index of *members* that *tag* is to name, described and in bytes."""
    body = oci.Index(tuple(members)).dump()
    return oci.Descriptor.of(oci.MediaType.INDEX, body, annotations={REF_NAME: tag}), body


def _ours(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def is_blob(path: Path, descriptor: oci.Descriptor) -> bool:
    """Whether the file at *path* has the digest and size of *descriptor*."""
    sha256, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size != descriptor.size:
            return False
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return size == descriptor.size and sha256.hexdigest() == descriptor.digest.hex


@dataclass(frozen=True, slots=True)
class Image:
    """An image manifest with its config, in *layout*.

    *layers* pairs each layer's descriptor with its diffID, lowest first. *environment*, *user* and
    *working_dir* are the config's ``Env``, ``User`` and ``WorkingDir``.
    """

    name: str
    layout: Layout
    digest: Digest
    manifest: oci.Manifest
    config: Mapping[str, Any]
    layers: tuple[tuple[oci.Descriptor, DiffID], ...]

    @property
    def directory(self) -> Path:
        """Where the layout is."""
        return self.layout.directory

    def blob_path(self, digest: Digest) -> Path:
        """Where the layout keeps the blob *digest*."""
        return self.layout.blob_path(digest)

    @property
    def architecture(self) -> str:
        """The config's ``architecture``: ``amd64``, ``arm64``."""
        return str(self.config.get("architecture", ""))

    @property
    def environment(self) -> dict[str, str]:
        """The config's ``Env`` as a mapping."""
        entries = (self.config.get("config") or {}).get("Env") or []
        return dict(str(entry).partition("=")[::2] for entry in entries)


def open_image(reference: LayoutReference) -> Image:
    """Open the image *reference* names; an index of one image is that image.

    Raises ``InputError`` where the layout or the name is wrong, ``CouldNotCheck`` where a blob is
    missing and ``CheckedFalse`` where one does not have its digest.
    """
    layout = Layout.open(Path(reference.directory))
    descriptor = _choose(layout, layout.index(), reference)
    if descriptor.media_type == oci.MediaType.INDEX:
        inner = oci.Index.parse(layout.read_blob(descriptor), str(reference))
        descriptor = _choose(layout, inner, LayoutReference(reference.directory))
    if descriptor.media_type != oci.MediaType.MANIFEST:
        raise InputError(f"{reference} is a {descriptor.media_type}, not an image")
    manifest = oci.Manifest.parse(layout.read_blob(descriptor), str(reference))
    if manifest.config.media_type != oci.MediaType.CONFIG:
        raise InputError(f"{reference} is an artifact, not an image to run")
    text = layout.read_blob(manifest.config)
    config = canonical_json.loads(text, label=f"{reference}, config")
    layers = pair_layers(manifest, config, str(reference))
    return Image(str(reference), layout, descriptor.digest, manifest, config, layers)


def _choose(layout: Layout, index: oci.Index, reference: LayoutReference) -> oci.Descriptor:
    images = [
        each for each in index.manifests if not oci.lists_referrers(each.annotations.get(REF_NAME))
    ]
    found = images
    if reference.digest is not None:
        found = [each for each in found if each.digest == reference.digest]
        blob = layout.blob_path(reference.digest)
        if not found and blob.is_file():
            return oci.Descriptor(oci.MediaType.MANIFEST, reference.digest, blob.stat().st_size)
    if reference.tag is not None:
        found = [each for each in found if each.annotations.get(REF_NAME) == reference.tag]
    # Several tags may name one image.
    if len({each.digest for each in found}) == 1:
        return found[0]
    names = ", ".join(each.annotations.get(REF_NAME, str(each.digest)) for each in images)
    raise InputError(
        f"{reference} names {len(found) or 'no'} images",
        hint=f"The layout holds: {names or 'nothing'}. Write oci:DIR:TAG or oci:DIR@sha256:….",
    )


def pair_layers(
    manifest: oci.Manifest, config: Any, label: str
) -> tuple[tuple[oci.Descriptor, DiffID], ...]:
    """Return each layer of *manifest* with its diffID, as *config* says, lowest first."""
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
        raise CheckedFalse(f"{label}: the config does not give one diffID for each layer")
    return tuple(
        (layer, DiffID.parse(str(diff_id)))
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
