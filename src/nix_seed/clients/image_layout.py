"""One image of an OCI image layout on disk, ready to be used (image-layout.md, config.md).

Manifest and config are verified against their digests when the image is opened; layers when they
are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Index, Manifest
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.formats.oci.referrers import lists_referrers
from nix_seed.ground import canonical_json
from nix_seed.ground.digests import DiffID, Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError

__all__ = ["Image", "open_image"]

_REF_NAME = "org.opencontainers.image.ref.name"
_LARGEST_DOCUMENT = 16 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """An image manifest with its config, in the layout at *directory*.

    *layers* pairs each layer's descriptor with its diffID, lowest first. *environment*, *user* and
    *working_dir* are the config's ``Env``, ``User`` and ``WorkingDir``.
    """

    name: str
    directory: Path
    digest: Digest
    manifest: Manifest
    config: Mapping[str, Any]
    layers: tuple[tuple[Descriptor, DiffID], ...]

    def blob_path(self, digest: Digest) -> Path:
        """Where the layout keeps the blob *digest*."""
        return _blob_path(self.directory, digest)

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
    directory = Path(reference.directory)
    descriptor = _choose(_read_index(directory), reference)
    if descriptor.media_type == media_types.INDEX:
        inner = Index.parse(_read_blob(directory, descriptor, str(reference)), str(reference))
        descriptor = _choose(inner, LayoutReference(reference.directory))
    if descriptor.media_type != media_types.MANIFEST:
        raise InputError(f"{reference} is a {descriptor.media_type}, not an image")
    manifest = Manifest.parse(_read_blob(directory, descriptor, str(reference)), str(reference))
    if manifest.config.media_type != media_types.CONFIG:
        raise InputError(f"{reference} is an artifact, not an image to run")
    text = _read_blob(directory, manifest.config, f"{reference}, config")
    config = canonical_json.loads(text, what=f"{reference}, config")
    layers = _pair(manifest, config, str(reference))
    return Image(str(reference), directory, descriptor.digest, manifest, config, layers)


def _read_index(directory: Path) -> Index:
    path = directory / "index.json"
    try:
        return Index.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(
            f"oci:{directory} is no OCI image layout: cannot read {path}: {error.strerror}",
            hint="Make one with `nix-seed build -o DIR`, then name it as oci:DIR.",
        ) from error


def _choose(index: Index, reference: LayoutReference) -> Descriptor:
    images = [
        each for each in index.manifests if not lists_referrers(each.annotations.get(_REF_NAME))
    ]
    found = images
    if reference.digest is not None:
        found = [each for each in found if each.digest == reference.digest]
        if not found and _blob_path(Path(reference.directory), reference.digest).is_file():
            size = _blob_path(Path(reference.directory), reference.digest).stat().st_size
            return Descriptor(media_types.MANIFEST, reference.digest, size)
    if reference.tag is not None:
        found = [each for each in found if each.annotations.get(_REF_NAME) == reference.tag]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.annotations.get(_REF_NAME, str(each.digest)) for each in images)
    raise InputError(
        f"{reference} names {len(found) or 'no'} images",
        hint=f"The layout holds: {names or 'nothing'}. Write oci:DIR:TAG or oci:DIR@sha256:….",
    )


def _read_blob(directory: Path, descriptor: Descriptor, what: str) -> bytes:
    path = _blob_path(directory, descriptor.digest)
    if descriptor.size > _LARGEST_DOCUMENT:
        raise CheckedFalse(f"{what}: a document of {descriptor.size} bytes is refused")
    try:
        with path.open("rb") as file:
            data = file.read(descriptor.size + 1)
    except OSError as error:
        raise CouldNotCheck(
            f"{what}: cannot read its blob {path}: {error.strerror}",
            hint="The image layout is incomplete; copy or build the image again.",
        ) from error
    if len(data) != descriptor.size or Digest.of(data) != descriptor.digest:
        raise CheckedFalse(
            f"{what}: the blob {path} does not have the digest {descriptor.digest}",
            hint="The image is damaged or was altered. Get it again.",
        )
    return data


def _pair(manifest: Manifest, config: Any, what: str) -> tuple[tuple[Descriptor, DiffID], ...]:
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
        raise CheckedFalse(f"{what}: the config does not give one diffID for each layer")
    return tuple(
        (layer, DiffID.parse(str(diff_id)))
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )


def _blob_path(directory: Path, digest: Digest) -> Path:
    return directory / "blobs" / "sha256" / digest.hex
