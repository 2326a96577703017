from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.flake.rules.outline import SPEC_PATH
from nix_seed.formats.oci.manifest import (
    ANNOTATION_NAR_HASH,
    Descriptor,
    Index,
    Manifest,
    MediaType,
)
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.spec import read_spec
from nix_seed.registry.layout import open_image
from support import layouts
from support.specs import tiny_spec

SPEC = tiny_spec()


def layout(directory: Path, text: bytes | None, nar_hash: str | None) -> LayoutReference:
    """An image whose last layer holds *text* as its spec, and whose manifest states *nar_hash*."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> Descriptor:
        digest = Digest.of(data)
        (blobs / digest.hex).write_bytes(data)
        return Descriptor(media_type, digest, len(data))

    members = [layouts.directory("etc"), layouts.file("etc/motd", b"x")]
    if text is not None:
        members += [layouts.directory("etc/nix-seed"), layouts.file(SPEC_PATH, text)]
    tar, count = layouts.tar(members), len(SPEC.layers) + 1
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(DiffID.of(tar))] * count},
    }
    manifest = Manifest(
        put(json.dumps(config).encode(), MediaType.CONFIG),
        (put(gzip.compress(tar), MediaType.LAYER_GZIP),) * count,
        {} if nar_hash is None else {ANNOTATION_NAR_HASH: nar_hash},
    )
    index = Index((put(manifest.dump(), MediaType.MANIFEST),))
    (directory / "index.json").write_bytes(index.dump())
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return LayoutReference(str(directory))


def test_the_spec_lies_in_the_last_layer(tmp_path: Path) -> None:
    image = open_image(layout(tmp_path, SPEC.dump(), str(SPEC.nar_hash)))
    assert read_spec(image) == SPEC


@pytest.mark.parametrize("stated", [None, "", "sha256-AAAA", SPEC.nar_hash.nix32])
def test_a_spec_that_is_not_the_stated_one_is_false(tmp_path: Path, stated: str | None) -> None:
    image = open_image(layout(tmp_path, SPEC.dump(), stated))
    with pytest.raises(CheckedFalse, match=f"the manifest states narHash {stated}, its spec has"):
        read_spec(image)


def test_an_image_without_a_spec_is_no_seed(tmp_path: Path) -> None:
    image = open_image(layout(tmp_path, None, str(SPEC.nar_hash)))
    with pytest.raises(InputError, match=rf"is not a seed: its last layer holds no {SPEC_PATH}"):
        read_spec(image)


def test_a_spec_that_is_not_canonical_is_refused(tmp_path: Path) -> None:
    image = open_image(layout(tmp_path, SPEC.dump() + b"\n", str(SPEC.nar_hash)))
    with pytest.raises(InputError, match=rf"{SPEC_PATH} of oci:.* is not in canonical form"):
        read_spec(image)
