"""What an image is, read from its manifest and configuration alone: no layer is fetched."""

from collections.abc import Mapping
from typing import Any

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.oci import manifest as oci
from nix_seed.registry.open import AnyReference, Stores, fetch
from nix_seed.registry.store import Fetched, ImageStore

_LARGEST_CONFIG = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class InspectedLayer:
    """A layer: its blob, the digest of its tar, its tier (None in an image not ours)."""

    descriptor: oci.Descriptor
    diff_id: str | None
    tier: str | None


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """An image. *size* is what a pull with nothing at hand fetches, in bytes.

    The members named as in Nix are None in an image that is not a seed.
    """

    reference: str
    digest: Digest
    platform: oci.Platform | None
    kind: str | None
    name: str | None
    system: str | None
    nar_hash: str | None
    input_key: str | None
    format: str | None
    layers: tuple[InspectedLayer, ...]
    size: int

    def tiers(self) -> dict[str, int]:
        """Return each tier's size in bytes, in the order of the layers."""
        sizes: dict[str, int] = {}
        for layer in self.layers:
            tier = layer.tier or "(no tier)"
            sizes[tier] = sizes.get(tier, 0) + layer.descriptor.size
        return sizes


@dataclass(frozen=True, slots=True)
class InspectedIndex:
    """An index and the images it names."""

    reference: str
    digest: Digest
    images: tuple[InspectedImage, ...]


def inspect(stores: Stores, reference: AnyReference) -> InspectedImage | InspectedIndex:
    """Read what *reference* names; ``CheckedFalse`` where a part of it is missing or wrong."""
    store = stores.open(reference)
    root = fetch(store, reference)
    if root.descriptor.media_type != oci.MediaType.INDEX:
        return _image(store, root, str(reference))
    index = root.index(str(reference))
    images = []
    for child in index.manifests:
        found = store.get_manifest(child.digest)
        if found is None:
            raise CheckedFalse(f"{reference} names the image {child.digest}, which is missing")
        image = Fetched(child, found.body)
        images.append(_image(store, image, str(reference.at(child.digest))))
    return InspectedIndex(str(reference), root.descriptor.digest, tuple(images))


def read_config(store: ImageStore, manifest: oci.Manifest, label: str) -> Mapping[str, Any]:
    """Return the image configuration, verified; ``InputError`` for an artifact that is no image."""
    if manifest.config.media_type != oci.MediaType.CONFIG:
        raise InputError(f"{label} is an artifact ({manifest.config.media_type}), not an image")
    if manifest.config.size > _LARGEST_CONFIG:
        raise CheckedFalse(f"{label}: a configuration of {manifest.config.size} bytes is refused")
    text = b"".join(store.open_blob(manifest.config))
    config = canonical_json.loads(text, label=f"{label}, config")
    if not isinstance(config, dict):
        raise InputError(f"{label}, config: an object is wanted")
    return config


def _image(store: ImageStore, fetched: Fetched, reference: str) -> InspectedImage:
    manifest = fetched.manifest(reference)
    config = read_config(store, manifest, reference)
    said = dict(fetched.descriptor.annotations) | dict(manifest.annotations)
    return InspectedImage(
        reference=reference,
        digest=fetched.descriptor.digest,
        platform=_platform(config),
        kind=said.get(oci.ANNOTATION_KIND),
        name=said.get(oci.ANNOTATION_NAME),
        system=said.get(oci.ANNOTATION_SYSTEM),
        nar_hash=said.get(oci.ANNOTATION_NAR_HASH),
        input_key=said.get(oci.ANNOTATION_INPUT_KEY),
        format=said.get(oci.ANNOTATION_FORMAT),
        layers=_layers(manifest, config),
        size=manifest.config.size + sum(layer.size for layer in manifest.layers),
    )


def _platform(config: Mapping[str, Any]) -> oci.Platform | None:
    os, architecture, variant = (config.get(key) for key in ("os", "architecture", "variant"))
    if not isinstance(os, str) or not isinstance(architecture, str):
        return None
    return oci.Platform(os, architecture, variant if isinstance(variant, str) else None)


def _layers(manifest: oci.Manifest, config: Mapping[str, Any]) -> tuple[InspectedLayer, ...]:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    known = diff_ids if isinstance(diff_ids, list) else []
    return tuple(
        InspectedLayer(
            layer,
            str(known[position]) if position < len(known) else None,
            layer.annotations.get(oci.ANNOTATION_TIER),
        )
        for position, layer in enumerate(manifest.layers)
    )
