"""The embedded log's signing key: Ed25519, in a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from nix_seed.clients.files import explained, unnamed
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.ground.errors import InputError

__all__ = ["LogKey"]


class LogKey:
    """Signs checkpoints in the name of ``note_key``."""

    def __init__(self, key: Ed25519PrivateKey, origin: str | None) -> None:
        self._key = key
        public = key.public_key().public_bytes_raw()
        name = origin or f"nix-seed-log/{hashlib.sha256(public).hexdigest()[:16]}"
        self.note_key = NoteKey(name, "ed25519", public)

    @classmethod
    def make(cls, origin: str | None) -> Self:
        """Make a new key; unnamed, it is called after its own hash."""
        return cls(Ed25519PrivateKey.generate(), origin)

    @classmethod
    def load(cls, path: Path, expected: NoteKey) -> Self:
        """Read the key; ``InputError`` unless it is that of *expected*."""
        with explained(f"reading the log's key {path}"):
            text = path.read_bytes()
        try:
            key = load_pem_private_key(text, None)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is not a private key in PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"{path} is not an Ed25519 key")
        found = cls(key, expected.name)
        if found.note_key != expected:
            raise InputError(
                f"{path} is not the key of the log {expected.name}",
                hint="a log keeps its key for good; put the right one back",
            )
        return found

    def save(self, path: Path) -> None:
        """Write the key to *path*, readable by its owner only."""
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        with unnamed(path.parent, f"writing the log's key {path}") as file:
            file.write(self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.keep(path, 0o600)

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*."""
        return self._key.sign(message)
