"""Makes ``docs/vectors/promotion.json``: releases with all that is derived from them.

    python tests/release/vectors.py

Inputs are made up; everything else follows from them by docs/formats-promotion.md. Another
implementation that derives the same from the inputs reads and writes the same records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nix_seed.core.digests import Digest, NarHash
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    Commit,
    PromotionPredicate,
    first_key,
    promotion_statement,
)
from nix_seed.release.rules.tree import Evidence, Release, Vote, build_release
from nix_seed.trust.rules.policy import LoggedAt
from nix_seed.trust.sign import KeySigner

__all__ = ["FILE", "vectors"]

FILE = Path(__file__).parents[2] / "docs/vectors/promotion.json"
REPOSITORY = "https://forge.example/owner/project"
SYSTEMS = ("aarch64-darwin", "aarch64-linux", "riscv64-linux", "x86_64-darwin", "x86_64-linux")
SEED = b"\x07" * 32
# SHA-1 and SHA-256 are Git's two object formats.
RELEASES = (
    ("0123456789abcdef0123456789abcdef01234567", 1),
    ("89abcdef0123456789abcdef0123456789abcdef", 2),
    ("fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210", 3),
    ("c0ffee0000000000000000000000000000000000", 5),
)


def vectors() -> dict[str, Any]:
    """Return the whole document."""
    key = KeySigner(Ed25519PrivateKey.from_private_bytes(SEED))
    releases: list[dict[str, Any]] = []
    previous: tuple[Digest, ...] = ()
    for commit, size in RELEASES:
        made = _vector(Commit(commit), SYSTEMS[:size], previous, key)
        releases.append(made)
        previous = (Digest.parse(made["record"]),)
    return {
        "repository": REPOSITORY,
        "ledgerBegins": str(first_key(REPOSITORY)),
        "signingKeySeed": SEED.hex(),
        "publicKey": key.public_key.pem.decode(),
        "releases": releases,
    }


def _vector(
    commit: Commit, systems: Sequence[str], previous: tuple[Digest, ...], key: KeySigner
) -> dict[str, Any]:
    images = {
        system: (_nar_hash(f"{commit} {system}"), Digest.of(f"image {commit} {system}".encode()))
        for system in systems
    }
    release = build_release(commit, images)
    evidence = Evidence(release, tuple(_votes(systems)))
    predicate = PromotionPredicate(
        repository=REPOSITORY,
        commit=commit,
        root=release.root,
        size=release.head.size,
        index=Digest.of(f"index {commit}".encode()),
        policy=Digest.of(b"trust.toml"),
        epoch=3,
        evidence=evidence.digest,
        previous=previous,
    )
    statement = promotion_statement(predicate).dump()
    signed = key.sign(PAYLOAD_TYPE, statement)
    return {
        "commit": str(commit),
        "commitKey": str(commit.key),
        "members": [_member(release, system) for system in systems],
        "root": str(release.root),
        "size": release.head.size,
        "index": str(predicate.index),
        "policy": {"digest": str(predicate.policy), "epoch": predicate.epoch},
        "evidence": {"text": evidence.dump().decode(), "digest": str(evidence.digest)},
        "previous": [str(each) for each in previous],
        "statement": statement.decode(),
        "record": str(Digest.of(statement)),
        "pae": str(Digest.of(signed.envelope.pae)),
        "bundle": json.loads(signed.bundle.dump()),
    }


def _member(release: Release, system: str) -> dict[str, Any]:
    proof = release.proof(system)
    return {
        "system": system,
        "narHash": str(proof.leaf.nar_hash),
        "imageDigest": str(proof.leaf.image_digest),
        "leaf": proof.leaf.dump().decode(),
        "leafHash": proof.leaf.hash.hex(),
        "proof": proof.dump().decode(),
    }


def _votes(systems: Sequence[str]) -> list[Vote]:
    return [
        Vote(
            system,
            builder,
            Digest.of(f"{builder} {system}".encode()),
            (LoggedAt("log", number, Digest.of(f"leaf {builder} {system}".encode())),),
        )
        for number, (system, builder) in enumerate(
            (system, builder) for system in systems for builder in ("builder-one", "builder-two")
        )
    ]


def _nar_hash(text: str) -> NarHash:
    return NarHash(hashlib.sha256(text.encode()).hexdigest())


def text() -> str:
    """The document's bytes, as they are committed."""
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
