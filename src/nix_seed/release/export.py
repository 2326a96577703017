"""Collect, in one image layout, all that verifying an image offline needs.

Manifests, configurations and everything that refers to them or to their commits; with *deep* also
the layers. Of an index that is the whole release with its evidence; of one image what is about its
system, and the one proof that it belongs to the release. The policy is the verifier's own and is
not part of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import LARGEST_BUNDLE, Unverified
from nix_seed.formats.intoto.statement import PROMOTION_TYPE, BuildPredicate, Commit
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import REF_NAME, Layout
from nix_seed.registry.open import AnyReference, Stores, fetch
from nix_seed.registry.store import Fetched, ImageStore
from nix_seed.release.records import EVIDENCE_TYPE, MEMBER_TYPE

EXPORT_TAG = "exported"


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies in the layout now: *manifests* with their blobs, *size* in bytes in all."""

    reference: str
    digest: Digest
    manifests: int
    blobs: int
    size: int


def exported(reference: AnyReference, directory: Path) -> LayoutReference:
    """Return where the exported copy of *reference* lies: by its digest, if it has one.

    ``InputError`` where *directory* holds the export of another one: what a tag named cannot be
    told there from anything but what was asked for when it was exported.
    """
    if reference.digest is not None:
        return LayoutReference(str(directory), digest=reference.digest)
    found = Layout.open(directory).listing().named.get(EXPORT_TAG)
    held = None if found is None else found.annotations.get(oci.ANNOTATION_EXPORTED)
    if held is None:
        raise InputError(
            f"{directory} is no export", hint=f"make one: nix-seed export {reference} {directory}"
        )
    if held != str(reference):
        raise InputError(
            f"{directory} holds the export of {held}, not of {reference}",
            hint=f"name that, or export the other: nix-seed export {reference} {directory}",
        )
    return LayoutReference(str(directory), tag=EXPORT_TAG)


def export(
    stores: Stores, reference: AnyReference, directory: Path, *, deep: bool = False
) -> Exported:
    """Copy what *reference* names, and its evidence, into the layout at *directory*."""
    source = stores.open(reference)
    root = fetch(source, reference)
    target = stores.open(LayoutReference(str(directory)), create=True)
    copy = _Copy(source, target, deep)
    tell(Stage("export", f"exporting {reference}"))
    images = list(copy.image(root))
    said = {REF_NAME: EXPORT_TAG, oci.ANNOTATION_EXPORTED: str(reference)}
    Layout.open(directory).add_document(replace(root.descriptor, annotations=said), root.body)
    system = _system_of(root)
    copy.only = system
    commits = {said.source.commit for image in images for said in copy.referrers(image)}
    for commit in sorted(commits):
        # What others built from it: their dissents lie there, and their images' specs say where.
        for image in sorted(copy.images_of(commit)):
            copy.spec_of(image)
    for record in sorted(copy.records):
        copy.documents(
            record, MEMBER_TYPE, {} if system is None else {oci.ANNOTATION_SYSTEM: system}
        )
        if system is None:
            copy.documents(record, EVIDENCE_TYPE, {})
    return Exported(
        str(exported(reference, directory)),
        root.descriptor.digest,
        copy.manifests,
        copy.blobs,
        copy.size,
    )


class _Copy:
    """Copies from one store to another, and counts."""

    def __init__(self, source: ImageStore, target: ImageStore, deep: bool) -> None:
        self._source = source
        self._target = target
        self._deep = deep
        self.only: str | None = None
        self.records: set[Digest] = set()
        self.manifests = self.blobs = self.size = 0

    def image(self, root: Fetched) -> Iterator[Digest]:
        """Copy the manifest, or the index with its images; yield each image's digest."""
        if root.descriptor.media_type == oci.MediaType.INDEX:
            for child in root.index(str(root.descriptor.digest)).manifests:
                found = self._source.get_manifest(child.digest)
                if found is None:
                    raise CheckedFalse(f"the index names {child.digest}, which is missing")
                yield from self.image(Fetched(child, found.body))
            self._put(root)
            return
        manifest = root.manifest(str(root.descriptor.digest))
        self._blob(manifest.config)
        # The last layer holds the spec, by which a dissent can be traced to its store paths.
        for layer in manifest.layers if self._deep else manifest.layers[-1:]:
            self._blob(layer)
        self._put(root)
        yield root.descriptor.digest

    def images_of(self, commit: Commit) -> set[Digest]:
        """Copy everything that refers to *commit*; return the images that claims name."""
        return {said.image_digest for said in self.referrers(commit.key)}

    def spec_of(self, image: Digest) -> None:
        """Copy an image but for its large layers, if it is at hand."""
        found = self._source.get_manifest(image)
        if found is not None and self._target.get_manifest(image) is None:
            _ = list(self.image(found))

    def referrers(self, subject: Digest) -> Iterator[BuildPredicate]:
        """Copy what refers to *subject*, but for other systems than ``only``; yield its claims.

        What is yielded is unverified: it only tells what else to fetch.
        """
        for found, manifest in self._listed(subject):
            small = [layer for layer in manifest.layers if layer.size <= LARGEST_BUNDLE]
            texts = [b"".join(self._source.open_blob(layer)) for layer in small]
            said = [each for text in texts if (each := Unverified.read(text))]
            claims = [build for each in said if (build := each.build)]
            if claims and self.only is not None and all(c.system != self.only for c in claims):
                continue
            self.records |= {e.payload for e in said if e.predicate_type == PROMOTION_TYPE}
            self._referrer(found, manifest)
            yield from claims

    def documents(self, subject: Digest, kind: str, annotations: Mapping[str, str]) -> None:
        """Copy the documents of type *kind* beside *subject* that have all of *annotations*."""
        for found, manifest in self._listed(subject, kind):
            if annotations.items() <= manifest.annotations.items():
                self._referrer(found, manifest)

    def _listed(
        self, subject: Digest, kind: str | None = None
    ) -> Iterator[tuple[Fetched, oci.Manifest]]:
        """Yield the manifests listed beside *subject*, and pass over what is not there."""
        for item in self._source.referrers(subject, kind):
            found = self._source.get_manifest(item.digest)
            if found is not None and found.descriptor.media_type == oci.MediaType.MANIFEST:
                yield found, found.manifest(f"referrer {item.digest}")

    def _referrer(self, found: Fetched, manifest: oci.Manifest) -> None:
        for blob in (manifest.config, *manifest.layers):
            if blob.size <= LARGEST_BUNDLE:
                self._blob(blob)
        self._target.attach(found.body)
        self.manifests += 1
        self.size += len(found.body)

    def _put(self, fetched: Fetched) -> None:
        self._target.put_manifest(
            fetched.body, fetched.descriptor.media_type, fetched.descriptor.digest
        )
        self.manifests += 1
        self.size += len(fetched.body)

    def _blob(self, blob: oci.Descriptor) -> None:
        if not self._target.has_blob(blob.digest):
            self._target.take_blob(blob, lambda held: self._source.open_blob(blob, held))
            self.blobs += 1
            self.size += blob.size


def _system_of(root: Fetched) -> str | None:
    """Return for which system an image says to be; None for an index, which is for several."""
    if root.descriptor.media_type == oci.MediaType.INDEX:
        return None
    found = root.manifest(str(root.descriptor.digest)).annotations
    return found.get(oci.ANNOTATION_SYSTEM)
