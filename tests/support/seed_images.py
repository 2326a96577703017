"""Small images that look like seeds, put into layouts; their layers are real, compressed tars."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

from nix_seed.core.digests import Digest
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType, platform_of
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore


def layer(name: str, size: int = 1000, seed: int = 0) -> tuple[bytes, str]:
    """Return a layer of one incompressible file of *size* bytes, and its diffID."""
    data = random.Random(f"{name}{seed}").randbytes(size)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(data), 1, 0o444
        tar.addfile(info, io.BytesIO(data))
    raw = buffer.getvalue()
    return zstandard.ZstdCompressor(3).compress(raw), f"sha256:{hashlib.sha256(raw).hexdigest()}"


def seed_image(
    directory: Path,
    tag: str,
    *,
    system: str = "x86_64-linux",
    layers: Sequence[tuple[str, bytes, str]] | None = None,
) -> Descriptor:
    """Put a seed-like image into the layout *directory*; *layers* are (tier, blob, diffID)."""
    if layers is None:
        layers = [(tier, *layer(tier)) for tier in ("base", "toolchain", "container")]
    store = LayoutStore(Layout.create(directory))
    config = json.dumps(
        platform_of(system).to_json()
        | {"config": {}, "rootfs": {"type": "layers", "diff_ids": [item[2] for item in layers]}}
    ).encode()
    described = []
    for tier, blob, _ in layers:
        item = Descriptor(
            MediaType.LAYER_ZSTD, Digest.of(blob), len(blob), {"io.nix-seed.tier": tier}
        )
        store.take_blob(item, lambda held, blob=blob: iter([blob[held.size :]]))  # type: ignore[misc]
        described.append(item)
    about = Descriptor(MediaType.CONFIG, Digest.of(config), len(config))
    store.take_blob(about, lambda held: iter([config[held.size :]]))
    manifest = Manifest(
        about,
        tuple(described),
        {
            "io.nix-seed.system": system,
            "io.nix-seed.kind": "seed",
            "io.nix-seed.name": "demo",
            "io.nix-seed.nar-hash": "sha256-" + "A" * 43 + "=",
        },
    )
    return store.put_manifest(manifest.dump(), MediaType.MANIFEST, tag)
