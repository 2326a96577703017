"""Reads the seed spec out of an image, from its last layer."""

from __future__ import annotations

from nix_seed.clients.image_layout import Image
from nix_seed.clients.layer_stream import Allowance, open_layer
from nix_seed.clients.tar_reader import Kind, read_entries
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules.image import ANNOTATION_NAR_HASH
from nix_seed.rules.spec import SPEC_PATH, Spec

__all__ = ["read_spec"]

# 100,000 store paths make a spec of some 50 MB; the database beside it is of the same order.
_LARGEST = 1 << 30


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
    with open_layer(path, descriptor, diff_id, Allowance(_LARGEST), what) as stream:
        for entry in read_entries(stream, what):
            if entry.name == name and entry.kind is Kind.FILE:
                text = stream.read(entry.size)
    return text
