"""Attestations for tests: a predicate with something in every member, signed for an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nix_seed.core import canonical_json
from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    BuildPredicate,
    Commit,
    KeyCount,
    LayerDigests,
    NixFacts,
    PathCounts,
    Source,
    build_statement,
)
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType
from nix_seed.registry.store import Held, ImageStore
from nix_seed.trust.sign import KeySigner

IMAGE = Digest.of(b"an image")
LAYERS = tuple(
    LayerDigests(Digest.of(name), DiffID.of(name + b" as tar")) for name in (b"one", b"two")
)


def predicate(**changes: Any) -> BuildPredicate:
    """A predicate in which no member is empty or absent, unless *changes* say so."""
    made = BuildPredicate(
        source=Source(
            uri="git+https://forge.example/owner/project",
            commit=Commit("0123456789abcdef0123456789abcdef01234567"),
            lock_hash=Digest.of(b"flake.lock"),
        ),
        system="x86_64-linux",
        nar_hash=NarHash.of(b"seed.json"),
        layers=LAYERS,
        image_digest=IMAGE,
        builder="builder-one",
        nix=NixFacts("2.28.3", ("https://cache.example",), "true"),
        paths=PathCounts(2, 3, 1, 0, (KeyCount("cache.example-1", 3),)),
        started_on="2025-01-31T12:00:00Z",
        finished_on="2025-01-31T12:34:56Z",
        reused_layers=(LAYERS[0].digest,),
        roots_digest=Digest.of(b"roots"),
    )
    return replace(made, **changes)


def signed(signer: KeySigner, made: BuildPredicate | None = None) -> bytes:
    """A bundle of our own predicate."""
    statement = build_statement(made or predicate(), "forge.example/owner/project")
    return signer.sign(PAYLOAD_TYPE, statement.dump()).bundle.dump()


def push_image(store: ImageStore, tag: str = "seed") -> Descriptor:
    """Store a small image with one layer that nobody can unpack."""
    layer, config = b"layer", canonical_json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"tar"))]},
        }
    )  # fmt: skip
    manifest = Manifest(
        put(store, config, MediaType.CONFIG), (put(store, layer, MediaType.LAYER_GZIP),)
    )
    return store.put_manifest(manifest.dump(), MediaType.MANIFEST, tag)


def put(store: ImageStore, data: bytes, media_type: str) -> Descriptor:
    """Store a blob."""
    blob = Descriptor(media_type, Digest.of(data), len(data))

    def rest(held: Held) -> Any:
        yield data[held.size :]

    store.take_blob(blob, rest)
    return blob
