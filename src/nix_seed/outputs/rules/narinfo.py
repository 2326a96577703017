"""Nix's binary cache protocol: ``nix-cache-info``, ``<hash>.narinfo`` and the NAR's URL.

A narinfo is signed with the key of who serves it: Nix takes what a key signed that it trusts.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nix_seed.core.digests import Digest, encode_nix32, to_base64
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import HASH_PART, STORE_DIR, PathInfo, StorePath, fingerprint

_ASKED: Final = re.compile(rf"/({HASH_PART})\.narinfo\Z")
_NAR: Final = re.compile(rf"/nar/({HASH_PART})-([0-9a-f]{{64}})\.nar\.zst\Z")


@dataclass(frozen=True, slots=True)
class CacheKey:
    """The key that a cache signs by, under the *name* that Nix is told."""

    name: str
    key: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """The word for ``trusted-public-keys``."""
        return f"{self.name}:{to_base64(self.key.public_key().public_bytes_raw())}"

    def sign(self, info: PathInfo) -> str:
        """Return the value of ``Sig``."""
        return f"{self.name}:{to_base64(self.key.sign(fingerprint(info)))}"


def cache_info(priority: int) -> bytes:
    """Return ``nix-cache-info``; the lower its *priority*, the earlier Nix asks here."""
    lines = (f"StoreDir: {STORE_DIR}", "WantMassQuery: 1", f"Priority: {priority}")
    return "".join(f"{line}\n" for line in lines).encode()


def narinfo(
    info: PathInfo, deriver: StorePath | None, blob: tuple[Digest, int], key: CacheKey
) -> bytes:
    """Return what Nix is told of *info*, whose NAR is *blob*, compressed with zstd."""
    digest, size = blob
    references = " ".join(path.base_name for path in sorted(info.references))
    lines = [
        f"StorePath: {info.path}",
        f"URL: {nar_url(info.path, digest)}",
        "Compression: zstd",
        f"FileHash: sha256:{encode_nix32(digest.raw)}",
        f"FileSize: {size}",
        f"NarHash: {info.nar_hash.nix32}",
        f"NarSize: {info.nar_size}",
        f"References: {references}",
        *([] if deriver is None else [f"Deriver: {deriver.base_name}"]),
        f"Sig: {key.sign(info)}",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def nar_url(path: StorePath, blob: Digest) -> str:
    """Return where the NAR of *path* is, relative to the cache."""
    return f"nar/{path.hash_part}-{blob.hex}.nar.zst"


def asked_path(url: str) -> str | None:
    """Return the hash part of the path whose narinfo *url* asks for; None for another URL."""
    found = _ASKED.match(url)
    return None if found is None else found[1]


def asked_nar(url: str) -> tuple[str, Digest] | None:
    """Return whose NAR *url* asks for: the path's hash part, and the blob."""
    found = _NAR.match(url)
    return None if found is None else (found[1], Digest(found[2]))
