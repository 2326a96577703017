"""One image of an OCI image layout on disk, ready to be used (image-layout.md, config.md).

Manifest and config are verified against their digests when the image is opened; layers when they
are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nix_seed.core import canonical_json
from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType, lists_referrers
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import REF_NAME, Layout


@dataclass(frozen=True, slots=True)
class Image:
    """An image manifest with its config, in *layout*.

    *layers* pairs each layer's descriptor with its diffID, lowest first. *environment*, *user* and
    *working_dir* are the config's ``Env``, ``User`` and ``WorkingDir``.
    """

    name: str
    layout: Layout
    digest: Digest
    manifest: Manifest
    config: Mapping[str, Any]
    layers: tuple[tuple[Descriptor, DiffID], ...]

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
    if descriptor.media_type == MediaType.INDEX:
        inner = Index.parse(layout.read_blob(descriptor), str(reference))
        descriptor = _choose(layout, inner, LayoutReference(reference.directory))
    if descriptor.media_type != MediaType.MANIFEST:
        raise InputError(f"{reference} is a {descriptor.media_type}, not an image")
    manifest = Manifest.parse(layout.read_blob(descriptor), str(reference))
    if manifest.config.media_type != MediaType.CONFIG:
        raise InputError(f"{reference} is an artifact, not an image to run")
    text = layout.read_blob(manifest.config)
    config = canonical_json.loads(text, label=f"{reference}, config")
    layers = _pair(manifest, config, str(reference))
    return Image(str(reference), layout, descriptor.digest, manifest, config, layers)


def _choose(layout: Layout, index: Index, reference: LayoutReference) -> Descriptor:
    images = [
        each for each in index.manifests if not lists_referrers(each.annotations.get(REF_NAME))
    ]
    found = images
    if reference.digest is not None:
        found = [each for each in found if each.digest == reference.digest]
        blob = layout.blob_path(reference.digest)
        if not found and blob.is_file():
            return Descriptor(MediaType.MANIFEST, reference.digest, blob.stat().st_size)
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


def _pair(manifest: Manifest, config: Any, label: str) -> tuple[tuple[Descriptor, DiffID], ...]:
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
        raise CheckedFalse(f"{label}: the config does not give one diffID for each layer")
    return tuple(
        (layer, DiffID.parse(str(diff_id)))
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
