"""Reads the seed spec out of an image, from its last layer.

A seed in any store of images: its manifest, and its spec out of the last layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.flake.rules.outline import SPEC_PATH
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.manifest import ANNOTATION_NAR_HASH, Manifest
from nix_seed.image.read.stream import Allowance, BlobReader, TarPieces, open_layer
from nix_seed.image.read.tar import EntryKind, read_entries
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.image import Image
from nix_seed.registry.store import Fetched

# 100,000 store paths make a spec of some 50 MB; the database beside it is of the same order.
LARGEST_SPEC = 1 << 30


def read_spec(image: Image) -> Spec:
    """Return the spec of *image*, checked against the narHash that its manifest states.

    Raises ``InputError`` for an image that is not a seed, ``CheckedFalse`` where the two differ.
    """
    text = _read_file(image, SPEC_PATH.encode())
    if text is None:
        raise InputError(
            f"{image.name} is not a seed: its last layer holds no {SPEC_PATH}",
            hint="name an image that nix-seed made",
        )
    spec = Spec.parse(text, f"{SPEC_PATH} of {image.name}")
    stated = image.manifest.annotations.get(ANNOTATION_NAR_HASH)
    if stated != str(spec.nar_hash):
        raise CheckedFalse(
            f"{image.name}: the manifest states narHash {stated}, its spec has {spec.nar_hash}",
            hint="the image is damaged or was altered: get it again",
        )
    return spec


def _read_file(image: Image, name: bytes) -> bytes | None:
    if not image.layers:
        return None
    descriptor, diff_id = image.layers[-1]
    what = f"{image.name}, last layer"
    text = None
    path = image.blob_path(descriptor.digest)
    with open_layer(path, descriptor, diff_id, Allowance(LARGEST_SPEC), what) as stream:
        for entry in read_entries(stream, what):
            if entry.name == name and entry.kind is EntryKind.FILE:
                text = stream.read(entry.size)
    return text


@dataclass(frozen=True, slots=True)
class RemoteSeed:
    """A verified manifest and the spec whose narHash it states. *fetched* is in bytes."""

    name: str
    manifest: Manifest
    spec: Spec
    fetched: int


def read_seed(
    name: str, root: Fetched, source: BlobReader, largest: int = LARGEST_SPEC
) -> RemoteSeed:
    """Fetch the last layer of the image *root* and read its spec, of at most *largest* bytes.

    Raises ``InputError`` for an image that is not a seed, ``CheckedFalse`` for a spec that does
    not have the narHash stated, or not one layer for each of the manifest's.
    """
    if root.descriptor.media_type != media_types.MANIFEST:
        raise InputError(f"{name} is a {root.descriptor.media_type}, not an image")
    manifest = Manifest.parse(root.body, name)
    if not manifest.layers:
        raise _not_a_seed(name)
    spec, fetched = _read_spec(name, manifest, source, largest)
    if spec is None:
        raise _not_a_seed(name)
    _check(spec, manifest, name)
    return RemoteSeed(name, manifest, spec, fetched)


def find_spec(name: str, manifest: Manifest, source: BlobReader) -> Spec | None:
    """Return the spec in the last layer, its own word alone; None where there is none."""
    return _read_spec(name, manifest, source, LARGEST_SPEC)[0] if manifest.layers else None


def _read_spec(
    name: str, manifest: Manifest, source: BlobReader, largest: int
) -> tuple[Spec | None, int]:
    """Return the spec in the last layer, if there is one, and the bytes that were fetched."""
    layer, what = manifest.layers[-1], f"{name}, last layer"
    text = None
    with TarPieces(source.open_blob(layer), layer.media_type, LARGEST_SPEC, what, 1) as pieces:
        for entry in read_entries(pieces, what):  # type: ignore[arg-type]
            if entry.name == SPEC_PATH.encode() and entry.kind is EntryKind.FILE:
                if entry.size > largest:
                    raise CheckedFalse(
                        f"{SPEC_PATH} of {name} has {entry.size} bytes; {largest} are read here"
                    )
                text = pieces.read(entry.size)
        pieces.drain()
        fetched = pieces.spent.fetched
    return None if text is None else Spec.parse(text, f"{SPEC_PATH} of {name}"), fetched


def _check(spec: Spec, manifest: Manifest, name: str) -> None:
    stated = manifest.annotations.get(ANNOTATION_NAR_HASH)
    if stated != str(spec.nar_hash):
        raise CheckedFalse(
            f"{name}: the manifest states narHash {stated}, its spec has {spec.nar_hash}",
            hint="the image is damaged or was altered: get it again",
        )
    if len(spec.layers) + 1 != len(manifest.layers):
        raise CheckedFalse(
            f"{name}: its spec lists {len(spec.layers) + 1} layers, its manifest"
            f" {len(manifest.layers)}",
            hint="the image is damaged or was altered: get it again",
        )


def _not_a_seed(name: str) -> InputError:
    return InputError(
        f"{name} is not a seed: its last layer holds no {SPEC_PATH}",
        hint="name an image that nix-seed made",
    )
