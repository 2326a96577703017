"""Signatures of store paths (Nix manual, "Signature"): Ed25519 over a fingerprint of path info.

A signature, like a public key, is written ``<name of the key>:<base64>``. The name is whatever its
writer put there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.ground.errors import InputError

__all__ = ["PathSignature", "fingerprint", "parse_public_keys"]


@dataclass(frozen=True, slots=True)
class PathSignature:
    """A signature that names its *key*; *raw* are 64 bytes, if it is well made."""

    key: str
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name:base64``; what is no base64 becomes a signature of nothing."""
        name, raw = _split(text)
        return cls(name, raw or b"")

    def verifies(self, info: PathInfo, key: Ed25519PublicKey) -> bool:
        """Whether the owner of *key* signed *info*."""
        try:
            key.verify(self.raw, fingerprint(info))
        except InvalidSignature:
            return False
        return True


def fingerprint(info: PathInfo) -> bytes:
    """Return what is signed: ``1;<path>;<NAR hash>;<NAR size>;<references>``."""
    references = ",".join(map(str, sorted(info.references)))
    return f"1;{info.path};{info.nar_hash.nix32};{info.nar_size};{references}".encode()


def parse_public_keys(words: Iterable[str]) -> Mapping[str, Ed25519PublicKey]:
    """Read ``trusted-public-keys``; of two keys of one name the first counts, as in Nix."""
    keys: dict[str, Ed25519PublicKey] = {}
    for word in words:
        name, raw = _split(word)
        if raw is None or len(raw) != 32:
            raise InputError(f"trusted-public-keys holds {word!r}, which is no public key of Nix")
        keys.setdefault(name, Ed25519PublicKey.from_public_bytes(raw))
    return keys


def _split(text: str) -> tuple[str, bytes | None]:
    name, _, value = text.partition(":")
    try:
        return name, base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return name, None
