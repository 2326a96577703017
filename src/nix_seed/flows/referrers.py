"""Reads one thing that a store lists beside another: a manifest with one layer.

The list is not believed: the manifest says what it is and what it is beside. Nor is the manifest:
what it holds is only bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nix_seed.clients.blobs import ImageStore
from nix_seed.formats.oci.descriptor import Descriptor, Manifest
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.bundle_verify import LARGEST_BUNDLE

__all__ = ["Referrer", "check_subject", "is_bundle", "read_blob", "read_manifest", "read_referrer"]

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

    ``CouldNotCheck`` where it is not there, ``InputError`` where it is no manifest, and
    ``CheckedFalse`` where it points elsewhere, or does not have one layer of a readable size.
    """
    place = f"{store}@{item.digest}"
    manifest = read_manifest(store, item, subject)
    artifact_type = manifest.artifact_type or manifest.config.media_type
    if not wanted(artifact_type):
        return None
    check_subject(manifest, subject, place)
    if len(manifest.layers) != 1:
        raise CheckedFalse(f"{place} has {len(manifest.layers)} layers, and must have one")
    return Referrer(place, artifact_type, read_blob(store, manifest.layers[0], place))


def read_manifest(store: ImageStore, item: Descriptor, subject: Digest) -> Manifest:
    """Return the manifest that is listed as *item* beside *subject*, whatever it points at."""
    place = f"{store}@{item.digest}"
    fetched = store.get_manifest(item.digest)
    if fetched is None:
        raise CouldNotCheck(f"{place} is listed as a referrer of {subject}, but is not there")
    return Manifest.parse(fetched.body, place)


def check_subject(manifest: Manifest, subject: Digest, place: str) -> None:
    """Raise ``CheckedFalse`` unless *manifest*, which is at *place*, points at *subject*."""
    if manifest.subject is None or manifest.subject.digest != subject:
        named = "nothing" if manifest.subject is None else str(manifest.subject.digest)
        raise CheckedFalse(f"{place} is listed as a referrer of {subject}, but points at {named}")


def read_blob(store: ImageStore, blob: Descriptor, place: str) -> bytes:
    """Return the bytes of *blob*, which is at *place*, if they are no more than a bundle may be."""
    if blob.size > LARGEST_BUNDLE:
        raise CheckedFalse(f"{place} has {blob.size} bytes; {LARGEST_BUNDLE} are the most read")
    return b"".join(store.open_blob(blob))
